//! Tasks: a future with a place in its executor's register, and the few words that run inside one.

use std::future::{Future, poll_fn};
use std::panic::Location;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::executor::Core;
use crate::handle::{Handle, Message, Shared};

/// A task that is to run, with its executor's name.
pub(crate) type Runnable = async_task::Runnable<Arc<Shared>>;

/// What the register keeps of a task: how to reach it, and who started it (to name it when it is stuck).
pub(crate) struct Entry {
    pub(crate) waker: Waker,
    pub(crate) from: &'static Location<'static>,
}

/// The executor of the current thread.
///
/// # Panics
/// On a thread that is running none.
pub fn current() -> Handle {
    Handle(Arc::clone(&Core::current().shared))
}

/// Starts a task on the current executor.
///
/// # Panics
/// On a thread that is running none.
#[track_caller]
pub fn spawn(future: impl Future<Output = ()> + 'static) {
    spawn_at(future, Location::caller());
}

pub(crate) fn spawn_at(
    future: impl Future<Output = ()> + 'static,
    from: &'static Location<'static>,
) {
    let core = Core::current();
    let key = core.tasks.borrow_mut().insert(None);
    let future = Registered {
        future,
        _place: Place {
            core: Rc::clone(&core),
            key,
        },
    };
    // SAFETY: the future is polled and dropped on this thread only: its runnable goes through `schedule`, which brings
    // it back here, and the executor does not end before every registered task is gone. `schedule` borrows nothing. The
    // waker may outlive the task; async-task counts references.
    let (runnable, task) = unsafe {
        async_task::Builder::new()
            .metadata(Arc::clone(&core.shared))
            .spawn_unchecked(|_| future, schedule)
    };
    if let Some(entry) = core.tasks.borrow_mut().get_mut(key) {
        *entry = Some(Entry {
            waker: runnable.waker(),
            from,
        });
    }
    task.detach();
    core.ready.borrow_mut().push_back(runnable);
}

/// Puts a task that was woken where its executor finds it. It captures nothing: async-task would hold each task by a
/// reference of its own while it is scheduled.
fn schedule(runnable: Runnable) {
    let home = runnable.metadata();
    let local = Core::try_with(|core| Arc::ptr_eq(&core.shared, home)).unwrap_or(false);
    if local {
        Core::try_with(|core| core.ready.borrow_mut().push_back(runnable));
    } else if let Err(message) = Arc::clone(home).send(Message::Run(runnable)) {
        // The executor ends only when its register is empty, so this task is already gone. Should that ever be
        // untrue, the future must not be dropped on this thread.
        std::mem::forget(message);
    }
}

/// A future that leaves the register when it has been dropped (fields drop in order).
struct Registered<F> {
    future: F,
    _place: Place,
}

impl<F: Future<Output = ()>> Future for Registered<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // SAFETY: `future` is pinned as a field of a pinned struct and never moved; `_place` is not touched.
        unsafe { self.map_unchecked_mut(|this| &mut this.future) }.poll(cx)
    }
}

struct Place {
    core: Rc<Core>,
    key: usize,
}

impl Drop for Place {
    fn drop(&mut self) {
        let entry = self.core.tasks.borrow_mut().try_remove(self.key);
        drop(entry);
    }
}

/// Lets everything else that is ready run first.
pub async fn yield_now() {
    let mut yielded = false;
    poll_fn(|cx| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Runs the futures at the same time and waits for every one; their results in order.
///
/// The only way here to have several operations in flight in one task: unlike `select!` and `try_join!` it never drops
/// one that is not finished.
pub async fn all<I>(futures: I) -> Vec<<I::Item as Future>::Output>
where
    I: IntoIterator,
    I::Item: Future,
{
    enum Slot<F: Future> {
        Running(Pin<Box<F>>),
        Done(F::Output),
    }
    let mut slots: Vec<_> = futures
        .into_iter()
        .map(|future| Slot::Running(Box::pin(future)))
        .collect();
    poll_fn(|cx| {
        let mut running = false;
        for slot in &mut slots {
            if let Slot::Running(future) = slot {
                match future.as_mut().poll(cx) {
                    Poll::Ready(value) => *slot = Slot::Done(value),
                    Poll::Pending => running = true,
                }
            }
        }
        if running {
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    })
    .await;
    slots
        .into_iter()
        .filter_map(|slot| {
            if let Slot::Done(value) = slot {
                Some(value)
            } else {
                None
            }
        })
        .collect()
}
