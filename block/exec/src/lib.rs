//! The I/O engine: a small single-threaded executor per I/O thread over one io_uring.
//!
//! From the bottom up, arrows only pointing down:
//!
//! - [`buf`]: lists of memory pieces, cut without allocating.
//! - `ring`: what does the I/O: io_uring, threads where that is refused, or [`sim`], a seeded simulation in memory that
//!   reorders, shortens, fails and crashes.
//! - `op`: one leaf operation as a future, and the rule that it is never dropped in flight.
//! - `config`, `executor`, `task`, `handle`, `poll`: tasks, their thread, its mailbox and bell, polling before sleeping.
//! - [`Kick`], [`sleep`] on a [`Clock`], [`offload`]: what else can be awaited.
//! - [`File`]: leaf operations with whole results: loops over short I/O, zeroes beyond the end.
//! - [`sync`]: locks and signals that work across threads; [`drain`]: counts of requests in flight, and what may only
//!   change when there are none.
//! - [`IoThread`]: one of everything, on a thread.
//!
//! `unsafe` here rests on one contract (`Ring::push`): memory handed to the kernel stays valid until the completion has
//! been taken.

pub mod buf;
mod clock;
mod config;
pub mod drain;
mod executor;
mod file;
mod handle;
mod kick;
pub mod ofd;
mod op;
mod poll;
mod pool;
mod ring;
pub mod sim;
pub mod sync;
mod task;
mod thread;
mod timer;

pub use buf::{AlignedBuf, IoSlice, IoSliceMut, IoSlices, IoSlicesMut};
pub use clock::{Clock, Idle, Instant, Monotonic, Virtual};
pub use config::{Config, Hook, RingKind, ThreadKind};
pub use drain::{DrainCell, Drained};
pub use executor::{Executor, dropped_in_flight};
pub use file::{Alignment, Allocate, Engine, File, FileKind, Sync, Transfer};
pub use handle::{ExecutorId, Handle, RingStatus};
pub use kick::Kick;
#[doc(hidden)]
pub use op::nop;
pub use pool::offload;
pub use task::{all, current, spawn, yield_now};
pub use thread::{IoThread, Stuck};
pub use timer::{now, sleep, sleep_until};

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks a mutex whose data is sound whatever a panicking thread did.
fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
