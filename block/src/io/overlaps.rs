//! Writes in flight on one node, so that a read-modify-write neither loses a neighbour's write nor lets
//! one in between its read and its write.
//!
//! Requests are ordered as they arrive. One waits only for *earlier* ones that overlap it, and only when
//! one of the two modifies whole blocks; so nothing waits in a circle. The lock is held for a look at the
//! list, never across an await.

use std::future::poll_fn;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

/// The writes in flight.
#[derive(Default)]
pub(crate) struct Overlaps(Mutex<Active>);

#[derive(Default)]
struct Active {
    next: u64,
    entries: Vec<Entry>,
}

struct Entry {
    id: u64,
    range: Range<u64>,
    modifies: bool,
    waiting: Vec<Waker>,
}

/// A request's place in the list; leaving wakes who waits for it.
pub(crate) struct Turn<'a> {
    overlaps: &'a Overlaps,
    id: u64,
}

impl Overlaps {
    /// Waits until no earlier request conflicts with this one.
    pub(crate) async fn enter(&self, range: Range<u64>, modifies: bool) -> Turn<'_> {
        let id = {
            let mut active = self.lock();
            let id = active.next;
            active.next = id.wrapping_add(1);
            active.entries.push(Entry {
                id,
                range: range.clone(),
                modifies,
                waiting: Vec::new(),
            });
            id
        };
        let turn = Turn { overlaps: self, id };
        poll_fn(|context| {
            let mut active = self.lock();
            let conflict = active.entries.iter_mut().find(|other| {
                other.id < id
                    && (other.modifies || modifies)
                    && other.range.start < range.end
                    && range.start < other.range.end
            });
            match conflict {
                None => Poll::Ready(()),
                Some(other) => {
                    if !other
                        .waiting
                        .iter()
                        .any(|waker| waker.will_wake(context.waker()))
                    {
                        other.waiting.push(context.waker().clone());
                    }
                    Poll::Pending
                }
            }
        })
        .await;
        turn
    }

    fn lock(&self) -> MutexGuard<'_, Active> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let waiting = {
            let mut active = self.overlaps.lock();
            let position = active.entries.iter().position(|entry| entry.id == self.id);
            position
                .map(|at| active.entries.swap_remove(at).waiting)
                .unwrap_or_default()
        };
        waiting.into_iter().for_each(Waker::wake);
    }
}
