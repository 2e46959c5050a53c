//! The other end of the guest's serial port.
//!
//! | module | what it is |
//! |---|---|
//! | [`backend`] | opens what `-serial` names |
//! | [`queue`] | bytes on their way out, bounded |
//! | [`escape`] | Ctrl-A and what follows it |
//! | [`terminal`] | raw mode, and the way back |
//! | [`ready`] | waiting for a descriptor on an executor |
//!
//! A processor that writes to the port only ever appends to a queue; tasks of the main executor move
//! bytes between it and the outside. So a reader that does not read holds nobody up:
//!
//! - Out: the queue keeps the newest 256 KiB. What is older is dropped, and the log says how much. While
//!   nobody is connected to a socket it fills in the same way, so that who connects sees what led there.
//! - In: while the guest does not read, a pipe, socket or pty is not read either. A terminal is, so that
//!   Ctrl-A works with any guest; beyond 64 KiB what is typed is dropped.

use std::collections::VecDeque;
use std::future::Future;
use std::io::{self, Write};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use exec::Kick;

use crate::config::Serial;
use crate::error::Error;
use backend::{Backend, Peer};
use escape::{Escape, Step};
use queue::Queue;

pub mod backend;
pub mod escape;
pub mod queue;
pub mod ready;
pub mod terminal;
#[cfg(test)]
mod tests;

/// How much a guest that does not read can be ahead of.
const PENDING_MAX: usize = 64 << 10;

/// Bytes moved at a time.
const CHUNK: usize = 4096;

/// How long [`Console::flush`] waits for a reader that does not read.
const PATIENCE: Duration = Duration::from_secs(1);

const HELP: &[u8] = b"\r\n\
    Ctrl-A h       this help\r\n\
    Ctrl-A x       end spindle, as if the power were cut\r\n\
    Ctrl-A Ctrl-A  send Ctrl-A to the guest\r\n";

/// A serial port's other end. Clones are the same console.
#[derive(Clone)]
pub struct Console(Arc<Inner>);

struct Inner {
    backend: Backend,
    queue: Mutex<Queue>,
    /// Bytes for the guest.
    pending: Mutex<VecDeque<u8>>,
    peer: Mutex<Option<Arc<Peer>>>,
    had_peer: AtomicBool,
    /// The queue is no longer empty, or someone is there to read it.
    output: Kick,
    /// There are bytes for the guest, or it has room again.
    input: Arc<Kick>,
    /// `pending` has room again, or the peer is gone.
    room: Kick,
    /// Someone has connected.
    connected: Kick,
}

/// Where the guest's bytes go. Writing never blocks and never fails.
#[derive(Clone)]
pub struct Output(Arc<Inner>);

impl Console {
    /// Opens what `-serial` names; nothing is changed before [`Console::run`].
    ///
    /// # Errors
    /// A file, socket or pty that cannot be had.
    pub fn open(serial: &Serial) -> Result<Console, Error> {
        let failed = |error: io::Error| Error::user("-serial: no event descriptor").because(error);
        let kick = || Kick::eventfd().map_err(failed);
        Ok(Console(Arc::new(Inner {
            backend: Backend::open(serial)?,
            queue: Mutex::default(),
            pending: Mutex::default(),
            peer: Mutex::default(),
            had_peer: AtomicBool::new(false),
            output: kick()?,
            input: Arc::new(kick()?),
            room: kick()?,
            connected: kick()?,
        })))
    }

    /// For the port: where the guest's bytes go.
    pub fn output(&self) -> Output {
        Output(self.0.clone())
    }

    /// Something to signal, from any thread, when the port's receive buffer has room again.
    pub fn input_ready(&self) -> Arc<Kick> {
        self.0.input.clone()
    }

    /// Moves bytes as long as it is polled, on the main executor. `input` gives bytes to the port and
    /// says how many it took; `quit` is called for Ctrl-A x. A terminal is raw from here on.
    pub async fn run(&self, input: impl Fn(&[u8]) -> usize, quit: impl Fn()) {
        let inner = &*self.0;
        match inner.backend.start() {
            Ok(peer) => inner.attach(peer),
            Err(error) => tracing::error!("-serial: {error}"),
        }
        let tasks: [Pin<Box<dyn Future<Output = ()> + '_>>; 3] = [
            Box::pin(inner.write_out()),
            Box::pin(inner.read_in(&quit)),
            Box::pin(inner.deliver(&input)),
        ];
        exec::all(tasks).await;
    }

    /// Returns when someone is or was there: at once unless the console is a socket with `wait=on`.
    pub async fn connected(&self) {
        while self.0.backend.waits() && !self.0.had_peer.load(Ordering::Acquire) {
            self.0.connected.wait().await;
        }
    }

    /// Returns when all output has left, or after a second with a reader that does not read. For the
    /// end of the run, while [`Console::run`] still runs.
    pub async fn flush(&self) {
        let deadline = std::time::Instant::now() + PATIENCE;
        // Not yet there, as long as nobody was and nobody can come by himself.
        let may_come = || !self.0.backend.reconnects() && !self.0.had_peer.load(Ordering::Acquire);
        let nobody = || self.0.peer().is_none() && !may_come();
        while !lock(&self.0.queue).is_idle() && !nobody() && std::time::Instant::now() < deadline {
            exec::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Lets nobody come any more: the name of a socket goes, as it does when the last clone is dropped.
    pub fn close(&self) {
        self.0.backend.close();
    }
}

impl Inner {
    fn peer(&self) -> Option<Arc<Peer>> {
        lock(&self.peer).clone()
    }

    fn attach(&self, peer: Option<Arc<Peer>>) {
        if let Some(peer) = peer {
            *lock(&self.peer) = Some(peer);
            self.had_peer.store(true, Ordering::Release);
            self.output.signal();
            self.connected.signal();
        }
    }

    fn is_here(&self, peer: &Arc<Peer>) -> bool {
        self.peer().is_some_and(|here| Arc::ptr_eq(&here, peer))
    }

    fn detach(&self, gone: &Arc<Peer>) {
        if self.is_here(gone) {
            *lock(&self.peer) = None;
        }
        gone.hang_up();
        self.room.signal();
    }

    /// The queue's bytes to whoever is there.
    async fn write_out(&self) {
        let mut chunk = Vec::with_capacity(CHUNK);
        let mut has_failed = false;
        loop {
            let Some(peer) = self.peer() else {
                self.output.wait().await;
                continue;
            };
            let dropped = lock(&self.queue).take(&mut chunk, CHUNK);
            if dropped > 0 {
                tracing::warn!("-serial: {dropped} bytes of output were lost: nobody read them");
            }
            if chunk.is_empty() {
                self.output.wait().await;
                continue;
            }
            let written = peer.write_all(&mut chunk).await;
            lock(&self.queue).done();
            match written {
                Ok(()) => {}
                Err(error) if self.backend.reconnects() => {
                    tracing::debug!("-serial: {error}");
                    self.detach(&peer);
                }
                // Input goes on: what is typed, Ctrl-A x above all, has nothing to do with it.
                Err(error) if !has_failed => {
                    has_failed = true;
                    tracing::warn!("-serial: output is lost: {error}");
                }
                Err(_) => {}
            }
        }
    }

    /// Bytes from whoever is there to `pending`.
    async fn read_in(&self, quit: &impl Fn()) {
        let mut escape = self.backend.has_escapes().then(Escape::default);
        let keeps_reading = self.backend.is_terminal();
        let mut buffer = [0; CHUNK];
        'peers: loop {
            let Some(peer) = self.peer() else {
                match self.backend.accept().await {
                    Some(peer) => self.attach(Some(peer)),
                    None => return,
                }
                continue;
            };
            // Who is gone meanwhile, as his output has shown, keeps nobody else out.
            while !keeps_reading && lock(&self.pending).len() >= PENDING_MAX {
                self.room.wait().await;
                if !self.is_here(&peer) {
                    continue 'peers;
                }
            }
            let bytes = match peer.read(&mut buffer).await {
                Ok(0) | Err(_) if self.backend.reconnects() => {
                    self.detach(&peer);
                    continue;
                }
                // The end of what was piped in; output goes on.
                Ok(0) | Err(_) => return,
                Ok(read) => buffer.get(..read).unwrap_or_default(),
            };
            match &mut escape {
                None => self.receive(bytes),
                Some(escape) => {
                    for byte in bytes {
                        match escape.feed(*byte) {
                            Step::Send(byte) => self.receive(&[byte]),
                            Step::Quit => quit(),
                            Step::Help => self.emit(HELP),
                            Step::Nothing => {}
                        }
                    }
                }
            }
            self.input.signal();
        }
    }

    fn receive(&self, bytes: &[u8]) {
        let mut pending = lock(&self.pending);
        // One chunk over the limit: what was read before the limit was seen is not dropped.
        let room = (PENDING_MAX + CHUNK).saturating_sub(pending.len());
        pending.extend(bytes.iter().take(room));
    }

    /// `pending` to the port.
    async fn deliver(&self, input: &impl Fn(&[u8]) -> usize) {
        loop {
            loop {
                let chunk: Vec<u8> = lock(&self.pending).iter().copied().take(CHUNK).collect();
                let taken = match chunk.is_empty() {
                    true => 0,
                    false => input(&chunk).min(chunk.len()),
                };
                if taken == 0 {
                    break;
                }
                lock(&self.pending).drain(..taken);
                self.room.signal();
            }
            self.input.wait().await;
        }
    }

    fn emit(&self, bytes: &[u8]) {
        if self.backend.takes_output() && lock(&self.queue).push(bytes) {
            self.output.signal();
        }
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.emit(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
