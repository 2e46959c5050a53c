//! Guest RAM: address space of the host, in which pages appear when they are touched.

use std::ptr;

use arch::x86_64::layout::Layout;
use devices::memory::GuestRam;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous};
use vm_memory::{GuestAddress, GuestRegionMmap, MmapRegion};

use crate::error::Error;

/// A huge page of the host: where guest and host addresses agree modulo this, KVM maps it as one.
const HUGE: usize = 2 << 20;
const MIB: u64 = 1 << 20;
/// End of what legacy devices can address by DMA.
const LOW: u64 = 16 * MIB;

/// RAM as `layout` has it, filled with zeroes. It is there until the process ends.
///
/// # Errors
/// The process may not have that much address space.
pub fn allocate(layout: &Layout) -> Result<GuestRam, Error> {
    let regions = layout
        .ram_regions()
        .into_iter()
        .map(|(base, len)| region(base, len))
        .collect::<Result<Vec<_>, Error>>()?;
    GuestRam::from_regions(regions).map_err(|error| Error::user("-m").because(error))
}

fn region(base: u64, len: u64) -> Result<GuestRegionMmap<()>, Error> {
    let failed = |error| {
        Error::user(format!(
            "-m: cannot reserve {} MiB of address space",
            len / MIB
        ))
        .because(error)
    };
    let size = usize::try_from(len).map_err(|_| failed(rustix::io::Errno::NOMEM))?;
    let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
    let room = size
        .checked_add(HUGE)
        .ok_or(failed(rustix::io::Errno::NOMEM))?;
    // SAFETY: a new mapping, wherever the kernel finds room, takes no memory from anybody.
    let reserved = unsafe { mmap_anonymous(ptr::null_mut(), room, ProtFlags::empty(), flags) }
        .map_err(failed)?;
    let start = reserved.wrapping_byte_add(reserved.align_offset(HUGE));
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: `[start, start + size)` lies within the mapping just made, which nobody else knows.
    let start =
        unsafe { mmap_anonymous(start, size, access, flags | MapFlags::FIXED) }.map_err(failed)?;
    // Below 16 MiB a guest touches little and early: a huge page would only cost the time to clear it.
    let small = LOW.saturating_sub(base).min(len) as usize;
    let high = start.wrapping_byte_add(small);
    // SAFETY: advice of this kind changes no contents. Where the kernel does not take it, nothing is lost.
    let _ = unsafe { madvise(high, size.saturating_sub(small), Advice::LinuxHugepage) };
    // SAFETY: as above; this keeps guest RAM out of core dumps.
    let _ = unsafe { madvise(start, size, Advice::LinuxDontDump) };
    let prot = access.bits().cast_signed();
    let flags = (flags.bits() | libc::MAP_ANONYMOUS.cast_unsigned()).cast_signed();
    // SAFETY: the mapping is of this address, size, protection and kind, and is never unmapped.
    let region = unsafe { MmapRegion::build_raw(start.cast(), size, prot, flags) }
        .map_err(|error| Error::user("-m").because(error))?;
    GuestRegionMmap::new(region, GuestAddress(base))
        .ok_or_else(|| Error::user("-m: RAM reaches past the end of the address space"))
}
