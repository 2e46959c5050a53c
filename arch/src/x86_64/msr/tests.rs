use super::*;

/// The memory type of an address as a CPU derives it (SDM vol. 3 §12.11.4, one matching range at most).
fn memory_type(msrs: &[Msr], address: u64) -> u64 {
    let value = |index| msrs.iter().find(|m| m.index == index).unwrap().value;
    let hit = [0x200, 0x202].into_iter().find(|&base| {
        let mask = value(base + 1) & !0xfff;
        value(base + 1) & MASK_VALID != 0 && address & mask == value(base) & mask
    });
    hit.map_or(value(MTRR_DEF_TYPE) & 0xff, |base| value(base) & 0xff)
}

#[test]
fn ram_is_cached_and_devices_are_not() {
    for bits in [36, 40, 46, 52] {
        let msrs = initial(bits);
        for ram in [
            0,
            0xa_0000,
            0xf_0000,
            0x10_0000,
            0x7fff_f000,
            0xafff_f000,
            1 << 32,
            (1 << bits) - 4096,
        ] {
            assert_eq!(memory_type(&msrs, ram), WRITE_BACK, "{ram:#x}");
        }
        for device in [
            0xb000_0000,
            0xbfff_f000,
            0xc000_0000,
            0xfec0_0000,
            0xfee0_0000,
            0xffff_f000,
        ] {
            assert_eq!(memory_type(&msrs, device), UNCACHEABLE, "{device:#x}");
        }
        assert!(msrs.iter().all(|m| m.value >> bits == 0));
    }
}
