use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use super::*;
use crate::tests::each_ring;
use crate::{Config, IoThread, RingKind, all, sleep, spawn, yield_now};

const SOON: Duration = Duration::from_secs(30);

#[test]
fn a_drain_waits_for_what_is_in_flight_and_holds_the_rest() {
    each_ring(|executor| {
        executor.block_on(async {
            let gate = Gate::new();
            let first = gate.enter().await;
            let order = Rc::new(std::cell::RefCell::new(Vec::new()));
            let (log, drained_gate) = (Rc::clone(&order), gate.clone());
            spawn(async move {
                let drained = drained_gate.drain().await;
                log.borrow_mut().push("drained");
                sleep(Duration::from_millis(1)).await;
                log.borrow_mut().push("open");
                drop(drained);
            });
            yield_now().await;
            yield_now().await;
            assert!(gate.try_enter().is_none(), "shut");
            for name in ["a", "b"] {
                let (gate, log) = (gate.clone(), Rc::clone(&order));
                spawn(async move {
                    let _in_flight = gate.enter().await;
                    log.borrow_mut().push(name);
                });
            }
            sleep(Duration::from_millis(1)).await;
            assert!(order.borrow().is_empty(), "something is in flight");
            drop(first);
            while order.borrow().len() < 4 {
                yield_now().await;
            }
            assert_eq!(*order.borrow(), ["drained", "open", "a", "b"]);
            assert_eq!(gate.in_flight_here(), 0);
        });
    });
}

#[test]
fn who_stops_waiting_at_a_gate_leaves_nothing_behind() {
    each_ring(|executor| {
        executor.block_on(async {
            let gate = Gate::new();
            drop(gate.enter().await);
            let drained = gate.drain().await;
            let waiting = || gate.with_local(&Core::current(), |local| local.queue.len());
            for _ in 0..10 {
                let mut enter = std::pin::pin!(gate.enter());
                for _ in 0..2 {
                    poll_fn(|context| {
                        assert!(enter.as_mut().poll(context).is_pending());
                        Poll::Ready(())
                    })
                    .await;
                    assert_eq!(waiting(), 1);
                }
            }
            assert_eq!(waiting(), 0);
            drop(drained);
        });
    });
}

#[test]
fn a_refused_entry_counts_nothing() {
    each_ring(|executor| {
        executor.block_on(async {
            let gate = Gate::new();
            let held = gate.enter().await;
            drop(held);
            let drained = gate.drain().await;
            assert!(gate.try_enter().is_none());
            assert_eq!(gate.in_flight_here(), 0);
            drop(drained);
        });
    });
}

#[test]
fn drains_nest_and_gates_reuse_places() {
    each_ring(|executor| {
        executor.block_on(async {
            for _ in 0..10 {
                let gate = Gate::new();
                drop(gate.enter().await);
                let (outer, inner) = (gate.drain().await, gate.drain().await);
                drop(outer);
                yield_now().await;
                yield_now().await;
                assert!(gate.try_enter().is_none());
                drop(inner);
                drop(gate.enter().await);
            }
        });
    });
}

#[test]
fn a_request_that_outlives_its_gate_counts_nowhere_else() {
    each_ring(|executor| {
        executor.block_on(async {
            let gate = Gate::new();
            let stray = gate.enter().await;
            drop(gate);
            let next = Gate::new();
            let counted = next.enter().await;
            drop(stray);
            assert_eq!(next.in_flight_here(), 1);
            drop(counted);
        });
    });
}

#[test]
fn nothing_is_in_flight_on_any_thread_while_drained() {
    let gate = Gate::new();
    let cell = Arc::new(DrainCell::new(0u64));
    let (running, stop) = (
        Arc::new(AtomicU64::new(0)),
        Arc::new(AtomicBool::new(false)),
    );
    let threads = [RingKind::Auto, RingKind::Threads, RingKind::Auto].map(|ring| {
        IoThread::spawn(Config {
            ring,
            ..Config::default()
        })
        .unwrap()
    });
    for thread in &threads {
        for n in 0..4u64 {
            let (gate, cell, running, stop) =
                (gate.clone(), cell.clone(), running.clone(), stop.clone());
            thread.handle().spawn(move || async move {
                while !stop.load(Ordering::Relaxed) {
                    let _in_flight = gate.enter().await;
                    running.fetch_add(1, Ordering::SeqCst);
                    let before = *cell.get();
                    if n % 2 == 0 {
                        crate::nop().await;
                    } else {
                        sleep(Duration::from_micros(50)).await;
                    }
                    assert_eq!(*cell.get(), before, "replaced under a request");
                    running.fetch_sub(1, Ordering::SeqCst);
                }
            });
        }
    }
    threads[0].handle().call_blocking({
        let (gate, cell, running) = (gate.clone(), cell.clone(), running.clone());
        move || async move {
            for n in 1..=100 {
                let drained = gate.drain().await;
                assert_eq!(running.load(Ordering::SeqCst), 0);
                cell.replace(n, &drained);
                drop(drained);
                yield_now().await;
            }
        }
    });
    stop.store(true, Ordering::Relaxed);
    threads
        .into_iter()
        .for_each(|thread| thread.stop(SOON).unwrap());
    let mut cell = Arc::into_inner(cell).unwrap();
    cell.reclaim();
    assert_eq!(*cell.get_mut(), 100);
}

#[test]
fn a_thread_that_comes_during_a_drain_waits_too() {
    let gate = Gate::new();
    let threads = [(); 2].map(|()| IoThread::spawn(Config::default()).unwrap());
    let drained = {
        let gate = gate.clone();
        threads[0]
            .handle()
            .call_blocking(move || async move { gate.drain().await })
    };
    let entered = Arc::new(AtomicBool::new(false));
    {
        let (gate, entered) = (gate.clone(), Arc::clone(&entered));
        threads[1].handle().spawn(move || async move {
            let _in_flight = gate.enter().await;
            entered.store(true, Ordering::SeqCst);
        });
    }
    threads[1]
        .handle()
        .call_blocking(|| all([sleep(Duration::from_millis(2))]));
    assert!(!entered.load(Ordering::SeqCst));
    drop(drained);
    threads
        .into_iter()
        .for_each(|thread| thread.stop(SOON).unwrap());
    assert!(entered.load(Ordering::SeqCst));
}

#[test]
fn replaced_values_stay_until_the_cell_goes() {
    let cell = DrainCell::new(Arc::new(1));
    let old = Arc::downgrade(cell.get());
    let executor = crate::Executor::new(Config::default()).unwrap();
    executor.block_on(async {
        let gate = Gate::new();
        cell.replace(Arc::new(2), &gate.drain().await);
    });
    assert_eq!(**cell.get(), 2);
    assert!(old.upgrade().is_some());
    drop(cell);
    assert!(old.upgrade().is_none());
}
