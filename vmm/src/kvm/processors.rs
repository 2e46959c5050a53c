//! What the processors are: `-cpu` and `-smp` out of what KVM supports.

use arch::x86_64::cpuid::{CpuidEntry, Cpus, Model, Supported};
use arch::x86_64::msr;
use arch::x86_64::topology::Topology;
use kvm_bindings::{CpuId, kvm_cpuid_entry2};

use super::host::{Host, refused};
use super::vcpu::Processor;
use crate::error::Error;

/// The first APIC id that the messages of devices and the in-kernel IOAPIC cannot name.
const APIC_IDS: u32 = 255;

/// The processors of a machine that is yet to be made.
#[derive(Clone, Debug)]
pub struct Processors {
    cpus: Cpus,
    topology: Topology,
}

impl Processors {
    /// Processors of `model`, arranged as `topology`.
    ///
    /// # Errors
    /// More of them than KVM or its interrupt controllers serve; features that the host does not have.
    pub fn new(host: &Host, model: &Model, topology: Topology) -> Result<Processors, Error> {
        let too_many = |most: usize| {
            let count = topology.cpus();
            Error::user(format!(
                "-smp: {count} processors are too many: {most} at most here"
            ))
        };
        let most = host.max_vcpus();
        if topology.cpus() as usize > most {
            return Err(too_many(most));
        }
        if topology.apic_ids().any(|id| id >= APIC_IDS) {
            return Err(too_many(APIC_IDS as usize));
        }
        let supported: Vec<CpuidEntry> = host
            .supported_cpuid()?
            .as_slice()
            .iter()
            .map(|entry| CpuidEntry {
                function: entry.function,
                index: entry.index,
                flags: entry.flags,
                eax: entry.eax,
                ebx: entry.ebx,
                ecx: entry.ecx,
                edx: entry.edx,
            })
            .collect();
        let supported = Supported {
            entries: &supported,
            tsc_deadline: host.has_tsc_deadline(),
            ext_dest_id: false,
        };
        let cpus = Cpus::new(&supported, model, topology)
            .map_err(|error| Error::user("-cpu").because(error))?;
        Ok(Processors { cpus, topology })
    }

    /// Their physical address bits.
    pub fn phys_bits(&self) -> u8 {
        self.cpus.phys_bits()
    }

    /// Each of them.
    ///
    /// # Errors
    /// KVM's supported answers are more than it takes.
    pub fn list(&self) -> Result<Vec<Processor>, Error> {
        let msrs = msr::initial(self.cpus.phys_bits());
        (0..)
            .zip(self.topology.apic_ids())
            .map(|(index, apic_id)| {
                let entries: Vec<kvm_cpuid_entry2> = self
                    .cpus
                    .entries(index)
                    .into_iter()
                    .map(|entry| kvm_cpuid_entry2 {
                        function: entry.function,
                        index: entry.index,
                        flags: entry.flags,
                        eax: entry.eax,
                        ebx: entry.ebx,
                        ecx: entry.ecx,
                        edx: entry.edx,
                        ..Default::default()
                    })
                    .collect();
                let cpuid = CpuId::from_entries(&entries).map_err(|error| {
                    refused(format!("{} CPUID leaves: {error:?}", entries.len()))
                })?;
                Ok(Processor {
                    apic_id,
                    cpuid,
                    msrs: msrs.clone(),
                })
            })
            .collect()
    }
}
