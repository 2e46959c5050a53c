use proptest::prelude::*;

use super::*;

#[test]
fn ram_splits_at_qemus_addresses() {
    let split = |ram| Layout::new(ram, 40).unwrap().ram_regions();
    assert_eq!(split(256 * MIB), [(0, 256 * MIB)]);
    assert_eq!(split(LOW_RAM_MAX), [(0, LOW_RAM_MAX)]);
    assert_eq!(
        split(LOW_RAM_MAX + PAGE),
        [(0, 2 * GIB), (FOUR_GIB, LOW_RAM_MAX + PAGE - 2 * GIB)]
    );
    assert_eq!(split(5 * GIB), [(0, 2 * GIB), (FOUR_GIB, 3 * GIB)]);
}

#[test]
fn ram_beyond_the_address_width_is_refused() {
    assert!(Layout::new(62 * GIB, 36).is_ok());
    let error = Layout::new(62 * GIB + PAGE, 36).unwrap_err();
    assert_eq!(error.kind(), Kind::Memory);
    assert!(
        error.to_string().contains("36 physical address bits"),
        "{error}"
    );
    assert!(Layout::new(!(PAGE - 1), 52).is_err());
    assert!(Layout::new(!(PAGE - 1), 64).is_err());
}

#[test]
fn too_little_ram_is_refused() {
    assert!(Layout::new(MIB - PAGE, 40).is_err());
    assert!(Layout::new(MIB + 1, 40).is_err());
    assert!(Layout::new(MIB, 40).is_ok());
}

#[test]
fn full_address_space_leaves_no_window() {
    assert!(Layout::new(62 * GIB, 36).unwrap().mmio64().is_empty());
    assert_eq!(
        Layout::new(GIB, 40).unwrap().mmio64(),
        FOUR_GIB..FOUR_GIB + MMIO64_SIZE
    );
}

proptest! {
    #[test]
    fn nothing_overlaps(pages in 256_u64..1 << 26, bits in 36_u8..=52) {
        let Ok(layout) = Layout::new(pages * PAGE, bits) else { return Ok(()) };
        let mut ranges: Vec<_> = layout.ram_regions().into_iter().map(|(at, len)| at..at + len).collect();
        prop_assert_eq!(ranges.iter().map(|r| r.end - r.start).sum::<u64>(), pages * PAGE);
        ranges.extend([ECAM, MMIO32, IOAPIC..IOAPIC + PAGE, LAPIC..LAPIC + MIB]);
        ranges.extend([KVM_IDENTITY_MAP..KVM_TSS, KVM_TSS..KVM_TSS + 3 * PAGE, FIRMWARE, layout.mmio64()]);
        ranges.sort_by_key(|r| (r.start, r.end));
        for pair in ranges.windows(2) {
            prop_assert!(pair[0].end <= pair[1].start, "{:x?}", pair);
        }
        prop_assert!(ranges.last().unwrap().end <= 1 << bits.max(32));
    }
}
