//! Polling before sleeping: waking a thread costs more than most waits last.
//!
//! The time spent polling grows while waits turn out shorter than the limit and drops to nothing when they are longer,
//! as administrators know it from `poll-max-ns`. While it polls, an executor asks the tasks in
//! [`Kick::wait_polling`](crate::Kick::wait_polling) whether they see work, so that a busy guest need not notify.

use std::cell::{Cell, RefCell};
use std::task::Waker;
use std::time::{Duration, Instant};

use slab::Slab;

use crate::executor::Core;

const FIRST: Duration = Duration::from_micros(4);

pub(crate) struct Polling {
    max: Duration,
    /// How long to poll now.
    time: Cell<Duration>,
    /// Whether the executor is polling right now.
    active: Cell<bool>,
    /// A poller saw work.
    hit: Cell<bool>,
    pollers: RefCell<Slab<Waker>>,
}

impl Polling {
    pub(crate) fn new(max: Duration) -> Self {
        Self {
            max,
            time: Cell::new(Duration::ZERO),
            active: Cell::new(false),
            hit: Cell::new(false),
            pollers: RefCell::default(),
        }
    }

    pub(crate) fn is_on(&self) -> bool {
        !self.max.is_zero()
    }

    /// When a wait begins; nothing where nobody polls.
    pub(crate) fn begin(&self) -> Option<Instant> {
        self.is_on().then(Instant::now)
    }

    /// Polls until there is work (true) or the time is over.
    pub(crate) fn spin(
        &self,
        core: &Core,
        begin: Option<Instant>,
        limit: Option<Duration>,
        mut ready: impl FnMut() -> bool,
    ) -> bool {
        let Some(begin) = begin else { return false };
        let time = self.time.get().min(limit.unwrap_or(Duration::MAX));
        self.hit.set(false);
        while begin.elapsed() < time {
            if ready() || core.shared.has_mail() {
                return true;
            }
            let wakers: Vec<_> = self
                .pollers
                .borrow()
                .iter()
                .map(|(_, waker)| waker.clone())
                .collect();
            if wakers.is_empty() {
                std::hint::spin_loop();
                continue;
            }
            self.active.set(true);
            wakers.iter().for_each(Waker::wake_by_ref);
            core.run_ready();
            self.active.set(false);
            if self.hit.get() || core.ready_len() > 0 {
                return true;
            }
        }
        false
    }

    /// The executor slept: adapt to how long the wait was.
    pub(crate) fn slept(&self, begin: Option<Instant>) {
        let Some(waited) = begin.map(|begin| begin.elapsed()) else {
            return;
        };
        let time = self.time.get();
        if waited > self.max {
            self.time.set(Duration::ZERO);
        } else if waited > time {
            self.time
                .set((time * 2).clamp(FIRST.min(self.max), self.max));
        }
    }

    /// Whether a task that waits in `wait_polling` is being asked by the executor.
    pub(crate) fn is_active(&self) -> bool {
        self.active.get()
    }

    pub(crate) fn found_work(&self) {
        self.hit.set(true);
    }

    pub(crate) fn add(&self, waker: Waker) -> usize {
        self.pollers.borrow_mut().insert(waker)
    }

    pub(crate) fn remove(&self, key: usize) {
        let waker = self.pollers.borrow_mut().try_remove(key);
        drop(waker);
    }
}
