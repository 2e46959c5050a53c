//! The MADT (ACPI 6.5 §5.2.12): local APICs, the IOAPIC, and how ISA interrupts differ from what they were on ISA.

use acpi_tables::Aml;
use acpi_tables::sdt::Sdt;

use super::{OEM, OEM_REVISION, OEM_TABLE, bytes};
use crate::x86_64::interrupts;
use crate::x86_64::layout;
use crate::x86_64::topology::Topology;

const REVISION: u8 = 4;
const HEADER: u32 = 36;
/// There are 8259s, which an OS with APICs must mask.
const PCAT_COMPAT: u32 = 1;
const ENABLED: u32 = 1;
/// Ids up to this have a local APIC structure, others an x2APIC structure.
const XAPIC_ID_MAX: u32 = 254;
/// Overrides: as the bus has it.
const CONFORMING: u16 = 0;
/// Overrides: active high, level triggered.
const LEVEL_HIGH: u16 = 0b1101;
/// The NMI is local interrupt 1.
const NMI_PIN: u8 = 1;
const IOAPIC_ID: u8 = 0;

/// The table.
pub(super) fn madt(topology: &Topology) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend((layout::LAPIC as u32).to_le_bytes());
    body.extend(PCAT_COMPAT.to_le_bytes());
    let mut wide = false;
    for (uid, id) in (0_u32..).zip(topology.apic_ids()) {
        if id <= XAPIC_ID_MAX {
            body.extend([0, 8, uid as u8, id as u8]);
            body.extend(ENABLED.to_le_bytes());
        } else {
            wide = true;
            body.extend([9, 16, 0, 0]);
            body.extend([id, ENABLED, uid].map(u32::to_le_bytes).as_flattened());
        }
    }
    body.extend([1, 12, IOAPIC_ID, 0]);
    body.extend(
        [layout::IOAPIC as u32, 0]
            .map(u32::to_le_bytes)
            .as_flattened(),
    );
    let isa = 0_u8;
    for (irq, gsi, flags) in [
        (0, 2, CONFORMING),
        (interrupts::SCI as u8, interrupts::SCI, LEVEL_HIGH),
    ] {
        body.extend([2, 10, isa, irq]);
        body.extend(gsi.to_le_bytes());
        body.extend(flags.to_le_bytes());
    }
    let all = 0xff;
    body.extend([4, 6, all, 0, 0, NMI_PIN]);
    if wide {
        body.extend([10, 12, 0, 0, all, all, all, all, NMI_PIN, 0, 0, 0]);
    }
    let mut sdt = Sdt::new(*b"APIC", HEADER, REVISION, OEM, OEM_TABLE, OEM_REVISION);
    sdt.append_slice(&body);
    bytes(&sdt as &dyn Aml)
}
