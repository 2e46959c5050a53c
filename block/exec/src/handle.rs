//! The part of an executor that other threads see: its name, its mailbox, its doorbell.
//!
//! A message goes into the mailbox under a mutex; the bell is rung only when the executor said that it is about to
//! sleep. It says so *before* it looks into the mailbox a last time, and both sides go through the mutex, so either it
//! sees the message or the sender sees that it sleeps. The bell is a message from the sender's own ring to the
//! sleeper's where both have io_uring (sent with the sender's next batch), else a write to an eventfd that the
//! sleeper's ring watches. That eventfd is never read: the watch is edge-triggered.

use std::future::Future;
use std::io;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::panic::Location;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};

use rustix::event::{EventfdFlags, eventfd};

use crate::executor::Core;
use crate::lock;
use crate::sync::oneshot;
use crate::task::{self, Runnable};

/// Names an executor for as long as the process lives.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ExecutorId(pub(crate) u64);

/// Which back end an executor got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RingStatus {
    /// io_uring.
    Uring,
    /// Threads, because the configuration says so.
    Threads,
    /// Threads, because io_uring was refused for this reason. Everything works, slower; say so once.
    Refused(String),
    /// The simulation.
    Sim,
}

pub(crate) enum Message {
    /// A task that another thread woke.
    Run(Runnable),
    /// A closure to run on the executor's thread, which may spawn.
    Do(Box<dyn FnOnce() + Send>),
    /// The pool has done an operation.
    Done { key: usize, result: i64 },
}

/// Names an executor, from any thread. Keeps nothing alive.
#[derive(Clone)]
pub struct Handle(pub(crate) Arc<Shared>);

pub(crate) struct Shared {
    pub(crate) id: ExecutorId,
    pub(crate) name: String,
    pub(crate) status: RingStatus,
    mail: Mutex<Mail>,
    /// Whether `mail` has messages; a hint for the owner's hot path.
    has_mail: AtomicBool,
    asleep: AtomicBool,
    pub(crate) bell: OwnedFd,
    /// Where rings send their messages, -1 for none.
    pub(crate) ring_fd: AtomicI32,
    pub(crate) stopping: AtomicBool,
}

#[derive(Default)]
struct Mail {
    messages: Vec<Message>,
    closed: bool,
}

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

pub(crate) fn new_eventfd() -> io::Result<OwnedFd> {
    Ok(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)
}

impl Shared {
    pub(crate) fn new(name: String, status: RingStatus, ring_fd: RawFd) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            id: ExecutorId(NEXT_ID.fetch_add(1, Ordering::Relaxed)),
            name,
            status,
            mail: Mutex::default(),
            has_mail: AtomicBool::new(false),
            asleep: AtomicBool::new(false),
            bell: new_eventfd()?,
            ring_fd: AtomicI32::new(ring_fd),
            stopping: AtomicBool::new(false),
        }))
    }

    /// Leaves a message and wakes the executor. Gives it back when the executor is gone.
    pub(crate) fn send(self: &Arc<Self>, message: Message) -> Result<(), Message> {
        let mut mail = lock(&self.mail);
        if mail.closed {
            return Err(message);
        }
        mail.messages.push(message);
        self.has_mail.store(true, Ordering::Release);
        drop(mail);
        self.ring_if_asleep();
        Ok(())
    }

    /// Makes the executor take a turn.
    pub(crate) fn ring_if_asleep(self: &Arc<Self>) {
        if self.asleep.load(Ordering::SeqCst) && self.asleep.swap(false, Ordering::SeqCst) {
            let sent = Core::try_with(|core| core.message(self)).unwrap_or(false);
            if !sent {
                self.ring_bell();
            }
        }
    }

    pub(crate) fn ring_bell(&self) {
        // EAGAIN when the counter is full is as good as a ring; nothing else can go wrong with an eventfd of our own.
        let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
    }

    pub(crate) fn has_mail(&self) -> bool {
        self.has_mail.load(Ordering::Acquire)
    }

    pub(crate) fn take_mail(&self, into: &mut Vec<Message>) {
        let mut mail = lock(&self.mail);
        std::mem::swap(&mut mail.messages, into);
        self.has_mail.store(false, Ordering::Release);
    }

    /// Announces sleep; false (and awake) if there is mail after all.
    pub(crate) fn fall_asleep(&self) -> bool {
        self.asleep.store(true, Ordering::SeqCst);
        let empty = lock(&self.mail).messages.is_empty();
        if !empty {
            self.wake_up();
        }
        empty
    }

    pub(crate) fn wake_up(&self) {
        self.asleep.store(false, Ordering::SeqCst);
    }

    /// No message gets in any more, if there is none now; false if there is.
    pub(crate) fn close(&self) -> bool {
        let mut mail = lock(&self.mail);
        mail.closed = mail.messages.is_empty();
        mail.closed
    }
}

impl Handle {
    /// Starts a task on that executor, from any thread. `make` runs there, so that the future need not be `Send`.
    /// Dropped unrun if the executor has ended.
    #[track_caller]
    pub fn spawn<F, Fut>(&self, make: F)
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = ()> + 'static,
    {
        let from = Location::caller();
        // An executor that is gone runs nothing: `make` is dropped here.
        let _ = self
            .0
            .send(Message::Do(Box::new(move || task::spawn_at(make(), from))));
    }

    /// Runs a future on that executor and waits for its result here. `self` may be the current executor.
    ///
    /// # Panics
    /// If the executor has ended, or the future panics there.
    #[track_caller]
    pub fn call<F, Fut, T>(&self, make: F) -> impl Future<Output = T> + use<F, Fut, T>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = T> + 'static,
        T: Send + 'static,
    {
        let from = Location::caller();
        let (sender, receiver) = oneshot::channel();
        let run = move || task::spawn_at(async move { sender.send(make().await) }, from);
        let _ = self.0.send(Message::Do(Box::new(run)));
        async move {
            receiver
                .await
                .unwrap_or_else(|_| panic!("{from}: the executor ended before it answered"))
        }
    }

    /// Runs a future on that executor and blocks this thread until it has its result. For threads that are no
    /// executor (a vCPU, a test, the main thread before its loop): where one runs, nothing else does meanwhile.
    ///
    /// # Panics
    /// On the executor's own thread (it would wait for itself), if the executor has ended, or if the future panics.
    #[track_caller]
    pub fn call_blocking<F, Fut, T>(&self, make: F) -> T
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = T> + 'static,
        T: Send + 'static,
    {
        let from = Location::caller();
        assert!(
            Core::try_with(|core| core.shared.id) != Some(self.0.id),
            "an executor cannot block on itself"
        );
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        let run = move || {
            task::spawn_at(
                async move {
                    // The caller waits for this, so the channel is open.
                    let _ = sender.send(make().await);
                },
                from,
            );
        };
        let _ = self.0.send(Message::Do(Box::new(run)));
        // On an executor's thread that wake-up waits in its ring, which is not entered before this returns.
        self.0.ring_bell();
        receiver
            .recv()
            .unwrap_or_else(|_| panic!("{from}: the executor ended before it answered"))
    }

    /// Which executor this is.
    pub fn id(&self) -> ExecutorId {
        self.0.id
    }

    /// The name that its configuration gave it.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Which back end it got, and why.
    pub fn ring_kind(&self) -> &RingStatus {
        &self.0.status
    }

    /// Whether the executor has ended.
    pub fn is_closed(&self) -> bool {
        lock(&self.0.mail).closed
    }

    /// Makes it look at its timers again.
    pub(crate) fn wake(&self) {
        let _ = self.0.send(Message::Do(Box::new(|| ())));
    }

    /// Runs `act` on its thread, outside any task.
    pub(crate) fn post(&self, act: impl FnOnce() + Send + 'static) {
        let _ = self.0.send(Message::Do(Box::new(act)));
    }
}

impl PartialEq for Handle {
    fn eq(&self, other: &Self) -> bool {
        self.0.id == other.0.id
    }
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}#{}", self.0.name, self.0.id.0)
    }
}

impl AsFd for Shared {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.bell.as_fd()
    }
}
