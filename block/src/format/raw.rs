//! `raw`: the bytes of the node below as they are, or a window of them.

use std::ops::Range;

use exec::{AlignedBuf, IoSlice, IoSlices};

use super::magic::format_of;
use crate::driver::{Driver, Extent, Limits};
use crate::edge::{Edge, Role};
use crate::error::{Error, ErrorKind, errno};
use crate::graph::{Opened, Opening};
use crate::io::{MAX_LEN, SECTOR};
use crate::options::{Size, Tree, from_tree};
use crate::perm::Perms;
use crate::request::{Io, Op, Request};

crate::options! {
    /// Options of `driver=raw`.
    pub struct RawOptions {
        /// The node below: its name or its options.
        pub file: Tree,
        /// Where the disk starts in it, in bytes.
        pub offset: Size = Size(0),
        /// Bytes of the disk; to the end of the node below unless given. A multiple of 512.
        pub size: Option<Size> = None,
    }
}

struct Raw {
    children: [Edge; 1],
    offset: u64,
    size: Option<u64>,
    /// The format was not given: nobody may write another format's header into the first sector, which
    /// would make it that format for whoever guesses next.
    guarded: bool,
}

/// Opens the node; what is below is opened first.
pub(crate) async fn open(opening: &mut Opening<'_>, options: Tree) -> Result<Opened, Error> {
    let options: RawOptions = from_tree(options)?;
    let guarded = opening.take_probed();
    let child = opening.child("file", Role::Image, options.file).await?;
    let (offset, size) = (options.offset.0, options.size.map(|size| size.0));
    let invalid = |reason: String| Error::new(ErrorKind::Invalid, reason);
    let room = child.len();
    let Some(left) = room.checked_sub(offset) else {
        return Err(invalid(format!(
            "{offset} is past the end of the image, which has {room} bytes"
        ))
        .at("offset"));
    };
    if let Some(size) = size {
        if size % SECTOR != 0 {
            return Err(invalid(format!("{size} is not a multiple of {SECTOR}")).at("size"));
        }
        if size > left {
            return Err(invalid(format!(
                "{size} is more than the {left} bytes of the image after 'offset'"
            ))
            .at("size"));
        }
    }
    if guarded {
        warn(opening, &child, offset).await?;
    }
    Ok(Box::new(Raw {
        children: [child],
        offset,
        size,
        guarded,
    }))
}

/// Says what is being assumed about an image of unknown format.
async fn warn(opening: &mut Opening<'_>, child: &Edge, offset: u64) -> Result<(), Error> {
    let mut sector = [0; SECTOR as usize];
    let read = child
        .submit(Request::read(offset, sector.as_mut_slice()))
        .await;
    read.map_err(|source| {
        Error::io("cannot read the first sector of the image", source).at("file")
    })?;
    let looks = match format_of(&sector) {
        Some(format) => format!("It looks like {format}, which is not in this build. "),
        None => String::new(),
    };
    opening.warn(format!(
        "the format of the image was not given; it is taken as raw. {looks}The guest may not write another format's \
         header into its first sector; format=raw lifts that."
    ));
    Ok(())
}

impl Raw {
    fn child(&self) -> &Edge {
        let [child] = &self.children;
        child
    }

    /// Copies the first sector, which may be changing guest memory, and looks at the copy before it is written.
    async fn write_guarded(&self, req: Request<'_>) -> std::io::Result<()> {
        let Op::Write(from) = &req.op else {
            return self.child().submit(req).await;
        };
        let looked_at = from.len().min(SECTOR as usize);
        let (first, rest) = from.split_at(looked_at);
        let mut copy = AlignedBuf::new(looked_at, SECTOR as usize)?;
        first.copy_to(copy.as_mut_slice());
        if format_of(copy.as_slice()).is_some() {
            return Err(errno(libc::EPERM));
        }
        let pieces: Vec<_> = std::iter::once(IoSlice::new(copy.as_slice()))
            .chain(rest.pieces())
            .collect();
        self.child()
            .submit(Request {
                op: Op::Write(IoSlices::new(&pieces)),
                ..req
            })
            .await
    }
}

impl Driver for Raw {
    fn submit<'a>(&'a self, mut req: Request<'a>) -> Io<'a> {
        if self.guarded && req.offset < SECTOR && matches!(req.op, Op::Write(_)) {
            req.offset = req.offset.saturating_add(self.offset);
            return Box::pin(self.write_guarded(req));
        }
        if !matches!(req.op, Op::Flush) {
            req.offset = req.offset.saturating_add(self.offset);
        }
        self.child().submit(req)
    }

    fn status(&self, range: Range<u64>) -> Io<'_, Extent> {
        self.child()
            .status(range.start.saturating_add(self.offset)..range.end.saturating_add(self.offset))
    }

    fn len(&self) -> u64 {
        self.size
            .unwrap_or_else(|| self.child().len().saturating_sub(self.offset))
    }

    fn limits(&self) -> Limits {
        // Nothing is asked here: the edge below makes every request fit. What suits the medium is handed
        // up as far as the offset leaves it true.
        let below = self.child().limits();
        let logical = below.logical_block.max(below.request_alignment);
        let whole = |block: u32| block == 0 || self.offset.is_multiple_of(u64::from(block));
        Limits {
            // The guard looks at whole sectors.
            request_alignment: if self.guarded { SECTOR as u32 } else { 1 },
            logical_block: if whole(logical) { logical } else { 1 },
            physical_block: if whole(below.physical_block) {
                below.physical_block
            } else {
                SECTOR as u32
            },
            min_io: below.min_io,
            opt_io: below.opt_io,
            max_discard: below.max_discard,
            discard_alignment: if whole(below.discard_alignment) {
                below.discard_alignment
            } else {
                1
            },
            ..Limits::default()
        }
    }

    fn children(&self) -> &[Edge] {
        &self.children
    }

    fn perms(&self, _role: Role, above: Perms) -> Perms {
        above
    }

    fn resize(&self, len: u64) -> Io<'_> {
        let len = len.checked_add(self.offset).filter(|len| *len <= MAX_LEN);
        match (self.size, len) {
            (None, Some(len)) => self.child().resize(len),
            (None, None) => Box::pin(std::future::ready(Err(errno(libc::EFBIG)))),
            // A window has the size it was given.
            (Some(_), _) => Box::pin(std::future::ready(Err(errno(libc::ENOTSUP)))),
        }
    }
}

#[cfg(test)]
mod tests;
