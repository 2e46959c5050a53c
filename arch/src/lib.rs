//! What a machine is made of before its first instruction, as plain data.
//!
//! Everything here is a function from plain values to bytes: no KVM handle, no thread, no file. The VMM copies the
//! bytes to guest RAM and hands the registers to the hypervisor; a test does neither and looks at them.
//!
//! - [`x86_64`]: the PC: address map, CPUID, page tables, registers at entry, boot protocols, ACPI tables.

#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::indexing_slicing
    )
)]

pub mod x86_64;

use std::borrow::Cow;
use std::fmt;

/// Which input an [`Error`] is about: the caller knows which option that came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The kernel image (`-kernel`).
    Kernel,
    /// The initial RAM disk (`-initrd`).
    Initrd,
    /// The kernel's command line (`-append`).
    CommandLine,
    /// The amount of RAM (`-m`).
    Memory,
    /// The CPU model and its features (`-cpu`).
    Cpu,
    /// The number and arrangement of CPUs (`-smp`).
    Topology,
}

/// An input that no machine can be made from.
///
/// Displays as one line without the option's name, such as `not a Linux kernel: ...`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    kind: Kind,
    reason: Cow<'static, str>,
}

impl Error {
    pub(crate) fn new(kind: Kind, reason: impl Into<Cow<'static, str>>) -> Self {
        Self {
            kind,
            reason: reason.into(),
        }
    }

    /// Which input is wrong.
    pub fn kind(&self) -> Kind {
        self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for Error {}
