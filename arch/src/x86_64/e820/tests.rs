use proptest::prelude::*;

use super::*;

proptest! {
    #[test]
    fn sorted_disjoint_and_inside_ram(pages in 256_u64..1 << 24) {
        let layout = Layout::new(pages * layout::PAGE, 46).unwrap();
        let map = table(&layout);
        for pair in map.windows(2) {
            prop_assert!(pair[0].address + pair[0].size <= pair[1].address);
        }
        for e in map.iter().filter(|e| e.kind == Type::Ram) {
            prop_assert!(layout.ram_regions().iter().any(|&(at, len)| at <= e.address && e.address + e.size <= at + len));
        }
    }
}

#[test]
fn five_gib() {
    let map = table(&Layout::new(5 << 30, 40).unwrap());
    let ram: Vec<_> = map
        .iter()
        .filter(|e| e.kind == Type::Ram)
        .map(|e| (e.address, e.size))
        .collect();
    assert_eq!(
        ram,
        [
            (0, 0x9fc00),
            (0x10_0000, 0x7ff0_0000),
            (0x1_0000_0000, 0xc000_0000)
        ]
    );
    assert!(map.contains(&Entry {
        address: 0xb000_0000,
        size: 0x1000_0000,
        kind: Type::Reserved
    }));
}

#[test]
fn one_mib_has_no_empty_entry() {
    assert!(
        table(&Layout::new(1 << 20, 40).unwrap())
            .iter()
            .all(|e| e.size > 0)
    );
}
