//! The PVH start info (xen/include/public/arch-x86/hvm/start_info.h): one page with the module list and the memory map
//! behind the structure.

use linux_loader::loader::elf::start_info::{
    hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info,
};
use vm_memory::ByteValued;

use super::Info;
use crate::x86_64::{e820, layout};

const MAGIC: u32 = 0x336e_c578;
/// The first version with a memory map.
const VERSION: u32 = 1;
const MODULES: u64 = layout::PVH_INFO + 0x40;
const MEMORY_MAP: u64 = layout::PVH_INFO + 0x80;

/// The page's bytes, for [`layout::PVH_INFO`].
pub(super) fn start_info(info: &Info<'_>) -> Vec<u8> {
    let map = e820::table(info.layout);
    let module = !info.initrd.is_empty();
    let start = hvm_start_info {
        magic: MAGIC,
        version: VERSION,
        nr_modules: module.into(),
        modlist_paddr: if module { MODULES } else { 0 },
        cmdline_paddr: layout::CMDLINE.start,
        rsdp_paddr: info.rsdp,
        memmap_paddr: MEMORY_MAP,
        memmap_entries: map.len() as u32,
        ..Default::default()
    };
    let modules = hvm_modlist_entry {
        paddr: info.initrd.start,
        size: info.initrd.end.saturating_sub(info.initrd.start),
        ..Default::default()
    };
    let mut page = start.as_slice().to_vec();
    page.resize((MODULES - layout::PVH_INFO) as usize, 0);
    page.extend_from_slice(modules.as_slice());
    page.resize((MEMORY_MAP - layout::PVH_INFO) as usize, 0);
    for entry in map {
        let entry = hvm_memmap_table_entry {
            addr: entry.address,
            size: entry.size,
            type_: entry.kind as u32,
            reserved: 0,
        };
        page.extend_from_slice(entry.as_slice());
    }
    page
}
