//! Time as tasks see it. Every timer runs on its executor's [`Clock`], so that a test can be the one who moves it.

use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::handle::Handle;
use crate::lock;

/// A point in time on a [`Clock`]: nanoseconds since that clock's start. Good for 584 years.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Instant(u64);

impl Instant {
    /// The clock's start.
    pub const ZERO: Self = Self(0);

    /// `nanos` nanoseconds after the clock's start.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the clock's start.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// How long after `earlier` this is; zero if it is not.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl std::ops::Add<Duration> for Instant {
    type Output = Self;

    /// Saturates at the end of time.
    fn add(self, duration: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)),
        )
    }
}

impl fmt::Display for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", Duration::from_nanos(self.0))
    }
}

/// How an executor with nothing to do gets to its next timer.
pub enum Idle {
    /// Sleep this long.
    Sleep(Duration),
    /// Sleep until woken: somebody else moves this clock, and wakes its executors when he does.
    Stopped,
    /// No need to sleep: the clock has jumped there.
    Jumped,
}

/// A source of time.
pub trait Clock: Send + Sync {
    /// The time now.
    fn now(&self) -> Instant;

    /// Called by an executor that has nothing to do before `deadline`.
    fn idle(&self, deadline: Instant) -> Idle;

    /// Tells the clock of an executor that runs on it, once, when it is made.
    fn attach(&self, _executor: Handle) {}
}

/// The host's monotonic clock (CLOCK_MONOTONIC).
#[derive(Clone, Copy, Debug, Default)]
pub struct Monotonic;

impl Clock for Monotonic {
    fn now(&self) -> Instant {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        Instant(
            now.tv_sec
                .cast_unsigned()
                .wrapping_mul(1_000_000_000)
                .wrapping_add(now.tv_nsec.cast_unsigned()),
        )
    }

    fn idle(&self, deadline: Instant) -> Idle {
        Idle::Sleep(deadline.since(self.now()))
    }
}

/// A clock that stands still until it is moved: by [`set`](Self::set) (qtest's `clock_step`), or, if it was made with
/// [`jumping`](Self::jumping), by itself to the next timer whenever an executor on it runs out of work (simulation;
/// meant for one executor).
pub struct Virtual {
    now: AtomicU64,
    jumps: bool,
    executors: Mutex<Vec<Handle>>,
}

impl Virtual {
    /// At zero, moved by hand.
    pub const fn new() -> Self {
        Self {
            now: AtomicU64::new(0),
            jumps: false,
            executors: Mutex::new(Vec::new()),
        }
    }

    /// At zero, jumping to the next timer when there is nothing else to do.
    pub const fn jumping() -> Self {
        Self {
            now: AtomicU64::new(0),
            jumps: true,
            executors: Mutex::new(Vec::new()),
        }
    }

    /// Moves it forward to `to` (never back) and wakes the executors on it. All timers up to `to` are due then; who
    /// wants them one by one steps from [`Executor::next_deadline`](crate::Executor::next_deadline) to the next.
    pub fn set(&self, to: Instant) {
        self.now.fetch_max(to.0, Ordering::AcqRel);
        for executor in lock(&self.executors).iter() {
            executor.wake();
        }
    }

    /// Moves it forward by `by`.
    pub fn step(&self, by: Duration) {
        self.set(self.now() + by);
    }
}

impl Default for Virtual {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for Virtual {
    fn now(&self) -> Instant {
        Instant(self.now.load(Ordering::Acquire))
    }

    fn idle(&self, deadline: Instant) -> Idle {
        if !self.jumps {
            return Idle::Stopped;
        }
        self.now.fetch_max(deadline.0, Ordering::AcqRel);
        Idle::Jumped
    }

    fn attach(&self, executor: Handle) {
        let mut executors = lock(&self.executors);
        executors.retain(|known| !known.is_closed());
        executors.push(executor);
    }
}
