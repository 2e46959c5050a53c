use super::*;

#[test]
fn pins_follow_q35() {
    // 00:01.0 INTA# is PIRQ F, 00:1f.2 INTA# PIRQ A, 00:1e.0 INTB# PIRQ F.
    assert_eq!(
        [gsi(0, 0), gsi(1, 0), gsi(1, 3), gsi(24, 0)],
        [20, 21, 20, 20]
    );
    assert_eq!(
        [gsi(31, 0), gsi(31, 3), gsi(30, 1), gsi(25, 0)],
        [16, 19, 21, 16]
    );
}

#[test]
fn every_pin_has_an_ioapic_input() {
    for device in 0..=u8::MAX {
        for pin in 0..=u8::MAX {
            assert!((16..24).contains(&gsi(device, pin)));
        }
    }
}

#[test]
fn timer_goes_to_pin_two() {
    let routes = routes();
    assert!(routes.contains(&(0, Input::IoApic(2))) && routes.contains(&(0, Input::PicPrimary(0))));
    assert!(!routes.iter().any(|&(gsi, _)| gsi == 2));
    assert!(
        routes.contains(&(9, Input::PicSecondary(1))) && routes.contains(&(9, Input::IoApic(9)))
    );
    assert!(routes.contains(&(23, Input::IoApic(23))));
    assert_eq!(routes.len(), 15 + 23);
}
