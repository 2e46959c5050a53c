//! What an executor asks of the thing that does its I/O, and the three that do it.
//!
//! [`Uring`](uring::Uring) hands operations to the kernel, [`Threads`](threads::Threads) leaves them to the offload
//! pool, [`SimRing`](crate::sim) plays them in memory. All three watch descriptors (for kicks and wake-ups) and sleep.

use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use crate::file::Leaf;
use crate::op::Op;

pub(crate) mod threads;
pub(crate) mod uring;

/// A completion: of operation or watch `token`, with the system call's result (negative errno on failure).
pub(crate) struct Completion {
    pub(crate) token: u64,
    pub(crate) result: i64,
    /// A watch that stays armed.
    pub(crate) more: bool,
}

/// How long [`Ring::enter`] may sleep.
#[derive(Clone, Copy)]
pub(crate) enum Wait {
    /// Not at all.
    No,
    /// Until something completes, at most this long.
    Until(Option<Duration>),
}

/// Completions with this token are dropped.
pub(crate) const IGNORE: u64 = u64::MAX;

/// An executor's I/O back end. It belongs to one thread.
pub(crate) trait Ring {
    /// Queues `op` on `leaf`; its completion carries `token`. False when this ring has no such operation: the caller
    /// then runs it on the pool. Nothing reaches the kernel before `enter`.
    ///
    /// # Safety
    /// The memory that `op` names and `leaf`'s descriptor stay valid until the completion has been taken from `enter`,
    /// whatever happens in between (`OpFuture` waits for it even when it is dropped).
    unsafe fn push(&mut self, op: &Op, leaf: Option<&Arc<Leaf>>, token: u64) -> bool;

    /// Asks for `token` to end early. Its completion still comes.
    fn cancel(&mut self, token: u64);

    /// Watches `fd` for input, edge-triggered: a completion for each time it is signalled (several may be one), and
    /// one at once if it is readable now. `fd` stays open until the watch's completion without `more`.
    fn watch(&mut self, fd: RawFd, token: u64) -> io::Result<()>;

    /// Ends a watch; its last completion has `more` unset.
    fn unwatch(&mut self, fd: RawFd, token: u64);

    /// Hands over what is queued, sleeps as `wait` says if nothing has completed, and appends what has.
    fn enter(&mut self, wait: Wait, out: &mut Vec<Completion>) -> io::Result<()>;

    /// Whether `enter(Wait::No)` has something to do. A few loads: asked all the time while polling.
    fn is_ready(&mut self) -> bool;

    /// A descriptor that is readable when `enter(Wait::No)` has something to bring.
    fn event_fd(&mut self) -> io::Result<BorrowedFd<'_>>;

    /// Makes the ring `target` complete `WAKE`; the outcome comes as `token`. False where there is no such thing.
    fn message(&mut self, _target: RawFd, _wake: u64, _token: u64) -> bool {
        false
    }

    /// The descriptor to which other rings may send messages, or -1.
    fn message_fd(&self) -> RawFd {
        -1
    }

    /// Lets go of what is kept for a leaf that is being closed.
    fn forget(&mut self, _index: u32, _generation: u64) {}
}
