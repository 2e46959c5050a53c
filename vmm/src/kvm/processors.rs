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
        check_count(topology, host.max_vcpus())?;
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

/// Whether KVM, which serves `most` processors, and its interrupt controllers can name all of `topology`.
fn check_count(topology: Topology, most: usize) -> Result<(), Error> {
    let most = most.min(APIC_IDS as usize);
    let count = topology.cpus();
    if count as usize > most {
        let what = format!("-smp: {count} processors are too many: {most} at most here");
        return Err(Error::user(what));
    }
    match topology.apic_ids().last().filter(|id| *id >= APIC_IDS) {
        None => Ok(()),
        Some(last) => Err(Error::user(format!(
            "-smp: so arranged, the last of {count} processors has APIC id {last}, and {} is the highest here; \
             powers of two for dies, cores and threads leave no gaps",
            APIC_IDS - 1
        ))),
    }
}

#[cfg(test)]
mod tests {
    use arch::x86_64::topology::Smp;

    use super::*;

    #[test]
    fn a_processor_that_no_message_reaches_is_refused() {
        let flat = |cpus| check_count(Topology::flat(cpus).unwrap(), 1024);
        assert!(flat(255).is_ok());
        let said = flat(256).unwrap_err().to_string();
        assert_eq!(said, "-smp: 256 processors are too many: 255 at most here");
        let few = check_count(Topology::flat(9).unwrap(), 8).unwrap_err();
        assert!(few.to_string().contains("8 at most"), "{few}");
        // Three sockets of 65 cores: 195 processors, and 7 bits for a core's number.
        let gaps = Topology::new(Smp {
            sockets: Some(3),
            cores: Some(65),
            ..Smp::default()
        });
        let said = check_count(gaps.unwrap(), 1024).unwrap_err().to_string();
        assert!(said.contains("has APIC id 320, and 254 is"), "{said}");
    }
}
