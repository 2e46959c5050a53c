//! The place of a function on the root bus.

use std::fmt;
use std::str::FromStr;

/// Device 0 to 31 and function 0 to 7 on bus 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(u8);

/// What is wrong with an address that a user wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidAddress;

impl Address {
    /// `None` where `device` is over 31 or `function` over 7.
    pub const fn new(device: u8, function: u8) -> Option<Address> {
        if device < 32 && function < 8 {
            Some(Address(device << 3 | function))
        } else {
            None
        }
    }

    /// Function 0 of the device in bits 7:3 of `devfn`, and its function in bits 2:0, as the bus
    /// itself encodes it.
    pub const fn from_devfn(devfn: u8) -> Address {
        Address(devfn)
    }

    /// As the bus encodes it: device in bits 7:3, function in bits 2:0.
    pub const fn devfn(self) -> u8 {
        self.0
    }

    /// 0 to 31.
    pub const fn device(self) -> u8 {
        self.0 >> 3
    }

    /// 0 to 7.
    pub const fn function(self) -> u8 {
        self.0 & 7
    }
}

/// `device[.function]`, both hexadecimal, as in `addr=1f.2`.
impl FromStr for Address {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (device, function) = text.split_once('.').unwrap_or((text, "0"));
        let hex = |text: &str| {
            let digits = text.strip_prefix("0x").unwrap_or(text);
            // `from_str_radix` would take a sign.
            (digits.bytes().all(|b| b.is_ascii_hexdigit()))
                .then(|| u8::from_str_radix(digits, 16).ok())
                .flatten()
        };
        hex(device)
            .zip(hex(function))
            .and_then(|(device, function)| Address::new(device, function))
            .ok_or(InvalidAddress)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}.{:x}", self.device(), self.function())
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for InvalidAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected a PCI address: device 0 to 1f and function 0 to 7, as in 4.0")
    }
}

impl std::error::Error for InvalidAddress {}

#[cfg(test)]
mod tests;
