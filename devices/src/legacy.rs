//! What a PC has had since before PCI.
//!
//! | module | what it is |
//! |---|---|
//! | [`pm`] | ACPI power management: power off, power button, timer, general-purpose events |
//! | [`serial`] | 16550 serial port |
//! | [`rtc`] | MC146818 clock and CMOS memory |
//! | [`i8042`] | keyboard controller without a keyboard, for what else it does: reset, A20 |
//! | [`debug_exit`] | `isa-debug-exit`: a store ends the machine with a status |
//! | [`pvpanic`] | the guest says that it crashed |
//!
//! Port 0x80, which software writes to for a delay, needs nobody: the bus loses the store.

pub mod debug_exit;
pub mod i8042;
pub mod pm;
pub mod pvpanic;
pub mod rtc;
pub mod serial;

use crate::bus::{Action, Mmio};

/// Registers on eight data lines: wider accesses arrive as bytes, the lowest address first.
pub trait ByteWide: Send + Sync {
    /// A load.
    fn load(&self, offset: u64) -> u8;

    /// A store.
    fn store(&self, offset: u64, value: u8) -> Action;
}

impl<T: ByteWide> Mmio for T {
    fn read(&self, offset: u64, size: u8) -> u64 {
        let mut value = [0; 8];
        for (offset, byte) in addresses(offset, size).zip(&mut value) {
            *byte = self.load(offset);
        }
        u64::from_le_bytes(value)
    }

    fn write(&self, offset: u64, size: u8, value: u64) -> Action {
        let mut action = Action::None;
        for (offset, byte) in addresses(offset, size).zip(value.to_le_bytes()) {
            match self.store(offset, byte) {
                Action::None => {}
                asked => action = asked,
            }
        }
        action
    }
}

/// The addresses of the bytes of an access, which may be of any width anywhere.
fn addresses(offset: u64, size: u8) -> impl Iterator<Item = u64> {
    (0..u64::from(size)).map(move |lane| offset.wrapping_add(lane))
}

#[cfg(test)]
pub(crate) mod tests;
