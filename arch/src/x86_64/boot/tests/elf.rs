use proptest::prelude::*;

use super::bzimage::put;
use super::*;

const NOTES: usize = 0x400;
const TEXT: usize = 0x1000;
const PROGRAM: usize = 64;

/// A program header to be.
#[derive(Clone, Copy)]
struct Program {
    kind: u32,
    offset: u64,
    virt: u64,
    phys: u64,
    file: u64,
    mem: u64,
}

fn load(offset: usize, phys: u64, file: u64, mem: u64) -> Program {
    Program {
        kind: 1,
        offset: offset as u64,
        virt: 0xffff_ffff_8000_0000 + phys,
        phys,
        file,
        mem,
    }
}

fn notes(len: usize) -> Program {
    Program {
        kind: 4,
        ..load(NOTES, 0, len as u64, len as u64)
    }
}

/// An ELF of 0x3000 bytes whose entry point is 0x1000040.
fn elf(programs: &[Program], notes: &[u8]) -> Vec<u8> {
    let mut image = vec![0; 0x3000];
    put(&mut image, 0, b"\x7fELF\x02\x01\x01");
    put(&mut image, 16, &[2, 0, 62, 0, 1]);
    put(&mut image, 24, &0x100_0040_u64.to_le_bytes());
    put(&mut image, 32, &(PROGRAM as u64).to_le_bytes());
    put(&mut image, 52, &[64, 0, 56, 0]);
    put(&mut image, 56, &(programs.len() as u16).to_le_bytes());
    for (n, p) in programs.iter().enumerate() {
        let at = PROGRAM + 56 * n;
        put(&mut image, at, &p.kind.to_le_bytes());
        for (i, field) in [p.offset, p.virt, p.phys, p.file, p.mem, 4]
            .iter()
            .enumerate()
        {
            put(&mut image, at + 8 + 8 * i, &field.to_le_bytes());
        }
    }
    put(&mut image, NOTES, notes);
    image
}

fn note(kind: u32, name: &[u8], desc: &[u8]) -> Vec<u8> {
    let padded = |bytes: &[u8]| {
        [
            bytes,
            &vec![0; bytes.len().next_multiple_of(4) - bytes.len()],
        ]
        .concat()
    };
    let sizes = [name.len() as u32, desc.len() as u32, kind].map(u32::to_le_bytes);
    [sizes.as_flattened(), &padded(name), &padded(desc)].concat()
}

fn pvh_notes() -> Vec<u8> {
    [
        note(3, b"GNU\0", b"a build id"),
        note(18, b"Xen\0", &0x100_0080_u64.to_le_bytes()),
    ]
    .concat()
}

/// Two segments, the second with 0x100 bytes of zeroes behind its data, and the PVH note.
fn vmlinux() -> Vec<u8> {
    let notes_bytes = pvh_notes();
    let programs = [
        load(TEXT, 0x100_0000, 0x1000, 0x1000),
        load(TEXT + 0x1000, 0x100_1000, 0x800, 0x900),
        notes(notes_bytes.len()),
    ];
    elf(&programs, &notes_bytes)
}

#[test]
fn vmlinux_boots_through_pvh() {
    let image = vmlinux();
    let plan = plan_alone(256, &image).unwrap();
    check_promises(&plan, &layout(256), &boot(&image));
    assert_eq!(
        plan.entry,
        Entry::Pvh {
            rip: 0x100_0080,
            start_info: 0x6000
        }
    );
    for write in [
        Write {
            address: 0x100_0000,
            content: Content::Kernel(0x1000..0x2000),
        },
        Write {
            address: 0x100_1000,
            content: Content::Kernel(0x2000..0x2800),
        },
        Write {
            address: 0x100_1800,
            content: Content::Zero(0x100),
        },
    ] {
        assert!(plan.writes.contains(&write), "{write:x?}");
    }
}

#[test]
fn sixty_four_bit_protocol_without_the_note_or_if_asked() {
    let image = vmlinux();
    let asked = Boot {
        elf: ElfProtocol::Linux64,
        ..boot(&image)
    };
    let expected = Entry::Linux64 {
        rip: 0x100_0040,
        boot_params: 0x7000,
    };
    assert_eq!(plan(&layout(256), &asked).unwrap().entry, expected);
    let bare = elf(&[load(TEXT, 0x100_0000, 0x1000, 0x1000)], &[]);
    assert_eq!(plan_alone(256, &bare).unwrap().entry, expected);
    let others = note(18, b"GNU\0", &[0; 8]);
    let other = elf(
        &[load(TEXT, 0x100_0000, 0x1000, 0x1000), notes(others.len())],
        &others,
    );
    assert_eq!(plan_alone(256, &other).unwrap().entry, expected);
}

#[test]
fn virtual_entry_is_translated() {
    let mut image = elf(&[load(TEXT, 0x100_0000, 0x1000, 0x1000)], &[]);
    put(&mut image, 24, &0xffff_ffff_8100_0040_u64.to_le_bytes());
    let expected = Entry::Linux64 {
        rip: 0x100_0040,
        boot_params: 0x7000,
    };
    assert_eq!(plan_alone(256, &image).unwrap().entry, expected);
}

#[test]
fn other_elfs_are_refused() {
    let with = |at: usize, bytes: &[u8]| {
        let mut image = vmlinux();
        put(&mut image, at, bytes);
        image
    };
    for (image, why) in [
        (with(4, &[1]), "it is a 32-bit ELF"),
        (with(5, &[2]), "big-endian"),
        (with(18, &[183]), "another machine"),
        (with(16, &[3]), "not an executable"),
        (with(54, &[32]), "unknown size"),
        (with(56, &[0xff, 0xff]), "too many program headers"),
        (with(56, &[0, 0]), "nothing to load"),
        (with(32, &[0xff; 8]), "program headers are truncated"),
        (with(24, &[0; 8]), "outside its segments"),
    ] {
        // The entry point of PVH is the note's, so the last case needs the other protocol.
        let boot = Boot {
            elf: ElfProtocol::Linux64,
            ..boot(&image)
        };
        let reason = refused(plan(&layout(256), &boot));
        assert!(reason.contains(why), "{reason}");
        assert!(reason.starts_with("not a Linux kernel: "), "{reason}");
    }
}

#[test]
fn hostile_segments_are_refused() {
    let good = load(TEXT, 0x100_0000, 0x1000, 0x1000);
    for (program, why) in [
        (
            Program {
                mem: u64::MAX,
                ..good
            },
            "does not fit",
        ),
        (
            Program {
                phys: u64::MAX,
                ..good
            },
            "does not fit",
        ),
        (
            Program {
                phys: 0x9000,
                ..good
            },
            "does not fit",
        ),
        (
            Program {
                phys: 0xf_f000,
                ..good
            },
            "does not fit",
        ),
        (
            Program {
                phys: 256 * MIB,
                ..good
            },
            "does not fit",
        ),
        (
            Program {
                mem: 256 * MIB,
                ..good
            },
            "does not fit",
        ),
        (
            Program {
                file: 0x1001,
                ..good
            },
            "longer in the file",
        ),
        (
            Program {
                offset: 0x2001,
                ..good
            },
            "beyond the file's end",
        ),
        (
            Program {
                offset: u64::MAX,
                ..good
            },
            "beyond the file's end",
        ),
        (
            Program {
                file: 0x4000,
                mem: 0x4000,
                ..good
            },
            "beyond the file's end",
        ),
    ] {
        let reason = refused(plan_alone(256, &elf(&[program], &[])));
        assert!(reason.contains(why), "{reason}");
    }
    let overlapping = [good, load(TEXT, 0x100_0fff, 0x10, 0x10)];
    assert!(refused(plan_alone(256, &elf(&overlapping, &[]))).contains("overlap"));
    let inside = [load(TEXT, 0x100_0800, 0x10, 0x10), good];
    assert!(refused(plan_alone(256, &elf(&inside, &[]))).contains("overlap"));
}

#[test]
fn hostile_notes_are_refused_or_ignored() {
    let with_notes = |bytes: &[u8], len: usize| {
        elf(&[load(TEXT, 0x100_0000, 0x1000, 0x1000), notes(len)], bytes)
    };
    let short = note(18, b"Xen\0", &[0; 3]);
    assert!(
        refused(plan_alone(256, &with_notes(&short, short.len())))
            .contains("PVH note is too short")
    );
    let outside = note(18, b"Xen\0", &0xdead_0000_u32.to_le_bytes());
    assert!(
        refused(plan_alone(256, &with_notes(&outside, outside.len())))
            .contains("outside its segments")
    );
    assert!(refused(plan_alone(256, &with_notes(&[], 0x1_0001))).contains("too long"));
    assert!(refused(plan_alone(256, &with_notes(&[], 0x2c01))).contains("beyond the file's end"));
    // A note whose sizes wrap ends the search.
    for sizes in [[u32::MAX, 0], [4, u32::MAX], [u32::MAX; 2]] {
        let hostile = [
            sizes.map(u32::to_le_bytes).as_flattened(),
            &18_u32.to_le_bytes(),
            b"Xen\0abcd",
        ]
        .concat();
        let plan = plan_alone(256, &with_notes(&hostile, hostile.len())).unwrap();
        assert!(matches!(plan.entry, Entry::Linux64 { .. }));
    }
}

proptest! {
    /// Any headers at all end in an error or in a plan that keeps its promises.
    #[test]
    fn any_headers(changes in proptest::collection::vec((4_usize..64 + 3 * 56, any::<u8>()), 0..12), mib in 1_u64..300,
                   pvh in any::<bool>()) {
        let mut image = vmlinux();
        for (at, byte) in changes {
            image[at] = byte;
        }
        let layout = layout(mib);
        let elf = if pvh { ElfProtocol::Auto } else { ElfProtocol::Linux64 };
        let boot = Boot { elf, initrd: Some(0x1000), ..boot(&image) };
        if let Ok(plan) = plan(&layout, &boot) {
            check_promises(&plan, &layout, &boot);
        }
    }

    #[test]
    fn any_notes(bytes in proptest::collection::vec(prop_oneof![Just(0_u8), Just(4), Just(18), any::<u8>()], 0..200)) {
        let image = elf(&[load(TEXT, 0x100_0000, 0x1000, 0x1000), notes(bytes.len())], &bytes);
        if let Ok(plan) = plan_alone(256, &image) {
            check_promises(&plan, &layout(256), &boot(&image));
        }
    }
}
