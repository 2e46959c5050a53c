//! A lock for many readers or one writer.

use std::cell::UnsafeCell;
use std::ops::{Deref, DerefMut};

use super::{Permit, Semaphore};

/// More than there will ever be readers at a time.
const ALL: usize = u32::MAX as usize;

/// A fair lock for many readers or one writer: a waiting writer is not overtaken by later readers.
pub struct RwLock<T: ?Sized> {
    permits: Semaphore,
    value: UnsafeCell<T>,
}

// SAFETY: as std's: readers share `&T`, one writer has `&mut T`, on any thread.
unsafe impl<T: ?Sized + Send> Send for RwLock<T> {}
// SAFETY: as above.
unsafe impl<T: ?Sized + Send + Sync> Sync for RwLock<T> {}

/// Shared access, until dropped.
pub struct RwLockReadGuard<'a, T: ?Sized> {
    value: &'a T,
    _permit: Permit<'a>,
}

/// Exclusive access, until dropped.
pub struct RwLockWriteGuard<'a, T: ?Sized> {
    value: &'a UnsafeCell<T>,
    _permits: Permit<'a>,
}

// SAFETY: sharing the guard shares `&T`.
unsafe impl<T: ?Sized + Sync> Sync for RwLockWriteGuard<'_, T> {}
// SAFETY: it stands for `&mut T`.
unsafe impl<T: ?Sized + Send> Send for RwLockWriteGuard<'_, T> {}

impl<T> RwLock<T> {
    /// Unlocked.
    pub const fn new(value: T) -> Self {
        Self {
            permits: Semaphore::new(ALL),
            value: UnsafeCell::new(value),
        }
    }

    /// What it held.
    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }
}

impl<T: ?Sized> RwLock<T> {
    /// Takes it for reading.
    pub async fn read(&self) -> RwLockReadGuard<'_, T> {
        let permit = self.permits.acquire(1).await;
        // SAFETY: while we have a permit nobody has all of them, so there is no `&mut T`.
        let value = unsafe { &*self.value.get() };
        RwLockReadGuard {
            value,
            _permit: permit,
        }
    }

    /// Takes it for writing.
    pub async fn write(&self) -> RwLockWriteGuard<'_, T> {
        RwLockWriteGuard {
            _permits: self.permits.acquire(ALL).await,
            value: &self.value,
        }
    }
}

impl<T: ?Sized> Deref for RwLockReadGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value
    }
}

impl<T: ?Sized> Deref for RwLockWriteGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: all permits are ours.
        unsafe { &*self.value.get() }
    }
}

impl<T: ?Sized> DerefMut for RwLockWriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: all permits are ours, and `self` is exclusive.
        unsafe { &mut *self.value.get() }
    }
}
