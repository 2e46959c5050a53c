//! Files and block devices: leaf operations that either do all they were asked or fail.
//!
//! Reads and writes are [`Transfer`]s; everything else is one operation.

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::buf::{IoSlices, IoSlicesMut};
use crate::executor::Core;
use crate::handle::Handle;
use crate::lock;
use crate::op::{Op, OpFuture};
use crate::sim::SimFile;
use crate::sync::oneshot;
use crate::task::yield_now;

mod facts;
mod transfer;

pub use transfer::Transfer;
use transfer::{CachedReads, TRIES, Way};

/// What a file is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FileKind {
    /// A regular file.
    Regular,
    /// A block device.
    BlockDevice,
    /// A character device.
    CharDevice,
    /// A socket, a pipe, a directory: nothing to put a disk on.
    Other,
}

/// What direct I/O asks of a request, in bytes; 1 where nothing is asked (buffered files).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Alignment {
    /// Of the address and length of each piece of memory.
    pub memory: u32,
    /// Of the offset in the file and the length of the request.
    pub offset: u32,
}

/// How much [`File::sync`] makes durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sync {
    /// The data, and what is needed to find it again (fdatasync).
    Data,
    /// Times and other metadata too (fsync).
    All,
}

/// What [`File::allocate`] does with a range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Allocate {
    /// Gives its space back; it reads as zeroes. The size stays.
    PunchHole,
    /// Makes it read as zeroes, with space reserved where the file system can.
    ZeroRange {
        /// Do not let the file grow when the range ends beyond it.
        keep_size: bool,
    },
    /// Reserves space for it; what is there stays.
    Reserve {
        /// Do not let the file grow when the range ends beyond it.
        keep_size: bool,
    },
}

/// Which way a file's operations take.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Engine {
    /// The executor's ring.
    #[default]
    Ring,
    /// The executor's pool of threads, whatever the ring (`aio=threads`).
    Threads,
}

/// What rings know of a file: its descriptor and under which name they registered it.
pub(crate) struct Leaf {
    fd: OwnedFd,
    /// A small number that no other open leaf has: the slot in each ring's table.
    index: u32,
    /// A number that no other leaf ever has.
    generation: u64,
    by_thread: bool,
    /// What it is in a simulation; its descriptor is only a place holder then.
    simulated: Option<SimFile>,
    /// The executors in whose rings it is registered.
    holders: Mutex<Vec<Handle>>,
}

/// Indices: the next fresh one and those that were given back.
static INDICES: Mutex<(u32, Vec<u32>)> = Mutex::new((0, Vec::new()));
static GENERATION: AtomicU64 = AtomicU64::new(1);

impl Leaf {
    fn new(fd: OwnedFd, by_thread: bool, simulated: Option<SimFile>) -> Self {
        let mut indices = lock(&INDICES);
        let index = indices.1.pop().unwrap_or_else(|| {
            indices.0 += 1;
            indices.0 - 1
        });
        drop(indices);
        let generation = GENERATION.fetch_add(1, Ordering::Relaxed);
        Self {
            fd,
            index,
            generation,
            by_thread,
            simulated,
            holders: Mutex::default(),
        }
    }

    pub(crate) fn simulated(&self) -> Option<&SimFile> {
        self.simulated.as_ref()
    }

    pub(crate) fn index(&self) -> u32 {
        self.index
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// For the kernel: no descriptor (EBADF) if the file is simulated.
    pub(crate) fn raw_fd(&self) -> RawFd {
        if self.simulated.is_some() {
            -1
        } else {
            self.fd.as_raw_fd()
        }
    }

    pub(crate) fn by_thread(&self) -> bool {
        self.by_thread
    }

    /// The current executor's ring has registered it.
    pub(crate) fn registered_here(&self) {
        lock(&self.holders).push(crate::task::current());
    }
}

impl Drop for Leaf {
    fn drop(&mut self) {
        let (index, generation) = (self.index, self.generation);
        for holder in std::mem::take(&mut *lock(&self.holders)) {
            let here = Core::try_with(|core| {
                core.shared.id == holder.id() && {
                    core.forget_leaf(index, generation);
                    true
                }
            });
            if here != Some(true) {
                holder.post(move || {
                    Core::try_with(|core| core.forget_leaf(index, generation));
                });
            }
        }
        lock(&INDICES).1.push(index);
    }
}

/// An open file or block device. Usable from every executor; each registers it in its ring when it first uses it.
pub struct File {
    leaf: Arc<Leaf>,
    kind: FileKind,
    read_only: bool,
    alignment: Alignment,
    cached: CachedReads,
}

impl File {
    /// Takes an open descriptor; how it was opened (read-only, O_DIRECT) is asked of the kernel.
    ///
    /// # Errors
    /// What fstat or fcntl say.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        let facts = facts::of(fd.as_fd())?;
        Ok(Self {
            leaf: Arc::new(Leaf::new(fd, false, None)),
            kind: facts.kind,
            read_only: facts.read_only,
            alignment: facts.alignment,
            cached: CachedReads::of(facts.kind, facts.direct, facts.tmpfs),
        })
    }

    /// A file of a simulation.
    pub(crate) fn simulated(file: SimFile) -> io::Result<Self> {
        let place_holder = std::fs::File::open("/dev/null")?;
        let alignment = file.alignment;
        Ok(Self {
            leaf: Arc::new(Leaf::new(place_holder.into(), false, Some(file))),
            kind: FileKind::Regular,
            read_only: false,
            alignment,
            cached: CachedReads::never(),
        })
    }

    /// The same file by another way. Before its first use only.
    ///
    /// # Errors
    /// No descriptors left.
    pub fn with_engine(mut self, engine: Engine) -> io::Result<Self> {
        let by_thread = engine == Engine::Threads;
        if by_thread != self.leaf.by_thread && self.leaf.simulated.is_none() {
            self.leaf = Arc::new(Leaf::new(self.leaf.fd.try_clone()?, by_thread, None));
            self.cached = CachedReads::never();
        }
        Ok(self)
    }

    /// What it is.
    pub fn kind(&self) -> FileKind {
        self.kind
    }

    /// Whether it was opened for reading only.
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// What requests must be aligned to: (1, 1) unless it was opened with O_DIRECT.
    pub fn direct_alignment(&self) -> Alignment {
        self.alignment
    }

    /// Its length in bytes now.
    ///
    /// # Errors
    /// What the kernel says; `ESPIPE` for what has no length.
    pub fn len(&self) -> io::Result<u64> {
        match &self.leaf.simulated {
            Some(file) => Ok(file.len()),
            None => facts::len(self.as_fd(), self.kind),
        }
    }

    /// Whether its length is zero.
    ///
    /// # Errors
    /// As [`len`](Self::len).
    pub fn is_empty(&self) -> io::Result<bool> {
        self.len().map(|len| len == 0)
    }

    /// Bytes that it takes on the disk (regular files).
    ///
    /// # Errors
    /// What fstat says.
    pub fn allocated(&self) -> io::Result<u64> {
        if let Some(file) = &self.leaf.simulated {
            return Ok(file.allocated());
        }
        Ok(rustix::fs::fstat(self.as_fd())?
            .st_blocks
            .cast_unsigned()
            .saturating_mul(512))
    }

    /// Fills `buf` from `offset` on; zeroes for what lies beyond the end of the file.
    ///
    /// # Errors
    /// `EINVAL` for a range beyond 2^63; else what the kernel says. The buffer then holds anything.
    pub fn read_at<'a>(&'a self, offset: u64, buf: IoSlicesMut<'a>) -> Transfer<'a> {
        // SAFETY: `buf` is an exclusive window for 'a, and is given up here.
        unsafe { Transfer::new(self, offset, buf.into_raw(), Way::Read) }
    }

    /// Writes all of `buf` at `offset`; with `dsync` it is durable when this returns (RWF_DSYNC).
    ///
    /// # Errors
    /// `EINVAL` for a range beyond 2^63, `ENOSPC` when the kernel takes nothing more; else what the kernel says. How much
    /// was written then is unknown.
    pub fn write_at<'a>(&'a self, offset: u64, buf: IoSlices<'a>, dsync: bool) -> Transfer<'a> {
        // SAFETY: nothing is read.
        unsafe { Transfer::new(self, offset, buf, Way::Write { dsync }) }
    }

    /// Makes what was written before durable.
    ///
    /// # Errors
    /// What the kernel says. What was not yet on the disk may be lost then, whatever a second call returns.
    pub async fn sync(&self, how: Sync) -> io::Result<()> {
        self.run(Op::Sync {
            data_only: how == Sync::Data,
        })
        .await
        .map(drop)
    }

    /// Changes how the file's range is allocated (fallocate).
    ///
    /// # Errors
    /// `EOPNOTSUPP` where the file system cannot, `EINVAL` for an empty range; else what the kernel says.
    pub async fn allocate(&self, what: Allocate, range: Range<u64>) -> io::Result<()> {
        let keep = |keep: bool| if keep { libc::FALLOC_FL_KEEP_SIZE } else { 0 };
        let mode = match what {
            Allocate::PunchHole => libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE,
            Allocate::ZeroRange { keep_size } => libc::FALLOC_FL_ZERO_RANGE | keep(keep_size),
            Allocate::Reserve { keep_size } => keep(keep_size),
        };
        let (offset, len) = check(range)?;
        self.run(Op::Allocate { mode, offset, len }).await.map(drop)
    }

    /// Tells the device that the range's contents are not needed: BLKDISCARD, or a hole in a regular file. What it
    /// reads as afterwards is open on a device.
    ///
    /// # Errors
    /// `EOPNOTSUPP` where that is not possible; else what the kernel says.
    pub async fn discard(&self, range: Range<u64>) -> io::Result<()> {
        if self.kind != FileKind::BlockDevice {
            return self.allocate(Allocate::PunchHole, range).await;
        }
        let (offset, len) = check(range)?;
        self.run(Op::Discard { offset, len }).await.map(drop)
    }

    /// Makes the range read as zeroes: BLKZEROOUT, or a zeroed range in a regular file. Never grows it.
    ///
    /// # Errors
    /// `EOPNOTSUPP` where the file system cannot (write zeroes then); else what the kernel says.
    pub async fn zero_out(&self, range: Range<u64>) -> io::Result<()> {
        if self.kind != FileKind::BlockDevice {
            return self
                .allocate(Allocate::ZeroRange { keep_size: true }, range)
                .await;
        }
        let (offset, len) = check(range)?;
        self.run(Op::ZeroOut { offset, len }).await.map(drop)
    }

    /// Makes a regular file `len` bytes long.
    ///
    /// # Errors
    /// What ftruncate says.
    pub async fn set_len(&self, len: u64) -> io::Result<()> {
        let (_, len) = check(0..len)?;
        self.run(Op::SetLen(len)).await.map(drop)
    }

    /// Where the next data begins at or after `offset`; `None` if there is only a hole up to the end.
    ///
    /// # Errors
    /// `EINVAL` where the file system does not know; else what the kernel says.
    pub async fn seek_data(&self, offset: u64) -> io::Result<Option<u64>> {
        match self
            .run(Op::Seek {
                hole: false,
                offset,
            })
            .await
        {
            Ok(at) => Ok(Some(at)),
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Where the next hole begins at or after `offset`: at the latest the end of the file; `None` beyond that.
    ///
    /// # Errors
    /// `EINVAL` where the file system does not know; else what the kernel says.
    pub async fn seek_hole(&self, offset: u64) -> io::Result<Option<u64>> {
        match self.run(Op::Seek { hole: true, offset }).await {
            Ok(at) => Ok(Some(at)),
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether there is data at the range's start, and where in the range that stops being so. Where nobody knows it
    /// is all data; what lies beyond the end of the file is a hole.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn data_at(&self, range: Range<u64>) -> io::Result<(bool, u64)> {
        let all_data = Ok((true, range.end));
        if self.kind != FileKind::Regular {
            return all_data;
        }
        match self.seek_data(range.start).await {
            Ok(Some(data)) if data > range.start => Ok((false, data.min(range.end))),
            Ok(Some(_)) => match self.seek_hole(range.start).await? {
                Some(hole) if hole > range.start => Ok((true, hole.min(range.end))),
                // Changed in between.
                _ => all_data,
            },
            Ok(None) => Ok((false, range.end)),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP)) => {
                all_data
            }
            Err(error) => Err(error),
        }
    }

    /// Closes it, everywhere: when this returns no ring holds it open any more. (Dropping it does the same in time.)
    pub async fn close(self) {
        let (index, generation) = (self.leaf.index, self.leaf.generation);
        let holders = std::mem::take(&mut *lock(&self.leaf.holders));
        for holder in holders {
            let (done, gone) = oneshot::channel();
            holder.post(move || {
                Core::try_with(|core| core.forget_leaf(index, generation));
                done.send(());
            });
            // An executor that has ended has no ring either.
            let _ = gone.await;
        }
    }

    /// One operation that names no memory, again while the kernel was interrupted or short of memory.
    async fn run(&self, op: Op) -> io::Result<u64> {
        for _ in 0..TRIES {
            // SAFETY: there is no memory in `op`.
            let result = unsafe { OpFuture::new(op, Some(&self.leaf)) }.await;
            match u64::try_from(result) {
                Ok(value) => return Ok(value),
                Err(_) if is_passing(result) => yield_now().await,
                Err(_) => return Err(error(result)),
            }
        }
        Err(io::Error::from_raw_os_error(libc::EAGAIN))
    }
}

/// Whether the operation that ended so is to be tried again.
fn is_passing(result: i64) -> bool {
    result == -i64::from(libc::EINTR) || result == -i64::from(libc::EAGAIN)
}

/// What a negative result stands for.
fn error(result: i64) -> io::Error {
    io::Error::from_raw_os_error((-result) as i32)
}

impl AsFd for File {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.leaf.fd.as_fd()
    }
}

/// A range as offset and length, within what the kernel can say.
fn check(range: Range<u64>) -> io::Result<(u64, u64)> {
    let len = range
        .end
        .checked_sub(range.start)
        .filter(|_| i64::try_from(range.end).is_ok());
    len.map(|len| (range.start, len))
        .ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))
}

#[cfg(test)]
mod tests;
