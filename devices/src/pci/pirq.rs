//! The ICH9's interrupt wires: INTx pins → PIRQ A to H → GSI 16 to 23, and through the routing
//! registers of the LPC bridge, ISA interrupts for the 8259 pair (ICH9 §5.8, §10.1, §13.1.13).
//!
//! Several pins share a PIRQ and several PIRQs an ISA interrupt. Each wire counts who asserts it and
//! drives its line on change only.
//!
//! Lock order: one lock for all wires, then the machine's lines.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::irq::IrqLine;
use crate::pci::Address;

/// A routing register of the LPC bridge that leads nowhere.
pub const UNROUTED: u8 = 0x80;

/// The wires.
pub struct Pirqs {
    state: Mutex<State>,
    /// GSI 16 to 23.
    gsis: [Arc<dyn IrqLine>; 8],
    /// One source on each of GSI 0 to 15.
    isa: [Arc<dyn IrqLine>; 16],
}

struct State {
    /// How many pins assert each PIRQ.
    asserted: [u32; 8],
    /// PIRQ[A-H]_ROUT.
    routes: [u8; 8],
}

/// One INTx pin on a PIRQ.
struct IntxPin {
    wires: Arc<Pirqs>,
    pirq: usize,
    level: Mutex<bool>,
}

impl Pirqs {
    /// `gsis` are GSI 16 to 23; `isa` are sources of this router's own on GSI 0 to 15.
    pub fn new(gsis: [Arc<dyn IrqLine>; 8], isa: [Arc<dyn IrqLine>; 16]) -> Arc<Pirqs> {
        let state = Mutex::new(State {
            asserted: [0; 8],
            routes: [UNROUTED; 8],
        });
        Arc::new(Pirqs { state, gsis, isa })
    }

    /// Which PIRQ (0 to 7 for A to H) a function's `pin` (1 to 4 for A to D) leads to. Devices 0 to
    /// 24 rotate over E to H by device number, the bridge at 30 has E to H unrotated; the chipset's own
    /// (25 to 29, 31) go straight to A to D, as their DxxIR registers say after reset.
    pub const fn pirq(address: Address, pin: u8) -> u8 {
        let (device, pin) = (address.device(), pin.wrapping_sub(1) & 3);
        match device {
            25..=29 | 31 => pin,
            30 => pin | 4,
            _ => (device.wrapping_add(pin) & 3) | 4,
        }
    }

    /// The GSI of a function's pin where the I/O APIC is in use.
    pub const fn gsi(address: Address, pin: u8) -> u8 {
        Self::pirq(address, pin) | 16
    }

    /// A source on the wire of a function's pin.
    pub fn pin(self: &Arc<Self>, address: Address, pin: u8) -> Arc<dyn IrqLine> {
        let pirq = usize::from(Self::pirq(address, pin));
        Arc::new(IntxPin {
            wires: self.clone(),
            pirq,
            level: Mutex::new(false),
        })
    }

    /// Takes over a routing register: bit 7 set for nowhere, else bits 3:0 are the ISA interrupt.
    pub fn route(&self, pirq: usize, route: u8) {
        let mut state = self.state();
        let Some(slot) = state.routes.get_mut(pirq) else {
            return;
        };
        let old = std::mem::replace(slot, route);
        if old != route {
            self.drive_isa(&state, old);
            self.drive_isa(&state, route);
        }
    }

    fn set(&self, pirq: usize, level: bool) {
        let mut state = self.state();
        let Some(count) = state.asserted.get_mut(pirq) else {
            return;
        };
        let before = *count != 0;
        *count = if level {
            count.saturating_add(1)
        } else {
            count.saturating_sub(1)
        };
        if before != (*count != 0) {
            if let Some(gsi) = self.gsis.get(pirq) {
                gsi.set(!before);
            }
            if let Some(route) = state.routes.get(pirq) {
                self.drive_isa(&state, *route);
            }
        }
    }

    /// Sets the ISA interrupt that `route` names to the OR of the PIRQs routed to it. Those that
    /// belong to the board (timer, cascade, RTC, ...) cannot be named (ICH9 §13.1.13).
    fn drive_isa(&self, state: &State, route: u8) {
        if !matches!(route, 3..=7 | 9..=12 | 14 | 15) {
            return;
        }
        let mut wires = state.asserted.iter().zip(&state.routes);
        let level = wires.any(|(count, to)| *count != 0 && *to == route);
        if let Some(line) = self.isa.get(usize::from(route)) {
            line.set(level);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl IrqLine for IntxPin {
    fn set(&self, level: bool) {
        let mut old = self.level.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::replace(&mut *old, level) != level {
            self.wires.set(self.pirq, level);
        }
    }
}

#[cfg(test)]
mod tests;
