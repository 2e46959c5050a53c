//! A thread for each processor: released, parked, reset, ended.
//!
//! Whoever orders the threads never waits for them while the guest runs: an order is written down,
//! the processors are kicked out of the guest, and a [`Ticket`] says when all of them have stopped.
//!
//! Lock order: the orders, then a processor's kick.

use std::io;
use std::mem;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Once, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use arch::x86_64::regs::VcpuState;
use devices::bus::{Action, Bus, Redeem, Ticket};
use vmm_sys_util::signal::{Killable, SIGRTMIN, register_signal_handler};

use super::vcpu::{Processor, Spaces, Stop, Vcpu};
use super::vm::Vm;
use crate::error::Error;

/// What the threads share with each other and the machine.
pub struct Setup {
    /// The machine they run in.
    pub vm: Arc<Vm>,
    /// Physical addresses.
    pub memory: Arc<Bus>,
    /// I/O ports.
    pub ports: Arc<Bus>,
    /// Called first on each thread: restricts it.
    pub enter: Box<dyn Fn() -> io::Result<()> + Send + Sync>,
    /// Called on a thread whose processor, named by its index, has something to say. It runs again at
    /// the next boot only; but if the guest says that it crashed, which is told once a boot, it goes on.
    pub report: Box<dyn Fn(usize, Stop) + Send + Sync>,
}

/// The threads of all processors, at first parked.
pub struct Threads {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    setup: Setup,
    orders: Mutex<Orders>,
    changed: Condvar,
    kicks: Vec<Mutex<Option<RunPage>>>,
}

struct Orders {
    order: Order,
    /// Counts boots, each on a machine of its own. A processor that has stopped waits for the next.
    boots: u64,
    /// Processors that are made for the last boot.
    made: usize,
    /// Where the first processor begins.
    entry: VcpuState,
    /// Threads that wait for an order.
    idle: usize,
    /// Threads that have ended.
    ended: usize,
    /// Redeemed when all threads are idle.
    parked: Vec<Redeem>,
    /// The first failure before the first boot.
    failure: Option<Error>,
}

/// The boot on the machine that the processors were first made in.
const FIRST: u64 = 1;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    Park,
    Run,
    End,
}

/// The `immediate_exit` flag of a processor's run page.
struct RunPage(*mut u8);

// SAFETY: the flag is only written, atomically, and by whoever holds the lock of its place in `kicks`;
// its owner empties that place before the page is unmapped.
unsafe impl Send for RunPage {}

impl Threads {
    /// Starts a thread for each of `processors` and returns; [`Threads::ready`] tells whether they came up.
    ///
    /// # Errors
    /// A thread cannot be made.
    pub fn start(setup: Setup, processors: Vec<Processor>) -> Result<Threads, Error> {
        static HANDLER: Once = Once::new();
        HANDLER.call_once(|| {
            // The signal is one that exists, so this does not fail; and without it a kick would end
            // the process instead of going unnoticed.
            let _ = register_signal_handler(SIGRTMIN(), on_kick);
        });
        let shared = Arc::new(Shared {
            setup,
            orders: Mutex::new(Orders {
                order: Order::Park,
                boots: 0,
                made: 0,
                entry: VcpuState::default(),
                idle: 0,
                ended: 0,
                parked: Vec::new(),
                failure: None,
            }),
            changed: Condvar::new(),
            kicks: processors.iter().map(|_| Mutex::new(None)).collect(),
        });
        let mut threads = Threads {
            shared: shared.clone(),
            threads: Vec::new(),
        };
        for (index, processor) in processors.into_iter().enumerate() {
            let shared = shared.clone();
            let thread = thread::Builder::new()
                .name(format!("vcpu{index}"))
                .spawn(move || shared.serve(index, &processor))
                .map_err(|error| Error::user("-smp: cannot start a thread").because(error))?;
            threads.threads.push(thread);
        }
        Ok(threads)
    }

    /// Waits until every processor is made and parked.
    ///
    /// # Errors
    /// What the first one that failed says.
    pub fn ready(&self) -> Result<(), Error> {
        let count = self.shared.kicks.len();
        let orders = self.shared.orders();
        let mut orders = self
            .shared
            .changed
            .wait_while(orders, |orders| orders.idle < count)
            .unwrap_or_else(PoisonError::into_inner);
        match orders.failure.take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Lets all processors go, which are parked: the first from `entry`. From the second boot on they are
    /// made anew, in the machine that there is then.
    pub fn boot(&self, entry: VcpuState) {
        let mut orders = self.shared.orders();
        orders.boots += 1;
        orders.made = 0;
        orders.entry = entry;
        orders.order = Order::Run;
        self.shared.changed.notify_all();
    }

    /// Stops all processors; the ticket is redeemed when the last one has left the guest.
    pub fn park(&self) -> Ticket {
        let (ticket, redeem) = Ticket::new();
        self.shared.orders().parked.push(redeem);
        self.order(Order::Park);
        ticket
    }

    /// Ends all threads, waiting for them until `deadline`.
    ///
    /// # Errors
    /// How many are stuck; they go on being stuck until the process ends.
    pub fn end(mut self, deadline: Instant) -> Result<(), usize> {
        self.order(Order::End);
        let count = self.threads.len();
        let mut orders = self.shared.orders();
        while orders.ended < count {
            let left = deadline.saturating_duration_since(Instant::now());
            if left == Duration::ZERO {
                let stuck = count - orders.ended;
                drop(orders);
                self.threads.clear();
                return Err(stuck);
            }
            orders = self
                .shared
                .changed
                .wait_timeout(orders, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        drop(orders);
        for thread in self.threads.drain(..) {
            // A panic was reported when it happened.
            let _ = thread.join();
        }
        Ok(())
    }

    fn order(&self, order: Order) {
        let mut orders = self.shared.orders();
        orders.order = order;
        self.shared.tell(&mut orders);
        self.shared.changed.notify_all();
        drop(orders);
        for (kick, thread) in self.shared.kicks.iter().zip(&self.threads) {
            let kick = kick.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(RunPage(flag)) = *kick {
                // SAFETY: the place is not empty, so the page is still mapped, and stays so while its
                // lock is held. The kernel and others only read and write this byte whole.
                unsafe { AtomicU8::from_ptr(flag) }.store(1, Ordering::Release);
                // The thread has not been joined. Should the signal not be sent, the processor still
                // stops at its next exit.
                let _ = thread.kill(SIGRTMIN());
            }
        }
    }
}

impl Drop for Threads {
    /// For machines that are given up. Nobody is waited for: one of them may be stuck.
    fn drop(&mut self) {
        if !self.threads.is_empty() {
            self.order(Order::End);
        }
    }
}

/// Says how a thread ended that did not mean to.
struct Fallen<'a>(&'a Shared, usize);

impl Drop for Fallen<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            let error = Error::host(format!("the thread of processor {} panicked", self.1));
            (self.0.setup.report)(self.1, Stop::Failed(error));
        }
        let mut orders = self.0.orders();
        orders.ended += 1;
        self.0.changed.notify_all();
    }
}

impl Orders {
    fn is_on(&self, boot: u64) -> bool {
        self.order == Order::Run && self.boots == boot
    }
}

impl Shared {
    fn orders(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Redeems the tickets if all threads are idle.
    fn tell(&self, orders: &mut Orders) {
        if orders.order == Order::Park && orders.idle == self.kicks.len() {
            orders.parked.clear();
        }
    }

    /// The life of one thread.
    fn serve(&self, index: usize, processor: &Processor) {
        let _fallen = Fallen(self, index);
        let made = (self.setup.enter)()
            .map_err(|error| Error::user("-sandbox").because(error))
            .and_then(|()| Vcpu::new(&self.setup.vm, processor));
        let mut vcpu = match made {
            Ok(vcpu) => Some(vcpu),
            Err(error) => {
                self.orders().failure.get_or_insert(error);
                None
            }
        };
        let mut seen = 0;
        while let Some((boot, entry)) = self.wait(seen) {
            seen = boot;
            let stop = match vcpu
                .take()
                .filter(|_| boot == FIRST)
                .map_or_else(|| Vcpu::new(&self.setup.vm, processor), Ok)
            {
                Ok(vcpu) => self.run(index, vcpu, boot, &entry),
                Err(error) => Some(Stop::Failed(error)),
            };
            if let Some(stop) = stop {
                (self.setup.report)(index, stop);
            }
        }
    }

    /// Runs a processor until it stops of itself, or (`None`) is no longer wanted.
    fn run(&self, index: usize, mut vcpu: Vcpu, boot: u64, entry: &VcpuState) -> Option<Stop> {
        if index == 0
            && let Err(error) = vcpu.enter(entry)
        {
            return Some(Stop::Failed(error));
        }
        self.assemble(index, boot);
        let spaces = Spaces {
            memory: &self.setup.memory,
            ports: &self.setup.ports,
        };
        self.set_kick(index, Some(RunPage(vcpu.immediate_exit())));
        // A guest can tell of its crash as often as it likes.
        let mut said = Vec::new();
        let stop = loop {
            // In this order: a kick that comes after the flag is cleared makes the next run return.
            vcpu.clear_immediate_exit();
            if !self.wants(boot) {
                break None;
            }
            match vcpu.run(spaces) {
                Some(Stop::Asked(action @ (Action::GuestPanicked | Action::GuestCrashLoaded))) => {
                    let what = mem::discriminant(&action);
                    if !said.contains(&what) {
                        said.push(what);
                        (self.setup.report)(index, Stop::Asked(action));
                    }
                }
                Some(stop) => break Some(stop),
                None => {}
            }
        };
        self.set_kick(index, None);
        stop
    }

    /// Counts a processor that is made. The first one waits for the others here: it can call them as soon
    /// as it runs, and a call for one that is not there is lost.
    fn assemble(&self, index: usize, boot: u64) {
        let all = self.kicks.len();
        let mut orders = self.orders();
        if orders.is_on(boot) {
            orders.made += 1;
        }
        if orders.made == all {
            self.changed.notify_all();
        }
        if index == 0 {
            let is_early = |orders: &mut Orders| orders.is_on(boot) && orders.made < all;
            drop(self.changed.wait_while(orders, is_early));
        }
    }

    fn wants(&self, boot: u64) -> bool {
        self.orders().is_on(boot)
    }

    fn set_kick(&self, index: usize, page: Option<RunPage>) {
        if let Some(kick) = self.kicks.get(index) {
            *kick.lock().unwrap_or_else(PoisonError::into_inner) = page;
        }
    }

    /// Waits, idle, for a boot after the one with the number `seen` that is still on, or for the end.
    fn wait(&self, seen: u64) -> Option<(u64, VcpuState)> {
        let mut orders = self.orders();
        orders.idle += 1;
        self.tell(&mut orders);
        self.changed.notify_all();
        let mut orders = self
            .changed
            .wait_while(orders, |orders| match orders.order {
                // Even if there was a boot: it is over before this thread has heard of it.
                Order::Park => true,
                Order::Run => orders.boots == seen,
                Order::End => false,
            })
            .unwrap_or_else(PoisonError::into_inner);
        orders.idle -= 1;
        (orders.order != Order::End).then_some((orders.boots, orders.entry))
    }
}

extern "C" fn on_kick(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}
