//! A 64-bit ELF kernel (vmlinux): its segments, and the PVH note if it has one (ELF gABI, chapters 4 and 5).

use super::image::{Image, read, read_into};
use super::{Content, ElfProtocol, Kernel, Way, Write, linux64, no_kernel};
use crate::x86_64::layout::{HIGH_MEMORY, Layout};
use crate::{Error, Kind};

const MAGIC: [u8; 4] = *b"\x7fELF";
const CLASS_64: u8 = 2;
const LITTLE_ENDIAN: u8 = 1;
const EXECUTABLE: u16 = 2;
const MACHINE_X86_64: u16 = 62;
/// Bytes of a program header.
const PROGRAM_HEADER: u16 = 56;
const LOAD: u32 = 1;
const NOTE: u32 = 4;
/// More segments than any kernel has: a limit on the time a hostile image costs.
const SEGMENTS_MAX: u16 = 128;
/// Kernels have notes of some hundred bytes.
const NOTES_MAX: u64 = 64 << 10;
/// Xen's note with the 32-bit physical entry point.
const PHYS32_ENTRY: u32 = 18;
/// What x86 Linux takes (`COMMAND_LINE_SIZE`): an ELF does not say, and Linux would cut silently.
const LINUX_CMDLINE: u32 = 2047;

/// Whether the image begins as an ELF does.
pub(super) fn is_elf(image: &dyn Image) -> Result<bool, Error> {
    Ok(read(image, 0)? == Some(MAGIC))
}

/// A field of a structure that was read whole.
fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let end = at.saturating_add(N);
    bytes
        .get(at..end)
        .and_then(|b| b.try_into().ok())
        .unwrap_or([0; N])
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(field(bytes, at))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(field(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(field(bytes, at))
}

/// A loadable segment, checked: inside low RAM above 1 MiB, and its bytes inside the image.
struct Segment {
    offset: u64,
    file_len: u64,
    virt: u64,
    phys: u64,
    end: u64,
}

/// Places an ELF kernel.
pub(super) fn load(
    layout: &Layout,
    image: &dyn Image,
    protocol: ElfProtocol,
) -> Result<Kernel, Error> {
    let header: [u8; 64] =
        read(image, 0)?.ok_or_else(|| no_kernel("the ELF header is truncated"))?;
    check_header(&header)?;
    let mut segments = Vec::new();
    let mut pvh = None;
    for n in 0..u16_at(&header, 56) {
        let at = u64::from(n)
            .saturating_mul(PROGRAM_HEADER.into())
            .saturating_add(u64_at(&header, 32));
        let program: [u8; PROGRAM_HEADER as usize] =
            read(image, at)?.ok_or_else(|| no_kernel("the ELF's program headers are truncated"))?;
        match u32_at(&program, 0) {
            LOAD if u64_at(&program, 40) > 0 => segments.push(segment(layout, image, &program)?),
            NOTE if pvh.is_none() => pvh = pvh_entry(image, &program)?,
            _ => {}
        }
    }
    segments.sort_by_key(|segment: &Segment| segment.phys);
    let overlap = segments.array_windows().any(|[a, b]| a.end > b.phys);
    if overlap {
        return Err(no_kernel("two segments of the ELF overlap"));
    }
    let end = segments
        .last()
        .ok_or_else(|| no_kernel("the ELF has nothing to load"))?
        .end;
    let way = match (pvh, protocol) {
        (Some(rip), ElfProtocol::Auto) => Way::Pvh {
            rip: entry(&segments, rip.into(), false)? as u32,
        },
        _ => Way::Linux64 {
            rip: entry(&segments, u64_at(&header, 24), true)?,
            header: Box::new(linux64::elf_header(LINUX_CMDLINE)),
        },
    };
    Ok(Kernel {
        writes: segments.iter().flat_map(writes).collect(),
        end,
        cmdline_max: LINUX_CMDLINE.into(),
        initrd_max: u32::MAX.into(),
        way,
    })
}

fn check_header(header: &[u8; 64]) -> Result<(), Error> {
    let [_, _, _, _, class, data, ..] = *header;
    let wrong = if class != CLASS_64 {
        "it is a 32-bit ELF"
    } else if data != LITTLE_ENDIAN {
        "it is a big-endian ELF"
    } else if u16_at(header, 18) != MACHINE_X86_64 {
        "it is an ELF for another machine than x86-64"
    } else if u16_at(header, 16) != EXECUTABLE {
        "the ELF is not an executable at a fixed address (a shared object, an object file or a position-independent \
         program)"
    } else if u16_at(header, 54) != PROGRAM_HEADER {
        "the ELF's program headers have an unknown size"
    } else if u16_at(header, 56) > SEGMENTS_MAX {
        "the ELF has too many program headers"
    } else {
        return Ok(());
    };
    Err(no_kernel(wrong))
}

fn segment(layout: &Layout, image: &dyn Image, program: &[u8]) -> Result<Segment, Error> {
    let offset = u64_at(program, 8);
    let virt = u64_at(program, 16);
    let phys = u64_at(program, 24);
    let (file_len, mem_len) = (u64_at(program, 32), u64_at(program, 40));
    if file_len > mem_len {
        return Err(no_kernel(
            "a segment of the ELF is longer in the file than in memory",
        ));
    }
    if offset
        .checked_add(file_len)
        .is_none_or(|end| end > image.len())
    {
        return Err(no_kernel(
            "the ELF is truncated: a segment lies beyond the file's end",
        ));
    }
    let ram = layout.low_ram();
    match phys.checked_add(mem_len) {
        Some(end) if phys >= HIGH_MEMORY && end <= ram => Ok(Segment {
            offset,
            file_len,
            virt,
            phys,
            end,
        }),
        _ => Err(Error::new(
            Kind::Kernel,
            format!(
                "a segment of {mem_len} bytes at {phys:#x} does not fit: RAM for kernels is {HIGH_MEMORY:#x} to {ram:#x}"
            ),
        )),
    }
}

/// The bytes from the file and the zeroes behind them.
fn writes(segment: &Segment) -> impl Iterator<Item = Write> + use<> {
    let data_end = segment.phys.saturating_add(segment.file_len);
    let data = Write {
        address: segment.phys,
        content: Content::Kernel(segment.offset..segment.offset.saturating_add(segment.file_len)),
    };
    let zero = Write {
        address: data_end,
        content: Content::Zero(segment.end.saturating_sub(data_end)),
    };
    [data, zero]
        .into_iter()
        .filter(|write| !write.content.is_empty())
}

/// The physical address of the entry point: it must lie in what was loaded. `translate`: it may be a virtual address, as
/// in kernels that were linked without care for it.
fn entry(segments: &[Segment], address: u64, translate: bool) -> Result<u64, Error> {
    let inside = |s: &&Segment| (s.phys..s.end).contains(&address);
    let virt = |s: &Segment| {
        let offset = address.checked_sub(s.virt)?;
        let phys = s.phys.checked_add(offset)?;
        (translate && phys < s.end).then_some(phys)
    };
    if segments.iter().find(inside).is_some() {
        return Ok(address);
    }
    segments.iter().find_map(virt).ok_or_else(|| {
        no_kernel(format_args!(
            "the ELF's entry point {address:#x} is outside its segments"
        ))
    })
}

/// The PVH entry point, if these notes have it.
fn pvh_entry(image: &dyn Image, program: &[u8]) -> Result<Option<u32>, Error> {
    let (offset, len) = (u64_at(program, 8), u64_at(program, 32));
    if len > NOTES_MAX {
        return Err(no_kernel("the ELF's notes are too long"));
    }
    let mut notes = vec![0; usize::try_from(len).unwrap_or(0)];
    if !read_into(image, offset, &mut notes)? {
        return Err(no_kernel(
            "the ELF is truncated: its notes lie beyond the file's end",
        ));
    }
    // Notes are padded to 4 bytes, or to 8 where the segment says so.
    let align = if u64_at(program, 48) == 8 { 8 } else { 4 };
    let mut rest = notes.as_slice();
    while let Some((note, name, desc)) = note(&mut rest, align) {
        if note == PHYS32_ENTRY && name == b"Xen\0" {
            let entry = desc.first_chunk().map(|b| u32::from_le_bytes(*b));
            return entry
                .map(Some)
                .ok_or_else(|| no_kernel("the ELF's PVH note is too short"));
        }
    }
    Ok(None)
}

/// Takes one note (type, name, descriptor) off `notes`; `None` at the end, or at one that is cut off.
fn note<'a>(notes: &mut &'a [u8], align: usize) -> Option<(u32, &'a [u8], &'a [u8])> {
    const HEADER: usize = 12;
    let (header, body) = notes.split_at_checked(HEADER)?;
    let name_len = usize::try_from(u32_at(header, 0)).ok()?;
    let desc_len = usize::try_from(u32_at(header, 4)).ok()?;
    let name = body.get(..name_len)?;
    // Offsets count from the note's start, header included.
    let desc_at = HEADER
        .checked_add(name_len)?
        .checked_next_multiple_of(align)?;
    let desc_end = desc_at.checked_add(desc_len)?;
    let desc = notes.get(desc_at..desc_end)?;
    let next = desc_end.checked_next_multiple_of(align)?;
    *notes = notes.get(next..).unwrap_or_default();
    Some((u32_at(header, 8), name, desc))
}
