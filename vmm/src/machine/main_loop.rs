//! The main thread's loop: event-manager outermost, and the main executor all that it watches.
//!
//! Everything that the main thread waits for (signals, the console, processors, I/O threads) is a task of
//! the executor; here is only the way from its descriptor to its turn.

use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;

use event_manager::{EventManager, EventOps, EventSet, Events, MutEventSubscriber, SubscriberOps};
use exec::Executor;

use crate::error::Error;

/// Runs `future` and the tasks it starts, until it is done.
///
/// # Errors
/// The host has no descriptors left, or cannot wait.
pub(super) fn run<T: 'static>(
    executor: &Executor,
    future: impl Future<Output = T> + 'static,
) -> Result<T, Error> {
    let failed =
        |error: event_manager::Error| Error::host("cannot run the main loop").because(error);
    let fd = executor
        .event_fd()
        .ok_or_else(|| Error::host("the main executor cannot be watched"))?;
    let mut manager = EventManager::new().map_err(failed)?;
    let turns = manager.add_subscriber(Turns(executor));
    let mut watched = manager.event_ops(turns).map_err(failed)?;
    watched
        .add(Events::new(&fd, EventSet::IN))
        .map_err(failed)?;
    let done = Rc::new(RefCell::new(None));
    let result = done.clone();
    executor.block_on(async {
        exec::spawn(async move {
            let value = future.await;
            *result.borrow_mut() = Some(value);
        });
    });
    executor.turn();
    loop {
        if let Some(value) = done.borrow_mut().take() {
            return Ok(value);
        }
        manager.run().map_err(failed)?;
    }
}

/// The executor as a subscriber.
struct Turns<'a>(&'a Executor);

impl MutEventSubscriber for Turns<'_> {
    // What it watches is added where a failure can be told.
    fn init(&mut self, _: &mut EventOps<'_>) {}

    fn process(&mut self, _: Events, _: &mut EventOps<'_>) {
        self.0.turn();
    }
}
