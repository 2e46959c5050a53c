//! Guest RAM, and the only place where its bytes become host memory.
//!
//! A guest names memory by addresses that it may choose badly or change its mind about, so this
//! module checks each range once, against RAM that stays mapped for as long as the
//! [`GuestBuffers`] made from it, and hands out pieces that are copied from and to or given to
//! the kernel. No Rust reference to guest bytes exists anywhere: other vCPUs write to them at
//! any time.

use std::sync::Arc;

use exec::{IoSlice, IoSliceMut, IoSlices, IoSlicesMut};
use vm_memory::{GuestAddress, GuestMemoryBackend};

/// Guest RAM as devices see it: a few mapped regions, fixed for the life of the machine.
pub type GuestRam = vm_memory::GuestMemoryMmap<()>;

/// A range that is not, or not wholly, RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfRam;

/// What a guest gave a device to read from and to write to: two lists of checked ranges of its RAM.
///
/// It keeps the RAM mapped, so memory that a transfer still uses cannot go away under it.
pub struct GuestBuffers {
    // 'static stands for "as long as `ram`"; the accessors cut it to a borrow of `self`.
    readable: Vec<IoSlice<'static>>,
    writable: Vec<IoSliceMut<'static>>,
    ram: Arc<GuestRam>,
}

impl GuestBuffers {
    /// No buffers yet, in `ram`.
    pub fn new(ram: Arc<GuestRam>) -> GuestBuffers {
        GuestBuffers {
            readable: Vec::new(),
            writable: Vec::new(),
            ram,
        }
    }

    /// Adds the `len` bytes at `at` to what the device may read. No bytes are no piece, wherever
    /// they are said to be.
    ///
    /// # Errors
    /// [`OutOfRam`] when any byte of the range is not RAM.
    pub fn push_readable(&mut self, at: GuestAddress, len: usize) -> Result<(), OutOfRam> {
        for slice in GuestMemoryBackend::get_slices(&*self.ram, at, len) {
            let slice = slice.map_err(|_| OutOfRam)?;
            // SAFETY: `get_slices` returned a range inside one mapped region of `ram`, which
            // `self` keeps; the piece is only lent out for borrows of `self`.
            let piece = unsafe { IoSlice::from_raw_parts(slice.ptr_guard().as_ptr(), slice.len()) };
            self.readable.push(piece);
        }
        Ok(())
    }

    /// Adds the `len` bytes at `at` to what the device may write.
    ///
    /// # Errors
    /// [`OutOfRam`] when any byte of the range is not RAM.
    pub fn push_writable(&mut self, at: GuestAddress, len: usize) -> Result<(), OutOfRam> {
        for slice in GuestMemoryBackend::get_slices(&*self.ram, at, len) {
            let slice = slice.map_err(|_| OutOfRam)?;
            // SAFETY: as above; no Rust reference to guest RAM exists.
            let piece =
                unsafe { IoSliceMut::from_raw_parts(slice.ptr_guard_mut().as_ptr(), slice.len()) };
            self.writable.push(piece);
        }
        Ok(())
    }

    /// What the device may read.
    pub fn readable(&self) -> IoSlices<'_> {
        IoSlices::new(&self.readable)
    }

    /// What the device may write.
    pub fn writable(&mut self) -> IoSlicesMut<'_> {
        IoSlicesMut::new(&mut self.writable)
    }
}

#[cfg(test)]
mod tests;
