//! Permits, handed out in the order in which they were asked for.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use crate::lock;

/// A number of permits. A request for many is not overtaken by later requests for few.
pub struct Semaphore(Mutex<State>);

struct State {
    free: usize,
    queue: VecDeque<Arc<Waiter>>,
}

struct Waiter {
    wants: usize,
    progress: Mutex<Progress>,
}

enum Progress {
    Waiting(Option<Waker>),
    Granted,
}

/// Permits taken; given back when dropped.
pub struct Permit<'a> {
    of: &'a Semaphore,
    count: usize,
}

impl Semaphore {
    /// With `permits` free permits.
    pub const fn new(permits: usize) -> Self {
        Self(Mutex::new(State {
            free: permits,
            queue: VecDeque::new(),
        }))
    }

    /// Takes `count` permits, waiting in line for them.
    pub fn acquire(&self, count: usize) -> impl Future<Output = Permit<'_>> {
        Acquire {
            of: self,
            count,
            state: Asked::No,
        }
    }

    /// Takes `count` permits if they are free and nobody waits.
    pub fn try_acquire(&self, count: usize) -> Option<Permit<'_>> {
        let mut state = lock(&self.0);
        if !state.queue.is_empty() || state.free < count {
            return None;
        }
        state.free -= count;
        drop(state);
        Some(Permit { of: self, count })
    }

    /// Adds permits, or gives back ones whose [`Permit`] was [`forget`](Permit::forget)ed.
    pub fn release(&self, count: usize) {
        let mut state = lock(&self.0);
        state.free += count;
        let woken = state.grant();
        drop(state);
        woken.into_iter().for_each(Waker::wake);
    }

    /// Permits that are free now.
    pub fn available(&self) -> usize {
        lock(&self.0).free
    }
}

impl State {
    /// Gives the first in line what they want, as far as it goes; who is to be woken.
    fn grant(&mut self) -> Vec<Waker> {
        let mut woken = Vec::new();
        while let Some(first) = self.queue.pop_front_if(|first| first.wants <= self.free) {
            self.free -= first.wants;
            if let Progress::Waiting(Some(waker)) =
                std::mem::replace(&mut *lock(&first.progress), Progress::Granted)
            {
                woken.push(waker);
            }
        }
        woken
    }
}

impl Permit<'_> {
    /// Keeps the permits taken for good, or until [`Semaphore::release`].
    pub fn forget(self) {
        std::mem::forget(self);
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.of.release(self.count);
    }
}

struct Acquire<'a> {
    of: &'a Semaphore,
    count: usize,
    state: Asked,
}

enum Asked {
    No,
    Waiting(Arc<Waiter>),
    Done,
}

impl<'a> Future for Acquire<'a> {
    type Output = Permit<'a>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let (of, count) = (self.of, self.count);
        match &self.state {
            Asked::No => {
                let mut state = lock(&of.0);
                if !state.queue.is_empty() || state.free < count {
                    let progress = Mutex::new(Progress::Waiting(Some(cx.waker().clone())));
                    let waiter = Arc::new(Waiter {
                        wants: count,
                        progress,
                    });
                    state.queue.push_back(Arc::clone(&waiter));
                    drop(state);
                    self.state = Asked::Waiting(waiter);
                    return Poll::Pending;
                }
                state.free -= count;
            }
            Asked::Waiting(waiter) => {
                let mut progress = lock(&waiter.progress);
                if let Progress::Waiting(waker) = &mut *progress {
                    let old = waker.replace(cx.waker().clone());
                    drop(progress);
                    drop(old);
                    return Poll::Pending;
                }
            }
            Asked::Done => {}
        }
        self.state = Asked::Done;
        Poll::Ready(Permit { of, count })
    }
}

impl Drop for Acquire<'_> {
    /// Leaves the line, or passes on what was granted and not taken.
    fn drop(&mut self) {
        if let Asked::Waiting(waiter) = &self.state {
            let mut state = lock(&self.of.0);
            if matches!(*lock(&waiter.progress), Progress::Granted) {
                state.free += waiter.wants;
            } else {
                state.queue.retain(|other| !Arc::ptr_eq(other, waiter));
            }
            // Who stood behind may go now.
            let woken = state.grant();
            drop(state);
            woken.into_iter().for_each(Waker::wake);
        }
    }
}

impl fmt::Debug for Semaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Semaphore({})", self.available())
    }
}
