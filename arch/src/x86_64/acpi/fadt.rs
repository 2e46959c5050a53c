//! The FADT (ACPI 6.5 §5.2.9): the fixed hardware.
//!
//! The power button is fixed hardware, as PWR_BUTTON being clear says; there is no sleep button.

use acpi_tables::fadt::{FADTBuilder, Flags, PmProfile};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};

use super::{CENTURY, Config, OEM, OEM_REVISION, OEM_TABLE, bytes, pm};
use crate::x86_64::interrupts;

/// IAPC_BOOT_ARCH: there are devices on the LPC bus.
const LEGACY_DEVICES: u16 = 1 << 0;
/// IAPC_BOOT_ARCH: there is a keyboard controller.
const HAS_8042: u16 = 1 << 1;
/// IAPC_BOOT_ARCH: do not probe for VGA.
const NO_VGA: u16 = 1 << 2;
/// Latencies that say: no C2, no C3.
const NO_C2: u16 = 101;
const NO_C3: u16 = 1001;

fn port(address: u16, bytes: u8, access: AccessSize) -> GAS {
    GAS::new(AddressSpace::SystemIo, bytes * 8, 0, access, address.into())
}

/// The table; `facs` and `dsdt` are their addresses, below 4 GiB.
pub(super) fn fadt(config: &Config<'_>, facs: u64, dsdt: u64) -> Vec<u8> {
    let boot_arch = LEGACY_DEVICES
        | if config.i8042 { HAS_8042 } else { 0 }
        | if config.vga { 0 } else { NO_VGA };
    let mut fadt = FADTBuilder::new(OEM, OEM_TABLE, OEM_REVISION)
        .preferred_pm_profile(PmProfile::Desktop)
        .firmware_ctrl_32(facs as u32)
        .flag(Flags::Wbinvd)
        .flag(Flags::ProcC1)
        .flag(Flags::SlpButton)
        .flag(Flags::ResetRegSup);
    fadt.dsdt = (dsdt as u32).into();
    fadt.x_dsdt = dsdt.into();
    fadt.sci_int = (interrupts::SCI as u16).into();
    fadt.smi_cmd = u32::from(pm::SMI_COMMAND).into();
    fadt.acpi_enable = pm::ACPI_ENABLE;
    fadt.acpi_disable = pm::ACPI_DISABLE;
    fadt.pm1a_evt_blk = u32::from(pm::PM1_EVENT).into();
    fadt.x_pm1a_evt_blk = port(pm::PM1_EVENT, 4, AccessSize::WordAccess);
    fadt.pm1_evt_len = 4;
    fadt.pm1a_cnt_blk = u32::from(pm::PM1_CONTROL).into();
    fadt.x_pm1a_cnt_blk = port(pm::PM1_CONTROL, 2, AccessSize::WordAccess);
    fadt.pm1_cnt_len = 2;
    fadt.pm_tmr_blk = u32::from(pm::TIMER).into();
    fadt.x_pm_tmr_blk = port(pm::TIMER, 4, AccessSize::DwordAccess);
    fadt.pm_tmr_len = 4;
    fadt.gpe0_blk = u32::from(pm::GPE0).into();
    fadt.x_gpe0_blk = port(pm::GPE0, pm::GPE0_LEN, AccessSize::ByteAccess);
    fadt.gpe0_blk_len = pm::GPE0_LEN;
    fadt.p_lvl2_lat = NO_C2.into();
    fadt.p_lvl3_lat = NO_C3.into();
    fadt.century = CENTURY;
    fadt.iapc_boot_arch = boot_arch.into();
    fadt.reset_reg = port(pm::RESET, 1, AccessSize::ByteAccess);
    fadt.reset_value = pm::RESET_VALUE;
    bytes(&fadt.finalize())
}
