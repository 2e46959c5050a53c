//! A descriptor that wakes a task.
//!
//! A descriptor is in the loop's set only while a task waits for it, so that one which is always
//! readable, or hung up, costs nothing when nobody cares. What tasks ask for is written down here and
//! brought into the set between two rounds of the loop.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::task::{Poll, Waker};

use event_manager::{
    EventManager, EventOps, Events, MutEventSubscriber, SubscriberId, SubscriberOps,
};
use vmm_sys_util::epoll::EventSet;

thread_local! {
    static WATCHES: RefCell<Watches> = RefCell::default();
}

#[derive(Default)]
struct Watches {
    next: u32,
    all: BTreeMap<u32, Watch>,
    /// Whose interest has changed since the last [`settle`].
    changed: Vec<u32>,
}

struct Watch {
    fd: OwnedFd,
    /// Who waits to read, and who to write.
    waiting: [Option<Waker>; 2],
    /// What the loop's set has it under; empty for not at all.
    registered: EventSet,
    /// Its [`FdReady`] is gone.
    dropped: bool,
}

/// A descriptor that tasks of the main thread wait for.
#[derive(Debug)]
pub struct FdReady {
    key: u32,
    // The list of watches is the thread's own.
    _not_send: std::marker::PhantomData<*const ()>,
}

impl FdReady {
    /// Watches what `fd` refers to, by a descriptor of its own.
    ///
    /// # Errors
    /// No descriptors left.
    pub fn new(fd: impl AsFd) -> io::Result<FdReady> {
        let fd = fd.as_fd().try_clone_to_owned()?;
        Ok(WATCHES.with_borrow_mut(|watches| {
            let key = watches.next;
            watches.next = watches.next.wrapping_add(1);
            let watch = Watch {
                fd,
                waiting: [None, None],
                registered: EventSet::empty(),
                dropped: false,
            };
            watches.all.insert(key, watch);
            FdReady {
                key,
                _not_send: std::marker::PhantomData,
            }
        }))
    }

    /// Waits until a read would not block: there is something, an end or an error. One task at a time.
    pub async fn readable(&self) {
        self.ready(0).await;
    }

    /// Waits until a write would not block. One task at a time.
    pub async fn writable(&self) {
        self.ready(1).await;
    }

    async fn ready(&self, direction: usize) {
        let mut asked = false;
        poll_fn(|cx| {
            WATCHES.with_borrow_mut(|watches| {
                let Some(watch) = watches.all.get_mut(&self.key) else {
                    return Poll::Ready(());
                };
                let waiting = &mut watch.waiting[direction];
                if asked && waiting.is_none() {
                    return Poll::Ready(());
                }
                *waiting = Some(cx.waker().clone());
                if !asked {
                    asked = true;
                    watches.changed.push(self.key);
                }
                Poll::Pending
            })
        })
        .await;
    }
}

impl Drop for FdReady {
    fn drop(&mut self) {
        // The thread may be ending, and its watches with it.
        let _ = WATCHES.try_with(|watches| {
            let mut watches = watches.borrow_mut();
            if let Some(watch) = watches.all.get_mut(&self.key) {
                watch.dropped = true;
                watches.changed.push(self.key);
            }
        });
    }
}

impl Watch {
    fn interest(&self) -> EventSet {
        if self.dropped {
            return EventSet::empty();
        }
        let mut set = EventSet::empty();
        set.set(EventSet::IN, self.waiting[0].is_some());
        set.set(EventSet::OUT, self.waiting[1].is_some());
        set
    }

    /// Brings the loop's set up to date. False for what cannot be waited for: a file, which is always ready.
    fn register(&mut self, key: u32, ops: &mut EventOps<'_>) -> bool {
        let interest = self.interest();
        let events = Events::with_data(&self.fd, key, interest);
        let done = match (self.registered.is_empty(), interest.is_empty()) {
            _ if self.registered == interest => Ok(()),
            (true, _) => ops.add(events),
            (false, true) => ops.remove(events),
            (false, false) => ops.modify(events),
        };
        if done.is_ok() {
            self.registered = interest;
        }
        done.is_ok()
    }
}

/// Brings what tasks asked for since the last time into the loop.
pub(super) fn settle(
    manager: &mut EventManager<Box<dyn MutEventSubscriber>>,
    watcher: SubscriberId,
) {
    let Ok(mut ops) = manager.event_ops(watcher) else {
        return;
    };
    let mut woken = Vec::new();
    WATCHES.with_borrow_mut(|watches| {
        for key in std::mem::take(&mut watches.changed) {
            let Some(watch) = watches.all.get_mut(&key) else {
                continue;
            };
            if !watch.register(key, &mut ops) {
                woken.extend(watch.waiting.iter_mut().filter_map(Option::take));
            }
            if watch.dropped {
                watches.all.remove(&key);
            }
        }
    });
    woken.into_iter().for_each(Waker::wake);
}

/// All watches as one subscriber.
pub(super) struct Watcher;

impl MutEventSubscriber for Watcher {
    fn process(&mut self, events: Events, ops: &mut EventOps<'_>) {
        let set = events.event_set();
        let broken = set.intersects(EventSet::ERROR | EventSet::HANG_UP);
        let mut woken = Vec::new();
        WATCHES.with_borrow_mut(|watches| {
            let Some(watch) = watches.all.get_mut(&events.data()) else {
                return;
            };
            for (waiting, ready) in watch.waiting.iter_mut().zip([EventSet::IN, EventSet::OUT]) {
                if broken || set.intersects(ready) {
                    woken.extend(waiting.take());
                }
            }
            // It can be taken out: it was in.
            watch.register(events.data(), ops);
        });
        woken.into_iter().for_each(Waker::wake);
    }

    fn init(&mut self, _: &mut EventOps<'_>) {}
}
