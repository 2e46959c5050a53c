use super::bzimage::{bzimage, put};
use super::*;

fn with_initrd(mib: u64, kernel: &Vec<u8>, len: u64) -> Result<Range<u64>, Error> {
    let layout = layout(mib);
    let boot = Boot {
        initrd: Some(len),
        ..boot(kernel)
    };
    let plan = plan(&layout, &boot)?;
    check_promises(&plan, &layout, &boot);
    let write = plan
        .writes
        .iter()
        .find(|w| matches!(w.content, Content::Initrd(_)))
        .unwrap();
    Ok(write.address..write.address + write.content.len())
}

#[test]
fn initrd_is_high_and_page_aligned() {
    assert_eq!(
        with_initrd(256, &bzimage(), 0x1234).unwrap(),
        0xfff_e000..0xfff_f234
    );
    // In 5 GiB it stays in low RAM, and below what the kernel can reach.
    assert_eq!(
        with_initrd(5120, &bzimage(), 0x1000).unwrap(),
        0x7fff_f000..0x8000_0000
    );
    let mut low = bzimage();
    put(&mut low, 0x22c, &0x37ff_ffff_u32.to_le_bytes());
    assert_eq!(
        with_initrd(5120, &low, 0x1000).unwrap(),
        0x37ff_f000..0x3800_0000
    );
}

#[test]
fn initrd_that_does_not_fit_is_refused() {
    // 256 MiB less the 48 that the kernel works in.
    let room = 208 * MIB;
    assert!(with_initrd(256, &bzimage(), room).is_ok());
    for len in [room + 1, 256 * MIB, 1 << 40, u64::MAX] {
        let error = with_initrd(256, &bzimage(), len).unwrap_err();
        assert_eq!(error.kind(), Kind::Initrd);
        assert!(error.to_string().contains(&room.to_string()), "{error}");
    }
}

#[test]
fn no_initrd_and_an_empty_one_are_the_same() {
    let kernel = bzimage();
    let empty = Boot {
        initrd: Some(0),
        ..boot(&kernel)
    };
    assert_eq!(plan(&layout(256), &empty), plan_alone(256, &kernel));
}

#[test]
fn command_line_ends_with_nul() {
    let kernel = bzimage();
    let plan = plan_alone(256, &kernel).unwrap();
    assert_eq!(bytes_at(&plan, layout::CMDLINE.start), b"console=ttyS0\0");
}

#[test]
fn command_line_the_kernel_would_not_take_is_refused() {
    let kernel = bzimage();
    let with = |kernel: &Vec<u8>, cmdline: &[u8]| {
        plan(
            &layout(256),
            &Boot {
                cmdline,
                ..boot(kernel)
            },
        )
    };
    assert!(with(&kernel, &[b'a'; 2047]).is_ok());
    let error = with(&kernel, &[b'a'; 2048]).unwrap_err();
    assert_eq!(error.kind(), Kind::CommandLine);
    assert!(
        error
            .to_string()
            .contains("2048 bytes long, the kernel takes 2047"),
        "{error}"
    );
    assert_eq!(
        with(&kernel, b"a\0b").unwrap_err().kind(),
        Kind::CommandLine
    );
    // A kernel that takes anything does not get more than there is room for.
    let mut greedy = bzimage();
    put(&mut greedy, 0x238, &u32::MAX.to_le_bytes());
    assert!(with(&greedy, &[b'a'; 0xffff]).is_ok());
    assert!(with(&greedy, &[b'a'; 0x1_0000]).is_err());
}
