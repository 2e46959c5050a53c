//! Counting requests in flight without atomics, and changing what they rely on when there are none.
//!
//! A [`Gate`] stands before one root of the block graph. A request passes it ([`Gate::enter`]) and is in flight until
//! its [`InFlight`] is dropped; the count is a plain integer of the thread that issued it. [`Gate::drain`] sends each
//! thread that ever passed a message: let nobody in, answer when you are at zero. All answers together are a
//! [`Drained`]: while it lives nobody passes, and the messages have made everything that was done before visible, on
//! both sides. Dropping it sends the threads on; who waited at the gate enters in the order of arrival.
//!
//! [`DrainCell`] holds what may be replaced only then: a child of a node.
//!
//! Lock order: the gate's list of threads is locked alone and never across an await.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};

use crate::executor::Core;
use crate::handle::Handle;
use crate::lock;
use crate::sync::oneshot;

/// What a thread knows of one gate.
#[derive(Default)]
pub(crate) struct Local {
    /// Whose this place is; 0 for nobody yet.
    generation: u64,
    in_flight: u32,
    /// How many drains hold it shut.
    shut: u32,
    /// Drains that wait for zero.
    acks: Vec<oneshot::Sender<()>>,
    /// Who wants to enter, by when they came.
    queue: BTreeMap<u64, Waker>,
    came: u64,
}

/// Where requests of one root pass. Clones are the same gate.
#[derive(Clone)]
pub struct Gate(Arc<Inner>);

/// A gate's name: a place in each thread's table, used again after it, and a number that never is.
#[derive(Clone, Copy)]
struct Name {
    place: usize,
    generation: u64,
}

struct Inner {
    name: Name,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The threads that have passed here.
    threads: Vec<Handle>,
    /// Drains in force or on their way: a thread that comes here first meanwhile starts shut.
    drains: u32,
}

/// Places: the next fresh one and those that were given back.
static PLACES: Mutex<(usize, Vec<usize>)> = Mutex::new((0, Vec::new()));
static GENERATION: AtomicU64 = AtomicU64::new(1);

/// A request in flight, until dropped. It belongs to its thread.
pub struct InFlight {
    core: Rc<Core>,
    name: Name,
}

/// A place in the line before a gate, until dropped.
struct Place {
    core: Rc<Core>,
    name: Name,
    number: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        let waker = with_place(&self.core, self.name, |local| {
            local.queue.remove(&self.number)
        });
        drop(waker);
    }
}

/// Nothing is in flight behind the drained gates, and nothing enters, until this is dropped.
#[must_use = "requests flow again as soon as it is dropped"]
pub struct Drained(Vec<Gate>);

impl Gate {
    /// Open, nothing in flight.
    pub fn new() -> Self {
        let mut places = lock(&PLACES);
        let place = places.1.pop().unwrap_or_else(|| {
            places.0 += 1;
            places.0 - 1
        });
        drop(places);
        let name = Name {
            place,
            generation: GENERATION.fetch_add(1, Ordering::Relaxed),
        };
        Self(Arc::new(Inner {
            name,
            state: Mutex::default(),
        }))
    }

    /// Counts a request in flight on this thread, waiting first while the gate is shut. The wait may be dropped.
    ///
    /// # Panics
    /// On a thread that runs no executor.
    pub async fn enter(&self) -> InFlight {
        let name = self.0.name;
        let mut place: Option<Place> = None;
        poll_fn(|cx| {
            let core = Core::current();
            let waiting = self.with_local(&core, |local| {
                if local.shut == 0 && (place.is_some() || local.queue.is_empty()) {
                    local.in_flight += 1;
                    return None;
                }
                let number = place.as_ref().map_or(local.came, |place| place.number);
                local.came = local.came.max(number + 1);
                Some((number, local.queue.insert(number, cx.waker().clone())))
            });
            match waiting {
                None => Poll::Ready(InFlight { core, name }),
                Some((number, old)) => {
                    drop(old);
                    place.get_or_insert_with(|| Place { core, name, number });
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// Counts a request in flight on this thread, unless the gate is shut.
    ///
    /// # Panics
    /// On a thread that runs no executor.
    #[inline]
    pub fn try_enter(&self) -> Option<InFlight> {
        let core = Core::current();
        let entered = self.with_local(&core, |local| {
            let free = local.shut == 0 && local.queue.is_empty();
            local.in_flight += u32::from(free);
            free
        });
        // Not `then_some`: an `InFlight` that was never counted must not be made, since dropping it counts down.
        entered.then(|| InFlight {
            core,
            name: self.0.name,
        })
    }

    /// Requests in flight that this thread issued.
    ///
    /// # Panics
    /// On a thread that runs no executor.
    pub fn in_flight_here(&self) -> u32 {
        self.with_local(&Core::current(), |local| local.in_flight)
    }

    /// Shuts the gate on every thread and waits until nothing is in flight. Not from inside a request that has passed
    /// it: that would wait for itself.
    pub async fn drain(&self) -> Drained {
        Drained::all([self.clone()]).await
    }

    #[inline]
    fn with_local<T>(&self, core: &Rc<Core>, act: impl FnOnce(&mut Local) -> T) -> T {
        let mut counts = core.counts.borrow_mut();
        match counts.get_mut(self.0.name.place) {
            Some(local) if local.generation == self.0.name.generation => act(local),
            _ => act(self.join(core, &mut counts)),
        }
    }

    /// This thread's first time here.
    #[cold]
    fn join<'a>(&self, core: &Rc<Core>, counts: &'a mut Vec<Local>) -> &'a mut Local {
        let place = self.0.name.place;
        if counts.len() <= place {
            counts.resize_with(place + 1, Local::default);
        }
        let mut state = lock(&self.0.state);
        state.threads.retain(|thread| !thread.is_closed());
        state.threads.push(Handle(Arc::clone(&core.shared)));
        counts[place] = Local {
            generation: self.0.name.generation,
            shut: state.drains,
            ..Local::default()
        };
        &mut counts[place]
    }
}

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        lock(&PLACES).1.push(self.name.place);
    }
}

/// Runs `act` on the current thread's place of a gate, if it is still that gate's.
fn with_place<T>(core: &Core, name: Name, act: impl FnOnce(&mut Local) -> T) -> Option<T> {
    core.counts
        .borrow_mut()
        .get_mut(name.place)
        .filter(|local| local.generation == name.generation)
        .map(act)
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let acks = with_place(&self.core, self.name, |local| {
            local.in_flight -= 1;
            if local.in_flight == 0 {
                std::mem::take(&mut local.acks)
            } else {
                Vec::new()
            }
        });
        acks.into_iter().flatten().for_each(|ack| ack.send(()));
    }
}

impl Drained {
    /// Drains several gates at once: all are shut before any is waited for.
    pub async fn all(gates: impl IntoIterator<Item = Gate>) -> Self {
        // From here on dropping it opens what has been shut.
        let drained = Self(gates.into_iter().collect());
        let mut answers = Vec::new();
        for gate in &drained.0 {
            let mut state = lock(&gate.0.state);
            state.drains += 1;
            let name = gate.0.name;
            for thread in &state.threads {
                let (ack, answer) = oneshot::channel();
                answers.push(answer);
                thread.post(move || {
                    let zero = Core::try_with(|core| {
                        with_place(core, name, |local| {
                            local.shut += 1;
                            if local.in_flight == 0 {
                                return Some(ack);
                            }
                            local.acks.push(ack);
                            None
                        })
                    });
                    zero.flatten()
                        .flatten()
                        .into_iter()
                        .for_each(|ack| ack.send(()));
                });
            }
        }
        for answer in answers {
            // A thread that has ended has nothing in flight.
            let _ = answer.await;
        }
        drained
    }
}

impl Drop for Drained {
    fn drop(&mut self) {
        for gate in &self.0 {
            let mut state = lock(&gate.0.state);
            state.drains -= 1;
            let name = gate.0.name;
            for thread in &state.threads {
                thread.post(move || {
                    let waiting = Core::try_with(|core| {
                        with_place(core, name, |local| {
                            local.shut -= 1;
                            if local.shut == 0 {
                                std::mem::take(&mut local.queue)
                            } else {
                                BTreeMap::new()
                            }
                        })
                    });
                    waiting
                        .flatten()
                        .into_iter()
                        .flat_map(BTreeMap::into_values)
                        .for_each(Waker::wake);
                });
            }
        }
    }
}

/// A value that is read all the time and replaced only while nothing is in flight.
///
/// Reading is a plain load. A value that was replaced is kept until the cell itself goes (or [`reclaim`](Self::reclaim)
/// has the cell to itself), so a reference that somebody kept too long is stale but never dangling; what it stood for
/// has been closed by then.
pub struct DrainCell<T> {
    value: AtomicPtr<T>,
    replaced: Mutex<Vec<Kept<T>>>,
}

/// A value that was replaced; owned.
struct Kept<T>(NonNull<T>);

// SAFETY: it owns a `T` like a `Box<T>`, and is only ever dropped.
unsafe impl<T: Send> Send for Kept<T> {}

impl<T> Drop for Kept<T> {
    fn drop(&mut self) {
        // SAFETY: it came from `Box::into_raw`, is owned here alone, and nobody can still hold a reference: they borrow
        // the cell, which is exclusively borrowed or gone when its list is dropped.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

impl<T: Send + Sync> DrainCell<T> {
    /// Holds `value`.
    pub fn new(value: T) -> Self {
        Self {
            value: AtomicPtr::new(Box::into_raw(Box::new(value))),
            replaced: Mutex::default(),
        }
    }

    /// The value now. On x86 a plain load.
    #[inline]
    pub fn get(&self) -> &T {
        // SAFETY: the pointer is always that of a live box: values that are replaced live as long as the cell.
        unsafe { &*self.value.load(Ordering::Acquire) }
    }

    /// Puts `value` in its place, while nothing that would notice is in flight.
    pub fn replace(&self, value: T, _: &Drained) {
        let old = self
            .value
            .swap(Box::into_raw(Box::new(value)), Ordering::AcqRel);
        lock(&self.replaced).extend(NonNull::new(old).map(Kept));
    }

    /// Drops the values that were replaced.
    pub fn reclaim(&mut self) {
        self.replaced
            .get_mut()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clear();
    }

    /// The value, to change: nobody else can see it.
    pub fn get_mut(&mut self) -> &mut T {
        // SAFETY: as in `get`, and the cell is exclusively borrowed.
        unsafe { &mut **self.value.get_mut() }
    }
}

impl<T> Drop for DrainCell<T> {
    fn drop(&mut self) {
        drop(NonNull::new(*self.value.get_mut()).map(Kept));
    }
}

#[cfg(test)]
mod tests;
