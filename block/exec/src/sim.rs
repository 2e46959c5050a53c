//! Simulated storage: files in memory whose operations complete in an order, a length and with errors that a seed
//! decides, and that lose what was not flushed when the power goes. The same seed plays the same story again, as long
//! as one executor runs it and nothing else (real files, threads) takes part.
//!
//! What a crash leaves: everything that was written before a sync that succeeded, every write with `dsync`, and of each
//! later change all, nothing, or some of its 512-byte sectors, in any combination. Changes are numbered as they reach
//! the storage ([`Sim::steps`]), flushes included; [`Sim::crash_at`] cuts the power at one of them, so that a loop over
//! all numbers crashes at every boundary. From then on every operation fails with EIO, and [`Sim::survivors`] is the
//! storage after the reboot.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::sync::{Arc, Mutex};

use crate::file::{Alignment, File, Leaf};
use crate::lock;
use crate::op::{Memory, Op};
use crate::ring::threads::Threads;
use crate::ring::{Completion, IGNORE, Ring, Wait};

mod disk;

use disk::{Change, Disk};

/// The most that a simulated file may hold, in bytes; beyond is EFBIG.
const LARGEST: u64 = 1 << 30;

/// Kinds of operations, to say which shall fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OpKind {
    /// Reads.
    Read,
    /// Writes.
    Write,
    /// Data and full syncs.
    Sync,
    /// fallocate in all its modes, discards, zeroing.
    Allocate,
    /// Changes of length.
    SetLen,
}

/// How unkind the storage is. Chances are in 1/1000.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Faults {
    /// That a read or write is cut short (at least one byte is done).
    pub short: u32,
    /// That an operation fails with `errno`, changing nothing.
    pub error: u32,
    /// The error.
    pub errno: i32,
}

/// A simulated machine's storage. Clones are the same one.
#[derive(Clone)]
pub struct Sim(Arc<Mutex<World>>);

struct World {
    random: Random,
    disks: Vec<Disk>,
    names: BTreeMap<String, usize>,
    faults: Faults,
    /// Operations that fail once: kind, how many of it still succeed first, errno.
    failures: Vec<(OpKind, u64, i32)>,
    steps: u64,
    crash_at: Option<u64>,
    crashed: bool,
}

/// Numbers that a seed decides (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// One of `0..bound`; 0 if that is empty.
    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    fn chance(&mut self, per_mille: u32) -> bool {
        per_mille > 0 && self.next() % 1000 < per_mille.into()
    }
}

impl Sim {
    /// Empty storage, kind until told otherwise.
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(World {
            random: Random(seed),
            disks: Vec::new(),
            names: BTreeMap::new(),
            faults: Faults::default(),
            failures: Vec::new(),
            steps: 0,
            crash_at: None,
            crashed: false,
        })))
    }

    /// Opens a file, empty if it is new. It can be used on executors with this simulation's ring only.
    ///
    /// # Errors
    /// No descriptors left.
    pub fn file(&self, name: &str) -> io::Result<File> {
        self.file_aligned(
            name,
            Alignment {
                memory: 1,
                offset: 1,
            },
        )
    }

    /// The same as if it were opened for direct I/O that asks for this alignment: EINVAL for what is not aligned.
    ///
    /// # Errors
    /// No descriptors left.
    pub fn file_aligned(&self, name: &str, alignment: Alignment) -> io::Result<File> {
        let index = self.with(|world| world.index(name));
        File::simulated(SimFile {
            sim: self.clone(),
            index,
            alignment,
        })
    }

    /// What a file holds now, flushed or not.
    pub fn contents(&self, name: &str) -> Vec<u8> {
        self.with(|world| {
            let index = world.index(name);
            world.disk(index).now().to_vec()
        })
    }

    /// Puts durable contents into a file.
    pub fn set_contents(&self, name: &str, contents: Vec<u8>) {
        self.with(|world| {
            let index = world.index(name);
            *world.disk(index) = Disk::holding(contents);
        });
    }

    /// Sets how unkind it is from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.with(|world| world.faults = faults);
    }

    /// Lets one operation of this kind fail with `errno`, after `after` of it have succeeded.
    pub fn fail(&self, kind: OpKind, after: u64, errno: i32) {
        self.with(|world| world.failures.push((kind, after, errno)));
    }

    /// Changes and flushes that have reached the storage so far.
    pub fn steps(&self) -> u64 {
        self.with(|world| world.steps)
    }

    /// Cuts the power when step number `step` (from 0) reaches the storage: a change then counts as begun, a flush as
    /// not done.
    pub fn crash_at(&self, step: u64) {
        self.with(|world| world.crash_at = Some(step));
    }

    /// Cuts the power now.
    pub fn crash(&self) {
        self.with(|world| world.crashed = true);
    }

    /// Whether the power is off.
    pub fn crashed(&self) -> bool {
        self.with(|world| world.crashed)
    }

    /// The storage as a reboot finds it if the power went now. Every call rolls the dice again.
    #[must_use]
    pub fn survivors(&self) -> Self {
        self.with(|world| {
            let World { random, disks, .. } = world;
            let disks = disks
                .iter()
                .map(|disk| disk.survivor(&mut |bound| random.below(bound)))
                .collect();
            let after = Self::new(world.random.next());
            after.with(|world_after| {
                (world_after.disks, world_after.names) = (disks, world.names.clone())
            });
            after
        })
    }

    fn with<T>(&self, act: impl FnOnce(&mut World) -> T) -> T {
        act(&mut lock(&self.0))
    }

    pub(crate) fn ring(&self) -> io::Result<SimRing> {
        Ok(SimRing {
            sim: self.clone(),
            pending: Vec::new(),
            watches: Threads::new()?,
        })
    }
}

/// A file of a simulation, as its leaf knows it.
pub(crate) struct SimFile {
    sim: Sim,
    index: usize,
    pub(crate) alignment: Alignment,
}

impl SimFile {
    pub(crate) fn len(&self) -> u64 {
        self.sim
            .with(|world| world.disk(self.index).now().len() as u64)
    }

    pub(crate) fn allocated(&self) -> u64 {
        self.sim.with(|world| world.disk(self.index).allocated())
    }
}

impl World {
    fn index(&mut self, name: &str) -> usize {
        *self.names.entry(name.into()).or_insert_with(|| {
            self.disks.push(Disk::default());
            self.disks.len() - 1
        })
    }

    fn disk(&mut self, index: usize) -> &mut Disk {
        &mut self.disks[index]
    }

    /// Whether this operation shall fail, and with what.
    fn failure(&mut self, kind: OpKind) -> Option<i32> {
        if self.crashed {
            return Some(libc::EIO);
        }
        for at in 0..self.failures.len() {
            if let Some((of, after, errno)) = self.failures.get_mut(at)
                && *of == kind
            {
                if *after == 0 {
                    let errno = *errno;
                    self.failures.remove(at);
                    return Some(errno);
                }
                *after -= 1;
            }
        }
        self.random
            .chance(self.faults.error)
            .then_some(self.faults.errno)
    }

    /// Whether the power goes at this step.
    fn step(&mut self) -> bool {
        self.crashed |= self.crash_at == Some(self.steps);
        self.steps += 1;
        self.crashed
    }

    fn change(&mut self, index: usize, change: Change, sure: bool) -> Result<i64, i32> {
        if change.end() > LARGEST {
            return Err(libc::EFBIG);
        }
        let crashed = self.step();
        self.disk(index).change(change, sure && !crashed);
        if crashed { Err(libc::EIO) } else { Ok(0) }
    }

    /// # Safety
    /// The operation's memory is valid.
    unsafe fn perform(&mut self, index: usize, alignment: Alignment, op: &Op) -> Result<i64, i32> {
        let kind = match op {
            Op::Nop | Op::Seek { .. } => None,
            Op::Read { .. } => Some(OpKind::Read),
            Op::Write { .. } => Some(OpKind::Write),
            Op::Sync { .. } => Some(OpKind::Sync),
            Op::Allocate { .. } | Op::Discard { .. } | Op::ZeroOut { .. } => Some(OpKind::Allocate),
            Op::SetLen(_) => Some(OpKind::SetLen),
        };
        if let Some(errno) = kind.and_then(|kind| self.failure(kind)) {
            return Err(errno);
        }
        match *op {
            Op::Nop => Ok(0),
            Op::Read { to, offset } => {
                // SAFETY: the caller's promise.
                let pieces = unsafe { pieces(to, offset, alignment) }?;
                let wanted: usize = pieces.iter().map(|piece| piece.iov_len).sum();
                let cut = self.cut(wanted, alignment);
                let from = self.disk(index).now();
                let start = usize::try_from(offset)
                    .unwrap_or(usize::MAX)
                    .min(from.len());
                let mut from = from.get(start..).unwrap_or_default();
                let count = from.len().min(cut);
                from = from.get(..count).unwrap_or_default();
                for piece in pieces {
                    let (now, rest) = from.split_at(piece.iov_len.min(from.len()));
                    // SAFETY: the piece is valid for its length, which is at least that of `now`.
                    unsafe {
                        std::ptr::copy_nonoverlapping(
                            now.as_ptr(),
                            piece.iov_base.cast(),
                            now.len(),
                        )
                    };
                    from = rest;
                }
                Ok(count as i64)
            }
            Op::Write {
                from,
                offset,
                dsync,
            } => {
                // SAFETY: the caller's promise.
                let pieces = unsafe { pieces(from, offset, alignment) }?;
                let mut data = Vec::new();
                for piece in pieces {
                    // SAFETY: the piece is valid for its length.
                    data.extend(unsafe {
                        std::slice::from_raw_parts(piece.iov_base.cast::<u8>(), piece.iov_len)
                    });
                }
                data.truncate(self.cut(data.len(), alignment));
                let count = data.len() as i64;
                self.change(index, Change::Write { at: offset, data }, dsync)
                    .map(|_| count)
            }
            Op::Sync { .. } => {
                if self.step() {
                    return Err(libc::EIO);
                }
                self.disk(index).flush();
                Ok(0)
            }
            Op::Allocate {
                mode,
                offset: at,
                len,
            } => {
                let keep_size = mode & libc::FALLOC_FL_KEEP_SIZE != 0;
                let zero = mode & (libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_ZERO_RANGE) != 0;
                let hole = mode & libc::FALLOC_FL_PUNCH_HOLE != 0;
                if len == 0 {
                    return Err(libc::EINVAL);
                }
                self.change(
                    index,
                    Change::Allocate {
                        at,
                        len,
                        zero,
                        hole,
                        keep_size,
                    },
                    false,
                )
            }
            Op::Discard { offset: at, len } => self.change(
                index,
                Change::Allocate {
                    at,
                    len,
                    zero: true,
                    hole: true,
                    keep_size: true,
                },
                false,
            ),
            Op::ZeroOut { offset: at, len } => self.change(
                index,
                Change::Allocate {
                    at,
                    len,
                    zero: true,
                    hole: false,
                    keep_size: true,
                },
                false,
            ),
            Op::SetLen(len) => self.change(index, Change::SetLen(len), false),
            Op::Seek { hole, offset } => self
                .disk(index)
                .seek(hole, offset)
                .map(u64::cast_signed)
                .ok_or(libc::ENXIO),
        }
    }

    /// How much of a transfer is done this time.
    fn cut(&mut self, len: usize, alignment: Alignment) -> usize {
        if self.random.chance(self.faults.short) {
            let unit = alignment.offset as usize;
            len.min(unit * (1 + self.random.below(len / unit)))
        } else {
            len
        }
    }
}

/// The pieces of an operation's memory, if they and the offset are aligned.
///
/// # Safety
/// The memory description is valid.
unsafe fn pieces(
    memory: Memory,
    offset: u64,
    alignment: Alignment,
) -> Result<Vec<libc::iovec>, i32> {
    let mut one = libc::iovec {
        iov_base: std::ptr::null_mut(),
        iov_len: 0,
    };
    let (list, count) = memory.as_iovecs(&mut one);
    // SAFETY: the caller's promise.
    let pieces = unsafe { std::slice::from_raw_parts(list, count as usize) }.to_vec();
    let unit = alignment.memory as usize;
    let memory_ok = pieces
        .iter()
        .all(|piece| piece.iov_base.addr().is_multiple_of(unit));
    let total: usize = pieces.iter().map(|piece| piece.iov_len).sum();
    let offset_ok = (offset | total as u64).is_multiple_of(alignment.offset.into());
    if memory_ok && offset_ok {
        Ok(pieces)
    } else {
        Err(libc::EINVAL)
    }
}

/// A file's number and alignment.
type Place = (usize, Alignment);

/// The ring that plays a [`Sim`].
pub(crate) struct SimRing {
    sim: Sim,
    pending: Vec<(u64, Op, Option<Place>)>,
    /// Kicks and wake-ups are real.
    watches: Threads,
}

impl Ring for SimRing {
    unsafe fn push(&mut self, op: &Op, leaf: Option<&Arc<Leaf>>, token: u64) -> bool {
        let file = match leaf.map(|leaf| leaf.simulated()) {
            None => None,
            Some(Some(file)) if Arc::ptr_eq(&file.sim.0, &self.sim.0) => {
                Some((file.index, file.alignment))
            }
            Some(_) => return false,
        };
        self.pending.push((token, *op, file));
        true
    }

    fn cancel(&mut self, token: u64) {
        // What has not begun can still be called off, as in the kernel.
        for (pending, op, file) in &mut self.pending {
            if *pending == token {
                (*op, *file) = (Op::Nop, None);
            }
        }
    }

    fn watch(&mut self, fd: RawFd, token: u64) -> io::Result<()> {
        self.watches.watch(fd, token)
    }

    fn unwatch(&mut self, fd: RawFd, token: u64) {
        self.watches.unwatch(fd, token);
    }

    fn enter(&mut self, wait: Wait, out: &mut Vec<Completion>) -> io::Result<()> {
        let may_sleep = matches!(wait, Wait::Until(_));
        self.watches.enter(
            if self.pending.is_empty() {
                wait
            } else {
                Wait::No
            },
            out,
        )?;
        let mut world = lock(&self.sim.0);
        if self.pending.is_empty() || !may_sleep && world.random.chance(500) {
            return Ok(());
        }
        for _ in 0..=world.random.below(self.pending.len()) {
            let (token, op, file) = self
                .pending
                .swap_remove(world.random.below(self.pending.len()));
            // SAFETY: `push`'s contract holds until the completion below is taken.
            let done = file.map_or(Ok(0), |(index, alignment)| unsafe {
                world.perform(index, alignment, &op)
            });
            debug_assert_ne!(token, IGNORE);
            let result = done.unwrap_or_else(|errno| -i64::from(errno));
            out.push(Completion {
                token,
                result,
                more: false,
            });
        }
        Ok(())
    }

    fn is_ready(&mut self) -> bool {
        !self.pending.is_empty() || self.watches.is_ready()
    }

    fn event_fd(&mut self) -> io::Result<BorrowedFd<'_>> {
        self.watches.event_fd()
    }
}

#[cfg(test)]
mod tests;
