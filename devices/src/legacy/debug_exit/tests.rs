use super::*;

#[test]
fn the_status_is_odd_and_keeps_the_low_bits() {
    for (value, status) in [(0, 1), (1, 3), (0x10, 0x21), (0xff, 0xff), (0x1_80, 1)] {
        assert!(matches!(DebugExit.write(1, 4, value), Action::Exit(s) if s == status));
    }
    assert_eq!(DebugExit.read(0, 1), 0);
}
