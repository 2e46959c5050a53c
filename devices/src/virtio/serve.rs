//! Serving one virtqueue on an I/O thread.
//!
//! One task pops chains and gives each a task of its own. Those that finish in the same turn of the
//! executor are published together: the first of them lets the others run before it updates the used
//! ring, once, and interrupts, at most once.
//!
//! [`Control`] is the transport's hold on the queue: to stop it, or to pause it (a PCI function that
//! is no bus master may not touch memory). Invariants: a stopped queue writes nothing more into its
//! rings; a paused one pops nothing and releases who waits for it when nothing is in flight.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use exec::Kick;

use super::Transport;
use super::queue::{Chain, Error, Reset, Ring, Used};
use crate::bus::Redeem;

/// The transport's hold on a running queue.
pub struct Control {
    /// An eventfd for the life of the device.
    doorbell: Arc<Kick>,
    stopped: AtomicBool,
    paused: AtomicBool,
    /// Who waits for a paused queue to have nothing in flight.
    waiting: Mutex<Vec<Arc<Redeem>>>,
}

impl Control {
    /// A queue that is to run, `paused` or not.
    pub fn new(doorbell: Arc<Kick>, paused: bool) -> Arc<Control> {
        Arc::new(Control {
            doorbell,
            stopped: AtomicBool::new(false),
            paused: AtomicBool::new(paused),
            waiting: Mutex::default(),
        })
    }

    /// Ends the queue for good; [`Transport::ended`] says when it has.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.doorbell.signal();
    }

    /// Pops no more chains; drops `quiet` when nothing is in flight.
    pub fn pause(&self, quiet: Arc<Redeem>) {
        self.waiting().push(quiet);
        self.paused.store(true, Ordering::Release);
        self.doorbell.signal();
    }

    /// Goes on; who still waits for quiet has no reason to any more.
    pub fn resume(&self) {
        self.paused.store(false, Ordering::Release);
        self.waiting().clear();
        self.doorbell.signal();
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Acquire)
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Redeem>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A queue that was started: to be served on whichever executor the device likes. Dropping it, or
/// finishing to serve it, ends the queue.
#[must_use]
pub struct Started {
    index: u16,
    ring: Box<dyn Ring>,
    control: Arc<Control>,
    end: End,
}

/// Reports the end of a queue when the last user of it is gone.
struct End {
    transport: Arc<dyn Transport>,
    control: Arc<Control>,
    index: u16,
}

impl Drop for End {
    fn drop(&mut self) {
        self.control.waiting().clear();
        self.transport.ended(self.index);
    }
}

impl Started {
    /// Queue `index` of the device behind `transport`, which holds no lock while this is dropped.
    pub fn new(
        transport: Arc<dyn Transport>,
        index: u16,
        ring: Box<dyn Ring>,
        control: Arc<Control>,
    ) -> Started {
        let end = End {
            transport,
            control: control.clone(),
            index,
        };
        Started {
            index,
            ring,
            control,
            end,
        }
    }

    /// Which queue it is.
    pub fn index(&self) -> u16 {
        self.index
    }

    /// Serves the queue on the current executor until it is stopped. `request` carries out a chain
    /// and returns it with how many bytes it wrote, or with the reason why it has no way to answer.
    pub async fn serve<F, Fut>(self, request: F)
    where
        F: Fn(Chain) -> Fut,
        Fut: Future<Output = (Chain, Result<u32, Error>)> + 'static,
    {
        let kick = self.control.doorbell.clone();
        let queue = Rc::new(Queue {
            ring: RefCell::new(self.ring),
            control: self.control,
            answered: RefCell::default(),
            in_flight: Cell::new(0),
            end: self.end,
        });
        while !queue.control.is_stopped() {
            if queue.control.is_paused() {
                queue.settle();
                kick.wait().await;
                continue;
            }
            match queue.pop_all(&request) {
                // What came in meanwhile may have come without a notice.
                Ok(true) => {}
                Ok(false) => kick.wait_polling(|| queue.has_work()).await,
                Err(why) => queue.fail(why),
            }
        }
    }
}

/// A queue while it is served, shared by its requests.
struct Queue {
    ring: RefCell<Box<dyn Ring>>,
    control: Arc<Control>,
    /// Chains on their way to the used ring.
    answered: RefCell<Vec<Used>>,
    /// Chains popped and neither published nor discarded.
    in_flight: Cell<u32>,
    end: End,
}

impl Queue {
    /// Starts a request for every chain there is, then asks for notices. Returns whether there may be
    /// more chains by now.
    fn pop_all<F, Fut>(self: &Rc<Self>, request: &F) -> Result<bool, Error>
    where
        F: Fn(Chain) -> Fut,
        Fut: Future<Output = (Chain, Result<u32, Error>)> + 'static,
    {
        self.ring.borrow_mut().disable_notification()?;
        loop {
            let Some(chain) = self.ring.borrow_mut().pop()? else {
                break;
            };
            self.in_flight.set(self.in_flight.get().saturating_add(1));
            let (queue, work) = (self.clone(), request(chain));
            exec::spawn(async move {
                let (chain, result) = work.await;
                queue.finish(chain, result).await;
            });
        }
        self.ring.borrow_mut().enable_notification()
    }

    fn has_work(&self) -> bool {
        self.control.is_stopped() || self.control.is_paused() || self.ring.borrow().is_ready()
    }

    /// Ends one request.
    async fn finish(&self, chain: Chain, result: Result<u32, Error>) {
        match result {
            _ if self.control.is_stopped() => chain.discard(Reset(())),
            Ok(written) => {
                let first = {
                    let mut answered = self.answered.borrow_mut();
                    answered.push(chain.complete(written));
                    answered.len() == 1
                };
                if first {
                    exec::yield_now().await;
                    self.publish();
                }
                return;
            }
            Err(why) => {
                self.fail(why);
                chain.discard(Reset(()));
            }
        }
        self.leave(1);
    }

    /// Publishes what was answered since the last time.
    fn publish(&self) {
        let mut answered = self.answered.take();
        if !self.control.is_stopped() {
            match self.ring.borrow_mut().publish(&answered) {
                Ok(true) => self.end.transport.interrupt(self.end.index),
                Ok(false) => {}
                Err(why) => self.fail(why),
            }
        }
        self.leave(answered.len());
        answered.clear();
        self.answered.replace(answered);
    }

    fn leave(&self, count: usize) {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        self.in_flight
            .set(self.in_flight.get().saturating_sub(count));
        self.settle();
    }

    /// Releases who waits for a paused queue.
    fn settle(&self) {
        if self.in_flight.get() == 0 && self.control.is_paused() {
            self.control.waiting().clear();
        }
    }

    fn fail(&self, why: Error) {
        self.control.stop();
        self.end.transport.fail(self.end.index, why);
    }
}
