//! Moving a window of memory to or from a file, all of it: what every read and write of a guest waits in.
//!
//! Short transfers are continued and a read past the end of the file gets zeroes; nobody above sees a count. A buffered
//! read that the page cache can answer is done at once with `preadv2(RWF_NOWAIT)` (tmpfs, which has no such thing and
//! nothing to wait for, is read plainly); after misses it is tried less often.
//!
//! Written by hand to be small: the data of other requests drives a request's own state out of the nearest cache, and
//! each line of it is paid for when its turn comes.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::task::{Context, Poll, ready};

use super::{File, FileKind};
use crate::buf::IoSlices;
use crate::executor::Core;
use crate::op::{Flight, Memory, Op};

/// How often the kernel may say that it was interrupted, or has no memory now.
pub(super) const TRIES: u8 = 100;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Read,
    Write {
        /// Durable when it is done (RWF_DSYNC).
        dsync: bool,
    },
}

/// A read or a write, until all of it is done.
#[must_use = "nothing happens before it is awaited"]
pub struct Transfer<'a> {
    file: &'a File,
    /// Where the rest starts in the file.
    offset: u64,
    rest: IoSlices<'a>,
    way: Way,
    tries: u8,
    /// Before `pieces`, since fields are dropped in this order: dropping it waits until the kernel is done with them.
    flight: Flight,
    /// The pieces of what is in flight, where they are more than one.
    pieces: Vec<libc::iovec>,
}

impl<'a> Transfer<'a> {
    /// # Safety
    /// For a read, the memory may be written while the transfer lives.
    pub(super) unsafe fn new(file: &'a File, offset: u64, window: IoSlices<'a>, way: Way) -> Self {
        Self {
            file,
            offset,
            rest: window,
            way,
            tries: TRIES,
            flight: Flight::default(),
            pieces: Vec::new(),
        }
    }

    /// One system call's worth of it: how much was moved, or the errno.
    fn part(&mut self, context: &Context<'_>) -> Poll<i64> {
        if self.flight.is_none() {
            let end = self.offset.checked_add(self.rest.len() as u64);
            if end.is_none_or(|end| i64::try_from(end).is_err()) {
                return Poll::Ready(-i64::from(libc::EINVAL));
            }
            let core = Core::current();
            let memory = self.memory();
            if self.way == Way::Read && self.file.cached.is_worth_a_try() {
                if !core.consume_budget() {
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
                // SAFETY: `new`'s promise.
                if let Some(count) = unsafe { self.file.read_cached(self.offset, memory) } {
                    return Poll::Ready(count);
                }
            }
            let offset = self.offset;
            let op = match self.way {
                Way::Read => Op::Read { to: memory, offset },
                Way::Write { dsync } => Op::Write {
                    from: memory,
                    offset,
                    dsync,
                },
            };
            // SAFETY: `new`'s promise; `pieces` is touched only without a flight, and dropped after it.
            self.flight =
                unsafe { Flight::start(core, &op, Some(&self.file.leaf), context.waker()) };
            return Poll::Pending;
        }
        self.flight.poll(context.waker())
    }

    fn memory(&mut self) -> Memory {
        if let Some(piece) = self.rest.single() {
            return Memory::One(piece.as_ptr().cast_mut(), piece.len());
        }
        self.pieces = self.rest.to_iovecs(self.file.alignment.offset as usize);
        Memory::Many(self.pieces.as_ptr(), self.pieces.len())
    }

    /// Takes `count` bytes off the rest. Returns whether that was all there is to do.
    fn advance(&mut self, count: usize) -> io::Result<bool> {
        if count >= self.rest.len() {
            return Ok(true);
        }
        self.rest = self.rest.slice(count..self.rest.len());
        self.offset = self.offset.wrapping_add(count as u64);
        let unit = self.file.alignment.offset as usize;
        match self.way {
            // Direct I/O stops in the middle of a block only at the end of the file.
            Way::Read if count == 0 || !count.is_multiple_of(unit) => {
                // SAFETY: `new`'s promise.
                unsafe { self.rest.fill_zero() };
                Ok(true)
            }
            Way::Write { .. } if count == 0 => Err(io::Error::from_raw_os_error(libc::ENOSPC)),
            _ => Ok(false),
        }
    }
}

impl Future for Transfer<'_> {
    type Output = io::Result<()>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while !this.rest.is_empty() {
            let result = ready!(this.part(context));
            if let Ok(count) = usize::try_from(result) {
                if this.advance(count)? {
                    break;
                }
            } else if super::is_passing(result) && this.tries > 0 {
                this.tries -= 1;
                context.waker().wake_by_ref();
                return Poll::Pending;
            } else {
                return Poll::Ready(Err(super::error(result)));
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Whether reads are tried on the page cache first.
pub(super) struct CachedReads {
    /// Flags for `preadv2`, or -1 for never.
    flags: AtomicI32,
    /// Reads to let pass before the next try, and how many it was last.
    skip: AtomicU32,
    last: AtomicU32,
}

impl CachedReads {
    pub(super) fn never() -> Self {
        Self::with(-1)
    }

    pub(super) fn of(kind: FileKind, direct: bool, tmpfs: bool) -> Self {
        Self::with(match kind {
            _ if direct => -1,
            FileKind::Regular if tmpfs => 0,
            FileKind::Regular | FileKind::BlockDevice => libc::RWF_NOWAIT,
            _ => -1,
        })
    }

    fn with(flags: i32) -> Self {
        Self {
            flags: flags.into(),
            skip: AtomicU32::new(0),
            last: AtomicU32::new(0),
        }
    }

    fn is_worth_a_try(&self) -> bool {
        if self.flags.load(Ordering::Relaxed) < 0 {
            return false;
        }
        let skip = self.skip.load(Ordering::Relaxed);
        if skip > 0 {
            // Only a hint: threads that race here skip one more or less.
            self.skip.store(skip - 1, Ordering::Relaxed);
        }
        skip == 0
    }
}

impl File {
    /// Reads from the page cache. `None`: not there; the ring will say.
    ///
    /// # Safety
    /// The memory may be written.
    unsafe fn read_cached(&self, offset: u64, to: Memory) -> Option<i64> {
        let mut one = libc::iovec {
            iov_base: std::ptr::null_mut(),
            iov_len: 0,
        };
        let (iov, count) = to.as_iovecs(&mut one);
        let flags = self.cached.flags.load(Ordering::Relaxed);
        // Not the C library's, which is a cancellation point and pays for that.
        // SAFETY: the memory is valid, the caller vouches that it may be written, and it is before this returns.
        let read = unsafe {
            libc::syscall(
                libc::SYS_preadv2,
                self.leaf.raw_fd(),
                iov,
                count,
                offset,
                0,
                flags,
            )
        };
        if read >= 0 {
            self.cached.last.store(0, Ordering::Relaxed);
            return Some(read);
        }
        match io::Error::last_os_error().raw_os_error() {
            Some(libc::EAGAIN) => {
                let last = (self.cached.last.load(Ordering::Relaxed) * 2 + 1).min(63);
                self.cached.last.store(last, Ordering::Relaxed);
                self.cached.skip.store(last, Ordering::Relaxed);
            }
            Some(libc::EOPNOTSUPP | libc::ENOSYS) => self.cached.flags.store(-1, Ordering::Relaxed),
            _ => {}
        }
        None
    }
}
