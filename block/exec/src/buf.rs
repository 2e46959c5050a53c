//! Buffers of a request: lists of memory pieces that the kernel reads from or writes to.
//!
//! A piece is an address and a length, valid for `'a`. Much of it is guest memory, which another vCPU may change at any
//! time, so no Rust reference to its bytes is ever made here: pieces are copied from and to, or handed to the kernel.
//! [`IoSlices`] and [`IoSlicesMut`] are windows over a list of pieces; they are cut without allocating, which is what
//! splitting a request at a cluster or at a transfer limit does all day.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::io;
use std::marker::PhantomData;
use std::ops::Range;
use std::ptr::{self, NonNull};

/// One piece of memory that data is read *from* (the source of a write). Same layout as `struct iovec`.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct IoSlice<'a>(libc::iovec, PhantomData<&'a [u8]>);

/// One piece of memory that data is written *to* (the target of a read). Same layout as `struct iovec`.
#[repr(transparent)]
pub struct IoSliceMut<'a>(libc::iovec, PhantomData<&'a mut [u8]>);

// SAFETY: a piece stands for a `&[u8]` (or raw memory with the same promise), which may go to any thread.
unsafe impl Send for IoSlice<'_> {}
// SAFETY: as above; nothing is changed through a shared `IoSlice`.
unsafe impl Sync for IoSlice<'_> {}
// SAFETY: a piece stands for a `&mut [u8]`, which may go to any thread.
unsafe impl Send for IoSliceMut<'_> {}
// SAFETY: nothing can be done through a shared `IoSliceMut` but ask its length.
unsafe impl Sync for IoSliceMut<'_> {}

impl<'a> IoSlice<'a> {
    /// The piece that covers `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(
            libc::iovec {
                iov_base: bytes.as_ptr().cast_mut().cast(),
                iov_len: bytes.len(),
            },
            PhantomData,
        )
    }

    /// A piece of memory that Rust does not own, such as guest RAM.
    ///
    /// # Safety
    /// `len` bytes at `ptr` stay mapped and readable for `'a`, and no Rust reference to them expects them unchanged.
    pub const unsafe fn from_raw_parts(ptr: *const u8, len: usize) -> Self {
        Self(
            libc::iovec {
                iov_base: ptr.cast_mut().cast(),
                iov_len: len,
            },
            PhantomData,
        )
    }

    /// Bytes in this piece.
    pub const fn len(&self) -> usize {
        self.0.iov_len
    }

    /// Whether the piece has no bytes.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where it starts.
    pub const fn as_ptr(&self) -> *const u8 {
        self.0.iov_base.cast_const().cast()
    }

    /// Cuts it to `from..from + len`, both already within bounds.
    fn cut(&self, from: usize, len: usize) -> Self {
        debug_assert!(from <= self.len() && len <= self.len() - from);
        Self(
            libc::iovec {
                iov_base: self.0.iov_base.wrapping_byte_add(from),
                iov_len: len,
            },
            PhantomData,
        )
    }
}

impl<'a> IoSliceMut<'a> {
    /// The piece that covers `bytes`.
    pub const fn new(bytes: &'a mut [u8]) -> Self {
        Self(
            libc::iovec {
                iov_base: bytes.as_mut_ptr().cast(),
                iov_len: bytes.len(),
            },
            PhantomData,
        )
    }

    /// A piece of memory that Rust does not own, such as guest RAM.
    ///
    /// # Safety
    /// `len` bytes at `ptr` stay mapped and writable for `'a`, and no Rust reference to them is alive meanwhile.
    pub const unsafe fn from_raw_parts(ptr: *mut u8, len: usize) -> Self {
        Self(
            libc::iovec {
                iov_base: ptr.cast(),
                iov_len: len,
            },
            PhantomData,
        )
    }

    /// Bytes in this piece.
    pub const fn len(&self) -> usize {
        self.0.iov_len
    }

    /// Whether the piece has no bytes.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where it starts.
    pub const fn as_mut_ptr(&mut self) -> *mut u8 {
        self.0.iov_base.cast()
    }
}

/// A window over a list of pieces to read *from*: the data of a write.
///
/// Copying it copies the window, never the data.
#[derive(Clone, Copy)]
pub struct IoSlices<'a> {
    /// The first piece, already cut at its front; may be longer than the window.
    head: IoSlice<'a>,
    /// The pieces after it; the last ones may reach beyond the window.
    tail: &'a [IoSlice<'a>],
    /// Bytes in the window; never more than `head` and `tail` hold.
    len: usize,
}

impl<'a> IoSlices<'a> {
    /// All of `pieces`, in order.
    pub fn new(pieces: &'a [IoSlice<'a>]) -> Self {
        let len = pieces
            .iter()
            .fold(0usize, |sum, p| sum.saturating_add(p.len()));
        match pieces.split_first() {
            Some((head, tail)) => Self {
                head: *head,
                tail,
                len,
            },
            None => Self::empty(),
        }
    }

    /// No bytes at all.
    pub const fn empty() -> Self {
        Self {
            head: IoSlice::new(&[]),
            tail: &[],
            len: 0,
        }
    }

    /// Bytes in the window.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether the window has no bytes.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes `range` of this window.
    ///
    /// # Panics
    /// If `range` is not inside the window; callers check against `len()` first.
    #[must_use]
    pub fn slice(self, range: Range<usize>) -> Self {
        assert!(
            range.start <= range.end && range.end <= self.len,
            "slice outside the request's buffer"
        );
        let (mut head, mut tail, mut skip) = (self.head, self.tail, range.start);
        while skip >= head.len() {
            match tail.split_first() {
                Some((next, rest)) => (skip, head, tail) = (skip - head.len(), *next, rest),
                None => break,
            }
        }
        Self {
            head: head.cut(skip, head.len() - skip),
            tail,
            len: range.end - range.start,
        }
    }

    /// The window in two: the first `mid` bytes and the rest.
    ///
    /// # Panics
    /// If `mid` is more than `len()`.
    #[must_use]
    pub fn split_at(self, mid: usize) -> (Self, Self) {
        (self.slice(0..mid), self.slice(mid..self.len))
    }

    /// The pieces of this window, cut to it; empty ones are left out.
    pub fn pieces(&self) -> impl Iterator<Item = IoSlice<'a>> + use<'a> {
        let mut left = self.len;
        std::iter::once(self.head)
            .chain(self.tail.iter().copied())
            .map(move |p| {
                let piece = p.cut(0, p.len().min(left));
                left -= piece.len();
                piece
            })
            .filter(|p| !p.is_empty())
    }

    /// Whether every piece starts and ends on a multiple of `align` (a power of two): what direct I/O asks of memory.
    pub fn is_aligned(&self, align: usize) -> bool {
        let mask = align.wrapping_sub(1);
        self.pieces()
            .all(|p| (p.as_ptr().addr() | p.len()) & mask == 0)
    }

    /// Copies the window's first `to.len()` bytes into `to`.
    ///
    /// # Panics
    /// If `to` is longer than the window.
    pub fn copy_to(&self, to: &mut [u8]) {
        assert!(to.len() <= self.len, "copy beyond the request's buffer");
        let mut done = 0;
        for piece in self.pieces() {
            let part = piece.len().min(to.len() - done);
            // SAFETY: `part` bytes are valid at both ends: the piece is at least that long, `to` has that much left;
            // `to` is an exclusive reference, so they do not overlap. Guest memory changing meanwhile gives bytes of
            // either age, which is what hardware gives.
            unsafe { ptr::copy_nonoverlapping(piece.as_ptr(), to.as_mut_ptr().add(done), part) };
            done += part;
            if done == to.len() {
                break;
            }
        }
    }

    /// Whether every byte is zero. Guest memory may change while and after this looks at it.
    pub fn is_zero(&self) -> bool {
        let mut chunk = [0u8; 512];
        self.pieces().all(|piece| {
            (0..piece.len()).step_by(chunk.len()).all(|at| {
                let part = chunk.len().min(piece.len() - at);
                // SAFETY: `at + part <= piece.len()` and `part <= chunk.len()`; a stack array overlaps no piece.
                unsafe {
                    ptr::copy_nonoverlapping(piece.as_ptr().add(at), chunk.as_mut_ptr(), part)
                };
                chunk[..part].iter().fold(0, |or, byte| or | byte) == 0
            })
        })
    }

    /// The only piece, if the window lies in one.
    pub(crate) fn single(&self) -> Option<IoSlice<'a>> {
        (self.len <= self.head.len()).then(|| self.head.cut(0, self.len))
    }

    /// Makes every byte zero.
    ///
    /// # Safety
    /// The window was made of an [`IoSlicesMut`] that nobody uses meanwhile.
    pub(crate) unsafe fn fill_zero(&self) {
        for piece in self.pieces() {
            // SAFETY: the piece is valid for writes, and the caller has the only window over it.
            unsafe { ptr::write_bytes(piece.as_ptr().cast_mut(), 0, piece.len()) };
        }
    }

    /// At most `libc::UIO_MAXIOV` pieces as the kernel takes them; where that is not all, whole units of `unit` bytes.
    pub(crate) fn to_iovecs(self, unit: usize) -> Vec<libc::iovec> {
        let pieces = self.pieces().take(libc::UIO_MAXIOV as usize);
        let mut pieces: Vec<_> = pieces.map(|p| p.0).collect();
        let total: usize = pieces.iter().map(|piece| piece.iov_len).sum();
        if total < self.len && total >= unit {
            let mut over = total % unit;
            while let Some(last) = pieces.last_mut().filter(|_| over > 0) {
                let cut = over.min(last.iov_len);
                last.iov_len -= cut;
                over -= cut;
                if last.iov_len == 0 {
                    pieces.pop();
                }
            }
        }
        pieces
    }
}

impl<'a> From<&'a [u8]> for IoSlices<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self {
            head: IoSlice::new(bytes),
            tail: &[],
            len: bytes.len(),
        }
    }
}

impl<'a> From<IoSlice<'a>> for IoSlices<'a> {
    fn from(piece: IoSlice<'a>) -> Self {
        Self {
            len: piece.len(),
            head: piece,
            tail: &[],
        }
    }
}

/// A window over a list of pieces to write *to*: where a read puts its data.
///
/// Not `Copy`: each byte has one window at a time. [`reborrow`](Self::reborrow) lends it.
pub struct IoSlicesMut<'a> {
    /// The same window seen as a source; written through its pointers only by this type's methods and the kernel.
    raw: IoSlices<'a>,
    exclusive: PhantomData<&'a mut [u8]>,
}

impl<'a> IoSlicesMut<'a> {
    /// All of `pieces`, in order.
    pub fn new<'b: 'a>(pieces: &'a mut [IoSliceMut<'b>]) -> Self {
        let (ptr, len) = (pieces.as_ptr().cast::<IoSlice<'a>>(), pieces.len());
        // SAFETY: both are `repr(transparent)` over iovec, and the list is borrowed for 'a.
        let raw = IoSlices::new(unsafe { std::slice::from_raw_parts(ptr, len) });
        Self {
            raw,
            exclusive: PhantomData,
        }
    }

    /// No bytes at all.
    pub const fn empty() -> Self {
        Self {
            raw: IoSlices::empty(),
            exclusive: PhantomData,
        }
    }

    /// Bytes in the window.
    pub const fn len(&self) -> usize {
        self.raw.len
    }

    /// Whether the window has no bytes.
    pub const fn is_empty(&self) -> bool {
        self.raw.len == 0
    }

    /// Lends the window.
    pub fn reborrow(&mut self) -> IoSlicesMut<'_> {
        IoSlicesMut {
            raw: self.raw,
            exclusive: PhantomData,
        }
    }

    /// The bytes `range` of this window.
    ///
    /// # Panics
    /// If `range` is not inside the window; callers check against `len()` first.
    #[must_use]
    pub fn slice(self, range: Range<usize>) -> Self {
        Self {
            raw: self.raw.slice(range),
            exclusive: PhantomData,
        }
    }

    /// The window in two: the first `mid` bytes and the rest.
    ///
    /// # Panics
    /// If `mid` is more than `len()`.
    #[must_use]
    pub fn split_at(self, mid: usize) -> (Self, Self) {
        let (front, back) = self.raw.split_at(mid);
        (
            Self {
                raw: front,
                exclusive: PhantomData,
            },
            Self {
                raw: back,
                exclusive: PhantomData,
            },
        )
    }

    /// The same bytes as a source, to look at what a read brought.
    pub fn as_slices(&self) -> IoSlices<'_> {
        self.raw
    }

    /// Whether every piece starts and ends on a multiple of `align` (a power of two).
    pub fn is_aligned(&self, align: usize) -> bool {
        self.raw.is_aligned(align)
    }

    /// Copies `from` to the window's first bytes.
    ///
    /// # Panics
    /// If `from` is longer than the window.
    pub fn copy_from(&mut self, from: &[u8]) {
        assert!(from.len() <= self.len(), "copy beyond the request's buffer");
        let mut done = 0;
        for piece in self.raw.pieces() {
            let part = piece.len().min(from.len() - done);
            // SAFETY: `part` bytes are valid at both ends; this window is the only one over the piece, and `from` is
            // a reference, so it cannot overlap memory that is exclusively borrowed here.
            unsafe {
                ptr::copy_nonoverlapping(from.as_ptr().add(done), piece.as_ptr().cast_mut(), part)
            };
            done += part;
        }
    }

    /// Makes every byte zero.
    pub fn fill_zero(&mut self) {
        // SAFETY: this window is exclusive.
        unsafe { self.raw.fill_zero() };
    }

    /// The window seen as a source, for who keeps the promise that it is the only one.
    pub(crate) fn into_raw(self) -> IoSlices<'a> {
        self.raw
    }
}

impl<'a> From<&'a mut [u8]> for IoSlicesMut<'a> {
    fn from(bytes: &'a mut [u8]) -> Self {
        IoSliceMut::new(bytes).into()
    }
}

impl<'a> From<IoSliceMut<'a>> for IoSlicesMut<'a> {
    fn from(piece: IoSliceMut<'a>) -> Self {
        Self {
            raw: IoSlice(piece.0, PhantomData).into(),
            exclusive: PhantomData,
        }
    }
}

/// An owned, zeroed buffer with an alignment of its own: where requests bounce that the host would refuse unaligned.
pub struct AlignedBuf {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: it owns its memory like a `Box<[u8]>`.
unsafe impl Send for AlignedBuf {}
// SAFETY: shared access only reads.
unsafe impl Sync for AlignedBuf {}

impl AlignedBuf {
    /// `len` zero bytes at a multiple of `align`.
    ///
    /// # Errors
    /// `ENOMEM` when there is no memory; `EINVAL` when `align` is no power of two or `len` is beyond `isize::MAX`.
    pub fn new(len: usize, align: usize) -> io::Result<Self> {
        let layout = Layout::from_size_align(len, align)
            .map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
        if len == 0 {
            return Ok(Self {
                start: NonNull::without_provenance(layout_align(layout)),
                layout,
            });
        }
        // SAFETY: the layout's size is not zero.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) });
        Ok(Self {
            start: start.ok_or_else(|| io::Error::from_raw_os_error(libc::ENOMEM))?,
            layout,
        })
    }

    /// Its bytes.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: `start` is valid and initialised for the layout's size.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.layout.size()) }
    }

    /// Its bytes, to change.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_slice`, and exclusively borrowed.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.layout.size()) }
    }
}

fn layout_align(layout: Layout) -> std::num::NonZeroUsize {
    std::num::NonZeroUsize::new(layout.align()).unwrap_or(std::num::NonZeroUsize::MIN)
}

impl Drop for AlignedBuf {
    fn drop(&mut self) {
        if self.layout.size() != 0 {
            // SAFETY: allocated in `new` with this very layout.
            unsafe { dealloc(self.start.as_ptr(), self.layout) };
        }
    }
}

#[cfg(test)]
mod tests;
