//! Notifications from outside as something to await: a guest's doorbell, a wake-up from another library.

use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::task::Poll;

use crate::executor::Core;
use crate::handle::Handle;
use crate::lock;

/// A descriptor, usually an eventfd, whose signals wake a task.
///
/// It is watched by the ring of the executor that waits for it, edge-triggered and without ever being read: a signal
/// costs no system call here. So `wait` may return without a new signal (the first time after the descriptor was
/// already signalled, or when the kernel ends a multishot poll and it is armed again), and several signals may be one.
/// The rule for a queue: after each return look at the queue; nothing that was put there before its signal is missed.
pub struct Kick {
    fd: Arc<OwnedFd>,
    armed: Mutex<Option<Armed>>,
}

struct Armed {
    on: Handle,
    key: usize,
}

impl Kick {
    /// Takes the descriptor; nothing is watched before the first wait.
    pub fn new(fd: OwnedFd) -> Self {
        Self {
            fd: Arc::new(fd),
            armed: Mutex::new(None),
        }
    }

    /// A new eventfd, to be signalled with [`signal`](Self::signal) or by whoever gets the descriptor.
    ///
    /// # Errors
    /// No descriptors left.
    pub fn eventfd() -> io::Result<Self> {
        crate::handle::new_eventfd().map(Self::new)
    }

    /// Signals it, from any thread (it must be an eventfd).
    pub fn signal(&self) {
        // EAGAIN when the counter is full is as good as a signal.
        let _ = rustix::io::write(&self.fd, &1u64.to_ne_bytes());
    }

    /// Waits for a signal since the last return. One task at a time; may be dropped at any time, and a signal is not
    /// lost with it.
    pub async fn wait(&self) {
        self.wait_polling(|| false).await;
    }

    /// Waits for a signal, or until the executor, polling before it sleeps, finds `ready` true. `ready` is cheap and
    /// has no effects: it looks at an index in memory.
    pub async fn wait_polling(&self, mut ready: impl FnMut() -> bool) {
        let key = self.arm();
        let mut place = Place(None);
        poll_fn(move |cx| {
            let core = Core::current();
            if core.watched(key, cx.waker()) {
                return Poll::Ready(());
            }
            if core.polling.is_active() {
                if ready() {
                    core.polling.found_work();
                    return Poll::Ready(());
                }
            } else if place.0.is_none() && core.polling.is_on() {
                let key = core.polling.add(cx.waker().clone());
                place.0 = Some((core, key));
            }
            Poll::Pending
        })
        .await;
    }

    /// Watches it in the current ring, if it is not.
    fn arm(&self) -> usize {
        let core = Core::current();
        let mut armed = lock(&self.armed);
        if let Some(armed) = &*armed
            && armed.on.0.id == core.shared.id
        {
            return armed.key;
        }
        if let Some(old) = armed.take() {
            old.disarm();
        }
        // An eventfd can be watched unless memory runs out.
        let key = core
            .watch(&self.fd)
            .unwrap_or_else(|error| panic!("cannot watch a descriptor: {error}"));
        *armed = Some(Armed {
            on: Handle(Arc::clone(&core.shared)),
            key,
        });
        key
    }
}

impl Armed {
    fn disarm(self) {
        let key = self.key;
        let here = Core::try_with(|core| {
            core.shared.id == self.on.0.id && {
                core.unwatch(key);
                true
            }
        });
        if here != Some(true) {
            self.on.post(move || {
                Core::try_with(|core| core.unwatch(key));
            });
        }
    }
}

impl Drop for Kick {
    fn drop(&mut self) {
        if let Some(armed) = lock(&self.armed).take() {
            armed.disarm();
        }
    }
}

impl AsFd for Kick {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A place among the pollers.
struct Place(Option<(std::rc::Rc<Core>, usize)>);

impl Drop for Place {
    fn drop(&mut self) {
        if let Some((core, key)) = self.0.take() {
            core.polling.remove(key);
        }
    }
}
