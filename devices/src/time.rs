//! Time as device models see it: a clock and one-shot alarms on it.
//!
//! Whoever runs the machine chooses the clock and spawns [`Timers::drive`]; a model cannot tell the
//! host's clock from one that a test steps. Each alarm holds one entry however often it is set, so that a
//! guest cannot make the queue grow.
//!
//! Lock order: a device's lock → the queue. Devices are called with no lock held, and may find that
//! their alarm was set anew in between: what is due, they work out from the time.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Poll, Waker};
use std::time::Duration;

/// What is called when its [`Alarm`] rings.
pub trait Timed: Send + Sync {
    /// The time that the alarm was set to has come.
    fn ring(&self);
}

/// The clock of a machine and the alarms set on it.
pub struct Timers {
    clock: Arc<dyn exec::Clock>,
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
    /// Alarms on `clock`.
    pub fn new(clock: Arc<dyn exec::Clock>) -> Arc<Timers> {
        Arc::new(Timers {
            clock,
            queue: Mutex::default(),
        })
    }

    /// The time now, since the clock's start.
    pub fn now(&self) -> Duration {
        self.clock.now().since(exec::Instant::ZERO)
    }

    /// Rings what becomes due, on an executor that runs on the same clock, until the timers are gone.
    pub fn drive(self: &Arc<Self>) -> impl Future<Output = ()> + use<> {
        let timers = Arc::downgrade(self);
        async move {
            let mut sleep = pin!(None);
            let mut until = None;
            poll_fn(move |context| {
                loop {
                    let Some(timers) = timers.upgrade() else {
                        return Poll::Ready(());
                    };
                    let next = timers.run(Some(context.waker()));
                    drop(timers);
                    if next != until {
                        until = next;
                        sleep.set(next.map(|at| exec::sleep_until(instant(at))));
                    }
                    match sleep.as_mut().as_pin_mut().map(|sleep| sleep.poll(context)) {
                        Some(Poll::Ready(())) => until = None,
                        _ => return Poll::Pending,
                    }
                }
            })
            .await;
        }
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
    pub(crate) fn run(&self, waker: Option<&Waker>) -> Option<Duration> {
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

/// On the clock, `at` after its start.
fn instant(at: Duration) -> exec::Instant {
    exec::Instant::from_nanos(u64::try_from(at.as_nanos()).unwrap_or(u64::MAX))
}

impl Drop for Timers {
    fn drop(&mut self) {
        if let Some(waker) = self.queue().waker.take() {
            waker.wake();
        }
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
