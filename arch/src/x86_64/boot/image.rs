//! A kernel image as something with a length that can be read anywhere: the few headers are read here, and the bulk goes
//! from the file straight to guest RAM without passing through our memory.

use std::io;

use crate::{Error, Kind};

/// A kernel image. `[u8]` is one; a file becomes one with positioned reads.
pub trait Image {
    /// Length in bytes.
    fn len(&self) -> u64;

    /// Fills `buf` from `offset`.
    ///
    /// # Errors
    /// What the read gives; [`io::ErrorKind::UnexpectedEof`] past the end.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;

    /// Whether the image has no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Image for Vec<u8> {
    fn len(&self) -> u64 {
        self.as_slice().len() as u64
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let from = usize::try_from(offset)
            .ok()
            .and_then(|start| self.get(start..start.checked_add(buf.len())?))
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(from);
        Ok(())
    }
}

/// Reads `N` bytes at `offset`; `None` past the end.
pub(super) fn read<const N: usize>(
    image: &dyn Image,
    offset: u64,
) -> Result<Option<[u8; N]>, Error> {
    let mut buf = [0; N];
    Ok(read_into(image, offset, &mut buf)?.then_some(buf))
}

/// Fills `buf` from `offset`; `false` if the image ends before.
pub(super) fn read_into(image: &dyn Image, offset: u64, buf: &mut [u8]) -> Result<bool, Error> {
    if offset
        .checked_add(buf.len() as u64)
        .is_none_or(|end| end > image.len())
    {
        return Ok(false);
    }
    match image.read_at(offset, buf) {
        Ok(()) => Ok(true),
        Err(error) => Err(Error::new(
            Kind::Kernel,
            format!("cannot read the kernel: {error}"),
        )),
    }
}
