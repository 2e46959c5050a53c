use std::cell::Cell;
use std::future::Future;
use std::io::ErrorKind;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::*;

/// One executor with each back end that this host has.
pub(crate) fn each_ring(mut test: impl FnMut(&Executor)) {
    for ring in [RingKind::Threads, RingKind::Uring] {
        match Executor::new(Config {
            ring,
            ..Config::default()
        }) {
            Ok(executor) => test(&executor),
            Err(error) => assert!(matches!(
                error.kind(),
                ErrorKind::PermissionDenied | ErrorKind::Unsupported
            )),
        }
    }
}

pub(crate) fn each_thread(mut test: impl FnMut(IoThread)) {
    for ring in [RingKind::Threads, RingKind::Auto] {
        test(
            IoThread::spawn(Config {
                ring,
                name: "io".into(),
                ..Config::default()
            })
            .unwrap(),
        );
    }
}

const SOON: Duration = Duration::from_secs(10);

#[test]
fn tasks_run_and_yield_in_turn() {
    each_ring(|executor| {
        let order = Rc::new(std::cell::RefCell::new(Vec::new()));
        executor.block_on(async {
            for name in 0..3 {
                let order = Rc::clone(&order);
                spawn(async move {
                    for step in 0..2 {
                        order.borrow_mut().push((step, name));
                        yield_now().await;
                    }
                });
            }
            while order.borrow().len() < 6 {
                yield_now().await;
            }
        });
        assert_eq!(
            *order.borrow(),
            [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
        );
    });
}

#[test]
fn all_waits_for_every_one_and_keeps_the_order() {
    each_ring(|executor| {
        let results = executor.block_on(all((0..50u64).map(|n| async move {
            sleep(Duration::from_micros(500 - n * 10)).await;
            n
        })));
        assert_eq!(results, (0..50).collect::<Vec<_>>());
    });
}

#[test]
fn io_threads_answer_calls_and_stop() {
    each_thread(|thread| {
        let handle = thread.handle();
        assert_eq!(handle.call_blocking(|| async { 7 }), 7);
        assert_eq!(
            handle.call_blocking(|| async { current().id() }),
            handle.id()
        );
        let count = Arc::new(AtomicU32::new(0));
        for _ in 0..100 {
            let count = Arc::clone(&count);
            handle.spawn(move || async move {
                sleep(Duration::from_millis(1)).await;
                count.fetch_add(1, Ordering::Relaxed);
            });
        }
        thread.stop(SOON).unwrap();
        assert_eq!(count.load(Ordering::Relaxed), 100);
        assert!(handle.is_closed());
    });
}

#[test]
fn a_thread_that_does_not_stop_says_what_it_waits_for() {
    let thread = IoThread::spawn(Config {
        name: "io".into(),
        ..Config::default()
    })
    .unwrap();
    let line = line!() + 1;
    thread.handle().spawn(std::future::pending);
    let stuck = thread.stop(Duration::from_millis(50)).unwrap_err();
    assert_eq!((stuck.tasks.len(), stuck.tasks[0].line()), (1, line));
    assert!(
        stuck
            .to_string()
            .starts_with("I/O thread io is stuck: unfinished: task started at ")
    );
}

#[test]
fn executors_wake_each_other() {
    for rings in [
        [RingKind::Auto, RingKind::Auto],
        [RingKind::Auto, RingKind::Threads],
        [RingKind::Threads, RingKind::Auto],
    ] {
        let [a, b] = rings.map(|ring| {
            IoThread::spawn(Config {
                ring,
                ..Config::default()
            })
            .unwrap()
        });
        let (there, back) = (b.handle(), a.handle());
        let sum = a.handle().call_blocking(move || async move {
            let mut sum = 0;
            for n in 0..1000u64 {
                let back = back.clone();
                sum += there
                    .call(move || async move { back.call(move || async move { n }).await })
                    .await;
            }
            sum
        });
        assert_eq!(sum, 499_500);
        a.stop(SOON).unwrap();
        b.stop(SOON).unwrap();
    }
}

#[test]
#[should_panic(expected = "cannot block on itself")]
fn blocking_on_oneself_panics() {
    let executor = Executor::new(Config::default()).unwrap();
    let handle = executor.handle();
    executor.block_on(async { handle.call_blocking(|| async {}) });
}

#[test]
fn offloaded_work_comes_back_and_so_does_its_panic() {
    each_ring(|executor| {
        let here = std::thread::current().id();
        let there = executor.block_on(offload(|| std::thread::current().id()));
        assert_ne!(here, there);
        let task =
            std::panic::AssertUnwindSafe(|| executor.block_on(offload(|| panic!("deliberate"))));
        assert!(std::panic::catch_unwind(task).is_err());
        let many = executor.block_on(all((0..200).map(|n| offload(move || n))));
        assert_eq!(many, (0..200).collect::<Vec<_>>());
    });
}

#[test]
fn kicks_wake_and_several_may_be_one() {
    each_thread(|thread| {
        let kick = Arc::new(Kick::eventfd().unwrap());
        let (seen, rung) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let task = (Arc::clone(&kick), Arc::clone(&seen), Arc::clone(&rung));
        thread.handle().spawn(move || async move {
            let (kick, seen, rung) = task;
            while seen.load(Ordering::Acquire) < 10_000 {
                let seen_now = seen.load(Ordering::Acquire);
                kick.wait_polling(|| rung.load(Ordering::Acquire) != seen_now)
                    .await;
                seen.store(rung.load(Ordering::Acquire), Ordering::Release);
            }
        });
        for n in 1..=10_000 {
            rung.store(n, Ordering::Release);
            kick.signal();
            if n % 100 == 0 {
                while seen.load(Ordering::Acquire) < n {
                    std::thread::yield_now();
                }
            }
        }
        thread.stop(SOON).unwrap();
    });
}

#[test]
fn every_thread_is_set_up_first() {
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let hook: Hook = {
        let seen = Arc::clone(&seen);
        Arc::new(move |kind| {
            seen.lock()
                .unwrap()
                .push((kind, std::thread::current().name().unwrap().to_owned()));
            Ok(())
        })
    };
    let config = Config {
        name: "io0".into(),
        on_start: Some(hook),
        ..Config::default()
    };
    let thread = IoThread::spawn(config).unwrap();
    thread.handle().call_blocking(|| offload(|| ()));
    thread.stop(SOON).unwrap();
    assert_eq!(
        *seen.lock().unwrap(),
        [
            (ThreadKind::Io, "io0".into()),
            (ThreadKind::Pool, "io0-pool".into())
        ]
    );

    let refuse: Hook = Arc::new(|_| Err(ErrorKind::PermissionDenied.into()));
    let error = IoThread::spawn(Config {
        on_start: Some(refuse),
        ..Config::default()
    })
    .err()
    .unwrap();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
}

#[test]
fn hosted_in_another_loop() {
    for ring in [RingKind::Auto, RingKind::Threads] {
        let other = IoThread::spawn(Config::default()).unwrap().handle();
        let executor = Executor::new(Config {
            ring,
            hosted: true,
            ..Config::default()
        })
        .unwrap();
        let done = Rc::new(Cell::new(0));
        let (handle, progress) = (executor.handle(), Rc::clone(&done));
        let fd = executor.event_fd().unwrap().try_clone_to_owned().unwrap();
        // The closure must be Send; the counter goes in by a local task that the first turn starts.
        let cell = SendOnce(progress);
        handle.spawn(move || async move {
            let progress = { cell }.0;
            sleep(Duration::from_millis(5)).await;
            progress.set(1);
            assert_eq!(other.call(|| async { offload(|| 5).await }).await, 5);
            progress.set(2);
            nop().await;
            progress.set(3);
        });
        executor.turn();
        while done.get() < 3 {
            let mut fds = [rustix::event::PollFd::new(
                &fd,
                rustix::event::PollFlags::IN,
            )];
            let limit = rustix::event::Timespec {
                tv_sec: 10,
                tv_nsec: 0,
            };
            assert_eq!(
                rustix::event::poll(&mut fds, Some(&limit)).unwrap(),
                1,
                "stuck at {}",
                done.get()
            );
            executor.turn();
        }
        // Nothing is left: the descriptor is quiet.
        executor.turn();
        let mut fds = [rustix::event::PollFd::new(
            &fd,
            rustix::event::PollFlags::IN,
        )];
        let limit = rustix::event::Timespec {
            tv_sec: 0,
            tv_nsec: 20_000_000,
        };
        assert_eq!(rustix::event::poll(&mut fds, Some(&limit)).unwrap(), 0);
    }
}

#[test]
fn every_ring_of_the_bell_reaches_another_loop() {
    for ring in [RingKind::Auto, RingKind::Threads] {
        let executor = Executor::new(Config {
            ring,
            hosted: true,
            ..Config::default()
        })
        .unwrap();
        let (handle, count) = (executor.handle(), Arc::new(AtomicU32::new(0)));
        let fd = executor.event_fd().unwrap().try_clone_to_owned().unwrap();
        executor.turn();
        let ringer = std::thread::spawn({
            let count = count.clone();
            move || {
                for n in 0..500 {
                    let count = count.clone();
                    handle.spawn(move || async move {
                        count.fetch_add(1, Ordering::Relaxed);
                    });
                    // One at a time, and at times when the loop sleeps.
                    std::thread::sleep(Duration::from_micros(n % 5 * 100));
                }
            }
        });
        while count.load(Ordering::Relaxed) < 500 {
            let mut fds = [rustix::event::PollFd::new(
                &fd,
                rustix::event::PollFlags::IN,
            )];
            let limit = rustix::event::Timespec {
                tv_sec: 5,
                tv_nsec: 0,
            };
            let heard = rustix::event::poll(&mut fds, Some(&limit)).unwrap();
            assert_eq!(heard, 1, "deaf after {}", count.load(Ordering::Relaxed));
            executor.turn();
        }
        ringer.join().unwrap();
    }
}

/// Moves an `Rc` into a closure that runs on the same thread.
struct SendOnce<T>(T);
// SAFETY: only used where sender and receiver are one thread.
unsafe impl<T> Send for SendOnce<T> {}

#[test]
fn virtual_time_stands_until_it_is_moved() {
    each_ring_virtual(|executor, clock| {
        let fired = Rc::new(std::cell::RefCell::new(Vec::new()));
        let log = SendOnce(Rc::clone(&fired));
        executor.handle().spawn(move || async move {
            let log = { log }.0;
            for (n, delay) in [(0, 30), (1, 10), (2, 20), (3, 10)] {
                let log = Rc::clone(&log);
                spawn(async move {
                    sleep(Duration::from_millis(delay)).await;
                    log.borrow_mut().push(n);
                    if n == 1 {
                        // Settles before the next timer of the same time fires.
                        offload(|| ()).await;
                        log.borrow_mut().push(10);
                    }
                });
            }
        });
        executor.settle();
        assert_eq!(
            executor.next_deadline(),
            Some(Instant::from_nanos(10_000_000))
        );
        clock.step(Duration::from_millis(9));
        executor.settle();
        assert!(fired.borrow().is_empty());
        clock.step(Duration::from_millis(1));
        executor.settle();
        assert_eq!(*fired.borrow(), [1, 10, 3]);
        clock.step(Duration::from_secs(1));
        executor.settle();
        assert_eq!(*fired.borrow(), [1, 10, 3, 2, 0]);
        assert_eq!((executor.next_deadline(), executor.unfinished()), (None, 0));
    });
}

fn each_ring_virtual(mut test: impl FnMut(&Executor, &Virtual)) {
    for ring in [RingKind::Auto, RingKind::Threads] {
        let clock = Arc::new(Virtual::new());
        test(
            &Executor::new(Config {
                ring,
                clock: clock.clone(),
                ..Config::default()
            })
            .unwrap(),
            &clock,
        );
    }
}

#[test]
fn a_jumping_clock_does_not_wait() {
    let clock = Arc::new(Virtual::jumping());
    let executor = Executor::new(Config {
        clock,
        ..Config::default()
    })
    .unwrap();
    let begin = std::time::Instant::now();
    executor.block_on(async {
        sleep(Duration::from_secs(3600)).await;
        assert_eq!(now(), Instant::ZERO + Duration::from_secs(3600));
    });
    assert!(begin.elapsed() < SOON);
}

#[test]
fn a_busy_thread_still_has_timers() {
    each_ring(|executor| {
        executor.block_on(async {
            let stop = Rc::new(Cell::new(false));
            let busy = Rc::clone(&stop);
            spawn(async move {
                while !busy.get() {
                    yield_now().await;
                }
            });
            sleep(Duration::from_millis(2)).await;
            stop.set(true);
        });
    });
}

#[test]
fn tasks_left_over_are_dropped_on_their_thread() {
    struct Guard(Rc<Cell<u32>>);
    impl Drop for Guard {
        fn drop(&mut self) {
            self.0.set(self.0.get() + 1);
        }
    }
    let dropped = Rc::new(Cell::new(0));
    let executor = Executor::new(Config::default()).unwrap();
    executor.block_on(async {
        for _ in 0..3 {
            let guard = Guard(Rc::clone(&dropped));
            spawn(async move {
                let _guard = guard;
                std::future::pending::<()>().await;
            });
        }
        yield_now().await;
    });
    assert_eq!((dropped.get(), executor.unfinished()), (0, 3));
    drop(executor);
    assert_eq!(dropped.get(), 3);
}

/// Polls a future once and drops it.
pub(crate) async fn poll_once<F: Future>(future: F) {
    let mut future = Box::pin(future);
    std::future::poll_fn(|cx| std::task::Poll::Ready(future.as_mut().poll(cx).is_ready())).await;
}

#[test]
fn an_operation_dropped_in_flight_is_reaped_and_told() {
    each_ring(|executor| {
        let before = dropped_in_flight();
        let dropping = std::panic::AssertUnwindSafe(|| executor.block_on(poll_once(nop())));
        let panic = std::panic::catch_unwind(dropping).unwrap_err();
        assert_eq!(
            panic.downcast_ref(),
            Some(&"an operation was dropped in flight")
        );
        assert!(dropped_in_flight() > before);
        executor.block_on(nop());
    });
}

#[test]
fn a_thread_is_stopped_from_an_executor() {
    let main = Executor::new(Config::default()).unwrap();
    main.block_on(async {
        let thread = IoThread::spawn(Config::default()).unwrap();
        let asleep = thread.handle().call(|| async { 7 }).await;
        assert_eq!(asleep, 7);
        std::thread::sleep(Duration::from_millis(50));
        thread.stop(Duration::from_secs(5)).unwrap();
    });
}

#[test]
fn a_read_dropped_in_flight_does_not_wait_for_its_data() {
    let Ok(executor) = Executor::new(Config {
        ring: RingKind::Uring,
        ..Config::default()
    }) else {
        return;
    };
    // Nobody ever writes to the pipe: only cancelling ends the read.
    let (reader, _writer) = rustix::pipe::pipe().unwrap();
    let file = File::new(reader).unwrap();
    let mut buffer = [0u8; 16];
    let read = poll_once(file.read_at(0, IoSlicesMut::from(&mut buffer[..])));
    let dropping = std::panic::AssertUnwindSafe(|| executor.block_on(read));
    assert!(std::panic::catch_unwind(dropping).is_err());
}

/// Work that is announced in memory alone is found by polling; the signal comes late, and only so that a poll that was
/// missed (on a busy machine, most) does not hang the test.
#[test]
fn polling_finds_work_without_a_signal() {
    const ROUNDS: u32 = 500;
    for ring in [RingKind::Auto, RingKind::Threads] {
        let poll_max = Duration::from_millis(20);
        let thread = IoThread::spawn(Config {
            ring,
            poll_max,
            ..Config::default()
        })
        .unwrap();
        let kick = Arc::new(Kick::eventfd().unwrap());
        let (asked, found) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let task = (Arc::clone(&kick), Arc::clone(&asked), Arc::clone(&found));
        thread.handle().spawn(move || async move {
            let (kick, asked, found) = task;
            for round in 1..=ROUNDS {
                while asked.load(Ordering::Acquire) < round {
                    kick.wait_polling(|| asked.load(Ordering::Acquire) >= round)
                        .await;
                }
                found.store(round, Ordering::Release);
            }
        });
        let mut without = 0;
        for round in 1..=ROUNDS {
            std::thread::sleep(Duration::from_micros(200));
            asked.store(round, Ordering::Release);
            let begin = std::time::Instant::now();
            while found.load(Ordering::Acquire) < round
                && begin.elapsed() < Duration::from_millis(10)
            {
                std::thread::yield_now();
            }
            without += u32::from(found.load(Ordering::Acquire) == round);
            kick.signal();
            while found.load(Ordering::Acquire) < round {
                std::thread::yield_now();
            }
            if without == 10 {
                asked.store(ROUNDS, Ordering::Release);
                kick.signal();
                break;
            }
        }
        thread.stop(SOON).unwrap();
        assert_eq!(without, 10, "found by polling");
    }
}

/// What a container's seccomp profile does, to this thread alone.
fn refuse_io_uring() {
    let load = |offset| libc::sock_filter {
        code: (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16,
        jt: 0,
        jf: 0,
        k: offset,
    };
    let answer = |k| libc::sock_filter {
        code: (libc::BPF_RET | libc::BPF_K) as u16,
        jt: 0,
        jf: 0,
        k,
    };
    let is = libc::sock_filter {
        code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16,
        jt: 0,
        jf: 1,
        k: libc::SYS_io_uring_setup as u32,
    };
    let refuse = answer(libc::SECCOMP_RET_ERRNO | libc::EPERM as u32);
    let mut filter = [load(0), is, refuse, answer(libc::SECCOMP_RET_ALLOW)];
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: the program is valid for the call, and concerns this thread only.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        assert_eq!(
            libc::prctl(
                libc::PR_SET_SECCOMP,
                libc::SECCOMP_MODE_FILTER,
                &raw const program
            ),
            0
        );
    }
}

#[test]
fn where_io_uring_is_refused_threads_take_over_and_say_why() {
    let refused = std::thread::spawn(|| {
        refuse_io_uring();
        assert!(
            Executor::new(Config {
                ring: RingKind::Uring,
                ..Config::default()
            })
            .is_err()
        );
        let executor = Executor::new(Config::default()).unwrap();
        executor.block_on(nop());
        executor.handle().ring_kind().clone()
    });
    let RingStatus::Refused(why) = refused.join().unwrap() else {
        panic!("not refused")
    };
    assert!(why.contains("not permitted"), "{why}");
}

/// An executor that sleeps, with nothing that would wake it but what the test does.
fn sleeper() -> IoThread {
    let thread = IoThread::spawn(Config {
        poll_max: Duration::ZERO,
        ..Config::default()
    })
    .unwrap();
    thread.handle().call_blocking(|| async {});
    thread
}

/// Long enough for an executor to fall asleep, if it has nothing to do.
const DOZE: Duration = Duration::from_millis(20);

#[test]
fn who_is_woken_wakes_though_the_waker_runs_no_more() {
    each_ring(|executor| {
        let other = sleeper();
        let handle = other.handle();
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        std::thread::sleep(DOZE);
        executor.block_on(async {
            handle.spawn(move || async move { sender.send(()).unwrap() });
        });
        receiver.recv_timeout(SOON).unwrap();
        other.stop(SOON).unwrap();
    });
}

#[test]
fn who_waits_for_an_executor_that_is_dropped_hears_of_it() {
    for ring in [RingKind::Auto, RingKind::Threads] {
        let other = sleeper();
        let (held, gone) = sync::oneshot::channel::<()>();
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        other.handle().spawn(move || async move {
            assert!(gone.await.is_err());
            sender.send(()).unwrap();
        });
        let executor = Executor::new(Config {
            ring,
            ..Config::default()
        })
        .unwrap();
        executor.block_on(async {
            spawn(async move {
                let _held = held;
                std::future::pending::<()>().await;
            });
            yield_now().await;
        });
        std::thread::sleep(DOZE);
        drop(executor);
        receiver.recv_timeout(SOON).unwrap();
        other.stop(SOON).unwrap();
    }
}

#[test]
fn an_executor_may_block_on_another() {
    let other = sleeper();
    let handle = other.handle();
    let (sender, receiver) = std::sync::mpsc::sync_channel(1);
    std::thread::sleep(DOZE);
    std::thread::spawn(move || {
        let executor = Executor::new(Config::default()).unwrap();
        let answer = executor.block_on(async { handle.call_blocking(|| async { 7 }) });
        sender.send(answer).unwrap();
    });
    assert_eq!(receiver.recv_timeout(SOON), Ok(7));
    other.stop(SOON).unwrap();
}

/// A clock that goes on by a nanosecond whenever it is looked at.
struct Creeping(std::sync::atomic::AtomicU64);

impl Clock for Creeping {
    fn now(&self) -> Instant {
        Instant::from_nanos(self.0.fetch_add(1, Ordering::Relaxed))
    }

    fn idle(&self, deadline: Instant) -> Idle {
        Idle::Sleep(deadline.since(self.now()))
    }
}

#[test]
fn a_timer_that_comes_due_at_the_end_of_a_turn_is_not_forgotten() {
    for deadline in 0..20 {
        let executor = Executor::new(Config {
            clock: Arc::new(Creeping(0.into())),
            hosted: true,
            ..Config::default()
        })
        .unwrap();
        let fd = executor.event_fd().unwrap().try_clone_to_owned().unwrap();
        let done = Arc::new(AtomicU32::new(0));
        let fired = Arc::clone(&done);
        executor.handle().spawn(move || async move {
            sleep_until(Instant::from_nanos(deadline)).await;
            fired.store(1, Ordering::Relaxed);
        });
        executor.turn();
        while done.load(Ordering::Relaxed) == 0 {
            let mut fds = [rustix::event::PollFd::new(
                &fd,
                rustix::event::PollFlags::IN,
            )];
            let limit = rustix::event::Timespec {
                tv_sec: 1,
                tv_nsec: 0,
            };
            let ready = rustix::event::poll(&mut fds, Some(&limit)).unwrap();
            assert_eq!(ready, 1, "the timer at {deadline} ns is forgotten");
            executor.turn();
        }
    }
}
