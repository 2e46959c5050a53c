//! How an executor is made.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, Monotonic};
use crate::sim::Sim;

/// What a thread is made for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ThreadKind {
    /// An [`IoThread`](crate::IoThread).
    Io,
    /// A thread of an executor's offload pool.
    Pool,
}

/// Called on each thread made here before it runs any task; the VMM confines the thread in it. An error on an I/O thread fails
/// [`IoThread::spawn`](crate::IoThread::spawn); on a pool thread, where nobody could be told, it is a panic.
pub type Hook = Arc<dyn Fn(ThreadKind) -> io::Result<()> + Send + Sync>;

/// Which back end an executor shall use.
#[derive(Clone, Default)]
pub enum RingKind {
    /// io_uring, or threads where the host refuses it (containers' seccomp profiles, `kernel.io_uring_disabled`).
    #[default]
    Auto,
    /// io_uring or an error.
    Uring,
    /// Threads and epoll.
    Threads,
    /// A simulation in memory.
    Sim(Sim),
}

/// How to make an executor.
#[derive(Clone)]
pub struct Config {
    /// For thread names and messages.
    pub name: String,
    /// The back end.
    pub ring: RingKind,
    /// What timers go by.
    pub clock: Arc<dyn Clock>,
    /// The longest that it polls before it sleeps; zero never polls.
    pub poll_max: Duration,
    /// Called on each thread that is made before it runs any task.
    pub on_start: Option<Hook>,
    /// The most threads its pool may have at a time.
    pub pool_threads: usize,
    /// Another loop will watch [`Executor::event_fd`](crate::Executor::event_fd), at the price of slower completions.
    pub hosted: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            name: "exec".into(),
            ring: RingKind::Auto,
            clock: Arc::new(Monotonic),
            poll_max: Duration::from_micros(32),
            on_start: None,
            pool_threads: 64,
            hosted: false,
        }
    }
}
