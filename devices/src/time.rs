//! Time as device models see it: a clock and one-shot alarms on it.
//!
//! Whoever runs the machine says what time it is and runs what is due; a model cannot tell the host's
//! clock from one that a test steps. Each alarm holds one entry however often it is set, so that a
//! guest cannot make the queue grow.
//!
//! Lock order: a device's lock → the queue. Devices are called with no lock held, and may find that
//! their alarm was set anew in between: what is due, they work out from the time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Waker;
use std::time::Duration;

/// What is called when its [`Alarm`] rings.
pub trait Timed: Send + Sync {
    /// The time that the alarm was set to has come.
    fn ring(&self);
}

/// The clock of a machine and the alarms set on it.
pub struct Timers {
    now: Box<dyn Fn() -> Duration + Send + Sync>,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    made: u64,
    /// By time, then by age of the alarm.
    set: BTreeMap<(Duration, u64), Weak<dyn Timed>>,
    waker: Option<Waker>,
}

/// One device's alarm.
pub struct Alarm {
    timers: Arc<Timers>,
    id: u64,
    device: Weak<dyn Timed>,
    at: Mutex<Option<Duration>>,
}

impl Timers {
    /// Alarms on the clock `now`: time since any fixed point, never going back.
    pub fn new(now: impl Fn() -> Duration + Send + Sync + 'static) -> Arc<Timers> {
        Arc::new(Timers {
            now: Box::new(now),
            queue: Mutex::default(),
        })
    }

    /// The time now.
    pub fn now(&self) -> Duration {
        (self.now)()
    }

    /// An alarm of `device`, not set.
    pub fn alarm(self: &Arc<Self>, device: Weak<dyn Timed>) -> Alarm {
        let mut queue = self.queue();
        queue.made = queue.made.wrapping_add(1);
        Alarm {
            timers: self.clone(),
            id: queue.made,
            device,
            at: Mutex::new(None),
        }
    }

    /// Rings what is due, the earliest first, and says when the next alarm is. `waker` is woken when
    /// one is set for an earlier time than that.
    pub fn run(&self, waker: Option<&Waker>) -> Option<Duration> {
        loop {
            let now = self.now();
            let mut queue = self.queue();
            let Some(first) = queue.set.first_entry() else {
                queue.waker = waker.cloned();
                return None;
            };
            let (at, _) = *first.key();
            if at > now {
                queue.waker = waker.cloned();
                return Some(at);
            }
            let device = first.remove().upgrade();
            drop(queue);
            if let Some(device) = device {
                device.ring();
            }
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Alarm {
    /// Rings at `at`, instead of when it was set to before; `None` for never.
    pub fn set(&self, at: Option<Duration>) {
        let mut old = self.at.lock().unwrap_or_else(PoisonError::into_inner);
        let mut queue = self.timers.queue();
        if let Some(old) = std::mem::replace(&mut *old, at) {
            queue.set.remove(&(old, self.id));
        }
        if let Some(at) = at {
            queue.set.insert((at, self.id), self.device.clone());
            let first = queue.set.first_key_value();
            if first.is_some_and(|(first, _)| *first == (at, self.id))
                && let Some(waker) = queue.waker.take()
            {
                waker.wake();
            }
        }
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        self.set(None);
    }
}

#[cfg(test)]
pub(crate) mod tests;
