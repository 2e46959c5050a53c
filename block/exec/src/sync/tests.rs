use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::*;
use crate::tests::{each_ring, each_thread};
use crate::{Config, IoThread, RingKind, all, offload, spawn, yield_now};

const SOON: Duration = Duration::from_secs(30);

/// Polls a future once; whether it was ready. It goes on living.
async fn poll_once<F: Future + Unpin>(future: &mut F) -> bool {
    poll_fn(|cx| Poll::Ready(std::pin::Pin::new(&mut *future).poll(cx).is_ready())).await
}

#[test]
fn a_mutex_serves_in_order_and_excludes() {
    each_ring(|executor| {
        let lock = Rc::new(Mutex::new(Vec::new()));
        executor.block_on(async {
            let first = lock.lock().await;
            let order = Rc::new(RefCell::new(Vec::new()));
            for n in 0..5 {
                let (lock, order) = (Rc::clone(&lock), Rc::clone(&order));
                spawn(async move {
                    let mut list = lock.lock().await;
                    order.borrow_mut().push(n);
                    list.push(n);
                    offload(|| ()).await;
                    list.push(n);
                });
            }
            yield_now().await;
            assert!(lock.try_lock().is_none());
            drop(first);
            // It was handed to the first in line; nobody gets in between.
            assert!(lock.try_lock().is_none());
            let list = lock.lock().await;
            assert_eq!(*list, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]);
            assert_eq!(*order.borrow(), [0, 1, 2, 3, 4]);
        });
    });
}

#[test]
fn a_wait_that_is_given_up_loses_nothing() {
    each_ring(|executor| {
        executor.block_on(async {
            let lock = Mutex::new(());
            let held = lock.lock().await;
            let mut waiting = Box::pin(lock.lock());
            let mut granted = Box::pin(lock.lock());
            assert!(!poll_once(&mut granted).await && !poll_once(&mut waiting).await);
            drop(held);
            // `granted` has it without having looked; dropped, it passes it on.
            drop(granted);
            assert!(poll_once(&mut waiting).await);
            drop(waiting);
            assert!(lock.try_lock().is_some());
            let held = lock.lock().await;
            let mut waiting = Box::pin(lock.lock());
            assert!(!poll_once(&mut waiting).await);
            drop(waiting);
            drop(held);
            assert!(lock.try_lock().is_some());
        });
    });
}

#[test]
fn a_big_request_given_up_lets_small_ones_pass() {
    each_ring(|executor| {
        executor.block_on(async {
            let permits = Semaphore::new(2);
            let one = permits.acquire(1).await;
            let mut big = Box::pin(permits.acquire(2));
            let mut small = Box::pin(permits.acquire(1));
            assert!(!poll_once(&mut big).await && !poll_once(&mut small).await);
            assert!(permits.try_acquire(1).is_none(), "overtook");
            drop(big);
            assert!(poll_once(&mut small).await);
            drop((one, small));
            assert_eq!(permits.available(), 2);
            permits.acquire(1).await.forget();
            assert_eq!(permits.available(), 1);
            permits.release(1);
            assert_eq!(permits.available(), 2);
        });
    });
}

#[test]
fn readers_share_and_a_waiting_writer_is_not_overtaken() {
    each_ring(|executor| {
        executor.block_on(async {
            let lock = RwLock::new(1);
            let (a, b) = (lock.read().await, lock.read().await);
            assert_eq!((*a, *b), (1, 1));
            let mut writer = Box::pin(lock.write());
            let mut reader = Box::pin(lock.read());
            assert!(!poll_once(&mut writer).await && !poll_once(&mut reader).await);
            drop((a, b));
            *writer.await += 1;
            assert_eq!(*reader.await, 2);
            assert_eq!(lock.into_inner(), 2);
        });
    });
}

#[test]
fn a_notification_between_making_and_awaiting_counts() {
    each_ring(|executor| {
        executor.block_on(async {
            let notify = Notify::new();
            let (before, too) = (notify.notified(), notify.notified());
            notify.notify_all();
            before.await;
            too.await;
            let mut after = notify.notified().boxed();
            assert!(!poll_once(&mut after).await);
            all([after, async { notify.notify_all() }.boxed()]).await;
        });
    });
}

trait Boxed: Future + Sized {
    fn boxed<'a>(self) -> std::pin::Pin<Box<dyn Future<Output = Self::Output> + 'a>>
    where
        Self: 'a,
    {
        Box::pin(self)
    }
}

impl<F: Future> Boxed for F {}

#[test]
fn a_mutex_excludes_across_threads() {
    let total = Arc::new(Mutex::new(0u64));
    let threads = [RingKind::Auto, RingKind::Threads, RingKind::Auto].map(|ring| {
        IoThread::spawn(Config {
            ring,
            ..Config::default()
        })
        .unwrap()
    });
    for thread in &threads {
        for _ in 0..4 {
            let total = Arc::clone(&total);
            thread.handle().spawn(move || async move {
                for n in 0..300 {
                    let mut total = total.lock().await;
                    let seen = *total;
                    if n % 10 == 0 {
                        yield_now().await;
                    }
                    *total = seen + 1;
                }
            });
        }
    }
    threads
        .into_iter()
        .for_each(|thread| thread.stop(SOON).unwrap());
    assert_eq!(*total.try_lock().unwrap(), 3 * 4 * 300);
}

#[test]
fn a_value_crosses_threads_once() {
    each_thread(|thread| {
        let (sender, receiver) = oneshot::channel();
        std::thread::spawn(move || sender.send(5));
        assert_eq!(thread.handle().call_blocking(|| receiver), Ok(5));
        let (sender, receiver) = oneshot::channel::<()>();
        std::thread::spawn(move || drop(sender));
        assert_eq!(
            thread.handle().call_blocking(|| receiver),
            Err(oneshot::Closed)
        );
        thread.stop(SOON).unwrap();
    });
}

#[test]
fn who_stops_waiting_for_an_event_leaves_nothing_behind() {
    let event = Notify::new();
    for _ in 0..1000 {
        let waker = Waker::from(Arc::new(Count(AtomicU32::new(0))));
        let mut context = Context::from_waker(&waker);
        let mut waiting = std::pin::pin!(event.notified());
        assert!(waiting.as_mut().poll(&mut context).is_pending());
        assert!(waiting.as_mut().poll(&mut context).is_pending());
        assert_eq!(event.waiting(), 1);
    }
    assert_eq!(event.waiting(), 0);
}

#[test]
fn every_waiter_of_a_task_hears_of_an_event() {
    let event = Notify::new();
    let count = Arc::new(Count(AtomicU32::new(0)));
    let waker = Waker::from(Arc::clone(&count));
    let mut context = Context::from_waker(&waker);
    let mut stays = std::pin::pin!(event.notified());
    assert!(stays.as_mut().poll(&mut context).is_pending());
    {
        let mut leaves = std::pin::pin!(event.notified());
        assert!(leaves.as_mut().poll(&mut context).is_pending());
    }
    event.notify_all();
    assert!(count.0.load(Ordering::Relaxed) > 0);
    assert!(stays.as_mut().poll(&mut context).is_ready());
}

struct Count(AtomicU32);

impl std::task::Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}
