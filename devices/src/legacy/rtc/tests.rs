use super::*;
use crate::legacy::tests::{Line, accesses, hammer};
use crate::time::tests::Stepped;

struct Rig {
    clock: Stepped,
    timers: Arc<Timers>,
    line: Arc<Line>,
    rtc: Arc<Rtc>,
}

/// 2024-02-28 23:59:58, a Wednesday before a leap day.
const START: u64 = 1_709_164_798;

fn rig() -> Rig {
    let (clock, timers) = Stepped::timers();
    let line = Arc::new(Line::default());
    let rtc = Rtc::new(&timers, line.clone(), Duration::from_secs(START));
    Rig {
        clock,
        timers,
        line,
        rtc,
    }
}

impl Rig {
    fn get(&self, index: usize) -> u8 {
        let _ = self.rtc.store(0, 0x80 | index as u8);
        self.rtc.load(1)
    }
    fn put(&self, index: usize, value: u8) {
        let _ = self.rtc.store(0, index as u8);
        let _ = self.rtc.store(1, value);
    }
    fn time(&self) -> [u8; 8] {
        [CENTURY, YEAR, MONTH, DAY, WEEKDAY, HOURS, MINUTES, SECONDS].map(|i| self.get(i))
    }
    fn wait(&self, time: Duration) {
        self.clock.advance(time);
        self.timers.run(None);
    }
}

#[test]
fn it_shows_the_time_in_bcd_and_goes_on() {
    let rig = rig();
    assert_eq!(rig.time(), [0x20, 0x24, 0x02, 0x28, 4, 0x23, 0x59, 0x58]);
    rig.wait(SECOND * 2);
    assert_eq!(rig.time(), [0x20, 0x24, 0x02, 0x29, 5, 0, 0, 0]);
    rig.put(B, HOURS_24 | BINARY);
    rig.wait(SECOND * 86400);
    assert_eq!(rig.time(), [20, 24, 3, 1, 6, 0, 0, 0]);
    rig.put(B, 0);
    assert_eq!(rig.get(HOURS), 0x12, "midnight is twelve");
    rig.wait(SECOND * 13 * 3600);
    assert_eq!(rig.get(HOURS), 0x81);
    assert_eq!(rig.get(D), 0x80);
}

#[test]
fn the_guest_sets_it_held_or_running() {
    let rig = rig();
    rig.put(B, SET | HOURS_24);
    for (index, value) in [(CENTURY, 0x19), (YEAR, 0x99), (MONTH, 0x12), (DAY, 0x31)] {
        rig.put(index, value);
    }
    for (index, value) in [(HOURS, 0x23), (MINUTES, 0x59), (SECONDS, 0x59)] {
        rig.put(index, value);
    }
    rig.wait(SECOND * 100);
    assert_eq!(rig.get(SECONDS), 0x59, "it stands while held");
    rig.put(B, HOURS_24);
    assert_eq!(rig.time(), [0x19, 0x99, 0x12, 0x31, 6, 0x23, 0x59, 0x59]);
    rig.wait(SECOND);
    assert_eq!(rig.time(), [0x20, 0, 1, 1, 7, 0, 0, 0]);
    rig.put(MINUTES, 0x30);
    assert_eq!(rig.time(), [0x20, 0, 1, 1, 7, 0, 0x30, 0]);
    // Out of the divider's reset, the next second is half a second away.
    rig.put(A, 0x76);
    rig.put(SECONDS, 0x10);
    rig.put(A, 0x26);
    rig.wait(Duration::from_millis(499));
    assert_eq!(rig.get(SECONDS), 0x10);
    rig.wait(Duration::from_millis(2));
    assert_eq!(rig.get(SECONDS), 0x11);
}

#[test]
fn update_in_progress_comes_before_the_second() {
    let rig = rig();
    rig.wait(SECOND - Duration::from_micros(300));
    assert_eq!(rig.get(A), 0x26);
    rig.wait(Duration::from_micros(100));
    assert_eq!(rig.get(A), 0xa6);
    rig.wait(Duration::from_micros(200));
    assert_eq!(rig.get(A), 0x26);
}

#[test]
fn updates_interrupt_once_until_c_is_read() {
    let rig = rig();
    rig.wait(Duration::from_millis(1500));
    assert_eq!(rig.get(C) & !PERIODIC, UPDATE, "flags without an interrupt");
    rig.put(B, HOURS_24 | UPDATE);
    assert_eq!(rig.timers.run(None), Some(SECOND * 2));
    rig.wait(SECOND);
    assert!(rig.line.level());
    assert_eq!(
        rig.timers.run(None),
        None,
        "nothing new before it is acknowledged"
    );
    rig.wait(SECOND * 5);
    assert_eq!(rig.get(C) & !(PERIODIC | ALARM), IRQ | UPDATE);
    assert_eq!(rig.line.changes(), [true, false]);
    rig.rtc.reset();
    assert_eq!(rig.timers.run(None), None);
}

#[test]
fn the_alarm_rings_at_its_time_and_wild_cards_match() {
    let rig = rig();
    for (index, value) in [
        (HOURS_ALARM, 0xff),
        (MINUTES_ALARM, 0x01),
        (SECONDS_ALARM, 0x30),
    ] {
        rig.put(index, value);
    }
    rig.put(B, HOURS_24 | ALARM);
    assert_eq!(rig.timers.run(None), Some(SECOND * 92));
    rig.wait(SECOND * 91);
    assert!(!rig.line.level());
    rig.wait(SECOND);
    assert!(rig.line.level());
    assert_eq!(rig.get(C) & ALARM, ALARM);
    assert_eq!(rig.timers.run(None), Some(SECOND * (92 + 3600)));
    rig.put(HOURS_ALARM, 0x45);
    assert_eq!(rig.timers.run(None), None, "no such hour");
}

#[test]
fn periodic_interrupts_come_at_their_rate() {
    let rig = rig();
    rig.put(A, 0x2f);
    rig.put(B, HOURS_24 | PERIODIC);
    for _ in 0..8 {
        rig.wait(Duration::from_millis(500));
        assert_eq!(rig.get(C) & PERIODIC, PERIODIC);
    }
    assert_eq!(rig.line.changes().len(), 16);
    rig.put(A, 0x26);
    let next = rig.timers.run(None).unwrap() - rig.timers.now();
    assert_eq!(next, Duration::from_nanos(976_563));
}

#[test]
fn memory_sizes_are_where_firmware_looks() {
    let rig = rig();
    rig.rtc.set_memory(0x8000_0000, 0xc000_0000);
    let word = |at| u16::from_le_bytes([rig.get(at), rig.get(at + 1)]);
    assert_eq!(
        [0x15, 0x17, 0x30, 0x34, 0x5b].map(word),
        [640, 0xffff, 0xffff, 0x7f00, 0xc000]
    );
    rig.rtc.set(0x38, 0x21);
    rig.rtc.set(B as u8, 0xff);
    assert_eq!((rig.get(0x38), rig.get(B)), (0x21, HOURS_24));
    rig.put(0x7f, 0x5a);
    rig.rtc.reset();
    assert_eq!(rig.get(0x7f), 0x5a);
}

proptest::proptest! {
    #[test]
    fn the_calendar_goes_there_and_back(seconds in -62_162_208_000_i64..253_402_300_800) {
        let civil = Civil::from_seconds(seconds);
        proptest::prop_assert_eq!(civil.to_seconds(), seconds);
        proptest::prop_assert!((1..=12).contains(&civil.month) && (1..=31).contains(&civil.day));
        proptest::prop_assert_eq!(Civil::from_seconds(seconds + 86_400).weekday, civil.weekday % 7 + 1);
    }

    #[test]
    fn the_next_match_is_the_first(
        start in 0..100_000_i64, hour in proptest::option::of(0..24_u8),
        minute in proptest::option::of(0..60_u8), second in proptest::option::of(0..60_u8),
    ) {
        let fits = |at: &i64| {
            let now = Civil::from_seconds(*at);
            hour.is_none_or(|h| h == now.hour) && minute.is_none_or(|m| m == now.minute)
                && second.is_none_or(|s| s == now.second)
        };
        let first = (start + 1..=start + 86_400).find(fits);
        proptest::prop_assert_eq!(calendar::next_match(start, hour, minute, second), first);
    }

    #[test]
    fn no_access_breaks_it(stores: Vec<(u8, u8, u32)>, accesses in accesses(LEN)) {
        let rig = rig();
        for (index, value, wait) in stores {
            rig.put(usize::from(index % 16), value);
            rig.put(CENTURY, value);
            rig.wait(Duration::from_micros(u64::from(wait)));
            rig.get(usize::from(value));
        }
        hammer(&*rig.rtc, accesses);
    }
}
