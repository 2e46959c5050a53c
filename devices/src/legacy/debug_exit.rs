//! `isa-debug-exit`: a guest ends the machine with a status of its choice, for test programs.

use crate::bus::{Action, Mmio};

/// The port where software looks for it unless told otherwise (`iobase`).
pub const DEFAULT_PORT: u64 = 0x501;
/// How many ports it takes unless told otherwise (`iosize`).
pub const DEFAULT_LEN: u64 = 2;

/// A store of `v` to any of its ports exits with `(v << 1) | 1`, so that no guest can claim success.
pub struct DebugExit;

impl Mmio for DebugExit {
    fn read(&self, _offset: u64, _size: u8) -> u64 {
        0
    }

    fn write(&self, _offset: u64, _size: u8, value: u64) -> Action {
        // An exit status has eight bits.
        Action::Exit((value as u8) << 1 | 1)
    }
}

#[cfg(test)]
mod tests;
