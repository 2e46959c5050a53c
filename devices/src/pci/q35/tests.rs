use super::*;

use crate::bus::Action;
use crate::legacy::tests::{Line, accesses};
use crate::pci::host::tests::card;

struct Rig {
    memory: Arc<Bus>,
    io: Arc<Bus>,
    lines: [Arc<Line>; 24],
    q35: Q35,
}

fn rig() -> Rig {
    let (memory, io) = (Arc::new(Bus::new()), Arc::new(Bus::new()));
    let lines: [Arc<Line>; 24] = std::array::from_fn(|_| Arc::default());
    let gsis = lines.each_ref().map(|line| SharedLine::new(line.clone()));
    let (_, timers) = crate::time::tests::Stepped::timers();
    let q35 = Q35::new(&memory, &io, &gsis, &timers, 5).unwrap();
    Rig {
        memory,
        io,
        lines,
        q35,
    }
}

fn windows() -> Windows {
    Windows {
        low: 0xc000_0000..0xfec0_0000,
        high: 1 << 40..1 << 41,
        io: 0xc000..0x1_0000,
    }
}

impl Rig {
    fn config(&self, address: u64) -> u64 {
        let _ = self.io.write(0xcf8, 4, 1 << 31 | address);
        self.io.read(0xcfc, 4)
    }
    fn set_config(&self, address: u64, value: u64) {
        let _ = self.io.write(0xcf8, 4, 1 << 31 | address);
        let _ = self.io.write(0xcfc, 4, value);
    }
}

const MCH: u64 = 0;
const LPC: u64 = 0x1f << 11;

#[test]
fn the_bridges_are_where_software_expects_them() {
    let rig = rig();
    assert_eq!(rig.config(MCH), 0x29c0_8086);
    assert_eq!(rig.config(MCH + 8) >> 8, 0x06_00_00);
    assert_eq!(rig.config(LPC), 0x2918_8086);
    assert_eq!(rig.config(LPC + 8) >> 8, 0x06_01_00);
    assert_eq!(rig.config(LPC + 0xc) >> 16 & 0x80, 0x80);
    assert_eq!(rig.config(0x1f << 11 | 1 << 8), 0xffff_ffff);
}

#[test]
fn after_power_on_nothing_is_placed() {
    let rig = rig();
    assert_eq!(rig.config(MCH + 0x60), 0xb000_0000);
    assert_eq!(rig.memory.read(0xb000_0000, 4), 0xffff_ffff);
    assert_eq!(rig.io.read(0x604, 2), 0xffff);
}

#[test]
fn without_firmware_everything_is_placed_and_reset_takes_it_back() {
    let rig = rig();
    rig.q35.host.add(card(1, false), None).unwrap();
    for _ in 0..2 {
        rig.q35
            .boot_without_firmware(0xb000_0000, &windows())
            .unwrap();
        assert_eq!(rig.memory.read(0xb000_0000, 4), 0x29c0_8086);
        assert_eq!(rig.memory.read(0xb000_0000 + (0x1f << 15), 4), 0x2918_8086);
        assert_eq!(rig.io.read(0x604, 2), 1, "SCI_EN");
        assert_eq!(rig.io.read(0xc000, 4), 0x10_0000);
        assert_eq!(rig.config(1 << 11 | 0x3c) & 0xff, 21);
        assert!(matches!(rig.io.write(0x604, 2, 0x3400), Action::Shutdown));
        assert!(matches!(rig.io.write(0xcf9, 1, 0x06), Action::Reset));
        assert!(rig.q35.reset().is_empty());
        assert_eq!(rig.memory.read(0xb000_0000, 4), 0xffff_ffff);
        assert_eq!(
            (rig.io.read(0x604, 2), rig.io.read(0xc000, 4)),
            (0xffff, 0xffff_ffff)
        );
    }
}

#[test]
fn ecam_moves_and_shrinks_with_pciexbar() {
    let rig = rig();
    rig.set_config(MCH + 0x60, 0xe000_0001);
    assert_eq!(rig.memory.read(0xe000_0000, 4), 0x29c0_8086);
    assert_eq!(rig.memory.read(0xefff_fffc, 4), 0xffff_ffff);
    rig.set_config(MCH + 0x64, 0xff);
    assert_eq!(rig.config(MCH + 0x64), 0xf);
    assert_eq!(rig.memory.read(0xf_e000_0000, 4), 0x29c0_8086);
    rig.set_config(MCH + 0x60, 0xe800_0003);
    assert_eq!(rig.memory.read(0xf_e800_0000, 4), 0x29c0_8086);
    rig.set_config(MCH + 0x60, 0xec00_0005);
    assert_eq!(rig.memory.read(0xf_ec00_0000, 4), 0x29c0_8086);
    for off in [0xe000_0007, 0xe000_0000] {
        rig.set_config(MCH + 0x60, off);
        assert_eq!(rig.memory.read(0xf_e000_0000, 4), 0xffff_ffff);
    }
}

#[test]
fn the_power_management_block_moves_with_pmbase() {
    let rig = rig();
    rig.set_config(LPC + 0x40, 0xb000);
    assert_eq!(rig.io.read(0xb000, 2), 0xffff);
    rig.set_config(LPC + 0x44, 0x80);
    assert_eq!(rig.io.read(0xb000, 2), 0);
    assert_eq!(rig.config(LPC + 0x40), 0xb001);
    rig.set_config(LPC + 0x40, 0x0680);
    assert_eq!((rig.io.read(0xb000, 2), rig.io.read(0x680, 2)), (0xffff, 0));
    rig.set_config(LPC + 0xf0, 0xfed1_c001);
    assert_eq!(rig.memory.read(0xfed1_c000 + 0x3140, 2), 0x3210);
}

#[test]
fn pins_reach_their_gsi_and_the_routed_isa_interrupt() {
    let rig = rig();
    let one = card(1, false);
    rig.q35.host.add(one.clone(), Address::new(1, 0)).unwrap();
    let interrupts = crate::pci::PciDevice::config(&*one).interrupts().unwrap();
    interrupts.raise(0);
    assert!(rig.lines[21].level());
    rig.set_config(LPC + 0x68, 0x8080_0b80);
    assert!(rig.lines[11].level());
    assert!(rig.q35.reset().is_empty());
    assert!(rig.lines.iter().all(|line| !line.level()));
}

#[test]
fn the_power_button_reaches_the_sci() {
    let rig = rig();
    rig.q35
        .boot_without_firmware(0xb000_0000, &windows())
        .unwrap();
    let _ = rig.io.write(0x602, 2, 0x100);
    assert!(rig.q35.pm.press_power_button());
    assert!(rig.lines[9].level());
}

proptest::proptest! {
    #[test]
    fn no_access_breaks_it(
        bridges in accesses(0x200), ports in accesses(0x700), chipset in accesses(0x4000),
    ) {
        let rig = rig();
        rig.q35.boot_without_firmware(0xb000_0000, &windows()).unwrap();
        for (offset, size, value, store) in bridges {
            // The first half is the host bridge's registers, the second the LPC bridge's.
            let at = 0xb000_0000 + (offset & 0xff) + if offset & 0x100 == 0 { 0 } else { 0x1f << 15 };
            if store {
                let _ = rig.memory.write(at, size, value);
            } else {
                rig.memory.read(at, size);
            }
        }
        for (port, size, value, store) in ports {
            if store {
                let _ = rig.io.write(port, size, value);
            } else {
                rig.io.read(port, size);
            }
        }
        assert!(rig.q35.reset().is_empty());
        rig.set_config(LPC + 0xf0, 0xfed1_c001);
        for (offset, size, value, store) in chipset {
            let at = 0xfed1_c000_u64.wrapping_add(offset);
            if store {
                let _ = rig.memory.write(at, size, value);
            } else {
                rig.memory.read(at, size);
            }
        }
    }
}
