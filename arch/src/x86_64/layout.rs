//! The guest-physical address map, at q35's addresses.
//!
//! RAM begins at 0 and is split around the hole below 4 GiB. The hole holds ECAM, the 32-bit PCI window and the
//! interrupt controllers; a 64-bit PCI window follows the RAM above 4 GiB. All ranges are half open, all units bytes.
//!
//! ```text
//! 0                    RAM, with our boot structures and ACPI tables below 1 MiB
//! 8000_0000 | b000_0000  end of low RAM (the first if there is RAM above 4 GiB)
//! b000_0000            ECAM, 256 buses
//! c000_0000            32-bit PCI window
//! fec0_0000 fee0_0000  IOAPIC, local APICs
//! feff_c000 feff_d000  KVM's identity-map page and TSS
//! fffc_0000            firmware
//! 1_0000_0000          RAM, then the 64-bit PCI window
//! ```

#[cfg(test)]
mod tests;

use std::ops::Range;

use crate::{Error, Kind};

/// Bytes in a page.
pub const PAGE: u64 = 4096;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Where our GDT is written.
pub const GDT: u64 = 0x500;
/// The PVH start info, its module list and memory map: one page.
pub const PVH_INFO: u64 = 0x6000;
/// The Linux zero page (`struct boot_params`).
pub const ZERO_PAGE: u64 = 0x7000;
/// Top of the stack a kernel is entered with (the 64-bit protocol asks for none; a bare guest may want one).
pub const BOOT_STACK: u64 = 0x8ff0;
/// PML4, PDPT and four page directories: six pages.
pub const PAGE_TABLES: u64 = 0x9000;
/// The kernel's command line and its terminating NUL.
pub const CMDLINE: Range<u64> = 0x2_0000..0x3_0000;
/// The extended BIOS data area: end of conventional memory.
pub const EBDA: u64 = 0x9_fc00;
/// End of conventional memory; the VGA window and option ROMs follow.
pub const VGA: u64 = 0xa_0000;
/// What firmware leaves for the guest below 1 MiB: reserved, and scanned for the anchors of tables.
pub const TABLES: Range<u64> = 0xe_0000..HIGH_MEMORY;
/// RSDP (found by scanning, too) and the ACPI tables.
pub const ACPI: Range<u64> = TABLES.start..SMBIOS.start;
/// The SMBIOS entry point, found by scanning, and its structures: one page.
pub const SMBIOS: Range<u64> = TABLES.end - PAGE..TABLES.end;
/// Start of the RAM that a kernel may be loaded to.
pub const HIGH_MEMORY: u64 = MIB;

/// PCI Express configuration space: 1 MiB a bus, buses 0 to 255.
pub const ECAM: Range<u64> = 0xb000_0000..0xc000_0000;
/// The window for 32-bit BARs.
pub const MMIO32: Range<u64> = 0xc000_0000..IOAPIC;
/// The I/O APIC (4 KiB).
pub const IOAPIC: u64 = 0xfec0_0000;
/// The local APICs (1 MiB is reserved).
pub const LAPIC: u64 = 0xfee0_0000;
/// For KVM_SET_IDENTITY_MAP_ADDR: one page. Set on every vendor; only Intel without unrestricted guest reads it.
pub const KVM_IDENTITY_MAP: u64 = 0xfeff_c000;
/// For KVM_SET_TSS_ADDR: three pages.
pub const KVM_TSS: u64 = 0xfeff_d000;
/// What is reserved for KVM: the page and the TSS.
pub const KVM_PAGES: Range<u64> = KVM_IDENTITY_MAP..KVM_TSS + 3 * PAGE;
/// Where firmware ends at 4 GiB and what is reserved for it at least.
pub const FIRMWARE: Range<u64> = 0xfffc_0000..FOUR_GIB;
/// 4 GiB: where the second part of RAM begins.
pub const FOUR_GIB: u64 = 4 * GIB;

/// Low RAM ends here if all of it fits below, and at [`LOW_RAM_SPLIT`] if not.
const LOW_RAM_MAX: u64 = 0xb000_0000;
const LOW_RAM_SPLIT: u64 = 0x8000_0000;
/// The 64-bit window is this large where the address width allows.
const MMIO64_SIZE: u64 = 512 * GIB;
/// The least RAM that a machine is made from: our own structures and the ACPI tables end here.
const RAM_MIN: u64 = HIGH_MEMORY;

/// The parts of the map that depend on the amount of RAM and on the host's address width.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    low: u64,
    high: u64,
    mmio64: Range<u64>,
    phys_bits: u8,
}

impl Layout {
    /// Lays out `ram` bytes for CPUs with `phys_bits` physical address bits.
    ///
    /// # Errors
    /// [`Kind::Memory`]: `ram` is less than 1 MiB, no multiple of the page size, or reaches past the address width.
    pub fn new(ram: u64, phys_bits: u8) -> Result<Self, Error> {
        if ram < RAM_MIN {
            return Err(Error::new(
                Kind::Memory,
                format!(
                    "{ram} bytes of RAM are too few: a machine needs 1 MiB at least, Linux about 64 MiB"
                ),
            ));
        }
        if !ram.is_multiple_of(PAGE) {
            return Err(Error::new(
                Kind::Memory,
                format!("the RAM size {ram} is not a multiple of {PAGE} bytes"),
            ));
        }
        let low = if ram <= LOW_RAM_MAX {
            ram
        } else {
            LOW_RAM_SPLIT
        };
        let high = ram.saturating_sub(low);
        let end = 1_u64.checked_shl(phys_bits.into()).unwrap_or(u64::MAX);
        let ram_end = FOUR_GIB
            .checked_add(high)
            .filter(|&e| e <= end || high == 0);
        let Some(ram_end) = ram_end else {
            return Err(Error::new(
                Kind::Memory,
                format!(
                    "{} MiB of RAM do not fit: this host's guests have {phys_bits} physical address bits ({} MiB)",
                    ram / MIB,
                    end / MIB
                ),
            ));
        };
        let start = ram_end.next_multiple_of(GIB).min(end);
        let mmio64 = start..start.saturating_add(MMIO64_SIZE).min(end).max(start);
        Ok(Self {
            low,
            high,
            mmio64,
            phys_bits,
        })
    }

    /// RAM as (address, length), lowest first: one range, or two with the hole between them.
    pub fn ram_regions(&self) -> Vec<(u64, u64)> {
        [(0, self.low), (FOUR_GIB, self.high)]
            .into_iter()
            .filter(|&(_, len)| len > 0)
            .collect()
    }

    /// Length of the RAM that begins at 0.
    pub fn low_ram(&self) -> u64 {
        self.low
    }

    /// Length of the RAM that begins at 4 GiB.
    pub fn high_ram(&self) -> u64 {
        self.high
    }

    /// The window for 64-bit BARs; empty if RAM fills the address width.
    pub fn mmio64(&self) -> Range<u64> {
        self.mmio64.clone()
    }

    /// Physical address bits of the guest's CPUs.
    pub fn phys_bits(&self) -> u8 {
        self.phys_bits
    }
}
