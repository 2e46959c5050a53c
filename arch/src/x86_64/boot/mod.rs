//! From a kernel image, an initrd's length and a command line to the list of writes that put them into guest RAM.
//!
//! [`plan`] recognises the image and chooses the way in: a bzImage by the Linux 64-bit boot protocol, an ELF by PVH if
//! its notes offer that and by the 64-bit protocol if not. Everything in an image is hostile: whatever it says is checked
//! against the image's length and the guest's RAM before it becomes a write, so that the caller can copy blindly.
//!
//! Below 1 MiB is ours (see [`layout`]); kernel and initrd go above it, into low RAM.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

mod bzimage;
mod elf;
mod image;
mod initrd;
mod linux64;
mod pvh;

use std::ops::Range;

pub use image::Image;

use super::layout::{self, Layout};
use super::regs::Entry;
use super::{gdt, paging};
use crate::{Error, Kind};

/// Which way into an ELF kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ElfProtocol {
    /// PVH if the image has its note, else the 64-bit protocol.
    #[default]
    Auto,
    /// The 64-bit protocol.
    Linux64,
}

/// What is to be booted.
#[derive(Clone, Copy)]
pub struct Boot<'a> {
    /// The kernel.
    pub kernel: &'a dyn Image,
    /// Length of the initrd in bytes; `None` and `Some(0)` mean none.
    pub initrd: Option<u64>,
    /// The command line, without a terminating NUL.
    pub cmdline: &'a [u8],
    /// Where the RSDP is, or 0 for a machine without ACPI.
    pub rsdp: u64,
    /// The way into an ELF kernel.
    pub elf: ElfProtocol,
}

/// Bytes for guest RAM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// These bytes.
    Bytes(Vec<u8>),
    /// This range of the kernel image.
    Kernel(Range<u64>),
    /// This range of the initrd.
    Initrd(Range<u64>),
    /// This many zeroes. RAM that was never written is zero already; after a guest reset it is not.
    Zero(u64),
}

impl Content {
    /// Length in bytes.
    pub fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Kernel(range) | Self::Initrd(range) => range.end.saturating_sub(range.start),
            Self::Zero(len) => *len,
        }
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// One write to guest RAM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Guest-physical address.
    pub address: u64,
    /// What to write there.
    pub content: Content,
}

impl Write {
    fn bytes(address: u64, bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            address,
            content: Content::Bytes(bytes.into()),
        }
    }
}

/// What to do before the first instruction: every write lies inside low RAM and none overlaps another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadPlan {
    /// The writes, in no particular order.
    pub writes: Vec<Write>,
    /// How the boot CPU starts.
    pub entry: Entry,
}

/// A kernel, recognised and placed.
struct Kernel {
    writes: Vec<Write>,
    /// End of the memory that the kernel uses before it has looked at the memory map.
    end: u64,
    /// The longest command line it takes, without the NUL.
    cmdline_max: u64,
    /// The last byte of the initrd may be here at most.
    initrd_max: u64,
    way: Way,
}

/// The way in, still without what depends on initrd and command line.
enum Way {
    Pvh {
        rip: u32,
    },
    Linux64 {
        rip: u64,
        header: Box<linux64::SetupHeader>,
    },
}

/// What both protocols are told.
struct Info<'a> {
    layout: &'a Layout,
    initrd: Range<u64>,
    rsdp: u64,
}

/// Plans the boot of `boot` on a machine with `layout`.
///
/// # Errors
/// [`Kind::Kernel`]: the image is no x86-64 Linux kernel, is damaged, cannot be read or does not fit in RAM;
/// [`Kind::Initrd`]: the initrd does not fit beside it; [`Kind::CommandLine`]: the command line is longer than the
/// kernel takes, or has a NUL in it.
pub fn plan(layout: &Layout, boot: &Boot<'_>) -> Result<LoadPlan, Error> {
    let kernel = recognise(layout, boot)?;
    check_cmdline(boot.cmdline, kernel.cmdline_max)?;
    let initrd_len = boot.initrd.unwrap_or(0);
    let initrd = initrd::place(layout, kernel.end, kernel.initrd_max, initrd_len)?;
    let mut writes = kernel.writes;
    if !initrd.is_empty() {
        writes.push(Write {
            address: initrd.start,
            content: Content::Initrd(0..initrd_len),
        });
    }
    let mut cmdline = boot.cmdline.to_vec();
    cmdline.push(0);
    writes.push(Write::bytes(layout::CMDLINE.start, cmdline));
    let info = Info {
        layout,
        initrd,
        rsdp: boot.rsdp,
    };
    let entry = match kernel.way {
        Way::Pvh { rip } => {
            writes.push(Write::bytes(layout::GDT, gdt::bytes(gdt::code32())));
            writes.push(Write::bytes(layout::PVH_INFO, pvh::start_info(&info)));
            Entry::Pvh {
                rip,
                start_info: layout::PVH_INFO as u32,
            }
        }
        Way::Linux64 { rip, header } => {
            writes.push(Write::bytes(layout::GDT, gdt::bytes(gdt::code64())));
            writes.push(Write::bytes(
                layout::PAGE_TABLES,
                paging::identity_map(layout::PAGE_TABLES),
            ));
            writes.push(Write::bytes(
                layout::ZERO_PAGE,
                linux64::zero_page(&header, &info),
            ));
            Entry::Linux64 {
                rip,
                boot_params: layout::ZERO_PAGE,
            }
        }
    };
    Ok(LoadPlan { writes, entry })
}

fn recognise(layout: &Layout, boot: &Boot<'_>) -> Result<Kernel, Error> {
    if elf::is_elf(boot.kernel)? {
        elf::load(layout, boot.kernel, boot.elf)
    } else if bzimage::is_bzimage(boot.kernel)? {
        bzimage::load(layout, boot.kernel)
    } else if boot.kernel.is_empty() {
        Err(no_kernel("the file is empty"))
    } else {
        Err(no_kernel("it has neither a bzImage's header nor an ELF's"))
    }
}

/// The one form of "this is no kernel", whatever is wrong.
fn no_kernel(why: impl std::fmt::Display) -> Error {
    Error::new(
        Kind::Kernel,
        format!("not a Linux kernel: {why}; give a bzImage or a 64-bit ELF vmlinux"),
    )
}

fn check_cmdline(cmdline: &[u8], kernel_max: u64) -> Result<(), Error> {
    let ours = layout::CMDLINE
        .end
        .saturating_sub(layout::CMDLINE.start)
        .saturating_sub(1);
    let max = kernel_max.min(ours);
    if cmdline.contains(&0) {
        return Err(Error::new(
            Kind::CommandLine,
            "the command line contains a NUL byte",
        ));
    }
    if cmdline.len() as u64 > max {
        return Err(Error::new(
            Kind::CommandLine,
            format!(
                "the command line is {} bytes long, the kernel takes {max}",
                cmdline.len()
            ),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
