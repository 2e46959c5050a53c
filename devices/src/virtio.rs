//! Virtio 1.3, modern devices only.
//!
//! | module | what it is |
//! |---|---|
//! | [`queue`] | virtqueues, and the chains of buffers that a driver puts into them |
//! | [`serve`] | the task that serves one queue on its I/O thread |
//! | [`pci`] | the PCI transport: registers, device status, notifications, interrupts |
//! | [`blk`] | the block device |
//!
//! A [`Device`] knows nothing of its transport but the few calls of [`Transport`]. Queues run on the
//! device's I/O threads, one task a queue and one a request; registers are accessed on vCPU threads.
//! What the two share is a [`serve::Control`] for each running queue: flags and an eventfd.
//!
//! A reset never waits: the status register reads back non-zero until the last request that was in
//! flight has let go of guest memory, and that moment is the drop of the last [`serve::Started`].

pub mod blk;
pub mod pci;
pub mod queue;
pub mod serve;
#[cfg(test)]
mod testing;

use std::sync::{Arc, Weak};

/// Device status bits (§2.1).
pub mod status {
    /// The driver found the device.
    pub const ACKNOWLEDGE: u8 = 1;
    /// The driver knows how to drive it.
    pub const DRIVER: u8 = 2;
    /// The driver is ready: queues are served.
    pub const DRIVER_OK: u8 = 4;
    /// The features were agreed on.
    pub const FEATURES_OK: u8 = 8;
    /// The device met an error that it cannot recover from.
    pub const DEVICE_NEEDS_RESET: u8 = 64;
    /// The driver gave up.
    pub const FAILED: u8 = 128;
}

/// Feature bits of rings and transports (§6), as masks.
pub mod feature {
    /// A descriptor may name a table of descriptors.
    pub const INDIRECT_DESC: u64 = 1 << 28;
    /// Both sides say up to which index they want no notice.
    pub const EVENT_IDX: u64 = 1 << 29;
    /// Not a legacy device.
    pub const VERSION_1: u64 = 1 << 32;
    /// One queue can be reset.
    pub const RING_RESET: u64 = 1 << 40;
}

/// A device behind a transport.
pub trait Device: Send + Sync {
    /// Device ID (§5).
    fn id(&self) -> u16;

    /// PCI base class, subclass and programming interface.
    fn class(&self) -> u32;

    /// The features it offers, without the transport's own.
    fn features(&self) -> u64;

    /// How many virtqueues it has.
    fn queues(&self) -> u16;

    /// The most descriptors a queue may have: a power of two, at most 32768.
    fn queue_size(&self) -> u16;

    /// Tells the device its transport, once, before anything else.
    fn attach(&self, transport: Weak<dyn Transport>);

    /// A load of 1 to 8 bytes from the device's configuration space; bytes that do not exist are 0.
    fn read_config(&self, offset: u64, size: u8) -> u64;

    /// A store of 1 to 8 bytes to it, by a driver that agreed on `features` (0 before it did).
    fn write_config(&self, offset: u64, size: u8, value: u64, features: u64);

    /// The driver and the device agreed on `features`; no queue is served yet. Called with the
    /// transport's lock held.
    fn agreed(&self, features: u64) {
        let _ = features;
    }

    /// Serves a queue from now on, with the features that were agreed on, until it is stopped. Called
    /// on a vCPU thread without locks; the work is done on an I/O thread.
    fn start(self: Arc<Self>, features: u64, queue: serve::Started);

    /// A reset began: requests that wait for something other than I/O must end now.
    fn let_go(&self);

    /// The reset is complete: no request is in flight.
    fn reset(&self);
}

/// A load of `size` bytes at `offset` from a structure of registers: fields lie one after the other,
/// so any width will do. Bytes beyond its end are 0.
fn load(structure: &[u8], offset: u64, size: u8) -> u64 {
    let skip = usize::try_from(offset).unwrap_or(usize::MAX);
    let wanted = structure.iter().skip(skip).take(size.into());
    let mut value = [0; 8];
    for (to, from) in value.iter_mut().zip(wanted) {
        *to = *from;
    }
    u64::from_le_bytes(value)
}

/// What a device and its queues ask of the transport. Callable from any thread.
pub trait Transport: Send + Sync {
    /// Used buffer notification (§2.3).
    fn interrupt(&self, queue: u16);

    /// Runs `change`, which changes the device's configuration space, such that a driver sees a new
    /// generation with it (§2.5.1), and notifies the driver.
    fn change_config(&self, change: &mut dyn FnMut());

    /// The driver did what cannot be answered in the queue: no queue is served until a reset (§2.1.2).
    fn fail(&self, queue: u16, why: queue::Error);

    /// A stopped queue is no longer in use: nothing of it is in flight.
    fn ended(&self, queue: u16);
}
