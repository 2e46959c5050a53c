//! The user's terminal, handed through to a guest: every key goes there, and the terminal is as before afterwards.

use std::io::stdin;

use anyhow::Result;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

/// Raw mode of standard input, until dropped.
pub struct Raw(Termios);

impl Raw {
    /// Makes the terminal raw; nothing to do and nothing returned where stdin is none.
    pub fn enter() -> Result<Option<Self>> {
        let Ok(before) = tcgetattr(stdin()) else {
            return Ok(None);
        };
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin(), OptionalActions::Now, &raw)?;
        Ok(Some(Self(before)))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that has gone needs no restoring.
        let _ = tcsetattr(stdin(), OptionalActions::Flush, &self.0);
    }
}
