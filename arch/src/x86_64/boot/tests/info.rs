//! What the kernel is told: zero page and PVH start info.

use super::bzimage::{bzimage, put};
use super::*;
use crate::x86_64::e820;

#[test]
fn zero_page_has_header_initrd_command_line_and_map() {
    let mut kernel = bzimage();
    // Past the end of this header: the byte at 0x201 says that it ends at 0x26c.
    put(&mut kernel, 0x26c, &[0xee; 16]);
    let layout = layout(5120);
    let boot = Boot {
        initrd: Some(0x1800),
        ..boot(&kernel)
    };
    let plan = plan(&layout, &boot).unwrap();
    let page = bytes_at(&plan, layout::ZERO_PAGE);
    assert_eq!(page.len(), 4096);
    assert_eq!(&page[0x202..0x206], b"HdrS");
    // The loader's number, LOADED_HIGH without CAN_USE_HEAP.
    assert_eq!((page[0x210], page[0x211]), (0xff, 1));
    assert_eq!(
        (u32_at(page, 0x218), u32_at(page, 0x21c)),
        (0x7fff_e000, 0x1800)
    );
    assert_eq!(u32_at(page, 0x228), 0x2_0000);
    assert_eq!(u64_at(page, 0x070), 0xe_0000);
    assert_eq!(
        (u64_at(page, 0x258), u32_at(page, 0x260)),
        (0x100_0000, 0x200_0000)
    );
    // A pointer that the kernel would follow.
    assert_eq!(u64_at(page, 0x250), 0);
    assert!(page[0x26c..0x290].iter().all(|&byte| byte == 0));
    let map = e820::table(&layout);
    assert_eq!(usize::from(page[0x1e8]), map.len());
    for (n, entry) in map.iter().enumerate() {
        let at = 0x2d0 + 20 * n;
        assert_eq!(
            (u64_at(page, at), u64_at(page, at + 8)),
            (entry.address, entry.size)
        );
        assert_eq!(u32_at(page, at + 16), entry.kind as u32);
    }
}

#[test]
fn zero_page_header_stops_where_the_image_says() {
    let mut kernel = bzimage();
    // Ends at 0x264, so handover_offset is somebody's code.
    put(&mut kernel, 0x201, &[0x62]);
    put(&mut kernel, 0x264, &[0xee; 8]);
    let plan = plan_alone(256, &kernel).unwrap();
    let page = bytes_at(&plan, layout::ZERO_PAGE);
    assert_eq!(u32_at(page, 0x260), 0x200_0000);
    assert!(page[0x264..0x290].iter().all(|&byte| byte == 0));
}

#[test]
fn gdt_and_page_tables_are_where_the_registers_say() {
    let kernel = bzimage();
    let plan = plan_alone(256, &kernel).unwrap();
    let s = plan.entry.state().sregs;
    assert_eq!(bytes_at(&plan, s.gdt.base), gdt::bytes(s.cs));
    assert_eq!(bytes_at(&plan, s.cr3), paging::identity_map(s.cr3));
}

/// The fields of the start info, with the initrd at `module` if there is one.
fn check_start_info(page: &[u8], layout: &Layout, module: Option<(u64, u64)>) {
    assert_eq!(
        (u32_at(page, 0), u32_at(page, 4), u32_at(page, 8)),
        (0x336e_c578, 1, 0)
    );
    assert_eq!(u32_at(page, 12), u32::from(module.is_some()));
    assert_eq!((u64_at(page, 24), u64_at(page, 32)), (0x2_0000, 0xe_0000));
    if let Some((address, len)) = module {
        let at = (u64_at(page, 16) - layout::PVH_INFO) as usize;
        assert_eq!((u64_at(page, at), u64_at(page, at + 8)), (address, len));
    }
    let at = (u64_at(page, 40) - layout::PVH_INFO) as usize;
    let map = e820::table(layout);
    assert_eq!(u32_at(page, 48) as usize, map.len());
    for (n, entry) in map.iter().enumerate() {
        let at = at + 24 * n;
        assert_eq!(
            (u64_at(page, at), u64_at(page, at + 8)),
            (entry.address, entry.size)
        );
        assert_eq!(u32_at(page, at + 16), entry.kind as u32);
    }
}

#[test]
fn start_info_has_module_command_line_and_map() {
    let layout = layout(5120);
    let info = Info {
        layout: &layout,
        initrd: 0x1000_0000..0x1000_1800,
        rsdp: 0xe_0000,
    };
    check_start_info(
        &pvh::start_info(&info),
        &layout,
        Some((0x1000_0000, 0x1800)),
    );
    let info = Info {
        initrd: 0..0,
        ..info
    };
    let page = pvh::start_info(&info);
    check_start_info(&page, &layout, None);
    assert!(page.len() as u64 <= layout::PAGE);
}
