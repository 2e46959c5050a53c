//! One processor: its state, and what its exits ask for.

use arch::x86_64::msr::Msr;
use arch::x86_64::regs::{SpecialRegs, VcpuState};
use devices::bus::{Action, Bus};
use kvm_bindings::{
    CpuId, KVM_SYSTEM_EVENT_CRASH, KVM_SYSTEM_EVENT_RESET, KVM_SYSTEM_EVENT_SHUTDOWN, Msrs,
    kvm_dtable, kvm_msr_entry, kvm_regs, kvm_segment, kvm_sregs,
};
use kvm_ioctls::{VcpuExit, VcpuFd};

use super::exit::{internal_error, port_access};
use super::host::refused;
use super::vm::Vm;
use crate::error::Error;

/// What a processor is, whatever it runs.
#[derive(Clone, Debug)]
pub struct Processor {
    /// Its APIC id, by which KVM names it too.
    pub apic_id: u32,
    /// What it says of itself.
    pub cpuid: CpuId,
    /// What firmware would have set; one that KVM refuses is left out.
    pub msrs: Vec<Msr>,
}

/// The address spaces that exits are answered from.
#[derive(Clone, Copy)]
pub(super) struct Spaces<'a> {
    pub(super) memory: &'a Bus,
    pub(super) ports: &'a Bus,
}

/// Why a processor has left the guest.
#[derive(Debug)]
pub enum Stop {
    /// The guest asked the machine for something ([`Action::None`] and [`Action::Wait`] are done already).
    Asked(Action),
    /// The guest did what no processor survives.
    Crashed(String),
    /// KVM failed.
    Failed(Error),
}

/// A processor.
#[derive(Debug)]
pub(super) struct Vcpu {
    fd: VcpuFd,
}

impl Vcpu {
    /// A processor of `vm` as after power-on: the first one at the reset vector, others waiting for
    /// their start-up message. KVM has put it into that state; here is what it cannot know.
    pub(super) fn new(vm: &Vm, processor: &Processor) -> Result<Vcpu, Error> {
        let fd = vm
            .fd()
            .create_vcpu(processor.apic_id.into())
            .map_err(|error| refused("KVM_CREATE_VCPU").because(error))?;
        fd.set_cpuid2(&processor.cpuid)
            .map_err(|error| refused("KVM_SET_CPUID2").because(error))?;
        let vcpu = Vcpu { fd };
        vcpu.set_msrs(&processor.msrs)?;
        vcpu.connect_lapic(processor.apic_id == 0)?;
        Ok(vcpu)
    }

    /// Where the first processor begins instead of at the reset vector.
    pub(super) fn enter(&self, state: &VcpuState) -> Result<(), Error> {
        let sregs = self
            .fd
            .get_sregs()
            .map_err(|error| refused("KVM_GET_SREGS").because(error))?;
        self.fd
            .set_sregs(&special_registers(sregs, &state.sregs))
            .map_err(|error| refused("KVM_SET_SREGS").because(error))?;
        let r = &state.regs;
        self.fd
            .set_regs(&kvm_regs {
                rax: r.rax,
                rbx: r.rbx,
                rcx: r.rcx,
                rdx: r.rdx,
                rsi: r.rsi,
                rdi: r.rdi,
                rsp: r.rsp,
                rbp: r.rbp,
                r8: r.r8,
                r9: r.r9,
                r10: r.r10,
                r11: r.r11,
                r12: r.r12,
                r13: r.r13,
                r14: r.r14,
                r15: r.r15,
                rip: r.rip,
                rflags: r.rflags,
            })
            .map_err(|error| refused("KVM_SET_REGS").because(error))
    }

    /// `KVM_SET_MSRS` stops at the first register that it refuses: go on behind that one.
    fn set_msrs(&self, msrs: &[Msr]) -> Result<(), Error> {
        let mut rest = msrs;
        while !rest.is_empty() {
            let entries: Vec<kvm_msr_entry> = rest
                .iter()
                .map(|msr| kvm_msr_entry {
                    index: msr.index,
                    data: msr.value,
                    ..Default::default()
                })
                .collect();
            let list = Msrs::from_entries(&entries)
                .map_err(|error| refused(format!("{} MSRs: {error:?}", entries.len())))?;
            let set = self
                .fd
                .set_msrs(&list)
                .map_err(|error| refused("KVM_SET_MSRS").because(error))?;
            let Some([refused, behind @ ..]) = rest.get(set..) else {
                break;
            };
            tracing::debug!(
                "KVM refuses {:#x} in MSR {:#x}",
                refused.value,
                refused.index
            );
            rest = behind;
        }
        Ok(())
    }

    /// Virtual wire mode (MultiProcessor Specification 1.4 §3.6.2.2): LINT0 carries the 8259s to the
    /// first processor, LINT1 the NMI to all.
    fn connect_lapic(&self, is_first: bool) -> Result<(), Error> {
        const LVT_LINT0: usize = 0x350;
        const LVT_LINT1: usize = 0x360;
        const NMI: u32 = 4 << 8;
        const EXT_INT: u32 = 7 << 8;
        let mut lapic = self
            .fd
            .get_lapic()
            .map_err(|error| refused("KVM_GET_LAPIC").because(error))?;
        let mut set = |register: usize, value: u32| {
            for (to, from) in lapic.regs[register..].iter_mut().zip(value.to_le_bytes()) {
                *to = from.cast_signed();
            }
        };
        if is_first {
            set(LVT_LINT0, EXT_INT);
        }
        set(LVT_LINT1, NMI);
        self.fd
            .set_lapic(&lapic)
            .map_err(|error| refused("KVM_SET_LAPIC").because(error))
    }

    /// The flag on the run page that makes the next `KVM_RUN` return at once.
    pub(super) fn immediate_exit(&mut self) -> *mut u8 {
        &raw mut self.fd.get_kvm_run().immediate_exit
    }

    /// Takes that flag back.
    pub(super) fn clear_immediate_exit(&mut self) {
        self.fd.set_kvm_immediate_exit(0);
    }

    /// Runs until a signal comes (`None`) or there is a reason to stop.
    pub(super) fn run(&mut self, spaces: Spaces<'_>) -> Option<Stop> {
        loop {
            let action = match self.fd.run() {
                Ok(VcpuExit::IoIn(..) | VcpuExit::IoOut(..)) => self.access_ports(spaces.ports),
                Ok(VcpuExit::MmioRead(address, data)) => {
                    load(spaces.memory, address, data);
                    Action::None
                }
                Ok(VcpuExit::MmioWrite(address, data)) => store(spaces.memory, address, data),
                Ok(VcpuExit::SystemEvent(KVM_SYSTEM_EVENT_SHUTDOWN, _)) => Action::Shutdown,
                Ok(VcpuExit::SystemEvent(KVM_SYSTEM_EVENT_RESET, _)) => Action::Reset,
                Ok(VcpuExit::SystemEvent(KVM_SYSTEM_EVENT_CRASH, _)) => Action::GuestPanicked,
                Ok(VcpuExit::Shutdown) => return Some(self.crashed("triple fault".into())),
                Ok(VcpuExit::InternalError) => {
                    let reason = internal_error(self.fd.get_kvm_run());
                    return Some(self.crashed(reason));
                }
                Ok(VcpuExit::FailEntry(reason, _)) => {
                    let reason =
                        format!("the processor refuses the guest's state (reason {reason:#x})");
                    return Some(self.crashed(reason));
                }
                Ok(VcpuExit::Intr) => return None,
                Ok(other) => {
                    let reason = format!("KVM_RUN: unexpected exit {other:?}");
                    return Some(Stop::Failed(Error::host(reason)));
                }
                Err(error) if error.errno() == libc::EINTR => return None,
                // The processor has just been started by another: there is something to run now.
                Err(error) if error.errno() == libc::EAGAIN => Action::None,
                Err(error) => return Some(Stop::Failed(Error::host("KVM_RUN").because(error))),
            };
            match action {
                Action::None => {}
                Action::Wait(ticket) => ticket.wait(),
                action => return Some(Stop::Asked(action)),
            }
        }
    }

    fn access_ports(&mut self, ports: &Bus) -> Action {
        let access = port_access(self.fd.get_kvm_run());
        let port = u64::from(access.port);
        let mut result = Action::None;
        for item in access
            .data
            .chunks_exact_mut(usize::from(access.size).max(1))
        {
            if access.is_in {
                load(ports, port, item);
                continue;
            }
            match store(ports, port, item) {
                Action::None => {}
                Action::Wait(ticket) => ticket.wait(),
                action => result = action,
            }
        }
        result
    }

    fn crashed(&self, reason: String) -> Stop {
        match self.fd.get_regs() {
            Ok(regs) => {
                tracing::debug!("{regs:x?}");
                Stop::Crashed(format!("{reason} at rip {:#x}", regs.rip))
            }
            Err(_) => Stop::Crashed(reason),
        }
    }
}

/// A load of up to 8 bytes. KVM splits what crosses a page, so any length comes; registers are asked
/// for in naturally sized pieces.
fn load(bus: &Bus, mut address: u64, mut data: &mut [u8]) {
    while !data.is_empty() {
        let size = piece(data.len());
        let (now, later) = data.split_at_mut(size.into());
        let value = bus.read(address, size).to_le_bytes();
        now.copy_from_slice(&value[..size.into()]);
        address = address.wrapping_add(size.into());
        data = later;
    }
}

/// A store of up to 8 bytes, as [`load`].
fn store(bus: &Bus, mut address: u64, mut data: &[u8]) -> Action {
    let mut result = Action::None;
    while !data.is_empty() {
        let size = piece(data.len());
        let (now, later) = data.split_at(size.into());
        let mut value = [0; 8];
        value[..size.into()].copy_from_slice(now);
        match bus.write(address, size, u64::from_le_bytes(value)) {
            Action::None => {}
            action => result = action,
        }
        address = address.wrapping_add(size.into());
        data = later;
    }
    result
}

/// The largest register that `len` bytes, at least one, can hold.
fn piece(len: usize) -> u8 {
    match len {
        8.. => 8,
        4..8 => 4,
        2..4 => 2,
        _ => 1,
    }
}

/// `state` laid over what a processor has; the APIC base and pending interrupts stay.
fn special_registers(old: kvm_sregs, state: &SpecialRegs) -> kvm_sregs {
    let segment = |s: arch::x86_64::gdt::Segment| kvm_segment {
        base: s.base,
        limit: s.limit,
        selector: s.selector,
        type_: s.type_,
        present: s.present.into(),
        dpl: s.dpl,
        db: s.db.into(),
        s: s.s.into(),
        l: s.l.into(),
        g: s.g.into(),
        avl: s.avl.into(),
        unusable: s.unusable.into(),
        padding: 0,
    };
    let table = |t: arch::x86_64::gdt::Table| kvm_dtable {
        base: t.base,
        limit: t.limit,
        padding: [0; 3],
    };
    kvm_sregs {
        cs: segment(state.cs),
        ds: segment(state.ds),
        es: segment(state.es),
        fs: segment(state.fs),
        gs: segment(state.gs),
        ss: segment(state.ss),
        tr: segment(state.tr),
        ldt: segment(state.ldt),
        gdt: table(state.gdt),
        idt: table(state.idt),
        cr0: state.cr0,
        cr2: state.cr2,
        cr3: state.cr3,
        cr4: state.cr4,
        cr8: state.cr8,
        efer: state.efer,
        ..old
    }
}

#[cfg(test)]
mod tests;
