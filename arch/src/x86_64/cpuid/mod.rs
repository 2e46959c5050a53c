//! CPUID: from what the hypervisor supports to what each vCPU of the guest sees.
//!
//! Everything starts from the host's own answer, so nothing is a constant of one vendor: features are taken away or
//! checked by name ([`features`]), [`model`] reads `-cpu`, and `topology` rewrites the leaves that say which CPU this is
//! and what it shares with others.

pub mod features;
pub mod model;
mod topology;

use features::Feature;
pub use model::Model;

use super::topology::Topology;
use crate::{Error, Kind};

/// One CPUID answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuidEntry {
    /// Leaf (EAX).
    pub function: u32,
    /// Subleaf (ECX).
    pub index: u32,
    /// KVM_CPUID_FLAG_*; bit 0: `index` is significant.
    pub flags: u32,
    /// EAX.
    pub eax: u32,
    /// EBX.
    pub ebx: u32,
    /// ECX.
    pub ecx: u32,
    /// EDX.
    pub edx: u32,
}

/// [`CpuidEntry::flags`]: the subleaf matters.
pub const SIGNIFICANT_INDEX: u32 = 1;

/// What the hypervisor can give a guest.
#[derive(Clone, Copy, Debug)]
pub struct Supported<'a> {
    /// KVM_GET_SUPPORTED_CPUID's answer.
    pub entries: &'a [CpuidEntry],
    /// KVM_CAP_TSC_DEADLINE_TIMER with an in-kernel local APIC, which the answer does not mention.
    pub tsc_deadline: bool,
    /// KVM_CAP_X2APIC_API was enabled with 32-bit ids, so that MSIs can name APIC ids above 254.
    pub ext_dest_id: bool,
}

/// The CPUs of a machine.
#[derive(Clone, Debug)]
pub struct Cpus {
    entries: Vec<CpuidEntry>,
    topology: Topology,
    phys_bits: u8,
}

const LEAF_VENDOR: u32 = 0;
const LEAF_FEATURES: u32 = 1;
const LEAF_THERMAL: u32 = 6;
const LEAF_PMU: u32 = 0xa;
const LEAF_XSAVE: u32 = 0xd;
const LEAF_KVM: u32 = 0x4000_0000;
const LEAF_KVM_FEATURES: u32 = 0x4000_0001;
const LEAF_ADDRESS: u32 = 0x8000_0008;
const LEAF_SVM: u32 = 0x8000_000a;
const LEAF_AMD_PMU: u32 = 0x8000_0022;

impl Cpus {
    /// The CPUs that `model` asks for, arranged as `topology`, out of what is supported.
    ///
    /// # Errors
    /// [`Kind::Cpu`]: a feature that was asked for is not supported, or needs one that was taken away; more physical
    /// address bits than the host has.
    pub fn new(
        supported: &Supported<'_>,
        model: &Model,
        topology: Topology,
    ) -> Result<Self, Error> {
        let mut entries = supported.entries.to_vec();
        complete(&mut entries, supported, topology);
        for &(feature, on) in &model.features {
            if on && !feature.is_set(&entries) {
                return Err(Error::new(
                    Kind::Cpu,
                    format!(
                        "the feature '{}' is not supported by this host's KVM",
                        feature.name()
                    ),
                ));
            }
        }
        for &(feature, _) in model.features.iter().filter(|(_, on)| !on) {
            feature.clear(&mut entries);
        }
        if let Some((feature, _)) = model
            .features
            .iter()
            .find(|(f, on)| *on && !f.is_set(&entries))
        {
            return Err(Error::new(
                Kind::Cpu,
                format!(
                    "the feature '{}' needs one that was turned off",
                    feature.name()
                ),
            ));
        }
        if !model.kvm {
            entries.retain(|e| !(LEAF_KVM..LEAF_KVM + 0x100).contains(&e.function));
        }
        if !model.pmu {
            entries.retain(|e| e.function != LEAF_PMU && e.function != LEAF_AMD_PMU);
            for name in ["perfctr-core", "perfctr-nb", "pdcm"] {
                Feature::named(name)
                    .iter()
                    .for_each(|f| f.clear(&mut entries));
            }
        }
        let phys_bits = phys_bits(&mut entries, model.phys_bits)?;
        drop_orphans(&mut entries);
        topology::arrange(&mut entries, &topology);
        entries.sort_by_key(|e| (e.function, e.index));
        Ok(Self {
            entries,
            topology,
            phys_bits,
        })
    }

    /// The answers for CPU `index` (0 to the number of CPUs - 1).
    pub fn entries(&self, index: u32) -> Vec<CpuidEntry> {
        let mut entries = self.entries.clone();
        topology::identify(&mut entries, &self.topology, index);
        entries
    }

    /// Physical address bits of the guest's CPUs.
    pub fn phys_bits(&self) -> u8 {
        self.phys_bits
    }
}

/// Physical address bits that a host's guests can have at most.
fn host_phys_bits(entries: &[CpuidEntry]) -> u8 {
    match leaf(entries, LEAF_ADDRESS).map(|e| e.eax as u8) {
        None | Some(0) => 36,
        Some(bits) => bits,
    }
}

fn leaf(entries: &[CpuidEntry], function: u32) -> Option<&CpuidEntry> {
    entries
        .iter()
        .find(|e| e.function == function && e.index == 0)
}

/// The entry of a leaf, made if it is missing.
fn leaf_mut(entries: &mut Vec<CpuidEntry>, function: u32) -> Option<&mut CpuidEntry> {
    if leaf(entries, function).is_none() {
        entries.push(CpuidEntry {
            function,
            ..CpuidEntry::default()
        });
    }
    entries
        .iter_mut()
        .find(|e| e.function == function && e.index == 0)
}

/// AMD's leaves and meanings (Hygon's are AMD's).
fn is_amd(entries: &[CpuidEntry]) -> bool {
    let vendor = leaf(entries, LEAF_VENDOR).map(|e| [e.ebx, e.edx, e.ecx].map(u32::to_le_bytes));
    vendor.is_some_and(|v| matches!(v.as_flattened(), b"AuthenticAMD" | b"HygonGenuine"))
}

/// Adds what KVM's answer leaves out although it can be given, and removes what mirrors the host's state.
fn complete(entries: &mut Vec<CpuidEntry>, supported: &Supported<'_>, topology: Topology) {
    const HYPERVISOR: u32 = 1 << 31;
    const TSC_DEADLINE: u32 = 1 << 24;
    const OSXSAVE: u32 = 1 << 27;
    const ARAT: u32 = 1 << 2;
    const OSPKE: u32 = 1 << 4;
    const MSI_EXT_DEST_ID: u32 = 1 << 15;
    if let Some(features) = leaf_mut(entries, LEAF_FEATURES) {
        features.ecx |= HYPERVISOR
            | if supported.tsc_deadline {
                TSC_DEADLINE
            } else {
                0
            };
        features.ecx &= !OSXSAVE;
    }
    if let Some(thermal) = leaf_mut(entries, LEAF_THERMAL) {
        thermal.eax |= ARAT;
    }
    for entry in entries
        .iter_mut()
        .filter(|e| e.function == 7 && e.index == 0)
    {
        entry.ecx &= !OSPKE;
    }
    let wide = topology.apic_ids().any(|id| id > 254);
    for entry in entries
        .iter_mut()
        .filter(|e| e.function == LEAF_KVM_FEATURES)
    {
        if supported.ext_dest_id && wide {
            entry.eax |= MSI_EXT_DEST_ID;
        }
    }
}

/// Takes away leaves that describe a feature which is gone.
fn drop_orphans(entries: &mut Vec<CpuidEntry>) {
    let has = |entries: &[CpuidEntry], name| Feature::named(name).iter().any(|f| f.is_set(entries));
    let (xsave, svm) = (has(entries, "xsave"), has(entries, "svm"));
    entries.retain(|e| match e.function {
        LEAF_XSAVE => xsave,
        LEAF_SVM => svm,
        _ => true,
    });
}

/// Sets the address width and returns it.
fn phys_bits(entries: &mut Vec<CpuidEntry>, wanted: Option<u8>) -> Result<u8, Error> {
    let host = host_phys_bits(entries);
    let bits = wanted.unwrap_or(host);
    if bits > host {
        return Err(Error::new(
            Kind::Cpu,
            format!("phys-bits: {bits} is more than this host's {host}"),
        ));
    }
    if wanted.is_some()
        && let Some(address) = leaf_mut(entries, LEAF_ADDRESS)
    {
        address.eax = address.eax & !0xff | u32::from(bits);
    }
    Ok(bits)
}

#[cfg(test)]
mod tests;
