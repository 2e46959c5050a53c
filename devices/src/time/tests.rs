use super::*;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Wake;

/// A clock that tests move.
pub(crate) struct Stepped(Arc<exec::Virtual>);

impl Stepped {
    pub(crate) fn timers() -> (Stepped, Arc<Timers>) {
        let clock = Arc::new(exec::Virtual::new());
        (Stepped(clock.clone()), Timers::new(clock))
    }
    pub(crate) fn advance(&self, by: Duration) {
        self.0.step(by);
    }
}

#[derive(Default)]
struct Count(AtomicU64);

impl Timed for Count {
    fn ring(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.ring();
    }
}

const MS: Duration = Duration::from_millis(1);

#[test]
fn an_alarm_rings_once_when_it_is_due() {
    let (clock, timers) = Stepped::timers();
    let rung = Arc::new(Count::default());
    let device: Arc<dyn Timed> = rung.clone();
    let alarm = timers.alarm(Arc::downgrade(&device));
    alarm.set(Some(MS * 5));
    alarm.set(Some(MS * 3));
    assert_eq!(timers.run(None), Some(MS * 3));
    clock.advance(MS * 10);
    assert_eq!(timers.run(None), None);
    assert_eq!(rung.0.load(Ordering::SeqCst), 1);
    alarm.set(Some(MS * 11));
    drop(alarm);
    assert_eq!(timers.run(None), None);
}

#[test]
fn setting_an_earlier_alarm_wakes_who_waits_for_a_later_one() {
    let (_clock, timers) = Stepped::timers();
    let woken = Arc::new(Count::default());
    let device: Arc<dyn Timed> = woken.clone();
    let (a, b) = (
        timers.alarm(Arc::downgrade(&device)),
        timers.alarm(Arc::downgrade(&device)),
    );
    a.set(Some(MS * 5));
    let waker = Waker::from(woken.clone());
    assert_eq!(timers.run(Some(&waker)), Some(MS * 5));
    b.set(Some(MS * 6));
    assert_eq!(woken.0.load(Ordering::SeqCst), 0);
    b.set(Some(MS * 4));
    assert_eq!(woken.0.load(Ordering::SeqCst), 1);
}

#[test]
fn a_driver_rings_on_time_and_ends_with_the_timers() {
    let clock = Arc::new(exec::Virtual::jumping());
    let config = exec::Config {
        ring: exec::RingKind::Threads,
        clock: clock.clone(),
        ..exec::Config::default()
    };
    let executor = exec::Executor::new(config).unwrap();
    let timers = Timers::new(clock);
    let rung = Arc::new(Count::default());
    let device: Arc<dyn Timed> = rung.clone();
    let alarm = timers.alarm(Arc::downgrade(&device));
    executor.block_on(async {
        exec::spawn(timers.drive());
        exec::yield_now().await;
        alarm.set(Some(MS * 7));
        exec::sleep(MS * 6).await;
        assert_eq!(rung.0.load(Ordering::SeqCst), 0);
        exec::sleep(MS * 2).await;
        assert_eq!(rung.0.load(Ordering::SeqCst), 1);
        alarm.set(Some(MS * 20));
        alarm.set(Some(MS * 9));
        exec::sleep(MS * 2).await;
        assert_eq!(rung.0.load(Ordering::SeqCst), 2);
        alarm.set(Some(MS * 1000));
        drop((alarm, timers));
    });
    // Only the driver was left, and it ended.
    executor.settle();
    assert_eq!(executor.unfinished(), 0);
}
