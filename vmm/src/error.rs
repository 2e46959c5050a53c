//! What can go wrong, told in one line.

use std::fmt;

/// A failure and whose it is.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    context: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// Whose failure it is: the exit status depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// What was asked for cannot be had, and no guest ran.
    User,
    /// The host failed under a running guest.
    Host,
}

impl Error {
    /// What was asked for cannot be had. `context` begins with the option: `-m`.
    pub fn user(context: impl Into<String>) -> Error {
        Error {
            kind: Kind::User,
            context: context.into(),
            source: None,
        }
    }

    /// The host failed.
    pub fn host(context: impl Into<String>) -> Error {
        Error {
            kind: Kind::Host,
            context: context.into(),
            source: None,
        }
    }

    /// The same with its cause.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        self.source = Some(source.into());
        self
    }

    /// Whose failure it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.context)?;
        match &self.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
