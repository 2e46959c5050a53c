//! The bzImage: a setup header, real-mode code that we skip, and the protected-mode part with its 64-bit entry 512 bytes
//! in (Documentation/arch/x86/boot.rst).

use vm_memory::ByteValued;

use super::image::{Image, read, read_into};
use super::linux64::{MAGIC, SetupHeader};
use super::{Content, Kernel, Way, Write, no_kernel};
use crate::x86_64::layout::{HIGH_MEMORY, Layout};
use crate::{Error, Kind};

/// Where the setup header begins.
const HEADER: u64 = 0x1f1;
/// The header ends this many bytes after 0x202, says the byte at 0x201.
const JUMP: u64 = 0x201;
const JUMP_FROM: u64 = 0x202;
const SECTOR: u64 = 512;
/// Protocol version with `xloadflags` (Linux 3.8).
const VERSION_MIN: u16 = 0x020c;
/// `xloadflags`: the image has the 64-bit entry point.
const KERNEL_64: u16 = 1 << 0;
/// Of the protected-mode part: the 64-bit entry point.
const ENTRY_64: u64 = 0x200;

/// Whether the magic number is where a bzImage has it.
pub(super) fn is_bzimage(image: &dyn Image) -> Result<bool, Error> {
    Ok(read(image, JUMP_FROM)?.map(u32::from_le_bytes) == Some(MAGIC))
}

/// Places a bzImage.
pub(super) fn load(layout: &Layout, image: &dyn Image) -> Result<Kernel, Error> {
    let header = header(image)?;
    if header.version < VERSION_MIN || header.xloadflags & KERNEL_64 == 0 {
        return Err(no_kernel(
            "the bzImage has no 64-bit entry point (a 32-bit kernel, or older than Linux 3.8)",
        ));
    }
    // Zero means four, for backwards compatibility.
    let sectors = match header.setup_sects {
        0 => 4,
        sectors => u64::from(sectors),
    };
    let start = sectors.saturating_add(1).saturating_mul(SECTOR);
    // `syssize` counts the protected-mode part in paragraphs, rounded up; what follows it (a signature) is not loaded.
    let said = u64::from(header.syssize).saturating_mul(16);
    let there = image.len().saturating_sub(start);
    if said <= ENTRY_64 || there.saturating_add(15) < said {
        return Err(no_kernel(format_args!(
            "the bzImage is truncated: {there} bytes of {said} after its setup code"
        )));
    }
    let len = said.min(there);
    let (address, end) = place(layout, &header, len)?;
    Ok(Kernel {
        writes: vec![Write {
            address,
            content: Content::Kernel(start..start.saturating_add(len)),
        }],
        end,
        cmdline_max: header.cmdline_size.into(),
        initrd_max: header.initrd_addr_max.into(),
        way: Way::Linux64 {
            rip: address.saturating_add(ENTRY_64),
            header: Box::new(header),
        },
    })
}

/// The header with what lies behind its end cleared.
fn header(image: &dyn Image) -> Result<SetupHeader, Error> {
    let mut header = SetupHeader::default();
    let truncated = || no_kernel("the bzImage is truncated in its setup header");
    let [jump] = read(image, JUMP)?.ok_or_else(truncated)?;
    let len = JUMP_FROM.saturating_add(jump.into()).saturating_sub(HEADER);
    let bytes = header.as_mut_slice();
    let len = bytes.len().min(usize::try_from(len).unwrap_or(usize::MAX));
    let bytes = bytes.get_mut(..len).unwrap_or_default();
    if read_into(image, HEADER, bytes)? {
        Ok(header)
    } else {
        Err(truncated())
    }
}

/// Where the protected-mode part goes and where the memory it works in ends.
///
/// The preferred address if RAM reaches that far, else (if relocatable) the lowest aligned one.
fn place(layout: &Layout, header: &SetupHeader, len: u64) -> Result<(u64, u64), Error> {
    let work = len.max(header.init_size.into());
    let ram = layout.low_ram();
    let fits = |address: u64| {
        let end = address.checked_add(work)?;
        (address >= HIGH_MEMORY && end <= ram).then_some((address, end))
    };
    let alignment = u64::from(header.kernel_alignment);
    let lowest =
        || HIGH_MEMORY.checked_next_multiple_of(alignment.is_power_of_two().then_some(alignment)?);
    let relocated = || {
        if header.relocatable_kernel != 0 {
            fits(lowest()?)
        } else {
            None
        }
    };
    fits(header.pref_address).or_else(relocated).ok_or_else(|| {
        let (at, mib) = (header.pref_address, |bytes: u64| bytes.div_ceil(1 << 20));
        Error::new(
            Kind::Kernel,
            format!(
                "the kernel needs {} MiB at {at:#x}, which the guest's RAM of {} MiB does not have",
                mib(work),
                mib(ram),
            ),
        )
    })
}
