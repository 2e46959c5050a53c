//! What spindle itself may do, so that a guest that breaks out of a device model finds little.
//!
//! | module | what it is |
//! |---|---|
//! | [`files`] | Landlock: the files that may be opened by name |
//! | [`calls`] | seccomp: the system calls that each kind of thread may make |
//! | [`fatal`] | the last words of a process that ends by a signal |
//!
//! Two walls, put up at two times. [`Sandbox::new`] restricts the calling thread to the files that
//! the command line names, and must run before any other thread is made, since threads inherit it.
//! [`Sandbox::enter`] then takes a thread's system calls away, before the first guest instruction:
//! after it nothing can be executed or made executable on any thread, nor opened on one that does the
//! guest's bidding.
//!
//! A call outside a thread's list ends the process with one line that names the call and the thread
//! (exit status 2); `-sandbox off` is how one sees what the call was for. Where the kernel has no
//! Landlock or no seccomp, a warning says so and the run goes on with the other wall.

use std::io;
use std::sync::Arc;

use crate::config::Config;
use crate::error::Error;

pub mod calls;
pub mod fatal;
pub mod files;
#[cfg(test)]
mod tests;

/// A kind of thread: each has its own list of system calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thread {
    /// The main loop: consoles, signals, the monitor.
    Main,
    /// Runs guest code and the registers of legacy devices.
    Vcpu,
    /// Moves disk data through a ring.
    Io,
    /// Helps the I/O threads with what may block or compute for long.
    Pool,
    /// Helps the main thread: opens the files that the command line names before the guest runs, and writes
    /// what its serial port says to one. No disk's request comes here.
    Opener,
}

/// The process's sandbox. Clones are the same sandbox.
#[derive(Clone, Debug)]
pub struct Sandbox(Option<Arc<calls::Filters>>);

impl Sandbox {
    /// Restricts the calling thread, and those it makes from now on, to the files that `config`
    /// names, and prepares the filters of [`Sandbox::enter`]. With `-sandbox off`: neither.
    ///
    /// # Errors
    /// A path of `-allow-path` that cannot be opened; a kernel that refuses what it says it has.
    pub fn new(config: &Config) -> Result<Sandbox, Error> {
        if !config.sandbox.on {
            return Ok(Sandbox(None));
        }
        files::restrict(&files::of(config))?;
        if !calls::supported() {
            tracing::warn!(
                "-sandbox: this kernel has no seccomp filters: system calls are not restricted"
            );
            return Ok(Sandbox(None));
        }
        Ok(Sandbox(Some(Arc::new(calls::Filters::new()?))))
    }

    /// [`Sandbox::enter`] for an I/O thread and those that help it.
    pub fn on_start(&self) -> exec::Hook {
        self.hook(Thread::Pool)
    }

    /// [`Sandbox::enter`] for those that help the main thread.
    pub fn on_start_of_main(&self) -> exec::Hook {
        self.hook(Thread::Opener)
    }

    fn hook(&self, helper: Thread) -> exec::Hook {
        let sandbox = self.clone();
        Arc::new(move |kind| {
            sandbox.enter(match kind {
                exec::ThreadKind::Io => Thread::Io,
                exec::ThreadKind::Pool => helper,
            })
        })
    }

    /// No sandbox at all.
    pub fn off() -> Sandbox {
        Sandbox(None)
    }

    /// From here on the calling thread makes only the system calls of its kind. Called once on each
    /// thread; a thread made by another inherits the maker's list and can only narrow it.
    ///
    /// # Errors
    /// The kernel refuses the filter.
    pub fn enter(&self, thread: Thread) -> io::Result<()> {
        match &self.0 {
            Some(filters) => filters.apply(thread),
            None => Ok(()),
        }
    }
}
