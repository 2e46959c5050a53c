//! What is asked of a node: one operation on one range of bytes.

use std::future::Future;
use std::io;
use std::ops::Range;
use std::pin::Pin;

use exec::{IoSlices, IoSlicesMut};

/// A request's future. It is polled on the thread that made it, and never dropped before it is done.
pub type Io<'a, T = ()> = Pin<Box<dyn Future<Output = io::Result<T>> + 'a>>;

/// One operation. The buffers may be guest memory, which changes under the reader: a node that looks at
/// write data, or sends it twice, copies it first.
pub struct Request<'a> {
    /// What to do, with the buffers it needs.
    pub op: Op<'a>,
    /// First byte of the range; 0 for a flush.
    pub offset: u64,
    /// Bytes in the range: the buffers' length for a read or write, 0 for a flush.
    pub len: u64,
    /// How to do it.
    pub flags: Flags,
}

/// What to do.
pub enum Op<'a> {
    /// Fill the buffers; bytes past the end of the medium are zero.
    Read(IoSlicesMut<'a>),
    /// Store the buffers.
    Write(IoSlices<'a>),
    /// Make the range read as zeroes.
    WriteZeroes,
    /// The contents of the range are no longer needed. An advice: what is not aligned is kept.
    Discard,
    /// Everything written and acknowledged before this reaches the medium.
    Flush,
}

bitflags::bitflags! {
    /// How to do a request.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Flags: u32 {
        /// Acknowledge only once the data is on the medium (Write, WriteZeroes).
        const FUA = 1;
        /// WriteZeroes may give the space back (punch a hole).
        const MAY_UNMAP = 1 << 1;
        /// WriteZeroes fails with ENOTSUP where it would have to write zero bytes.
        const NO_FALLBACK = 1 << 2;
    }
}

/// The operations without their buffers, as accounting counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum OpKind {
    /// [`Op::Read`]
    Read,
    /// [`Op::Write`]
    Write,
    /// [`Op::WriteZeroes`]
    WriteZeroes,
    /// [`Op::Discard`]
    Discard,
    /// [`Op::Flush`]
    Flush,
}

impl<'a> Request<'a> {
    /// Reads into the buffers.
    pub fn read(offset: u64, to: impl Into<IoSlicesMut<'a>>) -> Self {
        let to = to.into();
        Self {
            offset,
            len: to.len() as u64,
            op: Op::Read(to),
            flags: Flags::empty(),
        }
    }

    /// Writes the buffers.
    pub fn write(offset: u64, from: impl Into<IoSlices<'a>>, flags: Flags) -> Self {
        let from = from.into();
        Self {
            offset,
            len: from.len() as u64,
            op: Op::Write(from),
            flags,
        }
    }

    /// Makes `range` read as zeroes.
    pub fn write_zeroes(range: Range<u64>, flags: Flags) -> Self {
        Self {
            offset: range.start,
            len: range.end.saturating_sub(range.start),
            op: Op::WriteZeroes,
            flags,
        }
    }

    /// Gives up the contents of `range`.
    pub fn discard(range: Range<u64>) -> Self {
        let len = range.end.saturating_sub(range.start);
        Self {
            offset: range.start,
            len,
            op: Op::Discard,
            flags: Flags::empty(),
        }
    }

    /// Makes what was acknowledged durable.
    pub fn flush() -> Self {
        Self {
            offset: 0,
            len: 0,
            op: Op::Flush,
            flags: Flags::empty(),
        }
    }

    /// The operation without its buffers.
    pub fn kind(&self) -> OpKind {
        match self.op {
            Op::Read(_) => OpKind::Read,
            Op::Write(_) => OpKind::Write,
            Op::WriteZeroes => OpKind::WriteZeroes,
            Op::Discard => OpKind::Discard,
            Op::Flush => OpKind::Flush,
        }
    }

    /// Whether it changes what the medium holds.
    pub fn is_write(&self) -> bool {
        matches!(self.op, Op::Write(_) | Op::WriteZeroes | Op::Discard)
    }

    /// First byte past the range; `None` past 2^64.
    pub fn end(&self) -> Option<u64> {
        self.offset.checked_add(self.len)
    }
}
