//! Errors of the control plane; the data path speaks `io::Error` made from an errno.

use std::fmt;

use crate::options;

/// What kind of mistake it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// An option is wrong.
    Invalid,
    /// No such node or drive.
    NotFound,
    /// The name is taken.
    Exists,
    /// Somebody else uses it.
    InUse,
    /// It is known but not in this build.
    Unsupported,
    /// The host refused.
    Io,
}

/// Why a node or drive could not be made, changed or closed. Prints as one line in the user's words.
#[derive(Debug)]
pub struct Error {
    /// What kind of mistake it was.
    pub kind: ErrorKind,
    /// What it is about, in the user's words: a dotted path of options or a node; may be empty.
    pub context: String,
    /// What is wrong.
    pub reason: String,
    /// What the host said.
    pub source: Option<std::io::Error>,
}

impl Error {
    /// An error without context or source.
    pub fn new(kind: ErrorKind, reason: impl Into<String>) -> Self {
        Self {
            kind,
            context: String::new(),
            reason: reason.into(),
            source: None,
        }
    }

    /// A refusal by the host: prints as `reason: Permission denied`.
    pub fn io(reason: impl Into<String>, source: std::io::Error) -> Self {
        Self {
            source: Some(source),
            ..Self::new(ErrorKind::Io, reason)
        }
    }

    /// Puts the option `key` in front of the path.
    #[must_use]
    pub fn at(mut self, key: &str) -> Self {
        if self.context.is_empty() {
            self.context = key.to_owned();
        } else if !key.is_empty() {
            self.context = format!("{key}.{}", self.context);
        }
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            _ if self.context.is_empty() => {}
            ErrorKind::Invalid => write!(f, "'{}': ", self.context)?,
            _ => write!(f, "{}: ", self.context)?,
        }
        f.write_str(&self.reason)?;
        match &self.source {
            Some(source) => write!(f, ": {}", describe_io(source)),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}

impl From<options::Error> for Error {
    fn from(error: options::Error) -> Self {
        Self::new(ErrorKind::Invalid, error.reason).at(&error.path)
    }
}

/// What strerror says, without Rust's ` (os error 13)`.
pub(crate) fn describe_io(error: &std::io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error ") {
        Some(at) => text[..at].to_owned(),
        None => text,
    }
}

/// An `io::Error` from an errno: no allocation.
pub(crate) fn errno(code: i32) -> std::io::Error {
    std::io::Error::from_raw_os_error(code)
}
