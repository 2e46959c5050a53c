//! Device models: what a guest sees, and nothing of how the guest is run.
//!
//! | module | what it is |
//! |---|---|
//! | [`bus`] | address spaces: who answers at an address, and what a store asks of the machine |
//! | [`irq`] | the ways out: interrupt lines, message-signalled interrupts, notifications |
//! | [`legacy`] | power management, serial port, clock, keyboard controller, `isa-debug-exit`, `pvpanic` |
//! | [`pci`] | configuration space, BARs, INTx and MSI-X, the host bridge and the ICH9 |
//! | [`memory`] | guest RAM, and the only place where its bytes become host slices |
//! | [`time`] | the clock and alarms |
//! | [`virtio`] | virtqueues, the PCI transport, the block device |
//!
//! A machine offers four seams (guest memory, interrupt lines, MSI, notifications) and models are
//! written against those alone; whether KVM or a test program drives them is not theirs to know.
//! What guests write is all that they handle, so nothing here can panic on it.

#![deny(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

pub mod bus;
pub mod irq;
pub mod legacy;
#[allow(unsafe_code, reason = "the one guest-memory module")]
pub mod memory;
pub mod pci;
pub mod time;
pub mod virtio;
