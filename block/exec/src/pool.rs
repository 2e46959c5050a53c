//! A bounded pool of threads for what would block or hog an I/O thread: compression, ciphers, system calls that no ring
//! has. Threads are made on demand, end after some seconds without work, and at the latest with their executor.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use crate::config::{Hook, ThreadKind};
use crate::executor::Core;
use crate::lock;
use crate::sync::oneshot;

/// How long an idle thread stays.
const LINGER: Duration = Duration::from_secs(5);

pub(crate) type Job = Box<dyn FnOnce() + Send>;

pub(crate) struct Pool(Arc<Inner>);

struct Inner {
    name: String,
    max: usize,
    on_start: Option<Hook>,
    state: Mutex<State>,
    work: Condvar,
    ended: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Job>,
    threads: usize,
    idle: usize,
    stopping: bool,
}

impl Pool {
    pub(crate) fn new(name: String, max: usize, on_start: Option<Hook>) -> Self {
        let (state, work, ended) = (Mutex::default(), Condvar::new(), Condvar::new());
        Self(Arc::new(Inner {
            name,
            max: max.max(1),
            on_start,
            state,
            work,
            ended,
        }))
    }

    /// Queues a job. Where not even one thread can be made, it is done here and now.
    pub(crate) fn run(&self, job: Job) {
        let mut state = lock(&self.0.state);
        state.queue.push_back(job);
        if state.idle >= state.queue.len() {
            self.0.work.notify_one();
        } else if state.threads < self.0.max {
            state.threads += 1;
            let inner = Arc::clone(&self.0);
            let name = format!("{}-pool", self.0.name);
            if std::thread::Builder::new()
                .name(name)
                .spawn(move || inner.serve())
                .is_err()
            {
                state.threads -= 1;
                if state.threads == 0 {
                    let job = state.queue.pop_back();
                    drop(state);
                    job.into_iter().for_each(|job| job());
                }
            }
        }
    }
}

impl Inner {
    fn serve(self: Arc<Self>) {
        /// Signs the thread off however it ends.
        struct Leave(Arc<Inner>);
        impl Drop for Leave {
            fn drop(&mut self) {
                lock(&self.0.state).threads -= 1;
                self.0.ended.notify_all();
            }
        }
        let _leave = Leave(Arc::clone(&self));
        if let Some(Err(error)) = self.on_start.as_ref().map(|hook| hook(ThreadKind::Pool)) {
            // Nobody waits for this thread who could be told, and it must not run unconfined.
            panic!("{}: cannot set up a pool thread: {error}", self.name);
        }
        let mut state = lock(&self.state);
        loop {
            if let Some(job) = state.queue.pop_front() {
                drop(state);
                job();
                state = lock(&self.state);
                continue;
            }
            if state.stopping {
                return;
            }
            state.idle += 1;
            let (back, waited) = self
                .work
                .wait_timeout(state, LINGER)
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            state = back;
            state.idle -= 1;
            if waited.timed_out() && state.queue.is_empty() {
                return;
            }
        }
    }
}

impl Drop for Pool {
    /// Finishes what is queued and waits for the threads.
    fn drop(&mut self) {
        let mut state = lock(&self.0.state);
        state.stopping = true;
        self.0.work.notify_all();
        while state.threads > 0 {
            state = self
                .0
                .ended
                .wait(state)
                .unwrap_or_else(std::sync::PoisonError::into_inner);
        }
    }
}

/// Runs `work` on the current executor's pool and waits for it without blocking the executor. It runs to its end even
/// if the future is dropped. A panic in it goes on in the caller.
///
/// # Panics
/// On a thread that runs no executor.
pub async fn offload<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let core = Core::current();
    let (sender, receiver) = oneshot::channel();
    let busy = core.busy();
    core.pool.run(Box::new(move || {
        sender.send(catch_unwind(AssertUnwindSafe(work)))
    }));
    let result = receiver.await;
    drop(busy);
    match result {
        Ok(Ok(value)) => value,
        Ok(Err(panic)) => resume_unwind(panic),
        Err(oneshot::Closed) => panic!("the pool dropped a job"),
    }
}
