//! The ACPI tables (ACPI specification 6.5) of a q35 machine without firmware.
//!
//! RSDP, XSDT, FADT, FACS, DSDT, MADT and MCFG, placed in [`layout::ACPI`], where a guest finds the RSDP by scanning even
//! if its boot protocol does not say. They tell of the ICH9's real power management block, not of the hardware-reduced
//! model, so that a guest's stock drivers work. Register addresses here are what the devices must decode: see [`pm`].

mod dsdt;
mod fadt;
mod madt;
mod resource;

use acpi_tables::Aml;
use acpi_tables::facs::FACS;
use acpi_tables::mcfg::MCFG;
use acpi_tables::rsdp::Rsdp;
use acpi_tables::xsdt::XSDT;

use super::layout::{self, Layout};
use super::topology::Topology;
use crate::{Error, Kind};

/// The ICH9's power management registers, as I/O ports (ICH9 datasheet §13.8.3).
pub mod pm {
    /// Start of the block: PMBASE.
    pub const BASE: u16 = 0x600;
    /// Length of the block.
    pub const LEN: u16 = 0x80;
    /// PM1 status and enable, 2 bytes each.
    pub const PM1_EVENT: u16 = BASE;
    /// PM1 control, 2 bytes.
    pub const PM1_CONTROL: u16 = BASE + 4;
    /// The 3.579545 MHz timer: 24 bits in 4 bytes.
    pub const TIMER: u16 = BASE + 8;
    /// GPE 0 status and enable, 8 bytes each.
    pub const GPE0: u16 = BASE + 0x20;
    /// Bytes of status and enable together.
    pub const GPE0_LEN: u8 = 16;
    /// SLP_TYP for S5, soft off.
    pub const SLEEP_TYPE_S5: u8 = 0;
    /// The APM control port, which sets and clears SCI_EN without SMM behind it.
    pub const SMI_COMMAND: u16 = 0xb2;
    /// Written to [`SMI_COMMAND`]: sets SCI_EN. A direct boot starts with it set, as firmware leaves it.
    pub const ACPI_ENABLE: u8 = 2;
    /// Written to [`SMI_COMMAND`]: clears SCI_EN.
    pub const ACPI_DISABLE: u8 = 3;
    /// The reset control register.
    pub const RESET: u16 = 0xcf9;
    /// What resets the machine when written to [`RESET`]: SYS_RST and RST_CPU.
    pub const RESET_VALUE: u8 = 6;
}

/// Index of the century in CMOS.
const CENTURY: u8 = 0x32;
const OEM: [u8; 6] = *b"SPINDL";
const OEM_TABLE: [u8; 8] = *b"SPINDLE ";
const OEM_REVISION: u32 = 1;
/// Every table starts at a multiple of this: what the FACS wants, the most demanding one.
const ALIGNMENT: u64 = 64;

/// What the tables depend on.
#[derive(Clone, Copy, Debug)]
pub struct Config<'a> {
    /// The address map.
    pub layout: &'a Layout,
    /// The CPUs.
    pub topology: Topology,
    /// There is a 16550 at COM1.
    pub serial: bool,
    /// There is a keyboard controller with a keyboard. One that can only reset is not told.
    pub i8042: bool,
    /// There is a display that decodes the VGA registers.
    pub vga: bool,
    /// I/O port of the pvpanic device.
    pub pvpanic: Option<u16>,
}

/// The tables' bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tables {
    /// (guest-physical address, signature, bytes), lowest first; the first is the RSDP.
    pub tables: Vec<Table>,
}

/// One table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Guest-physical address.
    pub address: u64,
    /// The four-letter signature; `RSDP` for the root pointer, which has a longer one.
    pub name: &'static str,
    /// The bytes.
    pub bytes: Vec<u8>,
}

impl Tables {
    /// Where the RSDP is, for the boot protocols.
    pub fn rsdp(&self) -> u64 {
        layout::ACPI.start
    }
}

/// Makes the tables.
///
/// # Errors
/// [`Kind::Topology`]: so many CPUs that the tables do not fit in [`layout::ACPI`] (some 2500).
pub fn tables(config: &Config<'_>) -> Result<Tables, Error> {
    let mut placed = Placed {
        tables: Vec::new(),
        next: layout::ACPI.start + Rsdp::len() as u64,
    };
    let facs = placed.push("FACS", bytes(&FACS::new()))?;
    let dsdt = placed.push("DSDT", dsdt::dsdt(config))?;
    let mut mcfg = MCFG::new(OEM, OEM_TABLE, OEM_REVISION);
    mcfg.add_ecam(layout::ECAM.start, 0, 0, 255);
    let mut xsdt = XSDT::new(OEM, OEM_TABLE, OEM_REVISION);
    xsdt.add_entry(placed.push("FACP", fadt::fadt(config, facs, dsdt))?);
    xsdt.add_entry(placed.push("APIC", madt::madt(&config.topology))?);
    xsdt.add_entry(placed.push("MCFG", bytes(&mcfg))?);
    let xsdt = placed.push("XSDT", bytes(&xsdt))?;
    let rsdp = Table {
        address: layout::ACPI.start,
        name: "RSDP",
        bytes: bytes(&Rsdp::new(OEM, xsdt)),
    };
    placed.tables.insert(0, rsdp);
    Ok(Tables {
        tables: placed.tables,
    })
}

/// Tables with addresses, and the first free one.
struct Placed {
    tables: Vec<Table>,
    next: u64,
}

impl Placed {
    fn push(&mut self, name: &'static str, bytes: Vec<u8>) -> Result<u64, Error> {
        let address = self.next.next_multiple_of(ALIGNMENT);
        self.next = address + bytes.len() as u64;
        if self.next > layout::ACPI.end {
            return Err(Error::new(
                Kind::Topology,
                "too many CPUs to describe in ACPI tables",
            ));
        }
        self.tables.push(Table {
            address,
            name,
            bytes,
        });
        Ok(address)
    }
}

fn bytes(aml: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    aml.to_aml_bytes(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests;
