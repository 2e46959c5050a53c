//! Interrupt pins: `KVM_IRQ_LINE`, on change only.
//!
//! A pin has one owner; where sources share it, they do so in front of it
//! ([`devices::irq::SharedLine`]).
//!
//! Lock order: a pin, then the VM.

use std::sync::{Arc, Mutex, PoisonError};

use arch::x86_64::interrupts::IOAPIC_PINS;
use devices::irq::IrqLine;

use super::vm::Vm;
use crate::error::Error;

/// The pins of the interrupt controllers, by GSI.
#[derive(Debug)]
pub struct Lines([Arc<Pin>; IOAPIC_PINS as usize]);

#[derive(Debug)]
struct Pin {
    vm: Arc<Vm>,
    gsi: u32,
    level: Mutex<bool>,
}

impl Lines {
    pub(super) fn new(vm: &Arc<Vm>) -> Lines {
        Lines(std::array::from_fn(|gsi| {
            Arc::new(Pin {
                vm: vm.clone(),
                gsi: gsi as u32,
                level: Mutex::new(false),
            })
        }))
    }

    /// The pins.
    pub(super) fn pins(&self) -> [Arc<dyn IrqLine>; IOAPIC_PINS as usize] {
        self.0.clone().map(|pin| pin as Arc<dyn IrqLine>)
    }

    /// Shows a new machine the levels that hold.
    pub(super) fn renew(&self) -> Result<(), Error> {
        for pin in &self.0 {
            if *pin.level.lock().unwrap_or_else(PoisonError::into_inner) {
                pin.vm
                    .fd()
                    .set_irq_line(pin.gsi, true)
                    .map_err(|error| Error::host("KVM_IRQ_LINE").because(error))?;
            }
        }
        Ok(())
    }
}

impl IrqLine for Pin {
    fn set(&self, level: bool) {
        let mut held = self.level.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::replace(&mut *held, level) != level
            && let Err(error) = self.vm.fd().set_irq_line(self.gsi, level)
        {
            tracing::debug!("KVM_IRQ_LINE: {error}");
        }
    }
}
