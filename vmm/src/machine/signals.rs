//! The signals that end a run: SIGTERM, and SIGINT, SIGHUP and SIGQUIT unless they were ignored at the start.
//!
//! All threads but the main one block them. The handler notes the signal and rings a bell, on which a
//! task of the main executor waits.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, Ordering};

use exec::Kick;
use vmm_sys_util::signal::{block_signal, register_signal_handler, unblock_signal};

use crate::error::Error;
use crate::sandbox::fatal;

const ENDING: [(libc::c_int, &str); 4] = [
    (libc::SIGTERM, "SIGTERM"),
    (libc::SIGINT, "SIGINT"),
    (libc::SIGHUP, "SIGHUP"),
    (libc::SIGQUIT, "SIGQUIT"),
];

static BELL: OnceLock<Kick> = OnceLock::new();
static LAST: AtomicI32 = AtomicI32::new(0);

/// Only a store and a write: what a handler may do.
extern "C" fn note(signal: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    LAST.store(signal, Ordering::Release);
    if let Some(bell) = BELL.get() {
        bell.signal();
    }
}

/// Takes the signals over and blocks them on the calling thread, so that the threads it makes from
/// now on never get them.
///
/// # Errors
/// The host refuses.
pub(crate) fn block() -> Result<(), Error> {
    let bell = Kick::eventfd().map_err(failed)?;
    // A second machine in one process (a test) goes on with the first one's.
    let _ = BELL.set(bell);
    for (signal, _) in ENDING {
        // SIGTERM is meant for spindle alone; the others come from a terminal, which nohup and a shell's
        // background are about.
        if signal != libc::SIGTERM && fatal::is_ignored(signal).map_err(failed)? {
            continue;
        }
        register_signal_handler(signal, note).map_err(|error| failed(error.into()))?;
        block_signal(signal).map_err(|error| failed(io::Error::other(error.to_string())))?;
    }
    Ok(())
}

/// Lets the signals come to this thread, the main one, and waits for one: its name.
///
/// # Errors
/// The host refuses.
pub(super) async fn next() -> Result<&'static str, Error> {
    for (signal, _) in ENDING {
        unblock_signal(signal).map_err(|error| failed(io::Error::other(error.to_string())))?;
    }
    loop {
        let last = LAST.swap(0, Ordering::Acquire);
        if let Some((_, name)) = ENDING.iter().find(|(signal, _)| *signal == last) {
            return Ok(name);
        }
        match BELL.get() {
            Some(bell) => bell.wait().await,
            // Nothing was taken over.
            None => std::future::pending().await,
        }
    }
}

fn failed(error: io::Error) -> Error {
    Error::host("cannot handle signals").because(error)
}
