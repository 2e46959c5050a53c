//! One leaf operation: what it is, the future that waits for it, and how it is done without a ring.

use std::future::Future;
use std::io;
use std::os::fd::RawFd;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::executor::Core;
use crate::file::Leaf;

/// The memory of an operation, as the kernel wants it.
#[derive(Clone, Copy)]
pub(crate) enum Memory {
    /// One piece.
    One(*mut u8, usize),
    /// An array of pieces, at most `UIO_MAXIOV`.
    Many(*const libc::iovec, usize),
}

/// A leaf operation. Offsets and lengths in bytes.
#[derive(Clone, Copy)]
pub(crate) enum Op {
    Nop,
    Read {
        to: Memory,
        offset: u64,
    },
    Write {
        from: Memory,
        offset: u64,
        dsync: bool,
    },
    Sync {
        data_only: bool,
    },
    Allocate {
        mode: i32,
        offset: u64,
        len: u64,
    },
    Discard {
        offset: u64,
        len: u64,
    },
    ZeroOut {
        offset: u64,
        len: u64,
    },
    SetLen(u64),
    /// The next data (or hole) at or after the offset.
    Seek {
        hole: bool,
        offset: u64,
    },
}

// SAFETY: the pointers are used by one thread at a time, and only while the issuing future keeps the memory valid.
unsafe impl Send for Op {}

impl Op {
    /// Does it here and now with plain system calls.
    ///
    /// # Safety
    /// The memory it names and `fd` are valid.
    pub(crate) unsafe fn perform(&self, fd: RawFd) -> i64 {
        // Outlives the calls, which are given its address.
        let mut one = libc::iovec {
            iov_base: std::ptr::null_mut(),
            iov_len: 0,
        };
        // SAFETY: the caller vouches for memory and descriptor; the ioctls take two u64 by reference.
        let ret = unsafe {
            match *self {
                Op::Nop => 0,
                Op::Read { to, offset } => {
                    let (iov, count) = to.as_iovecs(&mut one);
                    libc::preadv(fd, iov, count, offset.cast_signed()) as i64
                }
                Op::Write {
                    from,
                    offset,
                    dsync,
                } => {
                    let (iov, count) = from.as_iovecs(&mut one);
                    let flags = if dsync { libc::RWF_DSYNC } else { 0 };
                    libc::pwritev2(fd, iov, count, offset.cast_signed(), flags) as i64
                }
                Op::Sync { data_only: true } => libc::fdatasync(fd).into(),
                Op::Sync { data_only: false } => libc::fsync(fd).into(),
                Op::Allocate { mode, offset, len } => {
                    libc::fallocate(fd, mode, offset.cast_signed(), len.cast_signed()).into()
                }
                Op::Discard { offset, len } => libc::ioctl(fd, BLKDISCARD, &[offset, len]).into(),
                Op::ZeroOut { offset, len } => libc::ioctl(fd, BLKZEROOUT, &[offset, len]).into(),
                Op::SetLen(len) => libc::ftruncate(fd, len.cast_signed()).into(),
                Op::Seek { hole, offset } => {
                    let whence = if hole {
                        libc::SEEK_HOLE
                    } else {
                        libc::SEEK_DATA
                    };
                    libc::lseek(fd, offset.cast_signed(), whence)
                }
            }
        };
        if ret < 0 {
            -i64::from(
                io::Error::last_os_error()
                    .raw_os_error()
                    .unwrap_or(libc::EIO),
            )
        } else {
            ret
        }
    }
}

/// `_IO(0x12, 119)`, linux/fs.h.
const BLKDISCARD: libc::c_ulong = 0x1277;
/// `_IO(0x12, 127)`, linux/fs.h.
const BLKZEROOUT: libc::c_ulong = 0x127f;

impl Memory {
    /// As an iovec array; a single piece is described in `one`.
    pub(crate) fn as_iovecs(self, one: &mut libc::iovec) -> (*const libc::iovec, libc::c_int) {
        match self {
            Memory::One(ptr, len) => {
                *one = libc::iovec {
                    iov_base: ptr.cast(),
                    iov_len: len,
                };
                (one, 1)
            }
            Memory::Many(iov, count) => (iov, count as libc::c_int),
        }
    }
}

/// An operation on its way to its result, which is the system call's: a count, or a negative errno. Empty before the
/// start and after the result.
///
/// Dropped while the kernel may still touch the buffers, it cancels and waits for the completion first; that never
/// happens in a correct program (no future is dropped in flight), so it is counted, and panics where debug assertions
/// are on unless a panic is already unwinding. One that is *leaked* (`mem::forget`) breaks the contract of
/// [`Ring::push`](crate::ring::Ring::push) and is the one thing that callers must not do.
#[derive(Default)]
pub(crate) struct Flight {
    /// Where it waits. Not `Send`, which keeps a future in flight on its thread.
    at: Option<(Rc<Core>, usize)>,
}

impl Flight {
    /// Starts `op` for the task behind `waker`.
    ///
    /// # Safety
    /// The memory in `op` stays valid as long as this lives.
    pub(crate) unsafe fn start(
        core: Rc<Core>,
        op: &Op,
        leaf: Option<&Arc<Leaf>>,
        waker: &Waker,
    ) -> Self {
        // SAFETY: the caller's promise, and `drop` below waits for the completion.
        let key = unsafe { core.start(op, leaf, waker) };
        Self {
            at: Some((core, key)),
        }
    }

    pub(crate) fn is_none(&self) -> bool {
        self.at.is_none()
    }

    /// The result; until then `waker` is what is woken.
    pub(crate) fn poll(&mut self, waker: &Waker) -> Poll<i64> {
        let result = self
            .at
            .as_ref()
            .and_then(|(core, key)| core.poll_op(*key, waker));
        match result {
            Some(result) => {
                self.at = None;
                Poll::Ready(result)
            }
            None => Poll::Pending,
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        if let Some((core, key)) = self.at.take() {
            core.reap_dropped(key);
        }
    }
}

/// Does one operation on the current executor.
pub(crate) struct OpFuture<'a> {
    op: Op,
    leaf: Option<&'a Arc<Leaf>>,
    flight: Flight,
}

impl<'a> OpFuture<'a> {
    /// # Safety
    /// The memory in `op` stays valid as long as this future lives.
    pub(crate) unsafe fn new(op: Op, leaf: Option<&'a Arc<Leaf>>) -> Self {
        Self {
            op,
            leaf,
            flight: Flight::default(),
        }
    }
}

impl Future for OpFuture<'_> {
    type Output = i64;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<i64> {
        if self.flight.is_none() {
            // SAFETY: `new`'s contract.
            self.flight =
                unsafe { Flight::start(Core::current(), &self.op, self.leaf, cx.waker()) };
            return Poll::Pending;
        }
        self.flight.poll(cx.waker())
    }
}

/// An operation that does nothing, through the ring and back. For measuring.
#[doc(hidden)]
pub async fn nop() {
    // SAFETY: names no memory.
    unsafe { OpFuture::new(Op::Nop, None) }.await;
}
