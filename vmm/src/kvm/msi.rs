//! Message-signalled interrupts: `KVM_SIGNAL_MSI`, and routes through irqfd.
//!
//! KVM takes its routing table whole, and waits for every processor when it changes. A guest that
//! sets up a device writes dozens of vectors in a row, so a change only marks the table stale; the
//! first route triggered after it hands over all changes at once.
//!
//! Lock order: the table, then the VM.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arch::x86_64::interrupts::IOAPIC_PINS;
use arch::x86_64::layout::LAPIC;
use devices::irq::{MsiMessage, MsiRoute, MsiSink};
use kvm_bindings::{KVM_IRQ_ROUTING_MSI, kvm_irq_routing_entry, kvm_irq_routing_msi, kvm_msi};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::vm::{Vm, fixed_routes, set_routes};
use crate::error::Error;

/// The sink of all messages of one machine.
#[derive(Debug)]
pub struct Messages {
    vm: Arc<Vm>,
    /// Index + [`IOAPIC_PINS`] is the GSI.
    routes: Mutex<Vec<Option<Entry>>>,
    stale: AtomicBool,
    max_routes: usize,
}

#[derive(Debug)]
struct Entry {
    message: MsiMessage,
    eventfd: Arc<EventFd>,
}

/// One route of [`Messages`].
#[derive(Debug)]
struct Route {
    messages: Arc<Messages>,
    index: usize,
    eventfd: Arc<EventFd>,
}

/// A cloneable handle of [`Messages`].
#[derive(Clone, Debug)]
pub struct Sink(Arc<Messages>);

impl Messages {
    pub(super) fn new(vm: Arc<Vm>) -> Messages {
        let max_routes = vm.host().max_gsis().saturating_sub(IOAPIC_PINS) as usize;
        Messages {
            vm,
            routes: Mutex::default(),
            stale: AtomicBool::new(false),
            max_routes,
        }
    }

    pub(super) fn sink(self: &Arc<Self>) -> Arc<dyn MsiSink> {
        Arc::new(Sink(self.clone()))
    }

    /// Binds the routes that there are to a new machine.
    pub(super) fn renew(&self) -> Result<(), Error> {
        let vm = self.vm.fd();
        for (gsi, entry) in (IOAPIC_PINS..).zip(self.routes().iter()) {
            if let Some(entry) = entry {
                vm.register_irqfd(&entry.eventfd, gsi)
                    .map_err(|error| Error::host("KVM_IRQFD").because(error))?;
            }
        }
        self.stale.store(true, Ordering::Release);
        Ok(())
    }

    fn routes(&self) -> MutexGuard<'_, Vec<Option<Entry>>> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self, message: MsiMessage) {
        if !reaches_apic(message) {
            return;
        }
        let (address_lo, address_hi) = halves(message.address);
        let result = self.vm.fd().signal_msi(kvm_msi {
            address_lo,
            address_hi,
            data: message.data,
            ..Default::default()
        });
        if let Err(error) = result {
            tracing::debug!("the message {message:x?} is not delivered: {error}");
        }
    }

    /// Hands all changes to KVM, if there are any; false where it refused them.
    fn commit(&self) -> bool {
        if !self.stale.load(Ordering::Acquire) {
            return true;
        }
        let routes = self.routes();
        if !self.stale.load(Ordering::Acquire) {
            return true;
        }
        let mut table = fixed_routes();
        for (gsi, entry) in (IOAPIC_PINS..).zip(routes.iter()) {
            let Some(Entry { message, .. }) = entry.as_ref().filter(|e| reaches_apic(e.message))
            else {
                continue;
            };
            let (address_lo, address_hi) = halves(message.address);
            let mut entry = kvm_irq_routing_entry {
                gsi,
                type_: KVM_IRQ_ROUTING_MSI,
                ..Default::default()
            };
            entry.u.msi = kvm_irq_routing_msi {
                address_lo,
                address_hi,
                data: message.data,
                ..Default::default()
            };
            table.push(entry);
        }
        match set_routes(&self.vm.fd(), &table) {
            Ok(()) => {
                self.stale.store(false, Ordering::Release);
                true
            }
            Err(error) => {
                tracing::debug!("{error}");
                false
            }
        }
    }
}

impl MsiSink for Sink {
    fn send(&self, message: MsiMessage) {
        self.0.send(message);
    }

    fn route(&self, message: MsiMessage) -> Option<Box<dyn MsiRoute>> {
        let messages = &self.0;
        let mut routes = messages.routes();
        let index = routes
            .iter()
            .position(Option::is_none)
            .unwrap_or(routes.len());
        if index >= messages.max_routes {
            return None;
        }
        let eventfd = Arc::new(EventFd::new(EFD_NONBLOCK).ok()?);
        messages.vm.fd().register_irqfd(&eventfd, gsi(index)).ok()?;
        let entry = Some(Entry {
            message,
            eventfd: eventfd.clone(),
        });
        match routes.get_mut(index) {
            Some(free) => *free = entry,
            None => routes.push(entry),
        }
        messages.stale.store(true, Ordering::Release);
        Some(Box::new(Route {
            messages: messages.clone(),
            index,
            eventfd,
        }))
    }
}

impl MsiRoute for Route {
    fn trigger(&self) {
        if self.messages.commit() && self.eventfd.write(1).is_ok() {
            return;
        }
        let message = match self.messages.routes().get(self.index) {
            Some(Some(entry)) => entry.message,
            _ => return,
        };
        self.messages.send(message);
    }

    fn update(&self, message: MsiMessage) -> io::Result<()> {
        let mut routes = self.messages.routes();
        if let Some(Some(entry)) = routes.get_mut(self.index)
            && entry.message != message
        {
            entry.message = message;
            self.messages.stale.store(true, Ordering::Release);
        }
        Ok(())
    }
}

impl Drop for Route {
    /// The table keeps the dead route until the next change: nobody can trigger it.
    fn drop(&mut self) {
        let mut routes = self.messages.routes();
        if let Err(error) = self
            .messages
            .vm
            .fd()
            .unregister_irqfd(&self.eventfd, gsi(self.index))
        {
            tracing::debug!("KVM_IRQFD: {error}");
        }
        if let Some(entry) = routes.get_mut(self.index) {
            *entry = None;
        }
    }
}

fn gsi(index: usize) -> u32 {
    u32::try_from(index).map_or(u32::MAX, |index| index.saturating_add(IOAPIC_PINS))
}

fn halves(address: u64) -> (u32, u32) {
    (address as u32, (address >> 32) as u32)
}

/// Whether the store goes to a local APIC (Intel SDM vol. 3 §11.11.1); KVM would deliver any.
fn reaches_apic(message: MsiMessage) -> bool {
    message.address & !0xf_ffff == LAPIC
}
