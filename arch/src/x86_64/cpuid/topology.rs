//! The leaves that tell a CPU who it is and what it shares with others.
//!
//! Leaves 1, 4, 0xb, 0x1f (Intel SDM vol. 2 CPUID), 0x80000008, 0x8000001d and 0x8000001e (AMD APM vol. 3 appendix E).
//! KVM's answer has the host's values in some of them and nothing in others; both would mislead a guest.

use super::{
    CpuidEntry, LEAF_ADDRESS, LEAF_FEATURES, LEAF_VENDOR, SIGNIFICANT_INDEX, is_amd, leaf_mut,
};
use crate::x86_64::topology::Topology;

const LEAF_CACHES: u32 = 4;
const LEAF_TOPOLOGY: u32 = 0xb;
const LEAF_TOPOLOGY_V2: u32 = 0x1f;
const LEAF_AMD_FEATURES: u32 = 0x8000_0001;
const LEAF_AMD_CACHES: u32 = 0x8000_001d;
const LEAF_AMD_TOPOLOGY: u32 = 0x8000_001e;
/// Leaf 0xb in AMD's own form; a guest finds the same in 0xb.
const LEAF_AMD_TOPOLOGY_V2: u32 = 0x8000_0026;

const HTT: u32 = 1 << 28;
const CMP_LEGACY: u32 = 1 << 1;

/// Level types of leaves 0xb and 0x1f.
const SMT: u32 = 1;
const CORE: u32 = 2;
const DIE: u32 = 5;

/// Writes what is the same for all CPUs.
pub(super) fn arrange(entries: &mut Vec<CpuidEntry>, topology: &Topology) {
    entries.retain(|e| {
        !matches!(
            e.function,
            LEAF_TOPOLOGY | LEAF_TOPOLOGY_V2 | LEAF_AMD_TOPOLOGY_V2
        )
    });
    let amd = is_amd(entries);
    let per_package = topology.package_cpus();
    let package_ids = 1_u32 << topology.package_shift();
    let many = per_package > 1;
    if let Some(features) = leaf_mut(entries, LEAF_FEATURES) {
        let ids = package_ids.min(255);
        features.ebx = features.ebx & !0x00ff_0000 | ids << 16;
        features.edx = if many {
            features.edx | HTT
        } else {
            features.edx & !HTT
        };
    }
    for entry in entries.iter_mut() {
        match entry.function {
            LEAF_CACHES if entry.eax & 0x1f != 0 => {
                let cores = (package_ids >> topology.core_shift()).min(64) - 1;
                entry.eax = entry.eax & !0xfc00_0000 | cores << 26;
                share_cache(entry, topology);
            }
            LEAF_AMD_CACHES if entry.eax & 0x1f != 0 => share_cache(entry, topology),
            LEAF_AMD_FEATURES if amd && many => entry.ecx |= CMP_LEGACY,
            LEAF_AMD_FEATURES => entry.ecx &= !CMP_LEGACY,
            LEAF_ADDRESS if amd => {
                let count = (per_package - 1).min(0xff);
                entry.ecx = entry.ecx & !0xf0ff | topology.package_shift().min(15) << 12 | count;
            }
            _ => {}
        }
    }
    let levels = levels(topology);
    levels_leaf(entries, LEAF_TOPOLOGY, &[levels[0], levels[2]]);
    // Leaf 0xb cannot say "die": its second level is all that is in the package.
    if topology.dies() > 1 && !amd {
        levels_leaf(entries, LEAF_TOPOLOGY_V2, &levels);
    }
    let last = entries
        .iter()
        .map(|e| e.function)
        .filter(|f| matches!(*f, LEAF_TOPOLOGY | LEAF_TOPOLOGY_V2))
        .max();
    if let (Some(vendor), Some(last)) = (leaf_mut(entries, LEAF_VENDOR), last) {
        vendor.eax = vendor.eax.max(last);
    }
}

/// (type, shift to the next level's number, CPUs in this level), innermost first; the last one is the package.
fn levels(topology: &Topology) -> [(u32, u32, u32); 3] {
    let package = (topology.package_shift(), topology.package_cpus());
    [
        (SMT, topology.core_shift(), topology.threads()),
        (CORE, topology.die_shift(), topology.die_cpus()),
        (DIE, package.0, package.1),
    ]
}

fn levels_leaf(entries: &mut Vec<CpuidEntry>, function: u32, levels: &[(u32, u32, u32)]) {
    for (index, &(kind, shift, cpus)) in (0..).zip(levels) {
        // Leaf 0xb knows two types only.
        let kind = if function == LEAF_TOPOLOGY {
            index + 1
        } else {
            kind
        };
        entries.push(CpuidEntry {
            function,
            index,
            flags: SIGNIFICANT_INDEX,
            eax: shift,
            ebx: cpus & 0xffff,
            ecx: kind << 8 | index,
            edx: 0,
        });
    }
    let end = levels.len() as u32;
    entries.push(CpuidEntry {
        function,
        index: end,
        flags: SIGNIFICANT_INDEX,
        ecx: end,
        ..CpuidEntry::default()
    });
}

/// First and second level caches belong to a core, those beyond to a die.
fn share_cache(entry: &mut CpuidEntry, topology: &Topology) {
    let level = entry.eax >> 5 & 7;
    let shift = if level <= 2 {
        topology.core_shift()
    } else {
        topology.die_shift()
    };
    let sharing = (1_u32 << shift).min(4096) - 1;
    entry.eax = entry.eax & !0x03ff_c000 | sharing << 14;
}

/// Writes what differs: CPU `index`'s APIC id.
pub(super) fn identify(entries: &mut [CpuidEntry], topology: &Topology, index: u32) {
    let id = topology.apic_id(index);
    let amd = is_amd(entries);
    for entry in entries {
        match entry.function {
            LEAF_FEATURES => entry.ebx = entry.ebx & !0xff00_0000 | (id & 0xff) << 24,
            LEAF_TOPOLOGY | LEAF_TOPOLOGY_V2 => entry.edx = id,
            LEAF_AMD_TOPOLOGY if amd => {
                let in_package = id & ((1 << topology.package_shift()) - 1);
                let core = in_package >> topology.core_shift() & 0xff;
                let die = in_package >> topology.die_shift();
                entry.eax = id;
                entry.ebx = (topology.threads() - 1) << 8 | core;
                entry.ecx = (topology.dies() - 1) << 8 | die;
                entry.edx = 0;
            }
            _ => {}
        }
    }
}
