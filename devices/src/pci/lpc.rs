//! The ICH9's LPC bridge, 00:1f.0 (ICH9 §13.1): where the power management block and the chipset
//! configuration registers answer, and how PIRQs reach the 8259 pair.
//!
//! INTx pins of the chipset's own devices stay wired as their DxxIR registers say after reset; the
//! system control interrupt stays on IRQ 9. The registers for either read as such and do not change.

use std::sync::Arc;

use crate::bus::{Action, Bus, Region};
use crate::legacy::ByteWide;
use crate::legacy::pm::{self, Pm};
use crate::pci::pirq::{Pirqs, UNROUTED};
use crate::pci::{Identity, PciConfig, PciDevice};

const PMBASE: u16 = 0x40;
const ACPI_CNTL: u16 = 0x44;
const ACPI_ENABLE: u8 = 1 << 7;
const RCBA: u16 = 0xf0;
const RCBA_LEN: u64 = 0x4000;
/// PIRQ[A-H]_ROUT.
const ROUTES: [u16; 8] = [0x60, 0x61, 0x62, 0x63, 0x68, 0x69, 0x6a, 0x6b];

/// The LPC bridge.
pub struct Lpc {
    config: PciConfig,
    pirqs: Arc<Pirqs>,
    pm: Region,
    chipset: Region,
}

impl Lpc {
    /// A bridge that places `pm` in `io` and its own registers in `memory`.
    pub fn new(memory: &Arc<Bus>, io: &Arc<Bus>, pm: &Arc<Pm>, pirqs: &Arc<Pirqs>) -> Arc<Lpc> {
        let mut builder = PciConfig::builder(Identity {
            vendor: 0x8086,
            device: 0x2918,
            class: 0x06_01_00,
            revision: 2,
            subsystem_vendor: 0,
            subsystem: 0,
        });
        builder.multifunction();
        // I/O space, memory space and bus mastering cannot be turned off.
        builder.set(0x04, &[7]).writable(0x04, &[0x40]);
        builder.set(PMBASE, &[1]).writable(PMBASE, &[0x80, 0xff]);
        builder.writable(ACPI_CNTL, &[ACPI_ENABLE]);
        for at in ROUTES {
            builder.set(at, &[UNROUTED]).writable(at, &[0x8f]);
        }
        builder.set(0x64, &[0x10]).writable(0x64, &[0xff]); // serial IRQ
        builder.writable(0x80, &[0x77, 0x13, 0x0f, 0x3f]); // I/O decode ranges and enables
        builder.writable(0x84, &[0xff; 16]); // generic decode ranges
        builder.writable(0xa0, &[0xff; 16]); // power management configuration
        builder.writable(0xdc, &[0x01]); // BIOS write enable
        builder.writable(RCBA, &[0x01, 0xc0, 0xff, 0xff]);
        Arc::new(Lpc {
            config: builder.build(),
            pirqs: pirqs.clone(),
            pm: Region::new(io, pm.clone()),
            chipset: Region::new(memory, Arc::new(Chipset)),
        })
    }

    /// Sets what firmware would: the power management block at `pmbase`, a multiple of 128.
    pub fn place_pm(&self, pmbase: u16) {
        self.config
            .set(PMBASE, &(pmbase & 0xff80 | 1).to_le_bytes());
        self.config.set(ACPI_CNTL, &[ACPI_ENABLE]);
        self.settle();
    }

    /// Makes everything else agree with the configuration space.
    fn settle(&self) {
        let pmbase = u64::from(self.config.read(PMBASE, 2) & 0xff80);
        let enabled = self.config.read(ACPI_CNTL, 1) & u32::from(ACPI_ENABLE) != 0;
        self.pm
            .place((enabled && pmbase != 0).then_some((pmbase, pm::LEN)));
        let rcba = self.config.read(RCBA, 4);
        let base = u64::from(rcba & !0x3fff);
        self.chipset
            .place((rcba & 1 != 0).then_some((base, RCBA_LEN)));
        for (pirq, at) in ROUTES.into_iter().enumerate() {
            self.pirqs.route(pirq, self.config.read(at, 1) as u8);
        }
    }
}

impl PciDevice for Lpc {
    fn name(&self) -> &str {
        "ICH9-LPC"
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

/// The chipset configuration registers (ICH9 §10.1) that say how interrupts are wired.
struct Chipset;

impl ByteWide for Chipset {
    fn load(&self, offset: u64) -> u8 {
        match offset {
            // DxxIR: pins A to D on PIRQ A to D.
            0x3140 | 0x3144 | 0x3146 | 0x3148 | 0x314c | 0x3150 => 0x10,
            0x3141 | 0x3145 | 0x3147 | 0x3149 | 0x314d | 0x3151 => 0x32,
            _ => 0,
        }
    }

    fn store(&self, _offset: u64, _value: u8) -> Action {
        Action::None
    }
}
