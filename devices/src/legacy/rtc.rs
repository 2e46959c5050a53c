//! The clock and its 128 bytes of battery-backed memory (Motorola MC146818A), at ports 0x70 and 0x71.
//!
//! The registers for time are not kept but worked out from the machine's clock, except while the
//! guest holds them (SET, or the divider in reset). Events are found when somebody looks: at each
//! access, and when the alarm rings that is set for the next one that would interrupt.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use crate::bus::Action;
use crate::irq::IrqLine;
use crate::legacy::ByteWide;
use crate::time::{Alarm, Timed, Timers};

mod calendar;

use calendar::Civil;

/// Port 0x70: index; port 0x71: data.
pub const PORTS: u64 = 0x70;
/// How many ports it takes.
pub const LEN: u64 = 2;

const SECONDS: usize = 0;
const SECONDS_ALARM: usize = 1;
const MINUTES: usize = 2;
const MINUTES_ALARM: usize = 3;
const HOURS: usize = 4;
const HOURS_ALARM: usize = 5;
const WEEKDAY: usize = 6;
const DAY: usize = 7;
const MONTH: usize = 8;
const YEAR: usize = 9;
const A: usize = 10;
const B: usize = 11;
const C: usize = 12;
const D: usize = 13;
/// Where the FADT says that the century is.
const CENTURY: usize = 0x32;

const UPDATE_IN_PROGRESS: u8 = 1 << 7;
const SET: u8 = 1 << 7;
const BINARY: u8 = 1 << 2;
const HOURS_24: u8 = 1 << 1;
const IRQ: u8 = 1 << 7;
/// The same bits enable in B and report in C.
const PERIODIC: u8 = 1 << 6;
const ALARM: u8 = 1 << 5;
const UPDATE: u8 = 1 << 4;
const EVENTS: u8 = PERIODIC | ALARM | UPDATE;
const VALID: u8 = 1 << 7;
const PM: u8 = 1 << 7;
/// An alarm byte of this or more matches anything.
const ANY: u8 = 0xc0;
/// How long before an update UIP is set: t_BUC.
const UPDATE_NOTICE: Duration = Duration::from_micros(244);
const SECOND: Duration = Duration::from_secs(1);

/// The clock.
pub struct Rtc {
    timers: Arc<Timers>,
    irq: Arc<dyn IrqLine>,
    alarm: Alarm,
    state: Mutex<State>,
}

struct State {
    index: u8,
    memory: [u8; 128],
    /// What the clock shows less what the machine's clock shows, in nanoseconds.
    offset: i128,
    /// The time in seconds and nanoseconds while the guest holds it.
    held: Option<(i64, u32)>,
    /// The machine's time when events were last looked for.
    seen: Duration,
}

impl Rtc {
    /// A clock that shows `utc`, time since 1970, now, and interrupts on `irq`.
    pub fn new(timers: &Arc<Timers>, irq: Arc<dyn IrqLine>, utc: Duration) -> Arc<Rtc> {
        let now = timers.now();
        let mut memory = [0; 128];
        memory[A] = 0x26; // 32768 Hz, 1024 Hz periodic
        memory[B] = HOURS_24;
        memory[D] = VALID;
        let state = Mutex::new(State {
            index: 0,
            memory,
            offset: nanos(utc).wrapping_sub(nanos(now)),
            held: None,
            seen: now,
        });
        Arc::new_cyclic(|this: &Weak<Rtc>| Rtc {
            timers: timers.clone(),
            irq,
            alarm: timers.alarm(this.clone()),
            state,
        })
    }

    /// Sets a byte of the memory as firmware and setup programs keep it; 14 to 127 and not the century.
    pub fn set(&self, index: u8, value: u8) {
        let index = usize::from(index);
        if index > D
            && index != CENTURY
            && let Some(byte) = self.state().memory.get_mut(index)
        {
            *byte = value;
        }
    }

    /// Records how much RAM there is, in bytes below and above 4 GiB, where firmware looks for it.
    pub fn set_memory(&self, low: u64, high: u64) {
        let mut fields = vec![(0x15, 640_u64, 2)];
        let above_1m = (low.saturating_sub(1 << 20) >> 10).min(0xffff);
        fields.push((0x17, above_1m, 2));
        fields.push((0x30, above_1m, 2));
        fields.push((0x34, (low.saturating_sub(16 << 20) >> 16).min(0xffff), 2));
        fields.push((0x5b, (high >> 16).min(0xff_ffff), 3));
        for (index, value, len) in fields {
            for (index, byte) in (index..).zip(value.to_le_bytes()).take(len) {
                self.set(index, byte);
            }
        }
    }

    /// The reset line: interrupts are off; time and memory are kept.
    pub fn reset(&self) {
        let mut state = self.state();
        state.memory[B] &= !EVENTS;
        state.memory[C] = 0;
        state.index = 0;
        self.settle(&mut state);
    }

    /// Looks for events, and brings interrupt and alarm up to date.
    fn settle(&self, state: &mut State) {
        let now = self.timers.now();
        state.look(now);
        let enabled = state.memory[B] & EVENTS;
        let pending = state.memory[C] & enabled != 0;
        state.memory[C] = state.memory[C] & EVENTS | if pending { IRQ } else { 0 };
        self.irq.set(pending);
        // While the interrupt is pending nothing new can come of an event.
        self.alarm.set(if pending {
            None
        } else {
            state.next(now, enabled)
        });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Timed for Rtc {
    fn ring(&self) {
        self.settle(&mut self.state());
    }
}

impl State {
    /// What the clock shows at machine time `at`: seconds since 1970 and nanoseconds.
    fn time(&self, at: Duration) -> (i64, u32) {
        self.held.unwrap_or_else(|| {
            let total = nanos(at).wrapping_add(self.offset);
            let seconds = i64::try_from(total.div_euclid(1_000_000_000)).unwrap_or(i64::MAX);
            (
                seconds,
                u32::try_from(total.rem_euclid(1_000_000_000)).unwrap_or(0),
            )
        })
    }

    fn show(&mut self, (seconds, nanoseconds): (i64, u32), at: Duration) {
        let total = i128::from(seconds).wrapping_mul(1_000_000_000);
        self.offset = total
            .wrapping_add(i128::from(nanoseconds))
            .wrapping_sub(nanos(at));
    }

    /// How many 32768ths of a second there are from one periodic event to the next, as a power of
    /// two. Rate 0 is none; 1 and 2 stand for 8 and 9.
    fn periodic_shift(&self) -> Option<u32> {
        match u32::from(self.memory[A] & 0xf) {
            0 => None,
            rate @ 1..=2 => Some(rate.saturating_add(6)),
            rate => Some(rate.saturating_sub(1)),
        }
    }

    /// How many periodic events there were by machine time `at`.
    fn periods(&self, at: Duration) -> Option<u128> {
        let ticks = at.as_nanos().saturating_mul(32_768) / 1_000_000_000;
        ticks.checked_shr(self.periodic_shift()?)
    }

    /// When the next periodic event is.
    fn next_period(&self, now: Duration) -> Option<Duration> {
        let periods = self.periods(now)?.saturating_add(1);
        let ticks = periods.checked_shl(self.periodic_shift()?)?;
        // Rounded up: when the alarm rings, the event has happened.
        let nanos = ticks.saturating_mul(1_000_000_000).div_ceil(32_768);
        Some(Duration::from_nanos(u64::try_from(nanos).ok()?))
    }

    /// Sets the flags of what happened since the last look.
    fn look(&mut self, now: Duration) {
        let seen = std::mem::replace(&mut self.seen, now);
        if self.periods(seen) < self.periods(now) {
            self.memory[C] |= PERIODIC;
        }
        let ((before, _), (after, _)) = (self.time(seen), self.time(now));
        if after > before {
            self.memory[C] |= UPDATE;
            if self.next_alarm(before).is_some_and(|alarm| alarm <= after) {
                self.memory[C] |= ALARM;
            }
        }
    }

    /// When the next event happens that is enabled, in machine time.
    fn next(&self, now: Duration, enabled: u8) -> Option<Duration> {
        let periodic = (enabled & PERIODIC != 0)
            .then(|| self.next_period(now))
            .flatten();
        let (seconds, nanoseconds) = self.time(now);
        let until = |second: i64| {
            let whole = u64::try_from(second.saturating_sub(seconds)).ok()?;
            let left =
                Duration::from_secs(whole).checked_sub(Duration::from_nanos(nanoseconds.into()))?;
            now.checked_add(left)
        };
        let running = self.held.is_none();
        let update = (running && enabled & UPDATE != 0)
            .then(|| until(seconds.saturating_add(1)))
            .flatten();
        let alarm = (running && enabled & ALARM != 0)
            .then(|| self.next_alarm(seconds).and_then(until))
            .flatten();
        [periodic, update, alarm].into_iter().flatten().min()
    }

    /// The first second after `seconds` that the alarm matches.
    fn next_alarm(&self, seconds: i64) -> Option<i64> {
        let field = |index: usize, decode: fn(&State, u8) -> u8| {
            let raw = self.memory.get(index).copied().unwrap_or(0);
            (raw < ANY).then(|| decode(self, raw))
        };
        calendar::next_match(
            seconds,
            field(HOURS_ALARM, State::decode_hours),
            field(MINUTES_ALARM, State::decode),
            field(SECONDS_ALARM, State::decode),
        )
    }

    fn encode(&self, value: u8) -> u8 {
        if self.memory[B] & BINARY != 0 {
            value
        } else {
            ((value / 10) << 4) | (value % 10)
        }
    }

    fn decode(&self, value: u8) -> u8 {
        if self.memory[B] & BINARY != 0 {
            value
        } else {
            (value >> 4).saturating_mul(10).saturating_add(value & 0xf)
        }
    }

    fn encode_hours(&self, hour: u8) -> u8 {
        if self.memory[B] & HOURS_24 != 0 {
            return self.encode(hour);
        }
        let twelve = match hour % 12 {
            0 => 12,
            hour => hour,
        };
        self.encode(twelve) | if hour >= 12 { PM } else { 0 }
    }

    fn decode_hours(&self, value: u8) -> u8 {
        if self.memory[B] & HOURS_24 != 0 {
            return self.decode(value);
        }
        let hour = self.decode(value & !PM) % 12;
        hour.saturating_add(if value & PM != 0 { 12 } else { 0 })
    }

    /// The registers for time as they show `seconds` since 1970.
    fn time_register(&self, index: usize, seconds: i64) -> Option<u8> {
        let civil = Civil::from_seconds(seconds);
        Some(match index {
            SECONDS => self.encode(civil.second),
            MINUTES => self.encode(civil.minute),
            HOURS => self.encode_hours(civil.hour),
            WEEKDAY => self.encode(civil.weekday),
            DAY => self.encode(civil.day),
            MONTH => self.encode(civil.month),
            YEAR => self.encode((civil.year % 100) as u8),
            CENTURY => self.encode((civil.year / 100 % 100) as u8),
            _ => return None,
        })
    }

    /// The time with one register written.
    fn with_register(&self, index: usize, value: u8, seconds: i64) -> i64 {
        let mut civil = Civil::from_seconds(seconds);
        let number = self.decode(value);
        match index {
            SECONDS => civil.second = number,
            MINUTES => civil.minute = number,
            HOURS => civil.hour = self.decode_hours(value),
            DAY => civil.day = number,
            MONTH => civil.month = number,
            YEAR => {
                civil.year = (civil.year / 100)
                    .saturating_mul(100)
                    .saturating_add(number.into())
            }
            CENTURY => {
                civil.year = u16::from(number)
                    .saturating_mul(100)
                    .saturating_add(civil.year % 100)
            }
            _ => {} // the day of the week follows from the date
        }
        civil.to_seconds()
    }

    fn is_held(&self) -> bool {
        self.memory[B] & SET != 0 || self.memory[A] >> 4 & 7 >= 6
    }

    fn load(&mut self, now: Duration) -> u8 {
        let index = usize::from(self.index);
        let (seconds, nanoseconds) = self.time(now);
        if let Some(value) = self.time_register(index, seconds) {
            return match self.held {
                // What the guest wrote, even if it is no date.
                Some(_) => self.memory.get(index).copied().unwrap_or(0),
                None => value,
            };
        }
        let value = self.memory.get(index).copied().unwrap_or(0xff);
        match index {
            A => {
                let left = SECOND.saturating_sub(Duration::from_nanos(nanoseconds.into()));
                let soon = self.held.is_none() && left <= UPDATE_NOTICE;
                value | if soon { UPDATE_IN_PROGRESS } else { 0 }
            }
            C => {
                self.memory[C] = 0;
                value
            }
            _ => value,
        }
    }

    fn store(&mut self, value: u8, now: Duration) {
        let index = usize::from(self.index);
        let (seconds, nanoseconds) = self.time(now);
        match index {
            A | B => {
                let in_reset = self.memory[A] >> 4 & 7 >= 6;
                let kept = match index {
                    A => UPDATE_IN_PROGRESS,
                    _ if value & SET != 0 => UPDATE,
                    _ => 0,
                };
                if let Some(byte) = self.memory.get_mut(index) {
                    *byte = value & !kept;
                }
                match (self.held, self.is_held()) {
                    (None, true) => {
                        self.held = Some((seconds, nanoseconds));
                        for index in 0..self.memory.len() {
                            if let Some(value) = self.time_register(index, seconds)
                                && let Some(byte) = self.memory.get_mut(index)
                            {
                                *byte = value;
                            }
                        }
                    }
                    (Some(_), false) => {
                        self.held = None;
                        // The first update comes half a second after the divider's reset ends.
                        let nanoseconds = if in_reset { 500_000_000 } else { nanoseconds };
                        self.show((self.registers(seconds), nanoseconds), now);
                    }
                    _ => {}
                }
            }
            C | D => {}
            _ => {
                if let Some(byte) = self.memory.get_mut(index) {
                    *byte = value;
                }
                let is_time = self.time_register(index, seconds).is_some();
                if is_time && self.held.is_none() {
                    self.show(
                        (self.with_register(index, value, seconds), nanoseconds),
                        now,
                    );
                }
            }
        }
    }

    /// The time that the held registers say.
    fn registers(&self, seconds: i64) -> i64 {
        // From the largest unit down, each on the day that those before it make. Through the first
        // of a month, lest the 31st of a month that has none moves the date while it is put together.
        let start = Civil {
            day: 1,
            month: 1,
            ..Civil::from_seconds(seconds)
        }
        .to_seconds();
        [CENTURY, YEAR, MONTH, DAY, HOURS, MINUTES, SECONDS]
            .into_iter()
            .fold(start, |time, index| {
                self.with_register(index, self.memory.get(index).copied().unwrap_or(0), time)
            })
    }
}

impl ByteWide for Rtc {
    fn load(&self, offset: u64) -> u8 {
        if offset != 1 {
            return 0xff; // the index cannot be read back
        }
        let mut state = self.state();
        self.settle(&mut state);
        let value = state.load(self.timers.now());
        self.settle(&mut state);
        value
    }

    fn store(&self, offset: u64, value: u8) -> Action {
        let mut state = self.state();
        match offset {
            // Bit 7 masks NMI, of which there are none.
            0 => state.index = value & 0x7f,
            1 => {
                self.settle(&mut state);
                let now = self.timers.now();
                state.store(value, now);
                state.seen = now;
                self.settle(&mut state);
            }
            _ => {}
        }
        Action::None
    }
}

fn nanos(time: Duration) -> i128 {
    i128::try_from(time.as_nanos()).unwrap_or(i128::MAX)
}

#[cfg(test)]
mod tests;
