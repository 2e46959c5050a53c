//! What the kernel says about an open file: its kind, its length, and what direct I/O on it asks for.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::fs::{FileType, OFlags, SeekFrom, fcntl_getfl, fstat, fstatfs, seek};

use super::{Alignment, FileKind};
use crate::buf::AlignedBuf;

pub(super) struct Facts {
    pub(super) kind: FileKind,
    pub(super) read_only: bool,
    pub(super) direct: bool,
    pub(super) tmpfs: bool,
    pub(super) alignment: Alignment,
}

/// linux/magic.h
const TMPFS_MAGIC: i64 = 0x0102_1994;
/// The largest block that a disk or file system has; right for all when nothing is known.
const SAFE: u32 = 4096;

pub(super) fn of(fd: BorrowedFd<'_>) -> io::Result<Facts> {
    let stat = fstat(fd)?;
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => FileKind::Regular,
        FileType::BlockDevice => FileKind::BlockDevice,
        FileType::CharacterDevice => FileKind::CharDevice,
        _ => FileKind::Other,
    };
    let flags = fcntl_getfl(fd)?;
    let direct = flags.contains(OFlags::DIRECT);
    let tmpfs = kind == FileKind::Regular && fstatfs(fd).is_ok_and(|fs| fs.f_type == TMPFS_MAGIC);
    let alignment = if direct {
        direct_alignment(fd, kind)
    } else {
        Alignment {
            memory: 1,
            offset: 1,
        }
    };
    let read_only = flags & OFlags::RWMODE == OFlags::RDONLY;
    Ok(Facts {
        kind,
        read_only,
        direct,
        tmpfs,
        alignment,
    })
}

/// STATX_DIOALIGN (Linux 6.1); else the logical block size of a device; else by trying.
fn direct_alignment(fd: BorrowedFd<'_>, kind: FileKind) -> Alignment {
    // SAFETY: plain numbers, for which zero is a value.
    let mut statx: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: an empty path with AT_EMPTY_PATH means the descriptor; the structure is ours.
    let got = unsafe {
        libc::statx(
            fd.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            libc::STATX_DIOALIGN,
            &raw mut statx,
        )
    };
    let told = got == 0 && statx.stx_mask & libc::STATX_DIOALIGN != 0;
    if told
        && statx.stx_dio_mem_align.is_power_of_two()
        && statx.stx_dio_offset_align.is_power_of_two()
    {
        return Alignment {
            memory: statx.stx_dio_mem_align,
            offset: statx.stx_dio_offset_align,
        };
    }
    if kind == FileKind::BlockDevice {
        let size = block_size(fd);
        return Alignment {
            memory: size,
            offset: size,
        };
    }
    probe(fd)
}

/// BLKSSZGET: the logical block size of a block device, in bytes.
fn block_size(fd: BorrowedFd<'_>) -> u32 {
    /// `_IO(0x12, 104)`, linux/fs.h.
    const BLKSSZGET: libc::c_ulong = 0x1268;
    let mut size: libc::c_int = 0;
    // SAFETY: the kernel writes one int.
    let got = unsafe { libc::ioctl(fd.as_raw_fd(), BLKSSZGET, &raw mut size) };
    u32::try_from(size)
        .ok()
        .filter(|size| got == 0 && size.is_power_of_two())
        .unwrap_or(SAFE)
}

/// Reads from the file's start with ever coarser alignment until the kernel takes it. A file with nothing to read
/// answers nothing, and neither does one that takes byte-sized reads, as if it were not direct at all: both get what
/// is right everywhere.
fn probe(fd: BorrowedFd<'_>) -> Alignment {
    let safe = Alignment {
        memory: SAFE,
        offset: SAFE,
    };
    let Ok(mut buf) = AlignedBuf::new(2 * SAFE as usize, SAFE as usize) else {
        return safe;
    };
    let mut works = |from: usize, len: usize| {
        let part = buf.as_mut_slice().get_mut(from..from + len);
        part.is_some_and(|part| matches!(rustix::io::pread(fd, part, 0), Ok(count) if count > 0))
    };
    if works(0, 1) {
        return safe;
    }
    let sizes = [512, 1024, 2048, SAFE];
    let Some(offset) = sizes.into_iter().find(|size| works(0, *size as usize)) else {
        return safe;
    };
    let memory = [4, 8, 16, 32, 64, 128, 256].into_iter().chain(sizes);
    let memory = memory
        .into_iter()
        .find(|size| works(*size as usize, offset as usize))
        .unwrap_or(SAFE);
    Alignment {
        memory: memory.max(4),
        offset,
    }
}

pub(super) fn len(fd: BorrowedFd<'_>, kind: FileKind) -> io::Result<u64> {
    match kind {
        FileKind::Regular => Ok(fstat(fd)?.st_size.cast_unsigned()),
        FileKind::BlockDevice => {
            /// `_IOR(0x12, 114, size_t)`, linux/fs.h.
            const BLKGETSIZE64: libc::c_ulong = 0x8008_1272;
            let mut size = 0u64;
            // SAFETY: the kernel writes one u64.
            let got = unsafe { libc::ioctl(fd.as_raw_fd(), BLKGETSIZE64, &raw mut size) };
            if got == 0 {
                Ok(size)
            } else {
                Err(io::Error::last_os_error())
            }
        }
        _ => Ok(seek(fd, SeekFrom::End(0))?),
    }
}
