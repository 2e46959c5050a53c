//! The other end of the guest's serial port.

pub mod terminal;
