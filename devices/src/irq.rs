//! The ways out of a device: interrupt lines, messages and notifications.
//!
//! The machine implements these traits; device models call them. A model never learns whether KVM
//! or a test program is behind them.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, PoisonError};

/// One source of a level-triggered interrupt.
///
/// Several sources may share a pin: the owner of the pin ORs them, so a source says only what it
/// wants itself. Setting a level that already holds costs nothing and has no effect.
pub trait IrqLine: Send + Sync {
    /// Asserts (`true`) or deasserts (`false`) this source.
    fn set(&self, level: bool);
}

/// One line with several sources: it is asserted while any of them is.
///
/// The line is driven on change only, in the order of the changes.
pub struct SharedLine {
    line: Arc<dyn IrqLine>,
    asserted: Mutex<u32>,
}

struct Source {
    shared: Arc<SharedLine>,
    level: Mutex<bool>,
}

impl SharedLine {
    /// Shares `line`, which must be deasserted and is driven by nobody else from now on.
    pub fn new(line: Arc<dyn IrqLine>) -> Arc<SharedLine> {
        Arc::new(SharedLine {
            line,
            asserted: Mutex::new(0),
        })
    }

    /// One more source, deasserted. Dropping it deasserts it.
    pub fn source(self: &Arc<Self>) -> Arc<dyn IrqLine> {
        Arc::new(Source {
            shared: self.clone(),
            level: Mutex::new(false),
        })
    }

    fn count(&self, level: bool) {
        let mut asserted = self.asserted.lock().unwrap_or_else(PoisonError::into_inner);
        let before = *asserted != 0;
        *asserted = match level {
            true => asserted.saturating_add(1),
            false => asserted.saturating_sub(1),
        };
        if before != (*asserted != 0) {
            self.line.set(!before);
        }
    }
}

impl IrqLine for Source {
    fn set(&self, level: bool) {
        let mut old = self.level.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::replace(&mut *old, level) != level {
            self.shared.count(level);
        }
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.set(false);
    }
}

/// A message-signalled interrupt: a 32-bit store that a device makes (PCI 3.0 §6.8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MsiMessage {
    /// Where the store goes.
    pub address: u64,
    /// What it stores.
    pub data: u32,
}

/// Takes the messages of devices to the interrupt controllers.
pub trait MsiSink: Send + Sync {
    /// Delivers one message.
    fn send(&self, message: MsiMessage);

    /// A route that delivers `message` without the sender leaving its thread's fast path; `None`
    /// where there is none to be had, and then [`MsiSink::send`] does the same, slower.
    fn route(&self, message: MsiMessage) -> Option<Box<dyn MsiRoute>>;
}

/// A prepared way for one MSI vector. Dropping it gives the route back.
pub trait MsiRoute: Send + Sync {
    /// Delivers the message.
    fn trigger(&self);

    /// Changes the message that [`MsiRoute::trigger`] delivers.
    ///
    /// # Errors
    /// What the hypervisor reports; the route then still delivers the old message.
    fn update(&self, message: MsiMessage) -> io::Result<()>;
}

/// A register whose stores become a wake-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doorbell {
    /// A guest-physical address.
    Mmio(u64),
    /// An I/O port.
    Pio(u16),
}

/// Turns stores to a register into signals on an eventfd, without an exit to user space.
pub trait Notify: Send + Sync {
    /// From now on each store to `at`, of any width, adds one to `eventfd` instead of reaching the bus.
    ///
    /// # Errors
    /// What the hypervisor reports, `EEXIST` when the register is taken. The store then reaches the
    /// bus as before, so that a caller may go on without.
    fn attach(&self, at: Doorbell, eventfd: BorrowedFd<'_>) -> io::Result<()>;

    /// Undoes [`Notify::attach`] with the same arguments.
    fn detach(&self, at: Doorbell, eventfd: BorrowedFd<'_>);
}

#[cfg(test)]
mod tests;
