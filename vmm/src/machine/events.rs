//! What processors, signals and the console tell the main thread.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use exec::Kick;

use crate::error::Error;
use crate::kvm::vcpu::Stop;

/// Something that the main task has to act on.
#[derive(Debug)]
pub enum Event {
    /// A processor, by its index, has something to say.
    Processor(usize, Stop),
    /// The user ends the run: how.
    Quit(&'static str),
    /// The other end of the serial port is there.
    Connected,
}

/// A queue that any thread adds to and one task of the main thread empties.
pub struct Events {
    queue: Mutex<VecDeque<Event>>,
    bell: Kick,
}

impl Events {
    /// An empty queue.
    ///
    /// # Errors
    /// No descriptors left.
    pub fn new() -> Result<Events, Error> {
        let bell =
            Kick::eventfd().map_err(|error| Error::host("cannot make an event").because(error))?;
        Ok(Events {
            queue: Mutex::default(),
            bell,
        })
    }

    /// Adds an event, from any thread.
    pub fn push(&self, event: Event) {
        self.queue().push_back(event);
        self.bell.signal();
    }

    /// Takes the oldest event, waiting for one.
    pub async fn next(&self) -> Event {
        loop {
            let first = self.queue().pop_front();
            match first {
                Some(event) => return event,
                None => self.bell.wait().await,
            }
        }
    }

    /// Drops what processors said: those who said it are no more.
    pub fn forget_processors(&self) {
        self.queue()
            .retain(|event| !matches!(event, Event::Processor(..)));
    }

    /// Whether the user wants the run to end.
    pub fn is_quitting(&self) -> bool {
        self.queue()
            .iter()
            .any(|event| matches!(event, Event::Quit(_)))
    }

    fn queue(&self) -> MutexGuard<'_, VecDeque<Event>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
