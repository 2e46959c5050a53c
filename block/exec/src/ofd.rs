//! Locks on ranges of a file's bytes that belong to the open file description (`F_OFD_SETLK`, fcntl(2)).
//!
//! Unlike POSIX record locks they do not vanish when another descriptor of the file is closed, and two
//! descriptions in one process exclude each other. They say nothing about the bytes themselves: programs
//! agree on what a locked byte means.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// What to do with a range of bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lock {
    /// Give it up.
    None,
    /// Held by any number at once. The descriptor must be open for reading.
    Shared,
    /// Held by one alone. The descriptor must be open for writing.
    Exclusive,
}

impl Lock {
    fn region(self, start: u64, len: u64) -> io::Result<libc::flock> {
        let kind = match self {
            Lock::None => libc::F_UNLCK,
            Lock::Shared => libc::F_RDLCK,
            Lock::Exclusive => libc::F_WRLCK,
        };
        let number =
            |value| i64::try_from(value).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL));
        Ok(libc::flock {
            l_type: kind as i16,
            l_whence: libc::SEEK_SET as i16,
            l_start: number(start)?,
            l_len: number(len)?,
            // Must be 0 for this kind of lock.
            l_pid: 0,
        })
    }
}

/// Takes, changes or gives up the lock on `len` bytes from `start`, without waiting.
///
/// # Errors
/// `EAGAIN` when somebody else's lock is in the way; `EBADF` when the descriptor is not open for what the
/// lock needs; `EINVAL` or `ENOLCK` where the file system has no such locks.
pub fn set(fd: BorrowedFd<'_>, start: u64, len: u64, lock: Lock) -> io::Result<()> {
    let region = lock.region(start, len)?;
    // SAFETY: F_OFD_SETLK reads one flock.
    let done = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_OFD_SETLK, &raw const region) };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Whether `lock` could be taken on `len` bytes from `start` now. Locks of this descriptor do not count.
///
/// # Errors
/// As for [`set`], `EAGAIN` excepted.
pub fn test(fd: BorrowedFd<'_>, start: u64, len: u64, lock: Lock) -> io::Result<bool> {
    let mut region = lock.region(start, len)?;
    // SAFETY: F_OFD_GETLK reads and writes one flock.
    let done = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_OFD_GETLK, &raw mut region) };
    if done == 0 {
        Ok(region.l_type == libc::F_UNLCK as i16)
    } else {
        Err(io::Error::last_os_error())
    }
}
