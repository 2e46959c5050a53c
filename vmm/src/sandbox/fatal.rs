//! Signals that end the process: the terminal is given back first, and one line says what happened.
#![allow(unsafe_code)] // a signal handler, and the calls it may make

use std::io;

use crate::console::terminal;

/// Faults and aborts, and what ends a process that does not expect it. A refused system call (SIGSYS) is
/// among them.
const SIGNALS: [libc::c_int; 16] = [
    libc::SIGABRT,
    libc::SIGALRM,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGILL,
    libc::SIGIO,
    libc::SIGPROF,
    libc::SIGPWR,
    libc::SIGSEGV,
    libc::SIGSTKFLT,
    libc::SIGSYS,
    libc::SIGTRAP,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGVTALRM,
    libc::SIGXCPU,
];

/// The exit status of a process that its own sandbox ended.
const REFUSED: libc::c_int = 2;

/// Takes over the fatal signals and panics.
///
/// # Errors
/// None that the kernel gives for these signals.
pub fn install() -> io::Result<()> {
    let previous = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        terminal::restore();
        previous(info);
    }));
    // A guest that writes past RLIMIT_FSIZE gets an I/O error: the write fails with EFBIG.
    // SAFETY: ignoring a signal runs nothing.
    if unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) } == libc::SIG_ERR {
        return Err(io::Error::last_os_error());
    }
    for signal in SIGNALS {
        // SAFETY: `action` is fully initialised by zeroes (no restorer, an empty mask) and the
        // fields below; the handler has the signature that SA_SIGINFO asks for and calls nothing
        // but async-signal-safe functions. SA_ONSTACK: a stack overflow finds the alternate stack
        // that Rust gives each thread.
        let done = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = last_words as *const () as usize;
            action.sa_flags =
                libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESETHAND | libc::SA_NODEFER;
            libc::sigaction(signal, &action, std::ptr::null_mut())
        };
        if done != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Whether whoever started the process had it ignore a signal, as nohup does.
///
/// # Errors
/// There is no such signal.
pub fn is_ignored(signal: libc::c_int) -> io::Result<bool> {
    // SAFETY: without a new action the kernel only writes the old one, for which zeroes are a valid value.
    let (asked, action) = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        let asked = libc::sigaction(signal, std::ptr::null(), &raw mut action);
        (asked, action)
    };
    match asked {
        0 => Ok(action.sa_sigaction == libc::SIG_IGN),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Runs in the thread that the signal is for, which may be in any state: system calls only.
extern "C" fn last_words(signal: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    terminal::restore();
    let mut line = Line::default();
    if signal == libc::SIGSYS {
        // SAFETY: the kernel passes a valid siginfo of at least 128 bytes; for SIGSYS the number of
        // the call is the 32-bit field after the call's address (sigaction(2): si_call_addr at 16,
        // si_syscall at 24).
        let call = unsafe { info.byte_add(24).cast::<libc::c_int>().read() };
        line.text(b"spindle: -sandbox: thread '");
        line.thread_name();
        line.text(b"' made system call ");
        line.number(call.unsigned_abs());
        line.text(
            b", which its filter refuses; this is a bug in spindle or an attack by the guest\n",
        );
        line.print();
        // SAFETY: ends the process without running anything.
        unsafe { libc::_exit(REFUSED) };
    }
    line.text(b"spindle: ended by signal ");
    line.number(signal.unsigned_abs());
    line.text(b" in thread '");
    line.thread_name();
    line.text(b"'\n");
    line.print();
    // The handler is gone (SA_RESETHAND): the same signal now ends the process as it would have.
    // SAFETY: raise is async-signal-safe.
    unsafe { libc::raise(signal) };
}

/// A line built without allocation.
struct Line {
    bytes: [u8; 192],
    len: usize,
}

impl Default for Line {
    fn default() -> Line {
        Line {
            bytes: [0; 192],
            len: 0,
        }
    }
}

impl Line {
    fn text(&mut self, text: &[u8]) {
        for (to, from) in self.bytes.iter_mut().skip(self.len).zip(text) {
            *to = *from;
        }
        self.len = self.len.saturating_add(text.len()).min(self.bytes.len());
    }

    fn number(&mut self, mut number: u32) {
        let mut digits = [0u8; 10];
        let mut used = 0usize;
        for digit in digits.iter_mut().rev() {
            *digit = b'0'.wrapping_add((number % 10) as u8);
            number /= 10;
            used = used.wrapping_add(1);
            if number == 0 {
                break;
            }
        }
        let skip = digits.len().saturating_sub(used);
        self.text(digits.get(skip..).unwrap_or_default());
    }

    fn thread_name(&mut self) {
        let mut name = [0u8; 16];
        // SAFETY: PR_GET_NAME writes at most 16 bytes to the buffer.
        unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
        let end = name
            .iter()
            .position(|byte| *byte == 0)
            .unwrap_or(name.len());
        self.text(name.get(..end).unwrap_or_default());
    }

    fn print(&self) {
        // SAFETY: the pointer and length are those of the filled part of the buffer.
        unsafe { libc::write(libc::STDERR_FILENO, self.bytes.as_ptr().cast(), self.len) };
    }
}
