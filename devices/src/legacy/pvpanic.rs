//! `pvpanic`: one port through which a guest says that it crashed (QEMU's pvpanic specification; in
//! the DSDT it is QEMU0001).

use crate::bus::Action;
use crate::legacy::ByteWide;

/// Where it is.
pub const PORT: u64 = 0x505;
/// The guest crashed.
pub const PANICKED: u8 = 1 << 0;
/// The guest crashed and a crash kernel takes over.
pub const CRASH_LOADED: u8 = 1 << 1;

/// The port: reads say which events are understood.
pub struct Pvpanic;

impl ByteWide for Pvpanic {
    fn load(&self, _offset: u64) -> u8 {
        PANICKED | CRASH_LOADED
    }

    fn store(&self, _offset: u64, value: u8) -> Action {
        if value & PANICKED != 0 {
            Action::GuestPanicked
        } else if value & CRASH_LOADED != 0 {
            Action::GuestCrashLoaded
        } else {
            Action::None
        }
    }
}

#[cfg(test)]
mod tests;
