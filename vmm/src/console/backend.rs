//! Opens what `-serial` names.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::net::{SocketFlags, accept_with};
use rustix::pty;
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

use super::{ready::Ready, terminal};
use crate::config::Serial;
use crate::error::Error;

/// What a console talks to, or where it listens.
pub(super) enum Backend {
    /// No cable: what the guest writes is lost.
    Null,
    /// stdin and stdout.
    Stdio(Arc<Peer>),
    /// A file, truncated when the guest starts.
    File(Log),
    /// A socket and its name.
    Unix(Listener),
    /// A pseudo-terminal. Our own end of the guest's side stays open: without it the kernel reports a
    /// hang-up until someone opens the other.
    Pty { ours: OwnedFd, _theirs: OwnedFd },
}

/// A file that takes what the guest writes.
pub(super) struct Log {
    file: Arc<File>,
    path: PathBuf,
    /// We made it, and no guest has started: it goes again.
    is_trace: AtomicBool,
}

/// A listening socket, which is removed in the end.
pub(super) struct Listener {
    socket: UnixListener,
    ready: Ready,
    path: PathBuf,
    /// Device and inode: of what is removed.
    identity: (u64, u64),
    wait: bool,
}

/// Someone to talk to.
pub(super) struct Peer {
    input: Option<Source>,
    output: Sink,
}

struct Source {
    fd: OwnedFd,
    ready: Ready,
}

enum Sink {
    /// Never blocks.
    Nonblocking { fd: OwnedFd, ready: Ready },
    /// May block, and is therefore written by the pool.
    Blocking(Arc<File>),
}

impl Backend {
    pub(super) fn open(serial: &Serial) -> Result<Backend, Error> {
        match serial {
            Serial::Null | Serial::None => Ok(Backend::Null),
            Serial::Stdio => stdio()
                .map(|peer| Backend::Stdio(Arc::new(peer)))
                .map_err(|error| {
                    Error::user("-serial: cannot use stdin and stdout").because(error)
                }),
            Serial::File(path) => Log::open(path).map(Backend::File),
            Serial::Unix { path, wait } => Listener::bind(path, *wait).map(Backend::Unix),
            Serial::Pty => open_pty().map_err(|error| {
                Error::user("-serial: cannot open a pseudo-terminal").because(error)
            }),
        }
    }

    /// Whoever is there from the start. Opens nothing: the sandbox is in force.
    pub(super) fn start(&self) -> io::Result<Option<Arc<Peer>>> {
        match self {
            Backend::Null | Backend::Unix(_) => Ok(None),
            Backend::Stdio(peer) => {
                if terminal::is_stdin() {
                    terminal::make_raw()?;
                }
                Ok(Some(peer.clone()))
            }
            Backend::File(log) => {
                log.is_trace.store(false, Ordering::Relaxed);
                // What cannot be truncated (a device, a pipe) need not be.
                let _ = log.file.set_len(0);
                Ok(Some(Arc::new(Peer {
                    input: None,
                    output: Sink::to(&log.file)?,
                })))
            }
            Backend::Pty { ours, .. } => Ok(Some(Arc::new(Peer::both_ways(ours.try_clone()?)?))),
        }
    }

    /// The next to connect; `None` where nobody can.
    pub(super) async fn accept(&self) -> Option<Arc<Peer>> {
        let Backend::Unix(listener) = self else {
            return None;
        };
        loop {
            match listener.accept().await {
                Ok(peer) => return Some(Arc::new(peer)),
                // The peer is gone again, or there are no descriptors: both pass.
                Err(error) => {
                    tracing::debug!("-serial: {error}");
                    exec::sleep(std::time::Duration::from_millis(100)).await;
                }
            }
        }
    }

    /// Takes the name of a socket away.
    pub(super) fn close(&self) {
        if let Backend::Unix(listener) = self {
            remove(&listener.path, listener.identity);
        }
    }

    pub(super) fn takes_output(&self) -> bool {
        !matches!(self, Backend::Null)
    }

    pub(super) fn has_escapes(&self) -> bool {
        matches!(self, Backend::Stdio(_))
    }

    pub(super) fn is_terminal(&self) -> bool {
        matches!(self, Backend::Stdio(_)) && terminal::is_stdin()
    }

    pub(super) fn reconnects(&self) -> bool {
        matches!(self, Backend::Unix(_))
    }

    pub(super) fn waits(&self) -> bool {
        matches!(self, Backend::Unix(listener) if listener.wait)
    }
}

impl Peer {
    /// One descriptor that does not block, for both directions.
    fn both_ways(fd: OwnedFd) -> io::Result<Peer> {
        Ok(Peer {
            input: Some(Source::new(fd.try_clone()?)?),
            output: Sink::nonblocking(fd)?,
        })
    }

    /// Reads what there is, waiting for some. 0: the end.
    pub(super) async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(source) = &self.input else {
            return Ok(0);
        };
        loop {
            source.ready.wait().await?;
            match rustix::io::read(&source.fd, &mut *buffer) {
                Ok(read) => return Ok(read),
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Writes all of `bytes`, waiting for room; `bytes` is lent out and comes back.
    pub(super) async fn write_all(&self, bytes: &mut Vec<u8>) -> io::Result<()> {
        match &self.output {
            Sink::Blocking(file) => {
                let file = file.clone();
                let lent = std::mem::take(bytes);
                let (back, written) = exec::offload(move || {
                    let written = (&*file).write_all(&lent);
                    (lent, written)
                })
                .await;
                *bytes = back;
                written
            }
            Sink::Nonblocking { fd, ready } => {
                let mut rest = bytes.as_slice();
                while !rest.is_empty() {
                    match rustix::io::write(fd, rest) {
                        Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                        Err(rustix::io::Errno::AGAIN) => ready.wait().await?,
                        Err(rustix::io::Errno::INTR) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                Ok(())
            }
        }
    }

    /// Ends a connection, in both directions and for all who wait on it.
    pub(super) fn hang_up(&self) {
        if let Sink::Nonblocking { fd, .. } = &self.output {
            let _ = rustix::net::shutdown(fd, rustix::net::Shutdown::Both);
        }
    }
}

impl Source {
    fn new(fd: OwnedFd) -> io::Result<Source> {
        let ready = Ready::to_read(fd.as_fd())?;
        Ok(Source { fd, ready })
    }
}

impl Sink {
    fn nonblocking(fd: OwnedFd) -> io::Result<Sink> {
        let ready = Ready::to_write(fd.as_fd())?;
        Ok(Sink::Nonblocking { fd, ready })
    }

    /// A file, pipe or device that was opened with O_NONBLOCK, which files do not know.
    fn to(file: &Arc<File>) -> io::Result<Sink> {
        match file.metadata()?.is_file() {
            true => Ok(Sink::Blocking(file.clone())),
            false => Sink::nonblocking(file.try_clone()?.into()),
        }
    }

    /// stdout without making it non-blocking for those who share it: opened anew where that is the
    /// same thing (terminals, pipes), by the pool where it is not.
    fn stdout() -> io::Result<Sink> {
        let stdout = rustix::stdio::stdout();
        let kind = file_type(stdout)?;
        if kind.is_char_device() || kind.is_fifo() {
            let again = OpenOptions::new()
                .write(true)
                .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
                .open("/proc/self/fd/1");
            if let Ok(file) = again {
                return Sink::nonblocking(file.into());
            }
        }
        Ok(Sink::Blocking(Arc::new(
            stdout.try_clone_to_owned()?.into(),
        )))
    }
}

impl Log {
    fn open(path: &Path) -> Result<Log, Error> {
        // Truncated when the guest starts: until then nothing changes. Without O_NONBLOCK a pipe is
        // waited for, for ever if nobody reads it.
        let open = |is_new| {
            OpenOptions::new()
                .write(true)
                .create_new(is_new)
                .mode(0o666)
                .custom_flags(libc::O_NOCTTY | libc::O_NONBLOCK)
                .open(path)
        };
        let (file, is_trace) = match open(false) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => (open(true), true),
            there => (there, false),
        };
        let file = file.map_err(|error| match error.raw_os_error() {
            Some(libc::ENXIO) => Error::user(format!(
                "-serial: nobody reads the pipe '{}'; start its reader first",
                path.display()
            )),
            _ => cannot("open", path, error),
        })?;
        Ok(Log {
            file: Arc::new(file),
            path: path.to_owned(),
            is_trace: AtomicBool::new(is_trace),
        })
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        if let (true, Ok(file)) = (*self.is_trace.get_mut(), self.file.metadata()) {
            remove(&self.path, (file.dev(), file.ino()));
        }
    }
}

impl Listener {
    fn bind(path: &Path, wait: bool) -> Result<Listener, Error> {
        let failed = |error| cannot("listen on", path, error);
        let socket = match UnixListener::bind(path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                remove_stale(path)?;
                UnixListener::bind(path)
            }
            bound => bound,
        }
        .map_err(failed)?;
        socket.set_nonblocking(true).map_err(failed)?;
        let file = std::fs::symlink_metadata(path).map_err(failed)?;
        Ok(Listener {
            ready: Ready::to_read(socket.as_fd()).map_err(failed)?,
            socket,
            path: path.to_owned(),
            identity: (file.dev(), file.ino()),
            wait,
        })
    }

    async fn accept(&self) -> io::Result<Peer> {
        loop {
            self.ready.wait().await?;
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            match accept_with(&self.socket, flags) {
                Ok(stream) => return Peer::both_ways(stream),
                Err(rustix::io::Errno::AGAIN) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        remove(&self.path, self.identity);
    }
}

/// Removes a file if it still has this device and inode.
fn remove(path: &Path, identity: (u64, u64)) {
    let is_ours =
        std::fs::symlink_metadata(path).is_ok_and(|file| (file.dev(), file.ino()) == identity);
    if is_ours {
        let _ = std::fs::remove_file(path);
    }
}

/// Removes a socket that nobody listens on any more; anything else of that name stays.
fn remove_stale(path: &Path) -> Result<(), Error> {
    let shown = path.display();
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    if !is_socket {
        let what = format!("-serial: '{shown}' exists and is no socket; give another path");
        return Err(Error::user(what));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(|error| cannot("replace", path, error))
        }
        _ => Err(Error::user(format!(
            "-serial: '{shown}' is in use by another process; give another path"
        ))),
    }
}

/// A pseudo-terminal in raw mode. Its name is said on stderr, as nobody can guess it.
fn open_pty() -> io::Result<Backend> {
    let flags = pty::OpenptFlags::RDWR | pty::OpenptFlags::NOCTTY | pty::OpenptFlags::CLOEXEC;
    let ours = pty::openpt(flags)?;
    pty::grantpt(&ours)?;
    pty::unlockpt(&ours)?;
    let name = pty::ptsname(&ours, Vec::new())?;
    let name = name.to_string_lossy();
    let theirs = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NOCTTY)
        .open(&*name)?;
    let mut modes = tcgetattr(&theirs)?;
    terminal::set_raw(&mut modes);
    tcsetattr(&theirs, OptionalActions::Now, &modes)?;
    rustix::io::ioctl_fionbio(&ours, true)?;
    writeln!(io::stderr(), "spindle: the serial port is at {name}")?;
    Ok(Backend::Pty {
        ours,
        _theirs: theirs.into(),
    })
}

fn stdio() -> io::Result<Peer> {
    Ok(Peer {
        input: Some(Source::new(rustix::stdio::stdin().try_clone_to_owned()?)?),
        output: Sink::stdout()?,
    })
}

fn file_type(fd: BorrowedFd<'_>) -> io::Result<std::fs::FileType> {
    Ok(File::from(fd.try_clone_to_owned()?).metadata()?.file_type())
}

fn cannot(what: &str, path: &Path, error: io::Error) -> Error {
    Error::user(format!("-serial: cannot {what} '{}'", path.display())).because(error)
}
