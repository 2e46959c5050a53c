//! Requests that wait at a drive's shut gate: not in flight, let in in the order they came, or discarded.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use exec::drain::{Gate, InFlight};

use crate::error::errno;

#[derive(Default)]
pub(super) struct Parked(Mutex<State>);

#[derive(Default)]
struct State {
    /// Counts [`Parked::discard`]: whoever waits since before it is discarded.
    discards: u64,
    waiting: Vec<Waker>,
}

impl Parked {
    /// Waits at the gate.
    ///
    /// # Errors
    /// `ECANCELED` when it is discarded meanwhile.
    pub(super) async fn enter(&self, gate: &Gate) -> io::Result<InFlight> {
        let since = self.lock().discards;
        let mut enter = pin!(gate.enter());
        std::future::poll_fn(|context| {
            let mut state = self.lock();
            if state.discards != since {
                return Poll::Ready(Err(errno(libc::ECANCELED)));
            }
            if !state
                .waiting
                .iter()
                .any(|waker| waker.will_wake(context.waker()))
            {
                state.waiting.push(context.waker().clone());
            }
            drop(state);
            enter.as_mut().poll(context).map(Ok)
        })
        .await
    }

    /// Ends everything that waits now.
    pub(super) fn discard(&self) {
        let waiting = {
            let mut state = self.lock();
            state.discards = state.discards.wrapping_add(1);
            std::mem::take(&mut state.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
