//! "Something happened": a signal without a value.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};

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
    /// Who waits, by when they were first polled.
    waiting: BTreeMap<u64, Waker>,
    next: u64,
}

impl Notify {
    /// Nothing has happened yet.
    pub const fn new() -> Self {
        Self(Mutex::new(State {
            count: 0,
            waiting: BTreeMap::new(),
            next: 0,
        }))
    }

    /// Wakes everyone whose future exists now.
    pub fn notify_all(&self) {
        let mut state = lock(&self.0);
        state.count = state.count.wrapping_add(1);
        let woken = std::mem::take(&mut state.waiting);
        drop(state);
        woken.into_values().for_each(Waker::wake);
    }

    /// How many wait.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        lock(&self.0).waiting.len()
    }

    /// Waits for the next `notify_all` after this call. May be dropped at any time.
    pub fn notified(&self) -> impl Future<Output = ()> + use<'_> {
        Notified {
            of: self,
            since: lock(&self.0).count,
            place: None,
        }
    }
}

struct Notified<'a> {
    of: &'a Notify,
    since: u64,
    place: Option<u64>,
}

impl Future for Notified<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = lock(&self.of.0);
        if state.count != self.since {
            return Poll::Ready(());
        }
        let place = self.place.unwrap_or(state.next);
        state.next = state.next.max(place.wrapping_add(1));
        let old = state.waiting.insert(place, cx.waker().clone());
        drop(state);
        drop(old);
        self.place = Some(place);
        Poll::Pending
    }
}

impl Drop for Notified<'_> {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            let waker = lock(&self.of.0).waiting.remove(&place);
            drop(waker);
        }
    }
}
