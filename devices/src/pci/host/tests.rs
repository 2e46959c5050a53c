use std::sync::atomic::AtomicU32;

use super::*;
use crate::bus::Ticket;
use crate::legacy::tests::Line;
use crate::pci::{Bar, BarKind, Identity, Interrupts, PciConfig};

/// A BAR whose loads say which it is.
struct Tag(u64);

impl Mmio for Tag {
    fn read(&self, offset: u64, _: u8) -> u64 {
        self.0 << 16 | offset
    }
    fn write(&self, _: u64, _: u8, _: u64) -> Action {
        Action::None
    }
}

/// Counts messages.
#[derive(Default)]
struct Messages(AtomicU32);

impl crate::irq::MsiSink for Messages {
    fn send(&self, _: crate::irq::MsiMessage) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
    fn route(&self, _: crate::irq::MsiMessage) -> Option<Box<dyn crate::irq::MsiRoute>> {
        None
    }
}

pub(crate) struct Card {
    name: String,
    config: PciConfig,
    events: Mutex<Vec<String>>,
}

impl PciDevice for Card {
    fn name(&self) -> &str {
        &self.name
    }
    fn config(&self) -> &PciConfig {
        &self.config
    }
    fn reset(&self) {
        self.events.lock().unwrap().push("reset".into());
    }
    fn bar_moved(&self, bar: usize, window: Option<Window>) {
        let at = window.map_or("none".into(), |w| format!("{:x}", w.base));
        self.events.lock().unwrap().push(format!("{bar}:{at}"));
    }
    fn bus_master(&self, enabled: bool) -> Action {
        self.events
            .lock()
            .unwrap()
            .push(format!("master:{enabled}"));
        if enabled {
            Action::None
        } else {
            Action::Wait(Ticket::new().0)
        }
    }
}

impl Card {
    fn events(&self) -> Vec<String> {
        std::mem::take(&mut *self.events.lock().unwrap())
    }
}

fn identity(tag: u64) -> Identity {
    Identity {
        vendor: 0x1234,
        device: tag as u16,
        class: 0xff_00_00,
        revision: 0,
        subsystem_vendor: 0,
        subsystem: 0,
    }
}

/// A function with I/O BAR 0, memory BAR 1 and 64-bit BAR 4, tagged by `tag`.
pub(crate) fn card(tag: u64, multifunction: bool) -> Arc<Card> {
    let mut builder = PciConfig::builder(identity(tag));
    if multifunction {
        builder.multifunction();
    }
    let kinds = [
        (0, BarKind::Io, 0x20),
        (
            1,
            BarKind::Memory32 {
                prefetchable: false,
            },
            0x1000,
        ),
        (4, BarKind::Memory64 { prefetchable: true }, 0x4000),
    ];
    for (index, kind, size) in kinds {
        builder.bar(
            index,
            Bar {
                kind,
                size,
                registers: Arc::new(Tag(tag << 4 | index as u64)),
            },
        );
    }
    let interrupts = Interrupts::new(Arc::new(Messages::default()), 0);
    builder.interrupts(&interrupts, 1, None);
    Arc::new(Card {
        name: format!("card{tag}"),
        config: builder.build(),
        events: Mutex::default(),
    })
}

pub(crate) struct Rig {
    pub(crate) memory: Arc<Bus>,
    pub(crate) io: Arc<Bus>,
    pub(crate) host: Arc<PciHost>,
    line: Arc<Line>,
}

pub(crate) fn rig() -> Rig {
    let (memory, io, line) = (
        Arc::new(Bus::new()),
        Arc::new(Bus::new()),
        Arc::new(Line::default()),
    );
    let wire = line.clone();
    let host = PciHost::new(
        memory.clone(),
        io.clone(),
        Box::new(move |_, _| wire.clone()),
    );
    Rig {
        memory,
        io,
        host,
        line,
    }
}

fn at(device: u8, function: u8) -> Address {
    Address::new(device, function).unwrap()
}

impl Rig {
    fn set(&self, address: Address, offset: u16, value: u32) {
        let _ = self.host.write(address, offset, 4, value);
    }
}

#[test]
fn functions_take_the_slot_asked_for_or_the_next_free_one() {
    let Rig { host, .. } = rig();
    assert_eq!(host.add(card(1, false), Some(at(0, 0))), Ok(at(0, 0)));
    assert_eq!(host.add(card(2, true), Some(at(2, 0))), Ok(at(2, 0)));
    assert_eq!(host.add(card(3, false), None), Ok(at(1, 0)));
    assert_eq!(host.add(card(4, false), None), Ok(at(3, 0)));
    assert_eq!(host.add(card(5, false), Some(at(2, 1))), Ok(at(2, 1)));
    assert_eq!(
        host.add(card(6, false), Some(at(2, 1))),
        Err(AddError::Taken(at(2, 1), "card5".into()))
    );
    assert_eq!(
        host.add(card(6, false), Some(at(3, 1))),
        Err(AddError::SingleFunction(at(3, 1)))
    );
    for tag in 4..32 {
        host.add(card(tag, false), None).unwrap();
    }
    assert_eq!(host.add(card(99, false), None), Err(AddError::Full));
}

#[test]
fn a_single_function_hides_no_other() {
    let Rig { host, .. } = rig();
    host.add(card(1, false), Some(at(4, 2))).unwrap();
    assert_eq!(
        host.add(card(2, false), Some(at(4, 0))),
        Err(AddError::SingleFunction(at(4, 2)))
    );
    assert_eq!(host.add(card(2, true), Some(at(4, 0))), Ok(at(4, 0)));
}

#[test]
fn bars_answer_move_swap_and_go() {
    let rig = rig();
    let one = card(1, false);
    let address = rig.host.add(one.clone(), None).unwrap();
    rig.set(address, 0x10, 0xc000);
    rig.set(address, 0x14, 0x8000_0000);
    rig.set(address, 0x20, 0x9000_0000);
    assert_eq!(rig.io.read(0xc000, 4), 0xffff_ffff);
    assert_eq!(one.events(), [""; 0]);
    rig.set(address, 4, 7);
    assert_eq!(
        one.events(),
        ["0:c000", "1:80000000", "4:90000000", "master:true"]
    );
    assert_eq!(rig.io.read(0xc004, 4), 0x10_0004);
    assert_eq!(rig.memory.read(0x8000_0010, 4), 0x11_0010);
    assert_eq!(rig.memory.read(0x9000_3ff0, 4), 0x14_3ff0);
    // Moved while decoding, onto another BAR: the one mapped first answers.
    rig.set(address, 0x14, 0x9000_1000);
    assert_eq!(one.events(), ["1:90001000"]);
    assert_eq!(rig.memory.read(0x8000_0010, 4), 0xffff_ffff);
    assert_eq!(rig.memory.read(0x9000_1010, 4), 0x14_1010);
    rig.set(address, 0x20, 0xa000_0000);
    assert_eq!(rig.memory.read(0x9000_1010, 4), 0x11_0010);
    // Over the end of the space: nowhere.
    rig.set(address, 0x14, 0xffff_f000);
    assert_eq!(one.events(), ["4:a0000000", "1:none"]);
    assert!(matches!(rig.host.write(address, 4, 2, 0), Action::Wait(_)));
    assert_eq!(one.events(), ["0:none", "4:none", "master:false"]);
    assert_eq!(rig.memory.read(0xa000_0000, 4), 0xffff_ffff);
}

#[test]
fn removal_and_reset_unmap_everything() {
    let rig = rig();
    let one = card(1, false);
    let address = rig.host.add(one.clone(), None).unwrap();
    rig.set(address, 0x10, 0xc000);
    rig.set(address, 4, 5);
    one.config().interrupts().unwrap().raise(0);
    assert!(rig.line.level());
    assert_eq!(rig.host.read(address, 6, 1) & 8, 8);
    assert_eq!(rig.host.reset().len(), 1, "the last transfer is waited for");
    assert_eq!(
        one.events(),
        ["0:c000", "master:true", "0:none", "master:false", "reset"]
    );
    assert!(!rig.line.level());
    assert_eq!(
        (rig.io.read(0xc000, 1), rig.host.read(address, 4, 4)),
        (0xff, 0)
    );

    rig.set(address, 0x10, 0xc000);
    rig.set(address, 4, 5);
    one.config().interrupts().unwrap().raise(0);
    let (_, action) = rig.host.remove(address).unwrap();
    assert!(matches!(action, Action::Wait(_)));
    assert!(!rig.line.level());
    assert_eq!(rig.io.read(0xc000, 1), 0xff);
    assert_eq!(rig.host.read(address, 0, 4), u32::MAX);
    assert!(rig.host.remove(address).is_none());
}

#[test]
fn a_function_that_was_removed_sends_no_message() {
    let rig = rig();
    let messages = Arc::new(Messages::default());
    let interrupts = Interrupts::new(messages.clone(), 1);
    let mut builder = PciConfig::builder(identity(1));
    let kind = BarKind::Memory32 {
        prefetchable: false,
    };
    builder.interrupts(&interrupts, 1, Some((1, kind)));
    let card = Card {
        name: "card".into(),
        config: builder.build(),
        events: Mutex::default(),
    };
    let address = rig.host.add(Arc::new(card), None).unwrap();
    rig.set(address, 0x14, 0x8000_0000);
    rig.set(address, 4, 6);
    rig.set(address, 0x40, 0x8000_0000);
    let _ = rig.memory.write(0x8000_000c, 4, 0);
    interrupts.raise(0);
    assert_eq!(messages.0.load(Ordering::Relaxed), 1);
    let _ = rig.host.remove(address).unwrap();
    interrupts.raise(0);
    assert_eq!(messages.0.load(Ordering::Relaxed), 1);
}

#[test]
fn ports_reach_configuration_space_in_bytes_words_and_dwords() {
    let rig = rig();
    rig.host.add(card(0xabcd, false), Some(at(4, 0))).unwrap();
    let ports = ConfigPorts::new(&rig.host);
    let select = |value: u64| {
        let _ = ports.write(0, 4, value);
    };
    select(0x8000_2000);
    assert_eq!(ports.read(4, 4), 0xabcd_1234);
    assert_eq!(ports.read(6, 2), 0xabcd);
    assert_eq!(ports.read(7, 1), 0xab);
    // The byte offset in the address register, as some programs have it.
    select(0x8000_2003);
    assert_eq!(ports.read(4, 1), 0xab);
    assert_eq!(ports.read(0, 4), 0x8000_2003);
    select(0x8000_2000 | 0x3c);
    let _ = ports.write(4, 1, 0x5a);
    assert_eq!(ports.read(4, 2), 0x015a);
    // Absent functions and buses, and a disabled mechanism.
    for address in [0x8000_2800, 0x8000_2100, 0x8001_2000, 0x0000_2000] {
        select(address);
        assert_eq!(ports.read(4, 4) as u32, u32::MAX);
        let _ = ports.write(4, 4, 0);
    }
    // Narrow stores do not reach the address register.
    select(0x8000_2000);
    let _ = ports.write(0, 1, 0x77);
    let _ = ports.write(2, 2, 0x77);
    assert_eq!(ports.read(0, 4), 0x8000_2000);
    ports.reset();
    assert_eq!(ports.read(0, 4), 0);
}

#[test]
fn reset_control_resets_when_told_to() {
    let rig = rig();
    let ports = ConfigPorts::new(&rig.host);
    assert!(matches!(ports.write(1, 1, 0x02), Action::None));
    assert_eq!(ports.read(1, 1), 0x02);
    assert!(matches!(ports.write(1, 1, 0x06), Action::Reset));
    assert_eq!(ports.read(1, 1), 0x02);
}

#[test]
fn ecam_reaches_every_function_and_nothing_else() {
    let rig = rig();
    rig.host.add(card(0xabcd, false), Some(at(31, 0))).unwrap();
    let ecam = Ecam::new(&rig.host);
    let base = 31 << 15;
    assert_eq!(ecam.read(base, 4), 0xabcd_1234);
    assert_eq!(ecam.read(base, 8), 0xabcd_1234);
    let _ = ecam.write(base + 0x10, 8, 0x8000_1000_0000_c001);
    assert_eq!(ecam.read(base + 0x10, 8), 0x8000_1000_0000_c001);
    assert_eq!(ecam.read(base + 0x100, 4) as u32, u32::MAX);
    assert_eq!(ecam.read(1 << 20 | base, 4) as u32, u32::MAX);
    assert_eq!(ecam.read(0, 2) as u16, u16::MAX);
}

proptest::proptest! {
    #[test]
    fn no_access_breaks_it(
        ports in crate::legacy::tests::accesses(8),
        ecam in crate::legacy::tests::accesses(2 << 15),
        bars in proptest::collection::vec((0..0x28_u16, 0..2_u8, proptest::num::u32::ANY), 0..200),
    ) {
        let rig = rig();
        let (one, two) = (card(1, true), card(2, false));
        rig.host.add(one, Some(at(0, 0))).unwrap();
        rig.host.add(two, Some(at(1, 0))).unwrap();
        for (offset, device, value) in bars {
            let _ = rig.host.write(at(device, 0), 4, 2, 7);
            let _ = rig.host.write(at(device, 0), offset, 4, value);
            rig.memory.read(u64::from(value), 4);
            rig.io.read(u64::from(value), 4);
        }
        crate::legacy::tests::hammer(&*Ecam::new(&rig.host), ecam);
        crate::legacy::tests::hammer(&*ConfigPorts::new(&rig.host), ports);
        let _ = rig.host.reset();
        // Whatever was done, after a reset nothing is left behind.
        for at in [0_u64, 0xc000, 0x8000_0000, 0x1_0000_0000] {
            proptest::prop_assert_eq!(rig.memory.read(at, 1), 0xff);
            proptest::prop_assert_eq!(rig.io.read(at, 1), 0xff);
        }
    }
}
