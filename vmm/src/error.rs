//! What can go wrong, told in one line.

use std::{fmt, io};

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
    /// The host failed: under a running guest, or for want of descriptors before.
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

    /// The same as a failure of the host: nothing on the command line is to blame once a guest runs.
    #[must_use]
    pub fn of_host(mut self) -> Error {
        self.kind = Kind::Host;
        self
    }

    /// Whose failure it is. Whatever needs a descriptor when there is none left, it is the host's.
    pub fn kind(&self) -> Kind {
        match self.source.as_deref().is_some_and(|s| lacks_descriptors(s)) {
            true => Kind::Host,
            false => self.kind,
        }
    }
}

/// Whether a cause of `error` is that the process or the host has no descriptors left.
fn lacks_descriptors(error: &(dyn std::error::Error + 'static)) -> bool {
    let of_io = error.downcast_ref::<io::Error>();
    let of_kvm = error.downcast_ref::<kvm_ioctls::Error>();
    let errno = of_io
        .and_then(io::Error::raw_os_error)
        .or(of_kvm.map(|error| error.errno()));
    let inside = of_io.and_then(io::Error::get_ref);
    matches!(errno, Some(libc::EMFILE | libc::ENFILE))
        || inside.is_some_and(|inside| lacks_descriptors(inside))
        || error.source().is_some_and(lacks_descriptors)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_descriptors_are_the_hosts_failure_wherever_it_shows() {
        let errno = |errno| io::Error::from_raw_os_error(errno);
        let kind = |error: Error| Error::user("-drive #1").because(error).kind();
        for none in [libc::EMFILE, libc::ENFILE] {
            assert_eq!(kind(Error::user("open").because(errno(none))), Kind::Host);
            let wrapped = io::Error::other(io::Error::other(errno(none)));
            assert_eq!(kind(Error::user("open").because(wrapped)), Kind::Host);
            let kvm = kvm_ioctls::Error::new(none);
            assert_eq!(kind(Error::user("KVM").because(kvm)), Kind::Host);
            let block = block::Error::io("open", errno(none));
            assert_eq!(kind(Error::user("open").because(block)), Kind::Host);
        }
        let missing = Error::user("open").because(errno(libc::ENOENT));
        assert_eq!(kind(missing), Kind::User);
        assert_eq!(Error::user("x").of_host().kind(), Kind::Host);
    }
}
