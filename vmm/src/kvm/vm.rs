//! Guest RAM and the in-kernel interrupt controllers; made anew when the guest resets.

use std::sync::{Arc, PoisonError, RwLock};

use arch::x86_64::interrupts::{self, Input};
use arch::x86_64::layout;
use devices::memory::GuestRam;
use kvm_bindings::{
    KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE,
    KVM_PIT_SPEAKER_DUMMY, KvmIrqRouting, kvm_irq_routing_entry, kvm_irq_routing_irqchip,
    kvm_pit_config, kvm_userspace_memory_region,
};
use kvm_ioctls::VmFd;
use vm_memory::{Address, GuestMemoryBackend, GuestMemoryRegion};

use super::host::{Host, refused};
use crate::error::Error;

/// A KVM machine: RAM, 8259s, IOAPIC, local APICs and the 8254.
#[derive(Debug)]
pub struct Vm {
    host: Host,
    ram: GuestRam,
    current: RwLock<Arc<VmFd>>,
}

impl Vm {
    /// A machine with `ram` in it and no processor.
    ///
    /// # Errors
    /// What KVM refused.
    pub fn new(host: Host, ram: GuestRam) -> Result<Vm, Error> {
        let current = RwLock::new(Arc::new(assemble(&host, &ram)?));
        Ok(Vm { host, ram, current })
    }

    /// Puts a new machine in the place of the old one, whose processors no longer run.
    pub(super) fn renew(&self) -> Result<(), Error> {
        let new = Arc::new(assemble(&self.host, &self.ram)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }

    /// The machine of this moment.
    pub(super) fn fd(&self) -> Arc<VmFd> {
        self.current
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The host it runs on.
    pub fn host(&self) -> &Host {
        &self.host
    }
}

fn assemble(host: &Host, ram: &GuestRam) -> Result<VmFd, Error> {
    let fd = host.create()?;
    // Both are used by Intel processors without unrestricted guest mode, and cost nothing elsewhere.
    fd.set_identity_map_address(layout::KVM_IDENTITY_MAP)
        .map_err(|error| refused("KVM_SET_IDENTITY_MAP_ADDR").because(error))?;
    fd.set_tss_address(layout::KVM_TSS as usize)
        .map_err(|error| refused("KVM_SET_TSS_ADDR").because(error))?;
    // Before there is any device: a change of memory waits for a grace period, which KVM hurries on, but
    // not one that a new device on its buses has begun (6.18), and then it takes milliseconds.
    give(&fd, ram)?;
    fd.create_irq_chip()
        .map_err(|error| refused("KVM_CREATE_IRQCHIP").because(error))?;
    fd.create_pit2(kvm_pit_config {
        flags: KVM_PIT_SPEAKER_DUMMY,
        ..Default::default()
    })
    .map_err(|error| refused("KVM_CREATE_PIT2").because(error))?;
    set_routes(&fd, &fixed_routes())?;
    Ok(fd)
}

fn give(fd: &VmFd, ram: &GuestRam) -> Result<(), Error> {
    for (slot, region) in (0..).zip(ram.iter()) {
        let slot = kvm_userspace_memory_region {
            slot,
            flags: 0,
            guest_phys_addr: region.start_addr().raw_value(),
            memory_size: region.len(),
            userspace_addr: region.as_ptr() as u64,
        };
        // SAFETY: the slot is a region of `ram`, of its very address and size. The guest can reach its
        // bytes as long as a processor runs, and `Vm` holds the region longer than the machine. Rust
        // sees guest RAM through volatile accesses alone.
        unsafe { fd.set_user_memory_region(slot) }
            .map_err(|error| refused("KVM_SET_USER_MEMORY_REGION").because(error))?;
    }
    Ok(())
}

/// The routes of the interrupt controllers' own pins.
pub(super) fn fixed_routes() -> Vec<kvm_irq_routing_entry> {
    interrupts::routes()
        .into_iter()
        .map(|(gsi, input)| {
            let (irqchip, pin) = match input {
                Input::PicPrimary(pin) => (KVM_IRQCHIP_PIC_MASTER, pin),
                Input::PicSecondary(pin) => (KVM_IRQCHIP_PIC_SLAVE, pin),
                Input::IoApic(pin) => (KVM_IRQCHIP_IOAPIC, pin),
            };
            let mut entry = kvm_irq_routing_entry {
                gsi,
                type_: KVM_IRQ_ROUTING_IRQCHIP,
                ..Default::default()
            };
            entry.u.irqchip = kvm_irq_routing_irqchip { irqchip, pin };
            entry
        })
        .collect()
}

/// Replaces the whole routing table.
pub(super) fn set_routes(fd: &VmFd, routes: &[kvm_irq_routing_entry]) -> Result<(), Error> {
    let table = KvmIrqRouting::from_entries(routes)
        .map_err(|error| refused(format!("{} interrupt routes: {error:?}", routes.len())))?;
    fd.set_gsi_routing(&table)
        .map_err(|error| refused("KVM_SET_GSI_ROUTING").because(error))
}
