//! `-smp` to sockets, dies, cores and threads, and from there to APIC ids.
//!
//! An APIC id is a bit field (Intel SDM vol. 3 §9.9.1, AMD APM vol. 3 appendix E.5): each level gets as many bits as its
//! count needs, so ids have gaps where a count is no power of two.

#[cfg(test)]
mod tests;

use crate::{Error, Kind};

/// What the user said; what is `None` follows from the rest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Smp {
    /// CPUs present at boot.
    pub cpus: Option<u32>,
    /// CPUs possible.
    pub maxcpus: Option<u32>,
    /// Sockets.
    pub sockets: Option<u32>,
    /// Dies in a socket.
    pub dies: Option<u32>,
    /// Cores in a die.
    pub cores: Option<u32>,
    /// Threads in a core.
    pub threads: Option<u32>,
}

/// The arrangement of the CPUs; every count is at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topology {
    sockets: u32,
    dies: u32,
    cores: u32,
    threads: u32,
}

/// More CPUs than KVM can be built for.
const CPUS_MAX: u32 = 4096;

impl Topology {
    /// One socket with `cpus` cores of one thread each: what `-smp N` means.
    ///
    /// # Errors
    /// As [`Topology::new`].
    pub fn flat(cpus: u32) -> Result<Self, Error> {
        Self::new(Smp {
            cpus: Some(cpus),
            ..Smp::default()
        })
    }

    /// Completes what the user said as QEMU does: what is missing is 1, except that the first missing of cores, sockets
    /// and threads takes what is needed to reach the number of CPUs.
    ///
    /// # Errors
    /// [`Kind::Topology`]: a count is zero or absurd, the product is not the number of CPUs, or more CPUs are possible than
    /// present (there is no CPU hotplug).
    pub fn new(smp: Smp) -> Result<Self, Error> {
        let wrong = |reason: String| Err(Error::new(Kind::Topology, reason));
        let named = [
            ("cpus", smp.cpus),
            ("maxcpus", smp.maxcpus),
            ("sockets", smp.sockets),
            ("dies", smp.dies),
            ("cores", smp.cores),
            ("threads", smp.threads),
        ];
        for (name, count) in named {
            match count {
                Some(0) => return wrong(format!("{name}: must be at least 1")),
                Some(n) if n > CPUS_MAX => {
                    return wrong(format!("{name}: {n} is more than {CPUS_MAX}"));
                }
                _ => {}
            }
        }
        let dies = smp.dies.unwrap_or(1);
        // Products of four counts of at most 2^12 fit 64 bits.
        let product = |parts: [u32; 4]| parts.iter().map(|&n| u64::from(n)).product::<u64>();
        let share = |of: u32, others: [u32; 4]| (u64::from(of) / product(others)).max(1) as u32;
        let (sockets, cores, threads) = match (
            smp.maxcpus.or(smp.cpus),
            smp.sockets,
            smp.cores,
            smp.threads,
        ) {
            (None, sockets, cores, threads) => (
                sockets.unwrap_or(1),
                cores.unwrap_or(1),
                threads.unwrap_or(1),
            ),
            (Some(n), sockets, None, threads) => {
                let (sockets, threads) = (sockets.unwrap_or(1), threads.unwrap_or(1));
                (sockets, share(n, [sockets, dies, threads, 1]), threads)
            }
            (Some(n), None, Some(cores), threads) => {
                let threads = threads.unwrap_or(1);
                (share(n, [dies, cores, threads, 1]), cores, threads)
            }
            (Some(n), Some(sockets), Some(cores), threads) => (
                sockets,
                cores,
                threads.unwrap_or_else(|| share(n, [sockets, dies, cores, 1])),
            ),
        };
        let total = product([sockets, dies, cores, threads]);
        let possible = smp.maxcpus.or(smp.cpus).map_or(total, u64::from);
        if total != possible {
            return wrong(format!(
                "sockets ({sockets}) * dies ({dies}) * cores ({cores}) * threads ({threads}) is {total}, not the {possible} \
                 CPUs asked for"
            ));
        }
        if total > u64::from(CPUS_MAX) {
            return wrong(format!("{total} CPUs are more than {CPUS_MAX}"));
        }
        match smp.cpus.map(u64::from) {
            Some(cpus) if cpus > total => {
                wrong(format!("cpus: {cpus} are more than maxcpus, {total}"))
            }
            Some(cpus) if cpus < total => wrong(format!(
                "maxcpus: {total} are more than cpus, {cpus}, and CPU hotplug is not in this build"
            )),
            _ => Ok(Self {
                sockets,
                dies,
                cores,
                threads,
            }),
        }
    }

    /// Number of CPUs.
    pub fn cpus(&self) -> u32 {
        self.sockets * self.package_cpus()
    }

    /// Sockets.
    pub fn sockets(&self) -> u32 {
        self.sockets
    }

    /// Dies in a socket.
    pub fn dies(&self) -> u32 {
        self.dies
    }

    /// Cores in a die.
    pub fn cores(&self) -> u32 {
        self.cores
    }

    /// Threads in a core.
    pub fn threads(&self) -> u32 {
        self.threads
    }

    /// CPUs in a die.
    pub fn die_cpus(&self) -> u32 {
        self.cores * self.threads
    }

    /// CPUs in a socket.
    pub fn package_cpus(&self) -> u32 {
        self.dies * self.die_cpus()
    }

    /// Bits of an APIC id below the core's number.
    pub fn core_shift(&self) -> u32 {
        bits(self.threads)
    }

    /// Bits of an APIC id below the die's number.
    pub fn die_shift(&self) -> u32 {
        self.core_shift() + bits(self.cores)
    }

    /// Bits of an APIC id below the socket's number.
    pub fn package_shift(&self) -> u32 {
        self.die_shift() + bits(self.dies)
    }

    /// APIC id of CPU `index` (0 to [`Topology::cpus`] - 1): CPU 0 has id 0, and ids rise with the index.
    pub fn apic_id(&self, index: u32) -> u32 {
        let thread = index % self.threads;
        let core = index / self.threads % self.cores;
        let die = index / self.die_cpus() % self.dies;
        let socket = index / self.package_cpus();
        socket << self.package_shift()
            | die << self.die_shift()
            | core << self.core_shift()
            | thread
    }

    /// APIC ids of all CPUs, rising.
    pub fn apic_ids(&self) -> impl Iterator<Item = u32> {
        let topology = *self;
        (0..self.cpus()).map(move |index| topology.apic_id(index))
    }
}

/// Bits needed for numbers below `count`.
fn bits(count: u32) -> u32 {
    count.next_power_of_two().trailing_zeros()
}
