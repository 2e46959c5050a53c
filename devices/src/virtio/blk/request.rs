//! What a driver asks of a block device (virtio 1.3 §5.2.6): from guest bytes to a checked [`Command`].
//!
//! A request is a header of 16 bytes to read, data to read or to write, and one status byte to write,
//! the last of the writable bytes, in any number of descriptors. The header and the segments of a
//! discard are copied once, so what was checked is what is done.

use exec::IoSlices;
use virtio_bindings::virtio_blk as vb;

/// Bytes of a sector, the unit of everything here whatever the block size (§5.2.4).
pub const SECTOR: u64 = 512;

/// The most segments of one discard or write zeroes request.
pub const MAX_SEGMENTS: u32 = 64;

/// Bytes of a device ID string (§5.2.6.1).
pub const ID_LEN: usize = 20;

const HEADER: usize = 16;
const SEGMENT: usize = 16;

/// What goes into the status byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// Done.
    Ok = vb::VIRTIO_BLK_S_OK as u8,
    /// Failed, or asked for what is not there.
    IoError = vb::VIRTIO_BLK_S_IOERR as u8,
    /// No such request.
    Unsupported = vb::VIRTIO_BLK_S_UNSUPP as u8,
}

/// The disk as requests are checked against it.
#[derive(Clone, Copy, Debug)]
pub struct Disk {
    /// Sectors.
    pub capacity: u64,
    /// Sectors of a logical block: requests are whole blocks.
    pub block: u32,
    /// Nothing may change.
    pub read_only: bool,
    /// The most sectors of a segment to discard; 0 where there is no discard.
    pub max_discard: u32,
    /// The most sectors of a segment to zero; 0 where there is no write zeroes.
    pub max_write_zeroes: u32,
}

/// A checked request. Units are bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Fill the first `len` writable bytes from `offset`.
    Read {
        /// Where on the disk.
        offset: u64,
        /// How much.
        len: usize,
    },
    /// Write the readable bytes behind the header to `offset`.
    Write {
        /// Where on the disk.
        offset: u64,
        /// How much.
        len: usize,
    },
    /// Make everything that was completed before stable.
    Flush,
    /// Write the serial number to the first `len` writable bytes, at most 20.
    GetId {
        /// How much.
        len: usize,
    },
    /// The contents of the ranges are no longer needed.
    Discard(Vec<Segment>),
    /// The ranges read as zeroes from now on.
    WriteZeroes(Vec<Segment>),
}

/// A range of a discard or write zeroes request, inside the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where on the disk, in bytes.
    pub offset: u64,
    /// How much, in bytes.
    pub len: u64,
    /// Whether the range may be deallocated.
    pub unmap: bool,
}

/// Where the data of a read request lies: the readable part, behind the header.
pub fn payload(readable: IoSlices<'_>) -> IoSlices<'_> {
    readable.slice(HEADER.min(readable.len())..readable.len())
}

/// Reads a request from its readable bytes and the number of its writable bytes, without the status.
///
/// # Errors
/// The status to answer with.
pub fn parse(readable: IoSlices<'_>, writable: usize, disk: &Disk) -> Result<Command, Status> {
    let mut header = [0; HEADER];
    if readable.len() < HEADER {
        return Err(Status::IoError);
    }
    readable.copy_to(&mut header);
    let data = payload(readable);
    let kind = read_u32(&header, 0).ok_or(Status::IoError)?;
    let sector = read_u64(&header, 8).ok_or(Status::IoError)?;
    match kind {
        vb::VIRTIO_BLK_T_IN => {
            let offset = disk.check(sector, writable)?;
            Ok(Command::Read {
                offset,
                len: writable,
            })
        }
        vb::VIRTIO_BLK_T_OUT => {
            disk.check_writable()?;
            let offset = disk.check(sector, data.len())?;
            Ok(Command::Write {
                offset,
                len: data.len(),
            })
        }
        vb::VIRTIO_BLK_T_FLUSH => Ok(Command::Flush),
        vb::VIRTIO_BLK_T_GET_ID => Ok(Command::GetId {
            len: writable.min(ID_LEN),
        }),
        vb::VIRTIO_BLK_T_DISCARD if disk.max_discard > 0 => disk
            .segments(data, disk.max_discard, 0)
            .map(Command::Discard),
        vb::VIRTIO_BLK_T_WRITE_ZEROES if disk.max_write_zeroes > 0 => disk
            .segments(
                data,
                disk.max_write_zeroes,
                vb::VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP,
            )
            .map(Command::WriteZeroes),
        _ => Err(Status::Unsupported),
    }
}

impl Disk {
    fn check_writable(&self) -> Result<(), Status> {
        if self.read_only {
            return Err(Status::IoError);
        }
        Ok(())
    }

    /// The byte offset of a transfer of `len` bytes at `sector`: whole blocks inside the disk.
    fn check(&self, sector: u64, len: usize) -> Result<u64, Status> {
        let len = u64::try_from(len).map_err(|_| Status::IoError)?;
        let block = u64::from(self.block.max(1));
        let sectors = len.checked_div(SECTOR).unwrap_or(0);
        let aligned = len.is_multiple_of(SECTOR)
            && sector.is_multiple_of(block)
            && sectors.is_multiple_of(block);
        let end = sector.checked_add(sectors).ok_or(Status::IoError)?;
        if !aligned || end > self.capacity {
            return Err(Status::IoError);
        }
        sector.checked_mul(SECTOR).ok_or(Status::IoError)
    }

    /// The segments of a discard or write zeroes request (§5.2.6.2), which may have the flags `known`.
    fn segments(&self, data: IoSlices<'_>, max: u32, known: u32) -> Result<Vec<Segment>, Status> {
        self.check_writable()?;
        let most = SEGMENT.saturating_mul(MAX_SEGMENTS as usize);
        if data.is_empty() || !data.len().is_multiple_of(SEGMENT) || data.len() > most {
            return Err(Status::IoError);
        }
        let mut bytes = vec![0; data.len()];
        data.copy_to(&mut bytes);
        let segment = |bytes: &[u8]| {
            let sector = read_u64(bytes, 0).ok_or(Status::IoError)?;
            let count = read_u32(bytes, 8).ok_or(Status::IoError)?;
            let flags = read_u32(bytes, 12).ok_or(Status::IoError)?;
            if flags & !known != 0 {
                return Err(Status::Unsupported);
            }
            let end = sector.checked_add(u64::from(count));
            if count > max || end.is_none_or(|end| end > self.capacity) {
                return Err(Status::IoError);
            }
            Ok(Segment {
                offset: sector.checked_mul(SECTOR).ok_or(Status::IoError)?,
                len: u64::from(count).saturating_mul(SECTOR),
                unmap: flags != 0,
            })
        };
        bytes.chunks_exact(SEGMENT).map(segment).collect()
    }
}

fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

fn read_u64(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(8)?)?;
    Some(u64::from_le_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests;
