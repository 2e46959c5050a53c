//! A lock that may be held across an await.

use std::cell::UnsafeCell;
use std::fmt;
use std::ops::{Deref, DerefMut};

use super::{Permit, Semaphore};

/// A fair lock. Waiting for it suspends the task, not the thread.
pub struct Mutex<T: ?Sized> {
    one: Semaphore,
    value: UnsafeCell<T>,
}

// SAFETY: as std's: the lock gives `&mut T` to one holder at a time, on any thread.
unsafe impl<T: ?Sized + Send> Send for Mutex<T> {}
// SAFETY: as above.
unsafe impl<T: ?Sized + Send> Sync for Mutex<T> {}

/// Access to what a [`Mutex`] holds, until dropped.
pub struct MutexGuard<'a, T: ?Sized> {
    value: &'a UnsafeCell<T>,
    _permit: Permit<'a>,
}

// SAFETY: as std's guard: sharing it shares `&T`.
unsafe impl<T: ?Sized + Sync> Sync for MutexGuard<'_, T> {}
// SAFETY: it stands for `&mut T`, and the permit may be given back on any thread.
unsafe impl<T: ?Sized + Send> Send for MutexGuard<'_, T> {}

impl<T> Mutex<T> {
    /// Unlocked.
    pub const fn new(value: T) -> Self {
        Self {
            one: Semaphore::new(1),
            value: UnsafeCell::new(value),
        }
    }

    /// What it held.
    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }
}

impl<T: ?Sized> Mutex<T> {
    /// Takes the lock, waiting in line for it.
    pub async fn lock(&self) -> MutexGuard<'_, T> {
        MutexGuard {
            _permit: self.one.acquire(1).await,
            value: &self.value,
        }
    }

    /// Takes the lock if it is free and nobody waits.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        Some(MutexGuard {
            _permit: self.one.try_acquire(1)?,
            value: &self.value,
        })
    }

    /// What it holds, which needs no lock when nobody else can see it.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }
}

impl<T: ?Sized> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the only permit is ours.
        unsafe { &*self.value.get() }
    }
}

impl<T: ?Sized> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the only permit is ours, and `self` is exclusive.
        unsafe { &mut *self.value.get() }
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.try_lock() {
            Some(value) => f.debug_tuple("Mutex").field(&&*value).finish(),
            None => f.write_str("Mutex(<locked>)"),
        }
    }
}

impl<T: Default> Default for Mutex<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}
