//! Where the initrd goes: as high in low RAM as the kernel can reach, out of the way of the kernel's own growth.

use std::ops::Range;

use crate::x86_64::layout::{HIGH_MEMORY, Layout, PAGE};
use crate::{Error, Kind};

/// A page-aligned range of `len` bytes between `kernel_end` and `max` (the last address allowed); empty for no initrd.
pub(super) fn place(
    layout: &Layout,
    kernel_end: u64,
    max: u64,
    len: u64,
) -> Result<Range<u64>, Error> {
    if len == 0 {
        return Ok(0..0);
    }
    let end = layout.low_ram().min(max.saturating_add(1));
    let floor = kernel_end.max(HIGH_MEMORY);
    end.checked_sub(len)
        .map(|start| start & !(PAGE.wrapping_sub(1)))
        .filter(|&start| start >= floor)
        .and_then(|start| Some(start..start.checked_add(len)?))
        .ok_or_else(|| {
            let room = end.saturating_sub(floor);
            Error::new(
                Kind::Initrd,
                format!(
                    "the initrd is {len} bytes long and the guest's RAM has room for {room} beside the kernel; \
                     give the guest more RAM"
                ),
            )
        })
}
