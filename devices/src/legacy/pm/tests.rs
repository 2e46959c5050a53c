use super::*;
use crate::legacy::tests::{Line, accesses, hammer};
use crate::time::tests::Stepped;

fn pm() -> (Stepped, Arc<Timers>, Arc<Line>, Arc<Pm>) {
    let (clock, timers) = Stepped::timers();
    let line = Arc::new(Line::default());
    let pm = Pm::new(&timers, line.clone(), 5);
    pm.enable_acpi();
    (clock, timers, line, pm)
}

#[test]
fn only_the_right_sleep_type_with_sleep_enable_powers_off() {
    let (.., pm) = pm();
    assert!(matches!(pm.write(4, 2, 0x1401), Action::None));
    assert!(matches!(pm.write(4, 2, 0x2001), Action::None));
    assert_eq!(pm.read(4, 4), 0x0001, "SLP_EN reads as 0");
    assert!(matches!(pm.write(4, 4, 0x3401), Action::Shutdown));
    assert!(matches!(pm.write(5, 1, 0x34), Action::Shutdown));
}

#[test]
fn the_power_button_interrupts_until_its_status_is_cleared() {
    let (_, _, line, pm) = pm();
    assert!(!pm.press_power_button());
    assert!(!line.level());
    let _ = pm.write(0, 2, 0xffff);
    let _ = pm.write(2, 2, 0x0100);
    assert!(pm.press_power_button());
    assert!(line.level());
    assert_eq!(pm.read(0, 2), 0x100);
    let _ = pm.write(0, 1, 0xff);
    assert!(line.level());
    let _ = pm.write(1, 1, 0x01);
    assert_eq!(line.changes(), [true, false]);
}

#[test]
fn the_timer_counts_at_its_frequency_and_interrupts_at_half_its_range() {
    let (clock, timers, line, pm) = pm();
    clock.advance(Duration::from_secs(1));
    assert_eq!(pm.read(8, 4), TIMER_HZ);
    let _ = pm.write(2, 2, 1);
    let half = Duration::from_nanos(HALF * 1_000_000_000 / TIMER_HZ);
    let due = timers.run(None).unwrap();
    assert!(due >= half && due < half + Duration::from_micros(1));
    clock.advance(due - Duration::from_secs(1));
    timers.run(None);
    assert!(line.level());
    assert_eq!(pm.read(8, 4), HALF);
    let _ = pm.write(0, 2, 1);
    assert!(!line.level());
    // It wraps at 24 bits, and a status bit missed meanwhile is there when looked for.
    clock.advance(half * 3);
    assert_eq!(pm.read(0, 2) & 1, 1);
    assert!(pm.read(8, 4) < 1 << 24);
}

#[test]
fn general_purpose_events_share_the_interrupt() {
    let (_, _, line, pm) = pm();
    pm.raise_gpe(10);
    let _ = pm.write(0x28, 2, 0x0400);
    assert!(line.level());
    assert_eq!(pm.read(0x20, 2), 0x0400);
    let _ = pm.write(0x21, 1, 0x04);
    assert!(!line.level());
    pm.raise_gpe(255);
}

#[test]
fn apm_turns_acpi_on_and_off() {
    let (_, _, line, pm) = pm();
    let apm = pm.apm_ports();
    let _ = pm.write(2, 2, 0x0100);
    let _ = apm.write(0, 1, u64::from(ACPI_DISABLE));
    assert!(!pm.press_power_button());
    assert_eq!((pm.read(4, 1), line.level()), (0, false));
    let _ = apm.write(0, 1, u64::from(ACPI_ENABLE));
    assert_eq!((pm.read(4, 1), line.level()), (1, true));
    pm.reset();
    assert_eq!((pm.read(4, 1), pm.read(0, 4), line.level()), (0, 0, false));
}

proptest::proptest! {
    #[test]
    fn no_access_breaks_it(accesses in accesses(LEN), step in 0..10_000_000_000_u64) {
        let (clock, timers, _, pm) = pm();
        hammer(&*pm, accesses.clone());
        clock.advance(Duration::from_nanos(step));
        timers.run(None);
        hammer(&*pm.apm_ports(), accesses);
    }
}
