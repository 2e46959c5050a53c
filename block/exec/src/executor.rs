//! The executor: one thread's tasks, its ring, its timers.
//!
//! A turn is: run what was ready when it began, take the mail, fire timers, hand the batch of new operations to the
//! ring and take completions. With nothing left it polls for a while that adapts to how long waits have lasted lately,
//! then announces sleep, looks into its mailbox once more and sleeps in the ring.
//!
//! Borrows: no `RefCell` of [`Core`] is borrowed while a task, a waker or a destructor of either runs.

mod owned;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::panic::Location;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Waker;

use slab::Slab;

use crate::clock::{Clock, Idle};
use crate::config::{Config, RingKind};
use crate::file::Leaf;
use crate::handle::{Handle, Message, RingStatus, Shared};
use crate::op::Op;
use crate::poll::Polling;
use crate::pool::Pool;
use crate::ring::{Completion, IGNORE, Ring, Wait, threads::Threads, uring::Uring};
use crate::task::{self, Runnable};
use crate::timer::Timers;

pub use owned::Executor;

/// Token of the watch on the executor's own bell; rings' messages complete it too.
const WAKE: u64 = u64::MAX - 1;
/// Completions that a task may take without waiting before it has to let others run.
const BUDGET: u32 = 64;

static DROPPED_IN_FLIGHT: AtomicU64 = AtomicU64::new(0);

/// How many operations have been dropped in flight since the process started: 0 in a correct program.
pub fn dropped_in_flight() -> u64 {
    DROPPED_IN_FLIGHT.load(Ordering::Relaxed)
}

/// What waits for completions under a token.
pub(crate) enum Slot {
    /// An operation in flight and the task that waits for it.
    Waiting(Waker),
    /// An operation that has completed, not yet looked at.
    Done(i64),
    /// A watched descriptor. `fired` since last looked at; the descriptor is kept open until the watch has ended.
    Watch {
        fd: Arc<OwnedFd>,
        fired: bool,
        ended: bool,
        waker: Option<Waker>,
    },
    /// A message to another ring; if it cannot be delivered, its bell is rung.
    Message(Arc<Shared>),
}

pub(crate) struct Core {
    pub(crate) shared: Arc<Shared>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) ready: RefCell<VecDeque<Runnable>>,
    pub(crate) tasks: RefCell<Slab<Option<task::Entry>>>,
    pub(crate) timers: RefCell<Timers>,
    pub(crate) polling: Polling,
    pub(crate) pool: Pool,
    ring: RefCell<Box<dyn Ring>>,
    slots: RefCell<Slab<Slot>>,
    /// Operations and offloaded jobs in flight.
    in_flight: Cell<usize>,
    budget: Cell<u32>,
    mail: RefCell<Vec<Message>>,
    completions: RefCell<Vec<Completion>>,
    /// What else drops with the core; see `drain`.
    pub(crate) counts: RefCell<Vec<crate::drain::Local>>,
}

thread_local! {
    static CURRENT: Cell<Option<NonNull<Core>>> = const { Cell::new(None) };
}

/// Where a core is, such that an `Rc` may be made of it again.
fn address(core: &Rc<Core>) -> Option<NonNull<Core>> {
    NonNull::new(Rc::as_ptr(core).cast_mut())
}

/// Makes a core the thread's current one for a while.
struct Enter(Option<NonNull<Core>>);

impl Enter {
    fn new(core: &Rc<Core>) -> Self {
        let previous = CURRENT.replace(address(core));
        if let Some(previous) = previous {
            CURRENT.set(Some(previous));
            panic!("an executor inside an executor");
        }
        Self(previous)
    }
}

impl Drop for Enter {
    fn drop(&mut self) {
        CURRENT.set(self.0);
    }
}

impl Core {
    fn new(config: Config) -> io::Result<Rc<Self>> {
        let threads = || Ok::<Box<dyn Ring>, io::Error>(Box::new(Threads::new()?));
        let (mut ring, status): (Box<dyn Ring>, _) = match config.ring {
            RingKind::Uring => (Box::new(Uring::new(config.hosted)?), RingStatus::Uring),
            RingKind::Threads => (threads()?, RingStatus::Threads),
            RingKind::Sim(sim) => (Box::new(sim.ring()?), RingStatus::Sim),
            RingKind::Auto => match Uring::new(config.hosted) {
                Ok(ring) => (Box::new(ring), RingStatus::Uring),
                Err(error) => (threads()?, RingStatus::Refused(error.to_string())),
            },
        };
        let shared = Shared::new(config.name.clone(), status, ring.message_fd())?;
        ring.watch(shared.bell.as_raw_fd(), WAKE)?;
        config.clock.attach(Handle(Arc::clone(&shared)));
        Ok(Rc::new(Self {
            shared,
            clock: config.clock,
            ready: RefCell::default(),
            tasks: RefCell::default(),
            timers: RefCell::default(),
            polling: Polling::new(config.poll_max),
            pool: Pool::new(config.name, config.pool_threads, config.on_start),
            ring: RefCell::new(ring),
            slots: RefCell::default(),
            in_flight: Cell::new(0),
            budget: Cell::new(BUDGET),
            mail: RefCell::default(),
            completions: RefCell::default(),
            counts: RefCell::default(),
        }))
    }

    /// Runs `act` with the current core, if there is one.
    #[inline]
    pub(crate) fn try_with<T>(act: impl FnOnce(&Core) -> T) -> Option<T> {
        // SAFETY: `Enter` holds the core's address here only while its `Executor`, which owns an `Rc`, is borrowed.
        CURRENT.get().map(|core| act(unsafe { core.as_ref() }))
    }

    /// The current core.
    #[inline]
    pub(crate) fn current() -> Rc<Core> {
        #[allow(
            clippy::expect_used,
            reason = "documented: asking for an executor where there is none is a bug"
        )]
        let core = CURRENT.get().expect("this thread runs no executor");
        // SAFETY: the pointer came from an `Rc` that the executor holds on this thread, so the count is at least one.
        unsafe {
            Rc::increment_strong_count(core.as_ptr());
            Rc::from_raw(core.as_ptr())
        }
    }

    /// Starts an operation for the task behind `waker`; the key is for `poll_op` and `reap_dropped`.
    ///
    /// # Safety
    /// As for [`Ring::push`].
    pub(crate) unsafe fn start(&self, op: &Op, leaf: Option<&Arc<Leaf>>, waker: &Waker) -> usize {
        let key = self.slots.borrow_mut().insert(Slot::Waiting(waker.clone()));
        self.in_flight.set(self.in_flight.get() + 1);
        let by_thread = leaf.is_some_and(|leaf| leaf.by_thread());
        // SAFETY: the caller's promise.
        if by_thread || !unsafe { self.ring.borrow_mut().push(op, leaf, key as u64) } {
            let (op, fd) = (*op, leaf.map_or(-1, |leaf| leaf.raw_fd()));
            let shared = Arc::clone(&self.shared);
            self.pool.run(Box::new(move || {
                // SAFETY: the caller's promise: memory and descriptor are valid until this result is taken.
                let result = unsafe { op.perform(fd) };
                // The executor waits for what is in flight before it ends.
                let _ = shared.send(Message::Done { key, result });
            }));
        }
        key
    }

    /// The result of an operation, once; until then `waker` is what is woken.
    pub(crate) fn poll_op(&self, key: usize, waker: &Waker) -> Option<i64> {
        let mut slots = self.slots.borrow_mut();
        match slots.get_mut(key) {
            Some(Slot::Done(result)) => {
                let result = *result;
                slots.remove(key);
                Some(result)
            }
            Some(Slot::Waiting(known)) => {
                if !known.will_wake(waker) {
                    let old = std::mem::replace(known, waker.clone());
                    drop(slots);
                    drop(old);
                }
                None
            }
            _ => None,
        }
    }

    /// An operation's future is being dropped before it looked at the result: the buffers must outlive the kernel's use.
    pub(crate) fn reap_dropped(&self, key: usize) {
        let waiting = |core: &Self| matches!(core.slots.borrow().get(key), Some(Slot::Waiting(_)));
        let in_flight = waiting(self);
        if in_flight {
            self.ring.borrow_mut().cancel(key as u64);
            while waiting(self) {
                let idle = self.shared.fall_asleep();
                self.enter(if idle { Wait::Until(None) } else { Wait::No });
                self.shared.wake_up();
                self.take_results();
            }
        }
        self.slots.borrow_mut().try_remove(key);
        if in_flight {
            DROPPED_IN_FLIGHT.fetch_add(1, Ordering::Relaxed);
            assert!(
                !cfg!(debug_assertions) || std::thread::panicking(),
                "an operation was dropped in flight"
            );
        }
    }

    /// Counts something in flight beside operations until the guard is dropped.
    pub(crate) fn busy(self: &Rc<Self>) -> impl Drop + use<> {
        struct Busy(Rc<Core>);
        impl Drop for Busy {
            fn drop(&mut self) {
                self.0.in_flight.set(self.0.in_flight.get() - 1);
            }
        }
        self.in_flight.set(self.in_flight.get() + 1);
        Busy(Rc::clone(self))
    }

    /// Counts something that a task had without waiting. False when it has had 64 of them: it has to let others run.
    pub(crate) fn consume_budget(&self) -> bool {
        let left = self.budget.get();
        self.budget.set(left.saturating_sub(1));
        left > 0
    }

    /// How many tasks wait to run.
    pub(crate) fn ready_len(&self) -> usize {
        self.ready.borrow().len()
    }

    /// Watches a descriptor; the key is for `watched` and `unwatch`.
    pub(crate) fn watch(&self, fd: &Arc<OwnedFd>) -> io::Result<usize> {
        let slot = Slot::Watch {
            fd: Arc::clone(fd),
            fired: false,
            ended: false,
            waker: None,
        };
        let key = self.slots.borrow_mut().insert(slot);
        let done = self.ring.borrow_mut().watch(fd.as_raw_fd(), key as u64);
        done.map(|()| key).inspect_err(|_| {
            let slot = self.slots.borrow_mut().try_remove(key);
            drop(slot);
        })
    }

    /// Whether a watch has fired since this was last asked; if not, `waker` is woken when it does.
    pub(crate) fn watched(&self, key: usize, waker: &Waker) -> bool {
        let mut slots = self.slots.borrow_mut();
        let Some(Slot::Watch {
            fired,
            waker: known,
            ..
        }) = slots.get_mut(key)
        else {
            return true;
        };
        let fired = std::mem::take(fired);
        let old = if fired || known.as_ref().is_some_and(|known| known.will_wake(waker)) {
            None
        } else {
            known.replace(waker.clone())
        };
        drop(slots);
        drop(old);
        fired
    }

    /// Ends a watch. Its place is free when the ring has said so.
    pub(crate) fn unwatch(&self, key: usize) {
        let mut slots = self.slots.borrow_mut();
        let Some(Slot::Watch {
            fd, ended, waker, ..
        }) = slots.get_mut(key)
        else {
            return;
        };
        *ended = true;
        let (fd, old) = (fd.as_raw_fd(), waker.take());
        drop(slots);
        drop(old);
        self.ring.borrow_mut().unwatch(fd, key as u64);
    }

    /// Sends a wake-up from this ring to that of `to`, with the next batch. False where that is not possible, and while
    /// the executor is being dropped, which has no next batch.
    pub(crate) fn message(&self, to: &Arc<Shared>) -> bool {
        let target: RawFd = to.ring_fd.load(Ordering::Acquire);
        let ending = self.shared.ring_fd.load(Ordering::Relaxed) < 0;
        if target < 0 || ending || Arc::ptr_eq(to, &self.shared) {
            return false;
        }
        let Ok(mut ring) = self.ring.try_borrow_mut() else {
            return false;
        };
        let key = self
            .slots
            .borrow_mut()
            .insert(Slot::Message(Arc::clone(to)));
        let sent = ring.message(target, WAKE, key as u64);
        if !sent {
            self.slots.borrow_mut().try_remove(key);
        }
        sent
    }

    pub(crate) fn forget_leaf(&self, index: u32, generation: u64) {
        self.ring.borrow_mut().forget(index, generation);
    }

    /// Runs the tasks that are ready now, not those that become ready meanwhile. Returns whether there were any.
    pub(crate) fn run_ready(&self) -> bool {
        let count = self.ready_len();
        for _ in 0..count {
            let Some(runnable) = self.ready.borrow_mut().pop_front() else {
                break;
            };
            self.budget.set(BUDGET);
            runnable.run();
        }
        count > 0
    }

    fn take_mail(&self) -> bool {
        if !self.shared.has_mail() {
            return false;
        }
        let mut mail = self.mail.take();
        self.shared.take_mail(&mut mail);
        let any = !mail.is_empty();
        for message in mail.drain(..) {
            match message {
                Message::Run(runnable) => self.ready.borrow_mut().push_back(runnable),
                Message::Do(act) => act(),
                Message::Done { key, result } => self.complete(key, result),
            }
        }
        self.mail.replace(mail);
        any
    }

    /// Takes the pool's results out of the mail and leaves the rest for the next turn, since a task is running now.
    fn take_results(&self) {
        let mut mail = Vec::new();
        self.shared.take_mail(&mut mail);
        for message in mail {
            match message {
                Message::Done { key, result } => self.complete(key, result),
                // The mailbox closes only on this thread, when there is nothing left to do.
                other => drop(self.shared.send(other)),
            }
        }
    }

    fn complete(&self, key: usize, result: i64) {
        let mut slots = self.slots.borrow_mut();
        if let Some(slot @ Slot::Waiting(_)) = slots.get_mut(key)
            && let Slot::Waiting(waker) = std::mem::replace(slot, Slot::Done(result))
        {
            self.in_flight.set(self.in_flight.get() - 1);
            drop(slots);
            waker.wake();
        }
    }

    /// Enters the ring and delivers what it brings. Returns whether that was anything.
    fn enter(&self, wait: Wait) -> bool {
        let mut completions = self.completions.take();
        let entered = self.ring.borrow_mut().enter(wait, &mut completions);
        if let Err(error) = entered {
            // The ring is ours, its descriptors are open, its memory is mapped: no answer is left that could be acted on.
            panic!("{}: the I/O ring failed: {error}", self.shared.name);
        }
        let any = !completions.is_empty();
        for completion in completions.drain(..) {
            self.deliver(&completion);
        }
        self.completions.replace(completions);
        any
    }

    fn deliver(&self, completion: &Completion) {
        match completion.token {
            IGNORE => return,
            WAKE => {
                // Messages from other rings look the same as the watch on the bell, but for `more`; only the watch
                // can end, with an error or a positive mask.
                if !completion.more && completion.result != 0 {
                    let bell = self.shared.bell.as_fd().as_raw_fd();
                    let _ = self.ring.borrow_mut().watch(bell, WAKE);
                }
                return;
            }
            _ => {}
        }
        let key = completion.token as usize;
        let mut slots = self.slots.borrow_mut();
        match slots.get_mut(key) {
            Some(Slot::Watch {
                fd,
                fired,
                ended,
                waker,
            }) => {
                *fired = true;
                let (waker, fd) = (waker.take(), Arc::clone(fd));
                if !completion.more && *ended {
                    let slot = slots.try_remove(key);
                    drop(slots);
                    drop(slot);
                } else {
                    drop(slots);
                    if !completion.more {
                        // Re-armed: the kernel may end a multishot poll at any time. `fired` makes the waiter look
                        // again after this.
                        let _ = self
                            .ring
                            .borrow_mut()
                            .watch(fd.as_raw_fd(), completion.token);
                    }
                }
                waker.into_iter().for_each(Waker::wake);
            }
            Some(Slot::Message(_)) => {
                let slot = slots.try_remove(key);
                drop(slots);
                if let Some(Slot::Message(to)) = slot
                    && completion.result < 0
                {
                    to.ring_bell();
                }
            }
            _ => {
                drop(slots);
                self.complete(key, completion.result);
            }
        }
    }

    fn fire_timer(&self) -> bool {
        if self.timers.borrow().next().is_none() {
            return false;
        }
        let now = self.clock.now();
        let due = self.timers.borrow_mut().pop_due(now);
        due.map(Waker::wake).is_some()
    }

    /// One turn without sleeping or timers. Returns whether anything happened.
    fn turn(&self) -> bool {
        let mut any = self.run_ready();
        any |= self.take_mail();
        any |= self.enter(Wait::No);
        any || self.ready_len() > 0
    }

    /// One turn, sleeping if there is nothing to do; not when the caller has, which `woken` tells.
    fn turn_or_sleep(&self, woken: impl Fn(&Self) -> bool) {
        self.run_ready();
        let mail = self.take_mail();
        let ready = |core: &Self| core.ready_len() > 0 || woken(core);
        if mail || ready(self) {
            self.enter(Wait::No);
            self.fire_timer();
            return;
        }
        if self.fire_timer() {
            return;
        }
        if self.polling.is_on() && (self.enter(Wait::No) || self.shared.has_mail() || ready(self)) {
            return;
        }
        let (limit, jumped) = match self
            .timers
            .borrow()
            .next()
            .map(|deadline| self.clock.idle(deadline))
        {
            Some(Idle::Sleep(duration)) => (Some(duration), false),
            Some(Idle::Jumped) if self.in_flight.get() == 0 => (None, true),
            Some(Idle::Jumped | Idle::Stopped) | None => (None, false),
        };
        if jumped {
            return;
        }
        let begin = self.polling.begin();
        if self
            .polling
            .spin(self, begin, limit, || self.ring.borrow_mut().is_ready())
        {
            return;
        }
        if self.shared.fall_asleep() && !woken(self) {
            self.enter(Wait::Until(limit));
            self.polling.slept(begin);
        } else {
            self.enter(Wait::No);
        }
        self.shared.wake_up();
    }

    /// Where the tasks that have not ended were started.
    pub(crate) fn unfinished(&self) -> Vec<&'static Location<'static>> {
        self.tasks
            .borrow()
            .iter()
            .filter_map(|(_, entry)| entry.as_ref().map(|entry| entry.from))
            .collect()
    }
}
