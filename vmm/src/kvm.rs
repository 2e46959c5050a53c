//! A machine driven by KVM: the four seams of `devices`, and the virtual processors.
//!
//! | module | what it is |
//! |---|---|
//! | [`host`] | `/dev/kvm`: whether it is there, and does what is needed |
//! | [`ram`] | guest RAM in the address space of the host |
//! | [`vm`] | RAM slots and the in-kernel interrupt controllers; made anew when the guest resets |
//! | [`lines`] | interrupt pins: `KVM_IRQ_LINE`, on change only |
//! | [`msi`] | messages: `KVM_SIGNAL_MSI`, and routes through irqfd |
//! | [`doorbells`] | stores that become signals: ioeventfd |
//! | [`processors`] | what the processors are: `-cpu` and `-smp` out of what KVM supports |
//! | [`vcpu`] | one processor: its state, and what its exits ask for |
//! | [`threads`] | a thread for each processor: released, parked, reset, ended |
//!
//! A guest reset makes a new KVM machine on the same RAM instead of putting back, register by
//! register, what the kernel keeps for the old one: nothing that KVM knows about a guest (pending
//! events, nested guests, paravirtual clocks that write to RAM) can leak into the next boot.
//!
//! Lock order: a seam's own lock (lines, msi, doorbells), then the VM's.

#![allow(unsafe_code)] // ioctls, run pages, and the mapping of guest RAM

pub mod doorbells;
mod exit;
pub mod host;
pub mod lines;
pub mod msi;
pub mod processors;
pub mod ram;
pub mod threads;
pub mod vcpu;
pub mod vm;

use std::sync::Arc;

use arch::x86_64::interrupts::IOAPIC_PINS;
use devices::irq::{IrqLine, MsiSink, Notify};
use devices::memory::GuestRam;

use crate::error::Error;

/// A machine without processors, and the seams that devices reach it by.
#[derive(Debug)]
pub struct Board {
    vm: Arc<vm::Vm>,
    lines: lines::Lines,
    messages: Arc<msi::Messages>,
    doorbells: Arc<doorbells::Doorbells>,
}

impl Board {
    /// A board with `ram` on it.
    ///
    /// # Errors
    /// What KVM refused.
    pub fn new(host: host::Host, ram: GuestRam) -> Result<Board, Error> {
        let vm = Arc::new(vm::Vm::new(host, ram)?);
        Ok(Board {
            lines: lines::Lines::new(&vm),
            messages: Arc::new(msi::Messages::new(vm.clone())),
            doorbells: Arc::new(doorbells::Doorbells::new(vm.clone())),
            vm,
        })
    }

    /// Replaces the machine by a new one. No processor runs; what devices have attached stays.
    ///
    /// # Errors
    /// What KVM refused: the machine cannot go on then.
    pub fn renew(&self) -> Result<(), Error> {
        self.vm.renew()?;
        self.lines.renew()?;
        self.messages.renew()?;
        self.doorbells.renew()
    }

    /// The machine, for processors.
    pub fn vm(&self) -> Arc<vm::Vm> {
        self.vm.clone()
    }

    /// The interrupt controllers' inputs by GSI, for one owner each.
    pub fn lines(&self) -> [Arc<dyn IrqLine>; IOAPIC_PINS as usize] {
        self.lines.pins()
    }

    /// Where messages go.
    pub fn messages(&self) -> Arc<dyn MsiSink> {
        self.messages.sink()
    }

    /// Where doorbells are attached.
    pub fn doorbells(&self) -> Arc<dyn Notify> {
        self.doorbells.clone()
    }
}
