//! The ICH9's power management block (ICH9 §13.8.3; ACPI 6.5 §4.8): PM1 event and control, the
//! power management timer, general-purpose events, the SMI registers, and the APM ports beside it.
//!
//! The system control interrupt is a level: asserted while an event is both pending and enabled, and
//! worked out anew after every access that can change either.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::bus::{Action, Mmio};
use crate::irq::IrqLine;
use crate::legacy::{ByteWide, addresses};
use crate::time::{Alarm, Timed, Timers};

/// Bytes of the block, from PMBASE.
pub const LEN: u64 = 0x80;
/// Where the APM control and status ports are.
pub const APM_PORTS: u64 = 0xb2;
/// How many APM ports there are.
pub const APM_PORTS_LEN: u64 = 2;
/// Ticks of the timer in a second.
pub const TIMER_HZ: u64 = 3_579_545;
/// Written to the APM control port: hand power management to the operating system (SCI_EN).
pub const ACPI_ENABLE: u8 = 2;
/// Written to the APM control port: take it back.
pub const ACPI_DISABLE: u8 = 3;

const TIMER_STATUS: u16 = 1 << 0;
const GLOBAL_STATUS: u16 = 1 << 5;
const POWER_BUTTON: u16 = 1 << 8;
const RTC_STATUS: u16 = 1 << 10;
const EVENTS: u16 = TIMER_STATUS | GLOBAL_STATUS | POWER_BUTTON | RTC_STATUS;
/// Those, bus master, power button override, PCI Express wake and wake status.
const STATUS_CLEARABLE: u16 = EVENTS | 0xc810;
const SCI_EN: u16 = 1 << 0;
/// SCI_EN, BM_RLD, SLP_TYP; the rest is write-only or reserved.
const CONTROL_WRITABLE: u16 = 0x1c03;
const SLEEP_ENABLE: u16 = 1 << 13;
const TIMER_BITS: u32 = 24;
/// The status bit is set each time the timer's top bit changes.
const HALF: u64 = 1 << (TIMER_BITS - 1);

/// The power management block.
pub struct Pm {
    timers: Arc<Timers>,
    sci: Arc<dyn IrqLine>,
    /// SLP_TYP of S5 as \_S5 in the DSDT has it.
    s5: u8,
    alarm: Alarm,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    status: u16,
    enable: u16,
    control: u16,
    gpe_status: [u8; 8],
    gpe_enable: [u8; 8],
    smi_enable: [u8; 4],
    apm: [u8; 2],
    /// The tick at which the timer's top bit changes next.
    next_half: u64,
}

impl Pm {
    /// A block that interrupts on `sci` and powers off for a sleep of type `s5` (0 to 7).
    pub fn new(timers: &Arc<Timers>, sci: Arc<dyn IrqLine>, s5: u8) -> Arc<Pm> {
        let pm = Arc::new_cyclic(|this: &std::sync::Weak<Pm>| Pm {
            timers: timers.clone(),
            sci,
            s5: s5 & 7,
            alarm: timers.alarm(this.clone()),
            state: Mutex::default(),
        });
        pm.reset();
        pm
    }

    /// Power-on state.
    pub fn reset(&self) {
        let mut state = self.state();
        *state = State {
            next_half: self.ticks().saturating_add(HALF) & !HALF.saturating_sub(1),
            ..State::default()
        };
        self.settle(&mut state);
    }

    /// Hands power management to the operating system, as firmware does for one that is booted
    /// without it: SCI_EN is set.
    pub fn enable_acpi(&self) {
        let mut state = self.state();
        state.control |= SCI_EN;
        self.settle(&mut state);
    }

    /// The user presses the power button. Returns whether the guest will hear of it: it has the
    /// event enabled.
    pub fn press_power_button(&self) -> bool {
        let mut state = self.state();
        state.status |= POWER_BUTTON;
        self.settle(&mut state);
        state.control & SCI_EN != 0 && state.enable & POWER_BUTTON != 0
    }

    /// General-purpose event `event` (0 to 63) happens.
    pub fn raise_gpe(&self, event: u8) {
        let mut state = self.state();
        if let Some(byte) = state.gpe_status.get_mut(usize::from(event >> 3)) {
            *byte |= 1 << (event & 7);
        }
        self.settle(&mut state);
    }

    /// The APM ports, to be mapped at [`APM_PORTS`].
    pub fn apm_ports(self: &Arc<Self>) -> Arc<dyn Mmio> {
        Arc::new(Apm(self.clone()))
    }

    fn ticks(&self) -> u64 {
        let ticks = self
            .timers
            .now()
            .as_nanos()
            .saturating_mul(u128::from(TIMER_HZ));
        u64::try_from(ticks / 1_000_000_000).unwrap_or(u64::MAX)
    }

    /// Brings the timer's status, the alarm for its next change and the interrupt up to date.
    fn settle(&self, state: &mut State) {
        let ticks = self.ticks();
        if ticks >= state.next_half {
            state.status |= TIMER_STATUS;
            state.next_half = ticks.saturating_add(HALF) & !HALF.saturating_sub(1);
        }
        let waiting = state.status & TIMER_STATUS == 0 && state.enable & TIMER_STATUS != 0;
        self.alarm.set(waiting.then(|| {
            // Rounded up: when it rings, the tick has come.
            let nanos = u128::from(state.next_half).saturating_mul(1_000_000_000);
            let nanos = nanos.div_ceil(u128::from(TIMER_HZ));
            Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
        }));
        let gpe = state
            .gpe_status
            .iter()
            .zip(&state.gpe_enable)
            .any(|(status, enable)| status & enable != 0);
        let event = state.status & state.enable & EVENTS != 0;
        self.sci.set(state.control & SCI_EN != 0 && (event || gpe));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Timed for Pm {
    fn ring(&self) {
        self.settle(&mut self.state());
    }
}

impl State {
    fn byte(&self, offset: u64, ticks: u64) -> u8 {
        let of = |bytes: &[u8], base: u64| {
            let at = usize::try_from(offset.wrapping_sub(base)).unwrap_or(usize::MAX);
            bytes.get(at).copied().unwrap_or(0)
        };
        match offset {
            0x00..0x02 => of(&self.status.to_le_bytes(), 0x00),
            0x02..0x04 => of(&self.enable.to_le_bytes(), 0x02),
            0x04..0x08 => of(&self.control.to_le_bytes(), 0x04),
            0x08..0x0b => of(&ticks.to_le_bytes(), 0x08),
            0x20..0x28 => of(&self.gpe_status, 0x20),
            0x28..0x30 => of(&self.gpe_enable, 0x28),
            0x30..0x34 => of(&self.smi_enable, 0x30),
            _ => 0,
        }
    }

    /// Stores one byte; a sleep type where the store asks for sleep.
    fn store(&mut self, offset: u64, value: u8) -> Option<u8> {
        let shift = if offset & 1 == 0 { 0 } else { 8 };
        let wide = u16::from(value) << shift;
        let lane = 0xff_u16 << shift;
        let replace = |old: u16, writable: u16| old & !(lane & writable) | wide & writable;
        let index = usize::try_from(offset & 7).unwrap_or(0);
        match offset {
            0x00..0x02 => self.status &= !(wide & STATUS_CLEARABLE),
            0x02..0x04 => self.enable = replace(self.enable, EVENTS),
            0x04..0x06 => {
                self.control = replace(self.control, CONTROL_WRITABLE);
                return (wide & SLEEP_ENABLE != 0).then_some((self.control >> 10) as u8 & 7);
            }
            0x20..0x28 => {
                if let Some(status) = self.gpe_status.get_mut(index) {
                    *status &= !value;
                }
            }
            0x28..0x30 => {
                if let Some(enable) = self.gpe_enable.get_mut(index) {
                    *enable = value;
                }
            }
            0x30..0x34 => {
                if let Some(enable) = self.smi_enable.get_mut(index) {
                    *enable = value;
                }
            }
            _ => {}
        }
        None
    }
}

impl Mmio for Pm {
    fn read(&self, offset: u64, size: u8) -> u64 {
        let mut state = self.state();
        self.settle(&mut state);
        let ticks = self.ticks();
        let mut value = [0; 8];
        for (offset, byte) in addresses(offset, size).zip(&mut value) {
            *byte = state.byte(offset, ticks);
        }
        u64::from_le_bytes(value)
    }

    fn write(&self, offset: u64, size: u8, value: u64) -> Action {
        let mut state = self.state();
        let mut sleep = None;
        for (offset, byte) in addresses(offset, size).zip(value.to_le_bytes()) {
            sleep = state.store(offset, byte).or(sleep);
        }
        self.settle(&mut state);
        match sleep {
            Some(kind) if kind == self.s5 => Action::Shutdown,
            _ => Action::None,
        }
    }
}

/// Advanced power management control and status: where software asks firmware for ACPI mode.
struct Apm(Arc<Pm>);

impl ByteWide for Apm {
    fn load(&self, offset: u64) -> u8 {
        let index = usize::try_from(offset).unwrap_or(usize::MAX);
        self.0.state().apm.get(index).copied().unwrap_or(0xff)
    }

    fn store(&self, offset: u64, value: u8) -> Action {
        let mut state = self.0.state();
        let index = usize::try_from(offset).unwrap_or(usize::MAX);
        if let Some(byte) = state.apm.get_mut(index) {
            *byte = value;
        }
        match (offset, value) {
            (0, ACPI_ENABLE) => state.control |= SCI_EN,
            (0, ACPI_DISABLE) => state.control &= !SCI_EN,
            _ => {}
        }
        self.0.settle(&mut state);
        Action::None
    }
}

#[cfg(test)]
mod tests;
