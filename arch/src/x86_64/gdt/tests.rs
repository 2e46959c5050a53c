use super::*;

#[test]
fn descriptors_are_the_well_known_ones() {
    assert_eq!(code64().descriptor(), 0x00af_9b00_0000_ffff);
    assert_eq!(code32().descriptor(), 0x00cf_9b00_0000_ffff);
    assert_eq!(data().descriptor(), 0x00cf_9300_0000_ffff);
    assert_eq!(task().descriptor(), 0x0000_8b00_0000_0067);
    let odd = Segment {
        base: 0x1234_5678,
        limit: 0xf_abcd,
        dpl: 3,
        avl: true,
        ..Segment::default()
    };
    assert_eq!(odd.descriptor(), 0x121f_6034_5678_abcd);
}

#[test]
fn selectors_name_their_entries() {
    let table = bytes(code64());
    assert_eq!(usize::from(register(0).limit) + 1, table.len());
    for segment in [code64(), data(), task()] {
        let at = usize::from(segment.selector);
        assert_eq!(table[at..at + 8], segment.descriptor().to_le_bytes());
    }
}
