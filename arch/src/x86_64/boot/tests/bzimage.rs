use proptest::prelude::*;

use super::*;

const SETUP: usize = 5 * 512;
const PAYLOAD: usize = 0x4000;

/// A bzImage of protocol 2.15: relocatable, 16 MiB preferred, 2 MiB aligned, 32 MiB of working memory.
pub(super) fn bzimage() -> Vec<u8> {
    let mut image = vec![0; SETUP + PAYLOAD];
    put(&mut image, 0x1f1, &[4]);
    put(&mut image, 0x1f4, &((PAYLOAD / 16) as u32).to_le_bytes());
    put(&mut image, 0x1fe, &[0x55, 0xaa, 0xeb, 0x6a]);
    put(&mut image, 0x202, b"HdrS");
    put(&mut image, 0x206, &0x020f_u16.to_le_bytes());
    put(&mut image, 0x211, &[0x81]);
    put(&mut image, 0x22c, &0x7fff_ffff_u32.to_le_bytes());
    put(&mut image, 0x230, &0x20_0000_u32.to_le_bytes());
    put(&mut image, 0x234, &[1, 21, 1, 0]);
    put(&mut image, 0x238, &2047_u32.to_le_bytes());
    put(&mut image, 0x250, &0x1234_5678_u64.to_le_bytes());
    put(&mut image, 0x258, &0x100_0000_u64.to_le_bytes());
    put(&mut image, 0x260, &0x200_0000_u32.to_le_bytes());
    image
}

pub(super) fn put(image: &mut [u8], at: usize, bytes: &[u8]) {
    image[at..at + bytes.len()].copy_from_slice(bytes);
}

fn with(at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut image = bzimage();
    put(&mut image, at, bytes);
    image
}

#[test]
fn loads_at_its_preferred_address() {
    let image = bzimage();
    let plan = plan_alone(256, &image).unwrap();
    check_promises(&plan, &layout(256), &boot(&image));
    assert_eq!(
        plan.entry,
        Entry::Linux64 {
            rip: 0x100_0200,
            boot_params: 0x7000
        }
    );
    let kernel = Write {
        address: 0x100_0000,
        content: Content::Kernel(SETUP as u64..(SETUP + PAYLOAD) as u64),
    };
    assert!(plan.writes.contains(&kernel));
}

#[test]
fn zero_setup_sectors_mean_four() {
    let plan = plan_alone(256, &with(0x1f1, &[0])).unwrap();
    assert!(
        plan.writes
            .iter()
            .any(|w| w.content == Content::Kernel(SETUP as u64..(SETUP + PAYLOAD) as u64))
    );
}

#[test]
fn relocates_where_ram_is_short() {
    // 40 MiB do not reach from 16 MiB to 48 MiB, but from 2 MiB to 34 MiB.
    let plan = plan_alone(40, &bzimage()).unwrap();
    assert_eq!(
        plan.entry,
        Entry::Linux64 {
            rip: 0x20_0200,
            boot_params: 0x7000
        }
    );
    let fixed = refused(plan_alone(40, &with(0x234, &[0])));
    assert!(
        fixed.contains("needs 32 MiB at 0x1000000") && fixed.contains("40 MiB"),
        "{fixed}"
    );
    assert!(refused(plan_alone(1, &bzimage())).contains("RAM of 1 MiB"));
    // An alignment that is none.
    for alignment in [0_u32, 3, u32::MAX] {
        assert!(plan_alone(40, &with(0x230, &alignment.to_le_bytes())).is_err());
    }
}

#[test]
fn damaged_images_are_refused() {
    let image = bzimage();
    for (image, why) in [
        (image[..0x210].to_vec(), "truncated in its setup header"),
        (image[..0x240].to_vec(), "truncated in its setup header"),
        (image[..SETUP].to_vec(), "truncated: 0 bytes of 16384"),
        (
            image[..SETUP + PAYLOAD - 16].to_vec(),
            "truncated: 16368 bytes of 16384",
        ),
        (with(0x1f4, &[0; 4]), "truncated"),
        (with(0x236, &[0, 0]), "no 64-bit entry point"),
        (with(0x206, &[0x0b, 0x02]), "no 64-bit entry point"),
        (with(0x206, &[0x00, 0x02]), "no 64-bit entry point"),
        (with(0x202, b"HdrX"), "neither"),
    ] {
        let reason = refused(plan_alone(256, &image));
        assert!(reason.contains(why), "{reason}");
    }
}

#[test]
fn addresses_that_wrap_are_refused() {
    for address in [
        u64::MAX,
        u64::MAX - 0x1ff_ffff,
        1 << 63,
        1 << 32,
        0,
        0xf_ffff,
    ] {
        let image = with(0x258, &address.to_le_bytes());
        let plan = plan_alone(256, &image).unwrap();
        // It is relocatable, so it goes to the lowest address instead.
        assert_eq!(
            plan.entry,
            Entry::Linux64 {
                rip: 0x20_0200,
                boot_params: 0x7000
            },
            "{address:#x}"
        );
    }
    assert!(plan_alone(256, &with(0x260, &u32::MAX.to_le_bytes())).is_err());
}

#[test]
fn file_one_byte_short_of_a_paragraph_is_whole() {
    // syssize counts paragraphs, rounded up.
    let image = bzimage();
    assert!(plan_alone(256, &image[..image.len() - 15].to_vec()).is_ok());
    // What follows the image, a signature for one, is not loaded.
    let signed = [image.clone(), vec![0xee; 999]].concat();
    let plan = plan_alone(256, &signed).unwrap();
    assert!(
        plan.writes
            .iter()
            .any(|w| w.content == Content::Kernel(SETUP as u64..image.len() as u64))
    );
}

proptest! {
    /// Any header at all ends in an error or in a plan that keeps its promises.
    #[test]
    fn any_header(bytes in proptest::collection::vec(any::<u8>(), 0x80), mask in proptest::collection::vec(any::<bool>(), 0x80),
                  mib in 1_u64..300, initrd in proptest::option::of(0_u64..400 << 20)) {
        let mut image = bzimage();
        for (at, (byte, on)) in bytes.iter().zip(&mask).enumerate() {
            // The magic number stays, or nothing would be tested.
            if *on && !(0x11..0x15).contains(&at) {
                image[0x1f1 + at] = *byte;
            }
        }
        let layout = layout(mib);
        let boot = Boot { initrd, ..boot(&image) };
        if let Ok(plan) = plan(&layout, &boot) {
            check_promises(&plan, &layout, &boot);
        }
    }

    #[test]
    fn any_length(len in 0..SETUP + PAYLOAD) {
        let image = bzimage()[..len].to_vec();
        if let Ok(plan) = plan_alone(256, &image) {
            check_promises(&plan, &layout(256), &boot(&image));
        }
    }
}
