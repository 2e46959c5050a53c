//! An I/O thread: an executor on a thread of its own.

use std::fmt;
use std::io;
use std::panic::Location;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::config::{Config, ThreadKind};
use crate::executor::{Core, Executor};
use crate::handle::Handle;
use crate::lock;

/// A thread that runs an executor until it is stopped.
pub struct IoThread {
    handle: Handle,
    ended: mpsc::Receiver<()>,
    thread: JoinHandle<()>,
}

/// An I/O thread that did not come to rest in time.
#[derive(Debug)]
pub struct Stuck {
    /// The thread's name.
    pub thread: String,
    /// Where the tasks were started that have not ended; empty if the thread does not even answer.
    pub tasks: Vec<&'static Location<'static>>,
}

impl fmt::Display for Stuck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "I/O thread {} is stuck", self.thread)?;
        let mut tasks = self.tasks.iter();
        if let Some(first) = tasks.next() {
            write!(f, ": unfinished: task started at {first}")?;
            tasks.try_for_each(|task| write!(f, ", {task}"))?;
        }
        Ok(())
    }
}

impl std::error::Error for Stuck {}

impl IoThread {
    /// Starts the thread; its hook has run and its ring exists when this returns.
    ///
    /// # Errors
    /// The thread or the ring cannot be made, or what the hook returned.
    pub fn spawn(config: Config) -> io::Result<Self> {
        let (started, starting) = mpsc::sync_channel(1);
        let (end, ended) = mpsc::sync_channel::<()>(1);
        let thread = std::thread::Builder::new()
            .name(config.name.clone())
            .spawn(move || {
                let hook = config.on_start.clone();
                // The ring first: confined threads make none.
                let made = Executor::new(config).and_then(|executor| {
                    hook.map_or(Ok(()), |hook| hook(ThreadKind::Io))
                        .map(|()| executor)
                });
                match made {
                    Ok(executor) => {
                        // The spawner waits for this.
                        let _ = started.send(Ok(executor.handle()));
                        executor.run_until_stopped();
                    }
                    Err(error) => drop(started.send(Err(error))),
                }
                drop(end);
            })?;
        match starting.recv() {
            Ok(Ok(handle)) => Ok(Self {
                handle,
                ended,
                thread,
            }),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(io::Error::other("the thread ended at its start")),
        }
    }

    /// Its executor.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Ends it: waits until every task has ended (the caller has told them to), then closes the ring and joins the
    /// thread. Messages and tasks are still served meanwhile, since ending one task may take another.
    ///
    /// # Errors
    /// After `deadline` without rest, what it waits for. The thread is left running: end the process.
    ///
    /// # Panics
    /// With what a task on that thread panicked with.
    pub fn stop(self, deadline: Duration) -> Result<(), Stuck> {
        self.handle.0.stopping.store(true, Ordering::Release);
        self.handle.wake();
        // On an executor's thread that wake-up waits in its ring, which is not entered before this returns.
        self.handle.0.ring_bell();
        match self.ended.recv_timeout(deadline) {
            Err(mpsc::RecvTimeoutError::Timeout) => Err(self.stuck()),
            _ => self
                .thread
                .join()
                .map_err(|panic| std::panic::resume_unwind(panic)),
        }
    }

    fn stuck(&self) -> Stuck {
        let tasks = Arc::new(Mutex::new(Vec::new()));
        let (answer, answered) = mpsc::sync_channel(1);
        let found = Arc::clone(&tasks);
        self.handle.post(move || {
            Core::try_with(|core| *lock(&found) = core.unfinished());
            let _ = answer.send(());
        });
        let _ = answered.recv_timeout(Duration::from_millis(100));
        Stuck {
            thread: self.handle.name().into(),
            tasks: std::mem::take(&mut *lock(&tasks)),
        }
    }
}
