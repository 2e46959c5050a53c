use super::*;
use crate::bus::Action;

struct Silent;

impl Mmio for Silent {
    fn read(&self, _: u64, _: u8) -> u64 {
        0
    }
    fn write(&self, _: u64, _: u8, _: u64) -> Action {
        Action::None
    }
}

fn config() -> PciConfig {
    let mut builder = PciConfig::builder(Identity {
        vendor: 0x1af4,
        device: 0x1042,
        class: 0x01_00_00,
        revision: 1,
        subsystem_vendor: 0x1af4,
        subsystem: 0x1100,
    });
    let bar = |kind, size| Bar {
        kind,
        size,
        registers: Arc::new(Silent),
    };
    builder.bar(0, bar(BarKind::Io, 32));
    builder.bar(
        1,
        bar(
            BarKind::Memory32 {
                prefetchable: false,
            },
            3000,
        ),
    );
    builder.bar(4, bar(BarKind::Memory64 { prefetchable: true }, 0x4000));
    builder.build()
}

#[test]
fn identity_is_read_only() {
    let config = config();
    config.write(0, 4, 0);
    config.write(8, 4, !0);
    assert_eq!(config.read(0, 4), 0x1042_1af4);
    assert_eq!(config.read(8, 4), 0x0100_0001);
    assert_eq!(config.read(0x2c, 4), 0x1100_1af4);
    assert_eq!(config.read(2, 2), 0x1042);
    assert_eq!(config.read(0xff, 4), 0xffff_ff00);
    assert_eq!(config.read(0x100, 4), 0xffff_ffff);
}

#[test]
fn bars_tell_their_size_and_type() {
    let config = config();
    for at in (0x10..0x28).step_by(4) {
        config.write(at, 4, !0);
    }
    assert_eq!(config.read(0x10, 4), 0xffff_ffe1);
    assert_eq!(config.read(0x14, 4), 0xffff_f000);
    assert_eq!(config.read(0x18, 4), 0);
    assert_eq!(config.read(0x20, 4), 0xffff_c00c);
    assert_eq!(config.read(0x24, 4), 0xffff_ffff);
    config.write(4, 2, 3);
    assert_eq!(config.windows(), [None; 6]);
}

#[test]
fn bars_answer_where_the_guest_puts_them_and_when_it_enables_them() {
    let config = config();
    config.write(0x10, 4, 0xc000);
    config.write(0x20, 4, 0x8000_0000);
    config.write(0x24, 4, 0x12);
    assert_eq!(config.windows(), [None; 6]);
    config.write(4, 1, 1);
    let io = Window {
        space: Space::Io,
        base: 0xc000,
        len: 32,
    };
    assert_eq!(config.windows(), [Some(io), None, None, None, None, None]);
    config.write(4, 1, 2);
    let memory = Window {
        space: Space::Memory,
        base: 0x12_8000_0000,
        len: 0x4000,
    };
    assert_eq!(
        config.windows(),
        [None, None, None, None, Some(memory), None]
    );
    config.write(0x10, 4, 0x1_ffe0 & !0x1_0000 | 0xffe0);
    config.write(4, 1, 3);
    assert_eq!(config.windows()[0].map(|w| w.base), Some(0xffe0));
    config.write(0x10, 4, 0x1_0000);
    assert_eq!(config.windows()[0], None);
}

#[test]
fn capabilities_form_a_list() {
    let mut builder = PciConfig::builder(Identity {
        vendor: 1,
        device: 2,
        class: 0,
        revision: 0,
        subsystem_vendor: 0,
        subsystem: 0,
    });
    let first = builder.capability(9, &[1, 2, 3]);
    let second = builder.capability(0x10, &[4; 6]);
    builder.writable(second + 2, &[0xf0]);
    let config = builder.build();
    assert_eq!((first, second), (0x40, 0x48));
    assert_eq!(config.read(0x34, 1), 0x40);
    assert_eq!(config.read(6, 2) & 0x10, 0x10);
    assert_eq!(config.read(0x40, 4), 0x0201_4809);
    assert_eq!(config.read(0x48, 2), 0x0010);
    config.write(0x4a, 1, 0xff);
    assert_eq!(config.read(0x4a, 1), 0xf4);
    config.reset();
    assert_eq!(config.read(0x4a, 1), 0x04);
}

#[test]
fn status_bits_clear_when_written_1() {
    let config = config();
    config.set(6, &[0, 0x20]);
    config.write(4, 4, 0x0000_0007);
    assert_eq!(config.read(6, 2), 0x2000);
    config.write(6, 2, 0x2000);
    assert_eq!(config.read(6, 2), 0);
    assert!(config.is_bus_master());
}

struct NoMsi;

impl crate::irq::MsiSink for NoMsi {
    fn send(&self, _: crate::irq::MsiMessage) {}
    fn route(&self, _: crate::irq::MsiMessage) -> Option<Box<dyn crate::irq::MsiRoute>> {
        None
    }
}

#[test]
fn msix_is_a_capability_with_a_bar_and_a_control_register() {
    let interrupts = Interrupts::new(Arc::new(NoMsi), 5);
    let mut builder = PciConfig::builder(Identity {
        vendor: 1,
        device: 2,
        class: 0,
        revision: 0,
        subsystem_vendor: 0,
        subsystem: 0,
    });
    let kind = BarKind::Memory32 {
        prefetchable: false,
    };
    builder.interrupts(&interrupts, 1, Some((1, kind)));
    let config = builder.build();
    assert_eq!(config.pin(), 1);
    assert_eq!(config.read(0x40, 4), 0x0004_0011);
    assert_eq!((config.read(0x44, 4), config.read(0x48, 4)), (1, 0x801));
    assert_eq!(config.bars()[1].as_ref().unwrap().size, 0x1000);
    config.write(0x42, 2, 0xffff);
    assert_eq!(config.read(0x42, 2), 0xc004);
    assert!(interrupts.is_msix());
    config.reset();
    assert!(!interrupts.is_msix());
    interrupts.raise(0);
    assert_eq!(
        config.read(6, 2),
        0x18,
        "interrupt status beside the capabilities bit"
    );
    config.write(4, 2, u32::from(command::INTX_DISABLE));
    assert_eq!(config.read(4, 4), 0x0018_0400);
}
