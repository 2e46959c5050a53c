//! What every node does: protocols, formats and filters alike.

use std::ops::Range;

use crate::edge::{Edge, Role};
use crate::error::{Error, errno};
use crate::perm::Perms;
use crate::request::{Io, Request};

/// The work of one node. `file`, `nbd`, `qcow2`, `throttle`: all the same.
///
/// Nodes are shared by threads; a request lives and dies on the thread that issued it. Requests arrive
/// only through an [`Edge`], which has made them fit [`Driver::limits`]: inside the medium, aligned,
/// no larger than the maximum, flags and operations only where the limits say they are understood.
#[expect(
    clippy::len_without_is_empty,
    reason = "an empty medium is no special case to a driver"
)]
pub trait Driver: Send + Sync {
    /// Does one request. Never called while the node is drained or after [`Driver::close`].
    ///
    /// # Errors
    /// The errno a guest's driver should see; `ENOTSUP` from WriteZeroes makes the edge write zero
    /// bytes, from Discard it means that nothing was done.
    fn submit<'a>(&'a self, req: Request<'a>) -> Io<'a>;

    /// What is known about the first bytes of `range`, which is not empty and inside the medium: at
    /// least one byte and at most the range.
    fn status(&self, range: Range<u64>) -> Io<'_, Extent>;

    /// Bytes on the medium, 0 for none. May be called at any time from any thread.
    fn len(&self) -> u64;

    /// What requests must look like. Asked once, when the node is made (and again after a reopen).
    fn limits(&self) -> Limits;

    /// The nodes below, in a fixed order.
    fn children(&self) -> &[Edge] {
        &[]
    }

    /// What this node needs of the child in `role`, when its own users together need `above`.
    fn perms(&self, role: Role, above: Perms) -> Perms;

    /// Called by the graph before what all users together need changes to `perms`: a protocol takes
    /// locks here, and may refuse; then what it held before is still held. Giving up never fails.
    fn acquire(&self, _perms: Perms) -> Result<(), Error> {
        Ok(())
    }

    /// Changes the length. The node is drained and its users hold the resize permission.
    fn resize(&self, _len: u64) -> Io<'_> {
        Box::pin(std::future::ready(Err(errno(libc::ENOTSUP))))
    }

    /// Ends it: once, drained, before its children are closed; may fail (dirty metadata, disconnect).
    fn close(&self) -> Io<'_> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// What is known about a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Bytes it speaks of, from the start of the range that was asked about.
    pub len: u64,
    /// The node holds these bytes itself, rather than leaving them to a backing node.
    pub allocated: bool,
    /// They read as zeroes, certainly.
    pub zero: bool,
    /// There may be something else than zeroes.
    pub data: bool,
    /// Where they lie in the node's file, where that is one place.
    pub at: Option<u64>,
}

/// What requests to a node must look like. Units are bytes; alignments are powers of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Offset and length of reads and writes.
    pub request_alignment: u32,
    /// Address and length of each piece of memory.
    pub memory_alignment: u32,
    /// Smallest block that the medium writes without reading it first, below or on this node; for users
    /// that can choose.
    pub logical_block: u32,
    /// The unit below which the medium rewrites more than it was asked to; for guests to know.
    pub physical_block: u32,
    /// Smallest transfer that is efficient; 0 when unknown.
    pub min_io: u32,
    /// Best transfer; 0 when unknown.
    pub opt_io: u32,
    /// Largest read or write; not below the alignments.
    pub max_transfer: u64,
    /// Offset and length of discards; what is over is kept.
    pub discard_alignment: u32,
    /// Largest discard.
    pub max_discard: u64,
    /// Offset and length of WriteZeroes; what is over is written.
    pub write_zeroes_alignment: u32,
    /// Largest WriteZeroes.
    pub max_write_zeroes: u64,
    /// Writes with FUA are understood; elsewhere the edge flushes after them.
    pub fua: bool,
}

impl Default for Limits {
    /// No limits at all.
    fn default() -> Self {
        Self {
            request_alignment: 1,
            memory_alignment: 1,
            logical_block: 1,
            physical_block: 512,
            min_io: 0,
            opt_io: 0,
            max_transfer: u64::MAX,
            discard_alignment: 1,
            max_discard: u64::MAX,
            write_zeroes_alignment: 1,
            max_write_zeroes: u64::MAX,
            fua: true,
        }
    }
}
