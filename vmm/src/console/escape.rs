//! Ctrl-A and what follows it, as in QEMU and screen.

/// Ctrl-A.
const PREFIX: u8 = 1;

/// Where in a sequence the user is.
#[derive(Debug, Default)]
pub struct Escape {
    armed: bool,
}

/// What a byte from the terminal means.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// The byte is the guest's.
    Send(u8),
    /// End spindle.
    Quit,
    /// Say what there is.
    Help,
    /// The sequence goes on, or means nothing.
    Nothing,
}

impl Escape {
    /// Looks at the next byte.
    pub fn feed(&mut self, byte: u8) -> Step {
        if !std::mem::replace(&mut self.armed, false) {
            self.armed = byte == PREFIX;
            return match byte {
                PREFIX => Step::Nothing,
                byte => Step::Send(byte),
            };
        }
        match byte {
            PREFIX => Step::Send(PREFIX),
            b'x' => Step::Quit,
            b'h' | b'?' => Step::Help,
            _ => Step::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences() {
        let mut escape = Escape::default();
        let steps: Vec<Step> = b"a\x01x\x01h\x01\x01x\x01zb"
            .iter()
            .map(|b| escape.feed(*b))
            .collect();
        use Step::*;
        assert_eq!(
            steps,
            [
                Send(b'a'),
                Nothing,
                Quit,
                Nothing,
                Help,
                Nothing,
                Send(1),
                Send(b'x'),
                Nothing,
                Nothing,
                Send(b'b')
            ]
        );
    }
}
