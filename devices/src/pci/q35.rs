//! The q35 chipset put together: host bridge, LPC bridge, power management and the wires between.

use std::sync::Arc;

use crate::bus::{Bus, Priority, Ticket};
use crate::irq::SharedLine;
use crate::legacy::pm::{self, Pm};
use crate::pci::assign::{self, NoRoom, Windows};
use crate::pci::host::{AddError, CONFIG_PORTS, CONFIG_PORTS_LEN, ConfigPorts};
use crate::pci::lpc::Lpc;
use crate::pci::mch::Mch;
use crate::pci::pirq::Pirqs;
use crate::pci::{Address, PciHost};
use crate::time::Timers;

/// Where firmware puts the power management block, and we do without it.
pub const PMBASE: u16 = 0x600;

/// The chipset of a q35 machine.
pub struct Q35 {
    /// Bus 0: devices are added here.
    pub host: Arc<PciHost>,
    /// Power management: the power button is here.
    pub pm: Arc<Pm>,
    ports: Arc<ConfigPorts>,
    mch: Arc<Mch>,
    lpc: Arc<Lpc>,
}

impl Q35 {
    /// A chipset in power-on state. `gsis` are the inputs of the interrupt controllers, 0 to 23, each
    /// shared with whatever else the board connects; `s5` is the sleep type of \_S5 in the DSDT.
    ///
    /// # Errors
    /// None in practice: the bus is empty.
    pub fn new(
        memory: &Arc<Bus>,
        io: &Arc<Bus>,
        gsis: &[Arc<SharedLine>; 24],
        timers: &Arc<Timers>,
        s5: u8,
    ) -> Result<Q35, AddError> {
        let [isa @ .., _, _, _, _, _, _, _, _] = gsis;
        let [_, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, apic @ ..] = gsis;
        let pirqs = Pirqs::new(
            apic.each_ref().map(SharedLine::source),
            isa.each_ref().map(SharedLine::source),
        );
        let [_, _, _, _, _, _, _, _, _, sci, ..] = gsis;
        let pm = Pm::new(timers, sci.source(), s5);

        let wires = pirqs.clone();
        let host = PciHost::new(
            memory.clone(),
            io.clone(),
            Box::new(move |address, pin| wires.pin(address, pin)),
        );
        let mch = Mch::new(memory, &host);
        let lpc = Lpc::new(memory, io, &pm, &pirqs);
        host.add(mch.clone(), Address::new(0, 0))?;
        host.add(lpc.clone(), Address::new(31, 0))?;

        let ports = ConfigPorts::new(&host);
        io.map(
            CONFIG_PORTS,
            CONFIG_PORTS_LEN,
            Priority::Fixed,
            ports.clone(),
        );
        io.map(
            pm::APM_PORTS,
            pm::APM_PORTS_LEN,
            Priority::Fixed,
            pm.apm_ports(),
        );
        Ok(Q35 {
            host,
            pm,
            ports,
            mch,
            lpc,
        })
    }

    /// Power-on state for the chipset and every PCI function; see [`PciHost::reset`].
    #[must_use]
    pub fn reset(&self) -> Vec<(String, Ticket)> {
        self.ports.reset();
        self.pm.reset();
        self.host.reset()
    }

    /// Does what firmware would have done before it starts an operating system: ECAM at `ecam`, the
    /// power management block at [`PMBASE`] in ACPI mode, every BAR in `windows`. Called once all
    /// devices are there, and again after each [`Q35::reset`].
    ///
    /// # Errors
    /// [`NoRoom`]: the BARs do not fit.
    pub fn boot_without_firmware(&self, ecam: u64, windows: &Windows) -> Result<(), NoRoom> {
        self.mch.place_ecam(ecam);
        self.lpc.place_pm(PMBASE);
        self.pm.enable_acpi();
        assign::assign(&self.host, windows, Pirqs::gsi)
    }
}

#[cfg(test)]
mod tests;
