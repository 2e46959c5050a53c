//! The main thread: one loop, two kinds of subscriber.
//!
//! The outermost loop is event-manager's, which hides its descriptor and so cannot be inside another.
//! It knows the main executor, by the descriptor that tells when a turn is due, and the descriptors
//! that tasks wait for ([`FdReady`]). Neither does anything in `process` but wake tasks and run them:
//! all logic is in tasks of the executor.

mod ready;
pub mod signals;

use std::cell::Cell;
use std::future::Future;
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;

use event_manager::{EventManager, EventOps, Events, MutEventSubscriber, SubscriberOps};
use exec::Executor;
use vmm_sys_util::epoll::EventSet;

pub use self::ready::FdReady;
use crate::error::Error;

/// Runs the tasks of `executor` until `main`, one of them, is done.
///
/// # Errors
/// The host refuses what an event loop needs.
pub fn until<T: 'static>(
    mut executor: Executor,
    main: impl Future<Output = T> + 'static,
) -> Result<T, Error> {
    let failed = |error| Error::host("cannot wait for events").because(error);
    let result = Rc::new(Cell::new(None));
    let to = result.clone();
    let root = async move { to.set(Some(main.await)) };
    executor.block_on(async { exec::spawn(root) });
    let fd = executor.event_fd().map_err(failed)?.as_raw_fd();
    executor.turn();
    let mut manager = EventManager::<Box<dyn MutEventSubscriber>>::new()
        .map_err(|error| Error::host("cannot wait for events").because(error))?;
    manager.add_subscriber(Box::new(Turns { executor, fd }));
    let watcher = manager.add_subscriber(Box::new(ready::Watcher));
    loop {
        ready::settle(&mut manager, watcher);
        if let Some(result) = result.take() {
            return Ok(result);
        }
        manager
            .run()
            .map_err(|error| Error::host("cannot wait for events").because(error))?;
    }
}

/// The main executor as a subscriber.
struct Turns {
    executor: Executor,
    fd: RawFd,
}

impl MutEventSubscriber for Turns {
    fn process(&mut self, _: Events, _: &mut EventOps<'_>) {
        self.executor.turn();
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        if let Err(error) = ops.add(Events::new_raw(self.fd, EventSet::IN)) {
            // Without it nothing would ever happen.
            panic!("cannot watch the main executor: {error}");
        }
    }
}
