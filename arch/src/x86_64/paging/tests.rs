use super::*;

/// Walks the tables as a CPU does.
fn translate(tables: &[u8], base: u64, linear: u64) -> Option<u64> {
    let entry = |table: u64, index: u64| {
        let at = (table - base + index * 8) as usize;
        let entry = u64::from_le_bytes(tables.get(at..at + 8)?.try_into().unwrap());
        (entry & PRESENT != 0).then_some(entry)
    };
    let pml4e = entry(base, linear >> 39 & 511)?;
    let pdpte = entry(pml4e & !0xfff, linear >> 30 & 511)?;
    let pde = entry(pdpte & !0xfff, linear >> 21 & 511)?;
    assert_ne!(pde & LARGE, 0);
    Some((pde & !0x1f_ffff) | (linear & 0x1f_ffff))
}

#[test]
fn maps_four_gib_to_itself_and_no_more() {
    let base = 0x9000;
    let tables = identity_map(base);
    assert_eq!(tables.len(), 6 * 4096);
    for linear in [
        0,
        0x7000,
        0x10_0000,
        0x3fff_ffff,
        0x4000_0000,
        0xb000_0000,
        0xfee0_0000,
        0xffff_ffff,
    ] {
        assert_eq!(translate(&tables, base, linear), Some(linear));
    }
    for linear in [1 << 32, 1 << 39, 1 << 47] {
        assert_eq!(translate(&tables, base, linear), None);
    }
}
