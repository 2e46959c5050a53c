//! The zero page of the Linux boot protocol (Documentation/arch/x86/zero-page.rst): the kernel's own setup header with the
//! boot loader's fields filled in, and the memory map.

use linux_loader::loader::bootparam::{boot_e820_entry, boot_params, setup_header};
use vm_memory::ByteValued;

use super::Info;
use crate::x86_64::{e820, layout};

pub(super) use linux_loader::loader::bootparam::setup_header as SetupHeader;

/// `HdrS`.
pub(super) const MAGIC: u32 = 0x5372_6448;
/// `type_of_loader`: no assigned number.
const LOADER_UNDEFINED: u8 = 0xff;
/// `loadflags`: the protected-mode kernel is at 1 MiB or above.
const LOADED_HIGH: u8 = 1;
/// `loadflags`: set by the kernel's own decompressor only.
const KASLR_FLAG: u8 = 1 << 1;
/// `loadflags`: `heap_end_ptr` is valid: for the real-mode entry only.
const CAN_USE_HEAP: u8 = 1 << 7;

/// A setup header for a kernel that carries none: an ELF vmlinux.
pub(super) fn elf_header(cmdline_size: u32) -> SetupHeader {
    setup_header {
        boot_flag: 0xaa55,
        header: MAGIC,
        version: 0x020f,
        kernel_alignment: 0x100_0000,
        cmdline_size,
        ..Default::default()
    }
}

/// The page's bytes, for [`layout::ZERO_PAGE`].
///
/// Pointers that an image may hold (`setup_data`, above all) are cleared: the kernel would follow them.
pub(super) fn zero_page(header: &SetupHeader, info: &Info<'_>) -> Vec<u8> {
    let len = info.initrd.end.saturating_sub(info.initrd.start);
    let mut params = boot_params {
        acpi_rsdp_addr: info.rsdp,
        ext_ramdisk_image: (info.initrd.start >> 32) as u32,
        ext_ramdisk_size: (len >> 32) as u32,
        hdr: setup_header {
            type_of_loader: LOADER_UNDEFINED,
            loadflags: (header.loadflags | LOADED_HIGH) & !(KASLR_FLAG | CAN_USE_HEAP),
            ramdisk_image: info.initrd.start as u32,
            ramdisk_size: len as u32,
            cmd_line_ptr: layout::CMDLINE.start as u32,
            setup_data: 0,
            hardware_subarch: 0,
            hardware_subarch_data: 0,
            ..*header
        },
        ..Default::default()
    };
    let map = e820::table(info.layout);
    params.e820_entries = map.len() as u8;
    let mut table = params.e820_table;
    for (slot, entry) in table.iter_mut().zip(&map) {
        *slot = boot_e820_entry {
            addr: entry.address,
            size: entry.size,
            r#type: entry.kind as u32,
        };
    }
    params.e820_table = table;
    params.as_slice().to_vec()
}
