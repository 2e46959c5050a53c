use super::*;
use crate::legacy::tests::Line;

/// Keeps what is sent; routes share the same record.
#[derive(Default)]
struct Sink {
    sent: Arc<Mutex<Vec<MsiMessage>>>,
    /// How many of those took no route.
    slow: Arc<Mutex<usize>>,
    no_routes: bool,
}

struct Route(Arc<Mutex<Vec<MsiMessage>>>, Mutex<MsiMessage>);

impl MsiSink for Sink {
    fn send(&self, message: MsiMessage) {
        self.sent.lock().unwrap().push(message);
        *self.slow.lock().unwrap() += 1;
    }
    fn route(&self, message: MsiMessage) -> Option<Box<dyn MsiRoute>> {
        (!self.no_routes)
            .then(|| Box::new(Route(self.sent.clone(), Mutex::new(message))) as Box<dyn MsiRoute>)
    }
}

impl MsiRoute for Route {
    fn trigger(&self) {
        self.0.lock().unwrap().push(*self.1.lock().unwrap());
    }
    fn update(&self, message: MsiMessage) -> std::io::Result<()> {
        *self.1.lock().unwrap() = message;
        Ok(())
    }
}

const MASTER: u16 = command::BUS_MASTER;

struct Rig {
    interrupts: Arc<Interrupts>,
    line: Arc<Line>,
    sent: Arc<Mutex<Vec<MsiMessage>>>,
}

fn rig(vectors: u16) -> Rig {
    let sink = Sink::default();
    let sent = sink.sent.clone();
    let interrupts = Interrupts::new(Arc::new(sink), vectors);
    let line = Arc::new(Line::default());
    interrupts.connect(Some(line.clone()));
    Rig {
        interrupts,
        line,
        sent,
    }
}

impl Rig {
    fn program(&self, vector: u64, address: u64, data: u32, control: u32) {
        let table = &self.interrupts;
        assert!(matches!(table.write(vector * 16, 8, address), Action::None));
        assert!(matches!(
            table.write(
                vector * 16 + 8,
                8,
                u64::from(data) | u64::from(control) << 32
            ),
            Action::None
        ));
    }
    fn sent(&self) -> Vec<u32> {
        self.sent
            .lock()
            .unwrap()
            .drain(..)
            .map(|m| m.data)
            .collect()
    }
    fn pin(&self) -> Vec<bool> {
        self.line.changes()
    }
    fn pending(&self) -> u64 {
        self.interrupts.read(0x800, 8)
    }
}

#[test]
fn without_msix_any_vector_asserts_the_pin_until_acknowledged() {
    let rig = rig(2);
    rig.interrupts.raise(1);
    rig.interrupts.raise(0xffff);
    assert!(rig.interrupts.is_asserted());
    assert_eq!(rig.interrupts.acknowledge(|| 7), 7);
    assert_eq!(rig.pin(), [true, false]);
}

#[test]
fn intx_disable_holds_the_pin_but_not_the_status() {
    let rig = rig(0);
    rig.interrupts.configure(command::INTX_DISABLE, 0);
    rig.interrupts.raise(0);
    assert!(rig.interrupts.is_asserted());
    assert!(rig.pin().is_empty());
    rig.interrupts.configure(0, 0);
    assert_eq!(rig.pin(), [true]);
}

#[test]
fn enabling_msix_releases_the_pin_and_sends_messages() {
    let rig = rig(2);
    rig.interrupts.raise(0);
    rig.program(1, 0x1_fee0_0000, 0x31, 0);
    rig.interrupts.configure(MASTER, CONTROL_ENABLE);
    assert_eq!(rig.pin(), [true, false]);
    rig.interrupts.raise(1);
    rig.interrupts.raise(2);
    rig.interrupts.raise(0xffff);
    let message = MsiMessage {
        address: 0x1_fee0_0000,
        data: 0x31,
    };
    assert_eq!(*rig.sent.lock().unwrap(), [message]);
    rig.interrupts.configure(MASTER, CONTROL_MASK);
    assert!(!rig.interrupts.is_msix());
    assert_eq!(rig.pin(), [true], "the cause is still there");
    rig.interrupts.configure(MASTER, CONTROL_ENABLE);
    assert_eq!(rig.pin(), [false]);
    assert!(rig.pin().is_empty());
}

#[test]
fn masked_messages_stay_pending_and_go_out_once() {
    let rig = rig(3);
    rig.program(0, 0xfee0_0000, 0x40, 1);
    rig.program(1, 0xfee0_0000, 0x41, 0);
    rig.interrupts.configure(MASTER, CONTROL_ENABLE);
    rig.interrupts.raise(0);
    rig.interrupts.raise(0);
    assert_eq!((rig.sent(), rig.pending()), (vec![], 1));
    rig.interrupts
        .configure(MASTER, CONTROL_ENABLE | CONTROL_MASK);
    rig.interrupts.raise(1);
    assert_eq!((rig.sent(), rig.pending()), (vec![], 3));
    rig.interrupts.configure(0, CONTROL_ENABLE);
    assert_eq!(rig.pending(), 3, "no message leaves without bus mastering");
    rig.interrupts.configure(MASTER, CONTROL_ENABLE);
    assert_eq!((rig.sent(), rig.pending()), (vec![0x41], 1));
    rig.program(0, 0xfee0_0000, 0x42, 0);
    assert_eq!((rig.sent(), rig.pending()), (vec![0x42], 0));
}

#[test]
fn a_rewritten_entry_sends_the_new_message_with_and_without_routes() {
    for no_routes in [false, true] {
        let sink = Sink {
            no_routes,
            ..Sink::default()
        };
        let (sent, slow) = (sink.sent.clone(), sink.slow.clone());
        let interrupts = Interrupts::new(Arc::new(sink), 1);
        let rig = Rig {
            interrupts,
            line: Arc::default(),
            sent,
        };
        rig.interrupts.configure(MASTER, CONTROL_ENABLE);
        rig.program(0, 0xfee0_0000, 1, 0);
        rig.interrupts.raise(0);
        let _ = rig.interrupts.write(8, 4, 2);
        rig.interrupts.raise(0);
        assert_eq!(rig.sent(), [1, 2]);
        assert_eq!(*slow.lock().unwrap(), if no_routes { 2 } else { 0 });
        rig.interrupts.reset();
        rig.interrupts.raise(0);
        assert_eq!((rig.sent(), rig.pending()), (vec![], 1));
    }
}

#[test]
fn cve_2020_13754_odd_widths_and_offsets_touch_nothing() {
    let rig = rig(3);
    let table = &rig.interrupts;
    rig.program(2, 0xfee0_1000, 0x55, 0);
    let image = || -> Vec<u64> { (0..512).map(|i| table.read(i * 8, 8)).collect() };
    let before = image();
    for offset in (0..0x1010).chain([u64::MAX, u64::MAX - 3, 1 << 40]) {
        for size in [0, 1, 2, 3, 5, 7, 255] {
            let _ = table.write(offset, size, u64::MAX);
            assert_eq!(table.read(offset, size), u64::MAX);
        }
        if offset % 8 != 0 {
            let _ = table.write(offset, 8, u64::MAX);
        }
        if offset % 4 != 0 || offset >= 48 {
            let _ = table.write(offset, 4, u64::MAX);
        }
    }
    assert_eq!(image(), before);
    assert_eq!(table.table_size(), 0x1000);
}

#[test]
fn a_table_of_the_greatest_size_fits_its_bar() {
    let rig = rig(2048);
    assert_eq!(rig.interrupts.pending_offset(), 0x8000);
    assert_eq!(rig.interrupts.table_size(), 0x10000);
    rig.interrupts
        .configure(MASTER, CONTROL_ENABLE | CONTROL_MASK);
    rig.interrupts.raise(2047);
    assert_eq!(rig.interrupts.read(0x8000 + 252, 4), 1 << 31);
    assert_eq!(rig.interrupts.read(0x8000 + 256, 4), 0);
}

/// Raises race with every kind of mask: whatever the order, the last one arrives.
#[test]
fn no_message_is_lost_between_masks() {
    let rig = rig(1);
    rig.program(0, 0xfee0_0000, 9, 0);
    rig.interrupts.configure(MASTER, CONTROL_ENABLE);
    for round in 0..200_u64 {
        std::thread::scope(|scope| {
            scope.spawn(|| rig.interrupts.raise(0));
            for step in 0..6 {
                match (round + step) % 3 {
                    0 => {
                        let _ = rig.interrupts.write(12, 4, 1);
                        let _ = rig.interrupts.write(12, 4, 0);
                    }
                    1 => {
                        rig.interrupts
                            .configure(MASTER, CONTROL_ENABLE | CONTROL_MASK);
                        rig.interrupts.configure(MASTER, CONTROL_ENABLE);
                    }
                    _ => {
                        rig.interrupts.configure(0, CONTROL_ENABLE);
                        rig.interrupts.configure(MASTER, CONTROL_ENABLE);
                    }
                }
            }
        });
        assert_eq!((rig.sent(), rig.pending()), (vec![9], 0));
    }
}

proptest::proptest! {
    #[test]
    fn no_access_breaks_it(
        accesses in crate::legacy::tests::accesses(0x1000),
        controls: Vec<(u16, u16, u16)>,
    ) {
        let rig = rig(17);
        for (command, control, vector) in controls {
            rig.interrupts.configure(command, control);
            rig.interrupts.raise(vector % 20);
        }
        crate::legacy::tests::hammer(&*rig.interrupts, accesses);
        rig.interrupts.reset();
        proptest::prop_assert!(!rig.interrupts.is_asserted());
    }
}
