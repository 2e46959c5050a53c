//! Locks and signals for tasks, on whatever threads they run.
//!
//! All are fair: who came first is served first, and what is released goes to the first waiter, not to whoever happens
//! to run. All are one [`Semaphore`], but for [`Notify`]. Waiting futures may be dropped at any time: nothing is lost.
//! Inside, a short std mutex that is never held while a task or a waker runs.

mod mutex;
mod notify;
pub mod oneshot;
mod rwlock;
mod semaphore;

pub use mutex::{Mutex, MutexGuard};
pub use notify::Notify;
pub use rwlock::{RwLock, RwLockReadGuard, RwLockWriteGuard};
pub use semaphore::{Permit, Semaphore};

#[cfg(test)]
mod tests;
