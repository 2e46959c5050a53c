//! The executor as one holds it, and how it is a guest in another event loop.

use std::future::Future;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use rustix::event::epoll;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};

use super::{BUDGET, CURRENT, Core, Enter, address};
use crate::clock::{Idle, Instant};
use crate::config::Config;
use crate::handle::{Handle, Shared};
use crate::ring::Wait;

/// An executor on a thread that one owns: a test, a tool, the main thread. An I/O thread is an
/// [`IoThread`](crate::IoThread).
pub struct Executor {
    core: Rc<Core>,
    host: Option<Host>,
}

/// What makes an executor a guest in another event loop: one descriptor that is readable when it has work.
struct Host {
    epoll: OwnedFd,
    timer: OwnedFd,
    /// Readable when a turn ended with work left.
    again: OwnedFd,
}

impl Host {
    fn new(ring: BorrowedFd<'_>) -> io::Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let host = Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            timer: rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags)?,
            again: crate::handle::new_eventfd()?,
        };
        for fd in [ring, host.timer.as_fd(), host.again.as_fd()] {
            let data = epoll::EventData::new_u64(0);
            epoll::add(&host.epoll, fd, data, epoll::EventFlags::IN)?;
        }
        Ok(host)
    }
}

/// Wakes the future that `block_on` runs.
struct Main {
    woken: AtomicBool,
    shared: Arc<Shared>,
}

impl Wake for Main {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.woken.swap(true, Ordering::AcqRel) {
            let local =
                Core::try_with(|core| Arc::ptr_eq(&core.shared, &self.shared)).unwrap_or(false);
            if !local {
                Handle(Arc::clone(&self.shared)).wake();
            }
        }
    }
}

impl Executor {
    /// Makes one for this thread.
    ///
    /// # Errors
    /// No descriptors or memory left, or the host refuses io_uring and the configuration insists on it.
    pub fn new(config: Config) -> io::Result<Self> {
        let hosted = config.hosted;
        let core = Core::new(config)?;
        let host = match hosted {
            true => Some(Host::new(core.ring.borrow_mut().event_fd()?)?),
            false => None,
        };
        Ok(Self { core, host })
    }

    /// Its name for other threads and for tasks.
    pub fn handle(&self) -> Handle {
        Handle(Arc::clone(&self.core.shared))
    }

    /// Runs tasks until `future` is done. Tasks that are not done then wait for the next call.
    ///
    /// # Panics
    /// Inside another executor, and with what tasks panic with.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        let _enter = Enter::new(&self.core);
        let mut future = pin!(future);
        let main = Arc::new(Main {
            woken: AtomicBool::new(true),
            shared: Arc::clone(&self.core.shared),
        });
        let waker = Waker::from(Arc::clone(&main));
        loop {
            if main.woken.swap(false, Ordering::AcqRel) {
                self.core.budget.set(BUDGET);
                if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                    // Who was woken through this ring must not wait for the next call.
                    self.core.enter(Wait::No);
                    return value;
                }
            }
            self.core
                .turn_or_sleep(|_| main.woken.load(Ordering::Acquire));
        }
    }

    /// Runs tasks until there are none and `stop` was asked for, then lets no more in.
    pub(crate) fn run_until_stopped(&self) {
        let _enter = Enter::new(&self.core);
        let done = |core: &Core| {
            let stopping = core.shared.stopping.load(Ordering::Acquire);
            stopping && core.tasks.borrow().is_empty() && core.in_flight.get() == 0
        };
        while !(done(&self.core) && self.core.shared.close()) {
            self.core.turn_or_sleep(done);
        }
    }

    /// A descriptor that is readable when [`turn`](Self::turn) has something to do, timers included: for a main loop
    /// that watches many descriptors. Level-triggered. Call `turn` once before watching it. `None` unless the executor
    /// was made to be [hosted](Config::hosted).
    pub fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        self.host.as_ref().map(|host| host.epoll.as_fd())
    }

    /// Runs what is ready and takes what has completed, without sleeping; a bounded number of rounds, so that the
    /// main loop's other descriptors get their turn. Afterwards the event descriptor tells when to come again.
    pub fn turn(&self) {
        let _enter = Enter::new(&self.core);
        self.core.shared.wake_up();
        if let Some(host) = &self.host {
            let mut count = [0u8; 8];
            let _ = rustix::io::read(&host.again, &mut count);
            let _ = rustix::io::read(&host.timer, &mut count);
        }
        // A timer may fire when nothing else is ready, and once anyway, so that a busy thread has timers too.
        let mut busy = (0..16).all(|_| self.core.turn() || self.core.fire_timer());
        busy |= self.core.fire_timer();
        let Some(host) = &self.host else { return };
        let limit = match self
            .core
            .timers
            .borrow()
            .next()
            .map(|deadline| self.core.clock.idle(deadline))
        {
            Some(Idle::Sleep(duration)) => Some(duration.max(Duration::from_nanos(1))),
            Some(Idle::Jumped) => Some(Duration::from_nanos(1)),
            Some(Idle::Stopped) | None => None,
        };
        let value = limit.unwrap_or_default();
        let it_value = Timespec {
            tv_sec: value.as_secs().min(i64::MAX as u64).cast_signed(),
            tv_nsec: value.subsec_nanos().into(),
        };
        let it_interval = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // The values are valid and the descriptor is a timer's.
        let _ = rustix::time::timerfd_settime(
            &host.timer,
            TimerfdTimerFlags::empty(),
            &Itimerspec {
                it_interval,
                it_value,
            },
        );
        if busy || !self.core.shared.fall_asleep() || self.core.ring.borrow_mut().is_ready() {
            let _ = rustix::io::write(&host.again, &1u64.to_ne_bytes());
        }
    }

    /// Runs until no task is ready and nothing is in flight (later timers and watched descriptors may be waiting),
    /// sleeping for completions meanwhile; due timers fire one by one, each when all before has settled. With a [`Virtual`](crate::Virtual) clock this is what makes steps repeatable.
    pub fn settle(&self) {
        let _enter = Enter::new(&self.core);
        loop {
            if self.core.turn() {
                continue;
            }
            if self.core.in_flight.get() == 0 {
                if self.core.fire_timer() {
                    continue;
                }
                return;
            }
            if self.core.shared.fall_asleep() {
                self.core.enter(Wait::Until(None));
            }
            self.core.shared.wake_up();
        }
    }

    /// When the next timer is due, on the executor's clock.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.core.timers.borrow().next()
    }

    /// How many tasks have been started and have not ended.
    pub fn unfinished(&self) -> usize {
        self.core.tasks.borrow().len()
    }
}

impl Drop for Executor {
    /// Drops the tasks that have not ended, on this thread, then closes ring and pool. An operation in flight is
    /// cancelled and waited for.
    fn drop(&mut self) {
        let previous = CURRENT.replace(address(&self.core));
        let _enter = Enter(previous);
        self.core.shared.ring_fd.store(-1, Ordering::Release);
        self.core.enter(Wait::No);
        loop {
            // A task that another thread is waking right now reaches us through the mail.
            let wakers: Vec<_> = self
                .core
                .tasks
                .borrow()
                .iter()
                .filter_map(|(_, entry)| Some(entry.as_ref()?.waker.clone()))
                .collect();
            wakers.iter().for_each(Waker::wake_by_ref);
            self.core.take_mail();
            while let Some(runnable) = { self.core.ready.borrow_mut().pop_front() } {
                drop(runnable);
            }
            if self.core.tasks.borrow().is_empty()
                && self.core.in_flight.get() == 0
                && self.core.shared.close()
            {
                return;
            }
            std::thread::yield_now();
        }
    }
}
