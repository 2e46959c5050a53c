//! Model-specific registers that firmware sets and a kernel expects to find set.
//!
//! Only architectural ones, so the list is the same for every vendor. A hypervisor that refuses one of them can still
//! run the guest: refusals are for the caller to log, not fatal.

use super::layout;

/// A register and its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Msr {
    /// Address, as in ECX of WRMSR.
    pub index: u32,
    /// Value.
    pub value: u64,
}

/// Fast string operations and other switches.
pub const MISC_ENABLE: u32 = 0x1a0;
/// First variable-range MTRR; base and mask alternate.
pub const MTRR_PHYS_BASE0: u32 = 0x200;
/// Default memory type and MTRR enable.
pub const MTRR_DEF_TYPE: u32 = 0x2ff;

const FAST_STRINGS: u64 = 1 << 0;
const MTRR_ENABLE: u64 = 1 << 11;
const WRITE_BACK: u64 = 6;
const UNCACHEABLE: u64 = 0;
const MASK_VALID: u64 = 1 << 11;

/// What each vCPU starts with beside its reset values, in the order to be written.
///
/// Memory is write-back except ECAM and everything from the 32-bit PCI window to 4 GiB (Intel SDM vol. 3 §12.11, AMD APM
/// vol. 2 §7.7). `phys_bits` is the guest's physical address width.
pub fn initial(phys_bits: u8) -> Vec<Msr> {
    let width = 1_u64
        .checked_shl(phys_bits.into())
        .unwrap_or(0)
        .wrapping_sub(1);
    let uncacheable = [layout::ECAM, layout::MMIO32.start..layout::FOUR_GIB];
    let ranges = (MTRR_PHYS_BASE0..)
        .step_by(2)
        .zip(uncacheable)
        .flat_map(|(index, range)| {
            let mask = !(range.end - range.start - 1) & width;
            [
                Msr {
                    index,
                    value: range.start | UNCACHEABLE,
                },
                Msr {
                    index: index + 1,
                    value: mask | MASK_VALID,
                },
            ]
        });
    let mut msrs = vec![Msr {
        index: MISC_ENABLE,
        value: FAST_STRINGS,
    }];
    msrs.extend(ranges);
    msrs.push(Msr {
        index: MTRR_DEF_TYPE,
        value: MTRR_ENABLE | WRITE_BACK,
    });
    msrs
}

#[cfg(test)]
mod tests;
