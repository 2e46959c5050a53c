//! "Something happened": a signal without a value.

use std::future::{Future, poll_fn};
use std::sync::Mutex;
use std::task::{Poll, Waker};

use crate::lock;

/// Wakes tasks that wait for an event.
///
/// A [`Notified`](Notify::notified) future counts from the moment it is *made*: whoever makes it, then looks at the
/// state, then awaits it, misses nothing that [`notify_all`](Notify::notify_all) announced in between.
#[derive(Debug, Default)]
pub struct Notify(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// How often `notify_all` was called.
    count: u64,
    waiting: Vec<Waker>,
}

impl Notify {
    /// Nothing has happened yet.
    pub const fn new() -> Self {
        Self(Mutex::new(State {
            count: 0,
            waiting: Vec::new(),
        }))
    }

    /// Wakes everyone whose future exists now.
    pub fn notify_all(&self) {
        let mut state = lock(&self.0);
        state.count = state.count.wrapping_add(1);
        let woken = std::mem::take(&mut state.waiting);
        drop(state);
        woken.into_iter().for_each(Waker::wake);
    }

    /// Waits for the next `notify_all` after this call. May be dropped at any time.
    pub fn notified(&self) -> impl Future<Output = ()> + use<'_> {
        let since = lock(&self.0).count;
        poll_fn(move |cx| {
            let mut state = lock(&self.0);
            if state.count != since {
                return Poll::Ready(());
            }
            if !state
                .waiting
                .iter()
                .any(|known| known.will_wake(cx.waker()))
            {
                state.waiting.push(cx.waker().clone());
            }
            Poll::Pending
        })
    }
}
