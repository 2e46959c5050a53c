//! The signals that end a run: SIGTERM, SIGINT and SIGHUP.
//!
//! All threads but the main one block them. The handler notes the signal and rings an eventfd, on
//! which a task waits.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, Ordering};

use rustix::event::{EventfdFlags, eventfd};
use vmm_sys_util::signal::{block_signal, register_signal_handler, unblock_signal};

use super::FdReady;
use crate::error::Error;

const ENDING: [(libc::c_int, &str); 3] = [
    (libc::SIGTERM, "SIGTERM"),
    (libc::SIGINT, "SIGINT"),
    (libc::SIGHUP, "SIGHUP"),
];

static BELL: OnceLock<OwnedFd> = OnceLock::new();
static LAST: AtomicI32 = AtomicI32::new(0);

extern "C" fn note(signal: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    LAST.store(signal, Ordering::Relaxed);
    if let Some(bell) = BELL.get() {
        // A full counter rings as well.
        let _ = rustix::io::write(bell, &1_u64.to_ne_bytes());
    }
}

/// Takes the signals over and blocks them on the calling thread, so that the threads it makes from
/// now on never get them.
///
/// # Errors
/// The host refuses.
pub fn block() -> Result<(), Error> {
    let failed = |error: io::Error| Error::host("cannot handle signals").because(error);
    let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
        .map_err(|error| failed(error.into()))?;
    // A second machine in one process (a test) goes on with the first one's.
    let _ = BELL.set(bell);
    for (signal, _) in ENDING {
        register_signal_handler(signal, note).map_err(|error| failed(error.into()))?;
        block_signal(signal).map_err(|error| failed(io::Error::other(error.to_string())))?;
    }
    Ok(())
}

/// Lets the signals come to this thread, the main one, and waits for the first: its name.
///
/// # Errors
/// The host refuses.
pub async fn next() -> Result<&'static str, Error> {
    let failed = |error: io::Error| Error::host("cannot handle signals").because(error);
    let Some(bell) = BELL.get() else {
        return std::future::pending().await;
    };
    for (signal, _) in ENDING {
        unblock_signal(signal).map_err(|error| failed(io::Error::other(error.to_string())))?;
    }
    FdReady::new(bell.as_fd()).map_err(failed)?.readable().await;
    let mut count = [0; 8];
    // Only its being readable mattered.
    let _ = rustix::io::read(bell, &mut count);
    let last = LAST.load(Ordering::Relaxed);
    let name = ENDING.iter().find(|(signal, _)| *signal == last);
    Ok(name.map_or("signal", |(_, name)| name))
}
