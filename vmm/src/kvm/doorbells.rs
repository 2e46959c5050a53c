//! Stores that become signals: ioeventfd.
//!
//! Lock order: the list, then the VM.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, IntoRawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use devices::irq::{Doorbell, Notify};
use kvm_ioctls::{IoEventAddress, NoDatamatch};
use vmm_sys_util::eventfd::EventFd;

use super::vm::Vm;
use crate::error::Error;

/// The doorbells of one machine. What is attached stays so when the guest resets.
#[derive(Debug)]
pub struct Doorbells {
    vm: Arc<Vm>,
    attached: Mutex<Vec<(Doorbell, EventFd)>>,
}

impl Doorbells {
    pub(super) fn new(vm: Arc<Vm>) -> Doorbells {
        Doorbells {
            vm,
            attached: Mutex::default(),
        }
    }

    /// Attaches to a new machine what was attached to the old one.
    pub(super) fn renew(&self) -> Result<(), Error> {
        let vm = self.vm.fd();
        for (at, eventfd) in self.attached().iter() {
            vm.register_ioevent(eventfd, &address(*at), NoDatamatch)
                .map_err(|error| Error::host("KVM_IOEVENTFD").because(error))?;
        }
        Ok(())
    }

    fn attached(&self) -> MutexGuard<'_, Vec<(Doorbell, EventFd)>> {
        self.attached.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Notify for Doorbells {
    fn attach(&self, at: Doorbell, eventfd: BorrowedFd<'_>) -> io::Result<()> {
        let mut attached = self.attached();
        let fd = eventfd.as_fd().try_clone_to_owned()?;
        // SAFETY: the descriptor is open and was made for this value alone.
        let eventfd = unsafe { EventFd::from_raw_fd(fd.into_raw_fd()) };
        // Without a datamatch the length is 0 for KVM: stores of any width.
        self.vm
            .fd()
            .register_ioevent(&eventfd, &address(at), NoDatamatch)?;
        attached.push((at, eventfd));
        Ok(())
    }

    fn detach(&self, at: Doorbell, _: BorrowedFd<'_>) {
        let mut attached = self.attached();
        // A register has one doorbell: KVM refuses a second.
        let Some(index) = attached.iter().position(|(taken, _)| *taken == at) else {
            return;
        };
        let (_, eventfd) = attached.swap_remove(index);
        if let Err(error) = self
            .vm
            .fd()
            .unregister_ioevent(&eventfd, &address(at), NoDatamatch)
        {
            tracing::debug!("KVM_IOEVENTFD: {error}");
        }
    }
}

fn address(at: Doorbell) -> IoEventAddress {
    match at {
        Doorbell::Mmio(address) => IoEventAddress::Mmio(address),
        Doorbell::Pio(port) => IoEventAddress::Pio(port.into()),
    }
}
