//! Sleeping. Timers of one executor are kept in order of deadline, then of making; they fire one at a time, and what one
//! wakes runs before the next fires.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::clock::Instant;
use crate::executor::Core;

#[derive(Default)]
pub(crate) struct Timers {
    waiting: BTreeMap<(Instant, u64), Waker>,
    made: u64,
}

impl Timers {
    pub(crate) fn next(&self) -> Option<Instant> {
        self.waiting
            .first_key_value()
            .map(|((deadline, _), _)| *deadline)
    }

    /// Takes the first timer if it is due.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<Waker> {
        self.waiting
            .first_entry()
            .filter(|first| first.key().0 <= now)
            .map(|first| first.remove())
    }
}

/// The time on the current executor's clock.
///
/// # Panics
/// On a thread that runs no executor.
pub fn now() -> Instant {
    Core::current().clock.now()
}

/// Waits until `duration` from now has passed on the executor's clock.
pub async fn sleep(duration: Duration) {
    sleep_until(now() + duration).await;
}

/// Waits until the executor's clock shows `deadline` or later. May be dropped at any time.
pub fn sleep_until(deadline: Instant) -> impl Future<Output = ()> {
    Sleep {
        deadline,
        waiting: None,
    }
}

struct Sleep {
    deadline: Instant,
    waiting: Option<(Rc<Core>, u64)>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let deadline = self.deadline;
        let (core, id) = self.waiting.get_or_insert_with(|| {
            let core = Core::current();
            let mut timers = core.timers.borrow_mut();
            timers.made += 1;
            let id = timers.made;
            drop(timers);
            (core, id)
        });
        if core.clock.now() >= deadline {
            return Poll::Ready(());
        }
        core.timers
            .borrow_mut()
            .waiting
            .insert((deadline, *id), cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some((core, id)) = &self.waiting {
            let waker = core
                .timers
                .borrow_mut()
                .waiting
                .remove(&(self.deadline, *id));
            drop(waker);
        }
    }
}
