//! The policy of every edge: any request becomes requests that the node below can do.
//!
//! A node states its [`Limits`]; a user above may send any range of bytes in any memory. In between, on
//! every edge and nowhere else: bounds, alignment (read-modify-write), memory the host cannot use
//! directly (bounce), splitting at the largest transfer, FUA where it is not understood, WriteZeroes
//! and Discard where they are not, `cache.no-flush`, `discard=`, `detect-zeroes=`.
//!
//! Invariants:
//! - A request that fits goes to the driver as it is, without a future of its own ([`fits`]).
//! - Where read-modify-write is possible (the node's alignment is above one byte), all writes to the
//!   node pass its [`Overlaps`]; a read-modify-write waits for earlier writes that touch its blocks, and
//!   later ones wait for it. Nothing else is tracked.
//! - Write data is looked at only to detect zeroes; what is written is copied at most once.

mod overlaps;
#[cfg(test)]
mod tests;

use std::io;

use exec::{AlignedBuf, IoSlices, IoSlicesMut};

pub(crate) use overlaps::{Overlaps, Turn};

use crate::error::errno;
use crate::node::{DetectZeroes, Node};
use crate::request::{Flags, Op, Request};

/// Disks are made of these for guests; a shorter end of a file is rounded up to one.
pub const SECTOR: u64 = 512;

/// No medium is longer: with room above it, so that rounding up a range that was checked once cannot overflow.
pub const MAX_LEN: u64 = (1 << 63) - (1 << 32);

/// Largest buffer a request bounces through.
const BOUNCE: u64 = 1 << 20;

/// Whether `req` can go to the node's driver as it is. The common case costs a few compares.
pub(crate) fn fits(node: &Node, req: &Request<'_>) -> bool {
    let limits = &node.limits;
    let aligned = |memory_is: &dyn Fn(usize) -> bool| {
        (req.offset | req.len) & u64::from(limits.request_alignment - 1) == 0
            && req.len != 0
            && req.len <= limits.max_transfer
            && req.end().is_some_and(|end| end <= node.driver.len())
            && (limits.memory_alignment == 1 || memory_is(limits.memory_alignment as usize))
    };
    match &req.op {
        Op::Read(to) => aligned(&|align| to.is_aligned(align)),
        Op::Write(from) => {
            node.plain_writes
                && (req.flags.is_empty()
                    || (req.flags == Flags::FUA && limits.fua && !node.ignores_flush))
                && aligned(&|align| from.is_aligned(align))
        }
        Op::Flush => !node.ignores_flush,
        Op::WriteZeroes | Op::Discard => false,
    }
}

/// Makes `req` fit the node and does it. `grow`: the user may write past the end.
pub(crate) async fn shape(node: &Node, grow: bool, req: Request<'_>) -> io::Result<()> {
    let end = req
        .end()
        .filter(|end| *end <= MAX_LEN)
        .ok_or_else(|| errno(libc::EINVAL))?;
    if req.is_write() {
        if node.read_only {
            return Err(errno(libc::EPERM));
        }
        if end > node.bound() && !grow {
            return Err(errno(libc::EIO));
        }
    }
    let mut flags = req.flags;
    if node.ignores_flush {
        flags.remove(Flags::FUA);
    }
    if !node.discard {
        flags.remove(Flags::MAY_UNMAP);
    }
    if req.len == 0 && !matches!(req.op, Op::Flush) {
        return if flags.contains(Flags::FUA) {
            flush(node).await
        } else {
            Ok(())
        };
    }
    match req.op {
        Op::Read(to) => read(node, req.offset, to).await,
        Op::Write(from) => {
            let native = flags & Flags::FUA;
            let zero = node.detect_zeroes != DetectZeroes::Off && from.is_zero();
            if zero {
                let unmap = node.detect_zeroes == DetectZeroes::Unmap && node.discard;
                let unmap = if unmap {
                    Flags::MAY_UNMAP
                } else {
                    Flags::empty()
                };
                write_zeroes(node, req.offset, req.len, unmap).await?;
            } else {
                let native = if node.limits.fua {
                    native
                } else {
                    Flags::empty()
                };
                write(node, req.offset, from, native).await?;
            }
            if flags.contains(Flags::FUA) && (zero || !node.limits.fua) {
                flush(node).await
            } else {
                Ok(())
            }
        }
        Op::WriteZeroes => {
            write_zeroes(node, req.offset, req.len, flags.difference(Flags::FUA)).await?;
            if flags.contains(Flags::FUA) {
                flush(node).await
            } else {
                Ok(())
            }
        }
        Op::Discard if node.discard => discard(node, req.offset, end).await,
        Op::Discard => Ok(()),
        Op::Flush => flush(node).await,
    }
}

async fn flush(node: &Node) -> io::Result<()> {
    if node.ignores_flush {
        Ok(())
    } else {
        node.driver.submit(Request::flush()).await
    }
}

/// Reads any range into any memory; what lies past the end is zero.
async fn read(node: &Node, offset: u64, to: IoSlicesMut<'_>) -> io::Result<()> {
    let inside = node.bound().saturating_sub(offset).min(to.len() as u64);
    let (mut to, mut beyond) = to.split_at(inside as usize);
    beyond.fill_zero();
    let memory = node.limits.memory_alignment as usize;
    let direct = to.is_aligned(memory);
    let mut done = 0;
    while done < inside {
        let at = offset + done;
        let span = Span::new(node, at, inside - done, direct && done % memory as u64 == 0);
        let part = done as usize..(done + span.len) as usize;
        let mut target = to.reborrow().slice(part);
        if span.is_aligned() && target.is_aligned(memory) {
            node.driver.submit(Request::read(at, target)).await?;
        } else {
            let mut buf = span.buffer(memory)?;
            node.driver
                .submit(Request::read(span.start, buf.as_mut_slice()))
                .await?;
            target.copy_from(span.part(buf.as_slice())?);
        }
        done += span.len;
    }
    Ok(())
}

/// Writes any range from any memory; `flags` are understood by the driver.
async fn write(node: &Node, offset: u64, from: IoSlices<'_>, flags: Flags) -> io::Result<()> {
    let align = u64::from(node.limits.request_alignment);
    let len = from.len() as u64;
    let modify = (offset | len) & (align - 1) != 0;
    let _turn = node.overlaps(offset, len, modify).await;
    let memory = node.limits.memory_alignment as usize;
    let direct = from.is_aligned(memory);
    let mut done = 0;
    while done < len {
        let at = offset + done;
        let span = Span::new(node, at, len - done, direct && done % memory as u64 == 0);
        let source = from.slice(done as usize..(done + span.len) as usize);
        if span.is_aligned() && source.is_aligned(memory) {
            node.driver
                .submit(Request::write(at, source, flags))
                .await?;
        } else {
            let mut buf = span.buffer(memory)?;
            span.read_edges(node, buf.as_mut_slice()).await?;
            source.copy_to(span.part_mut(buf.as_mut_slice())?);
            node.driver
                .submit(Request::write(span.start, buf.as_slice(), flags))
                .await?;
        }
        done += span.len;
    }
    Ok(())
}

/// Zeroes any range: the aligned middle by the driver, the rest (and all of it where the driver cannot)
/// by writing zero bytes, unless `flags` forbids that.
async fn write_zeroes(node: &Node, offset: u64, len: u64, flags: Flags) -> io::Result<()> {
    let limits = &node.limits;
    let align = u64::from(limits.write_zeroes_alignment.max(limits.request_alignment));
    let end = offset + len;
    let step = (limits.max_write_zeroes & !(align - 1)).max(align);
    let mut native = limits.max_write_zeroes >= align;
    let mut at = offset;
    while at < end {
        let boundary = at.next_multiple_of(align);
        let whole = (end & !(align - 1)).saturating_sub(boundary);
        if native && at == boundary && whole > 0 {
            let part = whole.min(step);
            let turn = node.overlaps(at, part, false).await;
            match node
                .driver
                .submit(Request::write_zeroes(at..at + part, flags))
                .await
            {
                Ok(()) => {
                    at += part;
                    continue;
                }
                Err(error) if error.raw_os_error() == Some(libc::ENOTSUP) => native = false,
                Err(error) => return Err(error),
            }
            drop(turn);
        }
        if flags.contains(Flags::NO_FALLBACK) {
            return Err(errno(libc::ENOTSUP));
        }
        let explicit = if native && whole > 0 {
            boundary.min(end) - at
        } else {
            end - at
        };
        write_zero_bytes(node, at, explicit).await?;
        at += explicit;
    }
    Ok(())
}

async fn write_zero_bytes(node: &Node, offset: u64, len: u64) -> io::Result<()> {
    let buf = AlignedBuf::new(
        len.min(BOUNCE) as usize,
        node.limits.memory_alignment as usize,
    )?;
    let mut at = offset;
    while at < offset + len {
        let part = (offset + len - at).min(BOUNCE - at % BOUNCE);
        let zeroes = buf
            .as_slice()
            .get(..part as usize)
            .ok_or_else(|| errno(libc::EINVAL))?;
        write(node, at, zeroes.into(), Flags::empty()).await?;
        at += part;
    }
    Ok(())
}

/// Discards the aligned part of a range; the last block counts as whole when the medium ends in it.
async fn discard(node: &Node, offset: u64, end: u64) -> io::Result<()> {
    let limits = &node.limits;
    let align = u64::from(limits.discard_alignment.max(limits.request_alignment));
    let mut at = offset.next_multiple_of(align);
    let end = if end >= node.driver.len() {
        end.min(node.bound())
    } else {
        end & !(align - 1)
    };
    let step = (limits.max_discard & !(align - 1)).max(align);
    if limits.max_discard < align {
        return Ok(());
    }
    while at < end {
        let part = (end - at).min(step);
        let _turn = node.overlaps(at, part, false).await;
        match node.driver.submit(Request::discard(at..at + part)).await {
            // An advice that is not taken.
            Err(error) if error.raw_os_error() == Some(libc::ENOTSUP) => return Ok(()),
            other => other?,
        }
        at += part;
    }
    Ok(())
}

/// One transfer's worth of a range, and the aligned blocks around it.
struct Span {
    /// First byte of the first block.
    start: u64,
    /// Bytes in the blocks.
    cover: u64,
    /// Bytes of the blocks before the range.
    skip: u64,
    /// Bytes of the range.
    len: u64,
    align: u64,
}

impl Span {
    /// The first part of `len` bytes at `at` that one transfer takes; `direct`: the memory needs no bounce.
    fn new(node: &Node, at: u64, len: u64, direct: bool) -> Self {
        let align = u64::from(node.limits.request_alignment);
        let start = at & !(align - 1);
        let skip = at - start;
        let whole = len & !(align - 1);
        let max = (node.limits.max_transfer & !(align - 1)).max(align);
        let len = if direct && skip == 0 && (whole == len || whole > BOUNCE) {
            whole.min(max)
        } else {
            len.min(max.min(BOUNCE).max(align) - skip)
        };
        Self {
            start,
            skip,
            len,
            cover: (skip + len).next_multiple_of(align),
            align,
        }
    }

    fn is_aligned(&self) -> bool {
        self.cover == self.len
    }

    fn buffer(&self, memory: usize) -> io::Result<AlignedBuf> {
        AlignedBuf::new(self.cover as usize, memory)
    }

    /// The range's bytes in a buffer of the blocks.
    fn part<'a>(&self, blocks: &'a [u8]) -> io::Result<&'a [u8]> {
        blocks
            .get(self.skip as usize..(self.skip + self.len) as usize)
            .ok_or_else(|| errno(libc::EINVAL))
    }

    fn part_mut<'a>(&self, blocks: &'a mut [u8]) -> io::Result<&'a mut [u8]> {
        blocks
            .get_mut(self.skip as usize..(self.skip + self.len) as usize)
            .ok_or_else(|| errno(libc::EINVAL))
    }

    /// Reads the first and the last block where the range covers them in part.
    async fn read_edges(&self, node: &Node, blocks: &mut [u8]) -> io::Result<()> {
        let last = self.cover - self.align;
        let head = self.skip != 0;
        let tail = self.skip + self.len != self.cover && !(head && last == 0);
        for (wanted, at) in [(head, 0), (tail, last)] {
            if wanted {
                let block = blocks.get_mut(at as usize..(at + self.align) as usize);
                let block = block.ok_or_else(|| errno(libc::EINVAL))?;
                node.driver
                    .submit(Request::read(self.start + at, block))
                    .await?;
            }
        }
        Ok(())
    }
}
