//! Requests that wait at a drive's shut gate: not in flight, let in in the order they came, or discarded.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::task::Poll;

use exec::drain::{Gate, InFlight};
use exec::sync::Notify;

use crate::error::errno;

/// Announces that what is parked now is discarded.
#[derive(Default)]
pub(super) struct Parked(Notify);

impl Parked {
    /// Waits at the gate.
    ///
    /// # Errors
    /// `ECANCELED` when it is discarded meanwhile.
    pub(super) async fn enter(&self, gate: &Gate) -> io::Result<InFlight> {
        let mut discarded = pin!(self.0.notified());
        let mut enter = pin!(gate.enter());
        poll_fn(|context| {
            if discarded.as_mut().poll(context).is_ready() {
                return Poll::Ready(Err(errno(libc::ECANCELED)));
            }
            enter.as_mut().poll(context).map(Ok)
        })
        .await
    }

    /// Ends everything that waits now.
    pub(super) fn discard(&self) {
        self.0.notify_all();
    }
}
