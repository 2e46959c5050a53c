//! The q35 host bridge, 00:00.0 (Intel 3 Series Express Chipset Family §5.1): where ECAM answers.
//!
//! The PAM and SMRAM registers keep what is written to them: RAM is always readable and writable
//! between 0xc0000 and 0xfffff, and there is no system management mode.

use std::sync::Arc;

use crate::bus::{Action, Bus, Region};
use crate::pci::host::Ecam;
use crate::pci::{Identity, PciConfig, PciDevice, PciHost};

const PCIEXBAR: u16 = 0x60;
/// Where PCIEXBAR points after power-on, disabled.
const DEFAULT_ECAM: u64 = 0xb000_0000;
/// Enable, length, and bits 35:26 of the base.
const PCIEXBAR_WRITABLE: u64 = 0xf_fc00_0007;
const PAM: u16 = 0x90;
const SMRAM: u16 = 0x9d;

/// The host bridge.
pub struct Mch {
    config: PciConfig,
    ecam: Region,
}

impl Mch {
    /// A bridge that places the ECAM of `host` in `memory`.
    pub fn new(memory: &Arc<Bus>, host: &Arc<PciHost>) -> Arc<Mch> {
        let mut builder = PciConfig::builder(Identity {
            vendor: 0x8086,
            device: 0x29c0,
            class: 0x06_00_00,
            revision: 2,
            subsystem_vendor: 0,
            subsystem: 0,
        });
        // Memory space and bus mastering cannot be turned off.
        builder.set(0x04, &[6]).writable(0x04, &[0x40]);
        builder.set(PCIEXBAR, &DEFAULT_ECAM.to_le_bytes());
        builder.writable(PCIEXBAR, &PCIEXBAR_WRITABLE.to_le_bytes());
        builder.writable(PAM, &[0x30, 0x33, 0x33, 0x33, 0x33, 0x33, 0x33]);
        builder
            .set(SMRAM, &[0x02, 0x38])
            .writable(SMRAM, &[0x78, 0x87]);
        Arc::new(Mch {
            config: builder.build(),
            ecam: Region::new(memory, Ecam::new(host)),
        })
    }

    /// Sets what firmware would: 256 buses of ECAM at `base`, a multiple of 256 MiB.
    pub fn place_ecam(&self, base: u64) {
        self.config
            .set(PCIEXBAR, &(base & PCIEXBAR_WRITABLE & !7 | 1).to_le_bytes());
        self.settle();
    }

    fn settle(&self) {
        let low = self.config.read(PCIEXBAR, 4);
        let value =
            u64::from(self.config.read(PCIEXBAR.saturating_add(4), 4)) << 32 | u64::from(low);
        let len: u64 = match value >> 1 & 3 {
            0 => 256 << 20,
            1 => 128 << 20,
            2 => 64 << 20,
            _ => 0, // reserved: answers nowhere
        };
        let base = value & PCIEXBAR_WRITABLE & !len.saturating_sub(1);
        self.ecam
            .place((value & 1 != 0 && len != 0).then_some((base, len)));
    }
}

impl PciDevice for Mch {
    fn name(&self) -> &str {
        "mch"
    }

    fn config(&self) -> &PciConfig {
        &self.config
    }

    fn reset(&self) {
        self.settle();
    }

    fn write_config(&self, offset: u16, size: u8, value: u32) -> Action {
        self.config.write(offset, size, value);
        self.settle();
        Action::None
    }
}
