//! `/dev/kvm`: whether it is there, and does what is needed.

use std::arch::x86_64::__cpuid;

use kvm_bindings::{CpuId, KVM_API_VERSION, KVM_MAX_CPUID_ENTRIES};
use kvm_ioctls::{Cap, Kvm, VmFd};

use crate::error::Error;

/// What every machine here is built from, and the name of each for whoever lacks it.
const NEEDED: [(Cap, &str); 12] = [
    (Cap::UserMemory, "KVM_CAP_USER_MEMORY"),
    (Cap::SetTssAddr, "KVM_CAP_SET_TSS_ADDR"),
    (Cap::SetIdentityMapAddr, "KVM_CAP_SET_IDENTITY_MAP_ADDR"),
    (Cap::Irqchip, "KVM_CAP_IRQCHIP"),
    (Cap::Pit2, "KVM_CAP_PIT2"),
    (Cap::IrqRouting, "KVM_CAP_IRQ_ROUTING"),
    (Cap::Irqfd, "KVM_CAP_IRQFD"),
    (Cap::SignalMsi, "KVM_CAP_SIGNAL_MSI"),
    (Cap::Ioeventfd, "KVM_CAP_IOEVENTFD"),
    (Cap::ExtCpuid, "KVM_CAP_EXT_CPUID"),
    (Cap::MpState, "KVM_CAP_MP_STATE"),
    (Cap::ImmediateExit, "KVM_CAP_IMMEDIATE_EXIT"),
];

/// What to do where there is no hardware to use.
const ELSEWHERE: &str = "`cargo demo` runs a guest in an emulated KVM host";

/// An open `/dev/kvm` that has all that is needed.
#[derive(Debug)]
pub struct Host {
    kvm: Kvm,
}

impl Host {
    /// Opens and checks `/dev/kvm`.
    ///
    /// # Errors
    /// One sentence that says what is wrong and what to do about it.
    pub fn open() -> Result<Host, Error> {
        let kvm = Kvm::new().map_err(|error| unusable(error.errno(), has_virtualization()))?;
        is_kvm(kvm.get_api_version())?;
        let missing: Vec<&str> = NEEDED
            .iter()
            .filter(|(cap, _)| !kvm.check_extension(*cap))
            .map(|(_, name)| *name)
            .collect();
        if !missing.is_empty() {
            return Err(refused(format!(
                "this kernel's KVM lacks {}: Linux 5.10 or newer with kvm_intel or kvm_amd has it all; {ELSEWHERE}",
                missing.join(", ")
            )));
        }
        Ok(Host { kvm })
    }

    /// Warns where KVM is software alone. For when a guest is about to run: a start that fails says one
    /// line, and not this.
    pub fn warn_if_slow() {
        if !has_virtualization() {
            tracing::warn!(
                "KVM runs here without hardware virtualization: an ordinary Linux kernel will hardly boot; {ELSEWHERE}"
            );
        }
    }

    /// What KVM can show guests in CPUID.
    pub(super) fn supported_cpuid(&self) -> Result<CpuId, Error> {
        self.kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(|error| refused("KVM_GET_SUPPORTED_CPUID").because(error))
    }

    /// Whether local APICs have the TSC deadline timer, which CPUID does not tell.
    pub(super) fn has_tsc_deadline(&self) -> bool {
        self.kvm.check_extension(Cap::TscDeadlineTimer)
    }

    /// How many processors a machine may have.
    pub(super) fn max_vcpus(&self) -> usize {
        self.kvm.get_max_vcpus().min(self.kvm.get_max_vcpu_id())
    }

    /// How many GSIs a routing table may name.
    pub(super) fn max_gsis(&self) -> u32 {
        u32::try_from(self.kvm.check_extension_int(Cap::IrqRouting)).unwrap_or(0)
    }

    /// A KVM machine with nothing in it.
    pub(super) fn create(&self) -> Result<VmFd, Error> {
        // EINTR: the kernel gives up waiting for memory when a signal is pending.
        let fd = loop {
            match self.kvm.create_vm() {
                Err(error) if error.errno() == libc::EINTR => {}
                other => break other,
            }
        };
        fd.map_err(|error| match error.errno() {
            libc::EBUSY => refused(
                "another hypervisor (VirtualBox, VMware) holds the processor's virtualization: end it",
            ),
            _ => refused("cannot create a virtual machine").because(error),
        })
    }
}

/// An error about `/dev/kvm`.
pub(super) fn refused(reason: impl std::fmt::Display) -> Error {
    Error::user(format!("-accel kvm: {reason}"))
}

/// Whether what was opened speaks KVM's one stable interface, by its answer to KVM_GET_API_VERSION.
fn is_kvm(version: i32) -> Result<(), Error> {
    match version {
        _ if version == KVM_API_VERSION as i32 => Ok(()),
        // The ioctl failed: any other file.
        ..0 => Err(refused(
            "/dev/kvm is something else: load the host's module (`sudo modprobe kvm_intel` or `kvm_amd`); \
             in a container, pass --device /dev/kvm",
        )),
        _ => Err(refused(format!(
            "its interface has version {version}, not {KVM_API_VERSION}: update the host's kernel"
        ))),
    }
}

/// The sentence for a `/dev/kvm` that does not open.
fn unusable(errno: i32, has_virtualization: bool) -> Error {
    let reason = std::io::Error::from_raw_os_error(errno);
    match errno {
        libc::ENOENT if has_virtualization => refused(
            "/dev/kvm does not exist: load the host's module (`sudo modprobe kvm_intel` or `kvm_amd`); \
             in a container, pass --device /dev/kvm",
        ),
        libc::ENOENT => refused(format!(
            "/dev/kvm does not exist and this processor shows no virtualization (vmx, svm): \
             enable it in the firmware, or nested virtualization in the hypervisor below; {ELSEWHERE}"
        )),
        libc::EACCES | libc::EPERM => refused(
            "no permission to open /dev/kvm: run as a user in its group \
             (`sudo usermod -aG kvm $USER`, then log in again)",
        ),
        libc::ENODEV | libc::ENXIO => refused(format!(
            "/dev/kvm has no driver behind it: load the host's module \
             (`sudo modprobe kvm_intel` or `kvm_amd`); {ELSEWHERE}"
        )),
        _ => refused("cannot open /dev/kvm").because(reason),
    }
}

/// Whether the processor shows VMX (Intel SDM vol. 2, CPUID leaf 1) or SVM (AMD APM vol. 3, leaf 8000_0001h).
fn has_virtualization() -> bool {
    const VMX: u32 = 1 << 5;
    const SVM: u32 = 1 << 2;
    __cpuid(1).ecx & VMX != 0
        || (__cpuid(0x8000_0000).eax > 0x8000_0000 && __cpuid(0x8000_0001).ecx & SVM != 0)
}

#[cfg(test)]
mod tests;
