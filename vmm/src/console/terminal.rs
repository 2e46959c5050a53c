//! Raw mode, and the way back.
//!
//! The mode that was found is kept in a static, since whoever ends the process gives it back: the end
//! of `main`, a panic, a fatal signal. [`restore`] is async-signal-safe.

use std::io::{self, IsTerminal};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::termios::{
    ControlModes, InputModes, LocalModes, OptionalActions, OutputModes, SpecialCodeIndex, Termios,
    tcgetattr, tcsetattr,
};

static FOUND: OnceLock<Termios> = OnceLock::new();
static RAW: AtomicBool = AtomicBool::new(false);

/// Whether stdin is a terminal.
pub fn is_stdin() -> bool {
    io::stdin().is_terminal()
}

/// Puts the terminal on stdin into raw mode: every key goes to the guest, nothing is echoed. Output
/// stays processed, so that messages look right.
///
/// # Errors
/// The terminal refuses.
pub fn make_raw() -> io::Result<()> {
    let found = match FOUND.get() {
        Some(found) => found,
        None => {
            let now = tcgetattr(rustix::stdio::stdin())?;
            FOUND.get_or_init(|| now)
        }
    };
    let mut raw = found.clone();
    set_raw(&mut raw);
    raw.output_modes |= OutputModes::OPOST;
    RAW.store(true, Ordering::SeqCst);
    Ok(tcsetattr(
        rustix::stdio::stdin(),
        OptionalActions::Now,
        &raw,
    )?)
}

/// What raw means for a terminal's modes (cfmakeraw(3)).
pub fn set_raw(modes: &mut Termios) {
    modes.input_modes -= InputModes::IGNBRK
        | InputModes::BRKINT
        | InputModes::PARMRK
        | InputModes::ISTRIP
        | InputModes::INLCR
        | InputModes::IGNCR
        | InputModes::ICRNL
        | InputModes::IXON;
    modes.output_modes -= OutputModes::OPOST;
    modes.local_modes -= LocalModes::ECHO
        | LocalModes::ECHONL
        | LocalModes::ICANON
        | LocalModes::ISIG
        | LocalModes::IEXTEN;
    modes.control_modes -= ControlModes::CSIZE | ControlModes::PARENB;
    modes.control_modes |= ControlModes::CS8;
    modes.special_codes[SpecialCodeIndex::VMIN] = 1;
    modes.special_codes[SpecialCodeIndex::VTIME] = 0;
}

/// Gives the terminal back as it was found. Does nothing if it is not raw.
pub fn restore() {
    if RAW.swap(false, Ordering::SeqCst)
        && let Some(found) = FOUND.get()
    {
        // One ioctl, no allocation, no lock: signal handlers come here.
        let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, found);
    }
}
