use super::*;

#[test]
fn events_are_told_apart_and_unknown_ones_ignored() {
    assert_eq!(Pvpanic.load(0), 3);
    assert!(matches!(Pvpanic.store(0, 1), Action::GuestPanicked));
    assert!(matches!(Pvpanic.store(0, 2), Action::GuestCrashLoaded));
    assert!(matches!(Pvpanic.store(0, 3), Action::GuestPanicked));
    assert!(matches!(Pvpanic.store(0, 0xfc), Action::None));
}
