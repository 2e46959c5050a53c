use super::*;

mod bzimage;
mod elf;
mod info;
mod placement;

const MIB: u64 = 1 << 20;

fn layout(mib: u64) -> Layout {
    Layout::new(mib * MIB, 40).unwrap()
}

/// Plans with a kernel and nothing else.
fn plan_alone(mib: u64, kernel: &Vec<u8>) -> Result<LoadPlan, Error> {
    plan(&layout(mib), &boot(kernel))
}

fn boot(kernel: &Vec<u8>) -> Boot<'_> {
    Boot {
        kernel,
        initrd: None,
        cmdline: b"console=ttyS0",
        rsdp: 0xe_0000,
        elf: ElfProtocol::Auto,
    }
}

/// The reason for which a plan was refused.
fn refused(result: Result<LoadPlan, Error>) -> String {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), Kind::Kernel, "{error}");
    error.to_string()
}

/// What a caller may rely on whatever the image says.
fn check_promises(plan: &LoadPlan, layout: &Layout, boot: &Boot<'_>) {
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for write in &plan.writes {
        ranges.push(write.address..write.address.checked_add(write.content.len()).unwrap());
        match &write.content {
            Content::Kernel(range) => {
                assert!(range.start <= range.end && range.end <= boot.kernel.len())
            }
            Content::Initrd(range) => assert_eq!(*range, 0..boot.initrd.unwrap()),
            Content::Bytes(_) | Content::Zero(_) => {}
        }
        assert!(!write.content.is_empty());
    }
    ranges.sort_by_key(|range| range.start);
    assert!(
        ranges.array_windows().all(|[a, b]| a.end <= b.start),
        "{ranges:x?}"
    );
    assert!(ranges.last().unwrap().end <= layout.low_ram());
    let ours = |range: &&Range<u64>| range.start < layout::HIGH_MEMORY;
    assert!(
        ranges
            .iter()
            .filter(ours)
            .all(|range| range.end <= layout::EBDA)
    );
    super::super::entry_check::check_entry_state(&plan.entry.state(), layout.phys_bits()).unwrap();
}

/// The bytes written at `address`.
fn bytes_at(plan: &LoadPlan, address: u64) -> &[u8] {
    let write = plan
        .writes
        .iter()
        .find(|write| write.address == address)
        .unwrap();
    match &write.content {
        Content::Bytes(bytes) => bytes,
        other => panic!("{other:?}"),
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

#[test]
fn what_is_no_kernel_is_refused() {
    for (image, why) in [
        (Vec::new(), "the file is empty"),
        (b"#!/bin/sh\necho no kernel\n".to_vec(), "neither"),
        (vec![0; 1 << 16], "neither"),
        (b"\x7fELF".to_vec(), "the ELF header is truncated"),
    ] {
        let reason = refused(plan_alone(256, &image));
        assert!(
            reason.starts_with("not a Linux kernel: ") && reason.contains(why),
            "{reason}"
        );
        assert!(
            reason.ends_with("; give a bzImage or a 64-bit ELF vmlinux"),
            "{reason}"
        );
        assert!(!reason.contains('\n'));
    }
}

#[test]
fn unreadable_kernel_says_why() {
    struct Broken;
    impl Image for Broken {
        fn len(&self) -> u64 {
            4096
        }
        fn read_at(&self, _: u64, _: &mut [u8]) -> std::io::Result<()> {
            Err(std::io::Error::from_raw_os_error(5))
        }
    }
    let boot = Boot {
        kernel: &Broken,
        ..boot(const { &Vec::new() })
    };
    let reason = refused(plan(&layout(256), &boot));
    assert!(reason.contains("Input/output error"), "{reason}");
}
