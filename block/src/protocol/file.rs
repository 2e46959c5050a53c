//! `file` and `host_device`: a regular file, or a disk of the host.
//!
//! One operation of a node is one leaf operation of the executor that the request runs on. The file's
//! length is what this node has made it: it is read when it is opened, grows with writes past its end and
//! changes with a resize, so that every thread sees the same.

mod queue;
#[cfg(test)]
mod tests;

use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use exec::{Allocate, Engine, File, FileKind, Sync, Transfer};

use super::lock::{self, Refused};
use crate::driver::{Driver, Extent, Limits};
use crate::edge::Role;
use crate::error::{Error, ErrorKind, errno};
use crate::graph::{Opened, Opening};
use crate::options::{OnOffAuto, Tree, from_tree};
use crate::perm::Perms;
use crate::request::{Flags, Io, Op, Request};

crate::options! {
    /// How the host does I/O.
    pub enum Aio {
        /// Threads that block.
        Threads = "threads",
        /// The thread's io_uring (QEMU: Linux AIO).
        Native = "native",
        /// The thread's io_uring.
        IoUring = "io_uring",
    }
}

crate::options! {
    /// Options of `driver=file` and `driver=host_device`.
    pub struct FileOptions {
        /// Path of the image.
        pub filename: String,
        /// How the host does I/O; io_uring where the host allows it unless said.
        pub aio: Option<Aio> = None,
        /// Whether the image is locked against other users: `auto` does where the file system can.
        pub locking: OnOffAuto = OnOffAuto::Auto,
    }
}

struct HostFile {
    file: File,
    path: String,
    limits: Limits,
    len: AtomicU64,
    locking: bool,
    /// What the locks held now stand for.
    held: Mutex<Perms>,
    /// The errno of a flush through the page cache that failed: the kernel has forgotten which data was
    /// lost, so no later flush may succeed.
    lost: AtomicI32,
    /// FALLOC_FL_ZERO_RANGE is not to be had here.
    no_zero_range: AtomicBool,
}

/// Opens `driver=file`.
pub(crate) async fn open_file(opening: &mut Opening<'_>, options: Tree) -> Result<Opened, Error> {
    open(opening, options, false).await
}

/// Opens `driver=host_device`.
pub(crate) async fn open_host_device(
    opening: &mut Opening<'_>,
    options: Tree,
) -> Result<Opened, Error> {
    open(opening, options, true).await
}

async fn open(opening: &mut Opening<'_>, options: Tree, device: bool) -> Result<Opened, Error> {
    let options: FileOptions = from_tree(options)?;
    let path = options.filename;
    let at = |error: Error| error.at("filename");
    if path.starts_with("/dev/fdset/") {
        return Err(at(Error::new(
            ErrorKind::Unsupported,
            "passing descriptors (-add-fd) is not in this build",
        )));
    }
    let (file, read_only, direct) = exec::offload({
        let (path, read_only) = (path.clone(), opening.read_only);
        let (auto, direct) = (opening.auto_read_only, opening.direct);
        move || open_path(&path, device, read_only, auto, direct)
    })
    .await
    .map_err(at)?;
    opening.read_only = read_only;
    if opening.direct && !direct {
        opening.warn(format!(
            "'{path}' cannot be opened with cache.direct=on on its file system; it goes through the page cache"
        ));
        opening.direct = false;
    }
    let mut file = File::new(file.into())
        .map_err(|error| at(Error::io(format!("cannot use '{path}'"), error)))?;
    if options.aio == Some(Aio::Threads) {
        file = file
            .with_engine(Engine::Threads)
            .map_err(|error| Error::io("cannot use threads", error).at("aio"))?;
    }
    let len = file.len().map_err(|error| {
        at(Error::io(
            format!("cannot find the length of '{path}'"),
            error,
        ))
    })?;
    let locking = match options.locking {
        OnOffAuto::Off => false,
        OnOffAuto::Auto => lock::supported(file.as_fd()),
        OnOffAuto::On if lock::supported(file.as_fd()) => true,
        OnOffAuto::On => {
            let reason = format!("the file system of '{path}' has no locks");
            return Err(Error::new(ErrorKind::Unsupported, reason).at("locking"));
        }
    };
    let limits = limits(&file);
    Ok(Box::new(HostFile {
        file,
        path,
        limits,
        len: AtomicU64::new(len),
        locking,
        held: Mutex::new(Perms::NONE),
        lost: AtomicI32::new(0),
        no_zero_range: AtomicBool::new(false),
    }))
}

/// Opens the path as asked, falling back to read-only where `auto` allows and to the page cache where
/// the file system has no direct I/O. Returns what it came to: (file, read-only, direct).
fn open_path(
    path: &str,
    device: bool,
    read_only: bool,
    auto: bool,
    direct: bool,
) -> Result<(std::fs::File, bool, bool), Error> {
    let cannot = |error| Error::io(format!("cannot open '{path}'"), error);
    // Looked at before it is opened: opening a pipe would wait for its other end.
    let kind = std::fs::metadata(path).map_err(cannot)?.file_type();
    match (
        device,
        kind.is_block_device() || kind.is_char_device(),
        kind.is_file(),
    ) {
        (true, true, _) | (false, _, true) => {}
        (true, ..) => {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("'{path}' is not a device; use driver=file"),
            ));
        }
        (false, true, _) => {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("'{path}' is a device; use driver=host_device"),
            ));
        }
        _ if kind.is_dir() => {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("'{path}' is a directory"),
            ));
        }
        _ => {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("'{path}' is not a regular file"),
            ));
        }
    }
    let attempt = |read_only: bool, direct: bool| {
        let flags = libc::O_NOCTTY | if direct { libc::O_DIRECT } else { 0 };
        std::fs::OpenOptions::new()
            .read(true)
            .write(!read_only)
            .custom_flags(flags)
            .open(path)
    };
    let mut access = (read_only, direct);
    loop {
        match attempt(access.0, access.1) {
            Ok(file) => return Ok((file, access.0, access.1)),
            Err(error) => match error.raw_os_error() {
                Some(libc::EINVAL) if access.1 => access.1 = false,
                Some(libc::EACCES | libc::EROFS | libc::EPERM) if auto && !access.0 => {
                    access.0 = true
                }
                _ => return Err(cannot(error)),
            },
        }
    }
}

fn limits(file: &File) -> Limits {
    let align = file.direct_alignment();
    let limits = Limits {
        request_alignment: align.offset,
        memory_alignment: align.memory,
        logical_block: align.offset,
        physical_block: align.offset.max(512),
        // A synced write through the page cache also reports what earlier writes lost, and the kernel then forgets
        // it. Only `flush` remembers, so there it is a write and a flush.
        fua: align.offset > 1,
        ..Limits::default()
    };
    if file.kind() == FileKind::BlockDevice {
        queue::limits(file.as_fd(), limits)
    } else {
        limits
    }
}

impl HostFile {
    async fn write(&self, write: Transfer<'_>, end: u64) -> io::Result<()> {
        write.await?;
        self.grown(end);
        Ok(())
    }

    async fn discard(&self, range: Range<u64>) -> io::Result<()> {
        self.file.discard(range).await.map_err(unsupported)
    }

    async fn flush(&self) -> io::Result<()> {
        let lost = self.lost.load(Ordering::Relaxed);
        if lost != 0 {
            return Err(errno(lost));
        }
        let done = match self.file.sync(Sync::Data).await {
            // What /dev/null says: there is nothing behind it that could be late.
            Err(error)
                if self.file.kind() == FileKind::CharDevice
                    && error.raw_os_error() == Some(libc::EINVAL) =>
            {
                Ok(())
            }
            done => done,
        };
        if let Err(error) = &done
            && self.limits.request_alignment == 1
        {
            self.lost
                .store(error.raw_os_error().unwrap_or(libc::EIO), Ordering::Relaxed);
        }
        done
    }

    /// Zeroes the range without writing zero bytes, or says ENOTSUP.
    async fn zero(&self, range: Range<u64>, flags: Flags) -> io::Result<()> {
        // A hole does not lengthen the file; where it ends beyond, the file must be made longer.
        let inside = range.end <= self.len.load(Ordering::Relaxed);
        if flags.contains(Flags::MAY_UNMAP) && inside {
            match self
                .file
                .allocate(Allocate::PunchHole, range.clone())
                .await
                .map_err(unsupported)
            {
                Err(error) if error.raw_os_error() == Some(libc::ENOTSUP) => {}
                done => return done,
            }
        }
        if self.file.kind() == FileKind::BlockDevice {
            // The kernel writes zeroes itself where the device cannot.
            return match flags.contains(Flags::NO_FALLBACK) {
                true => Err(errno(libc::ENOTSUP)),
                false => self.file.zero_out(range).await.map_err(unsupported),
            };
        }
        if self.no_zero_range.load(Ordering::Relaxed) {
            return Err(errno(libc::ENOTSUP));
        }
        let end = range.end;
        let done = self
            .file
            .allocate(Allocate::ZeroRange { keep_size: false }, range)
            .await
            .map_err(unsupported);
        match &done {
            Ok(()) => self.grown(end),
            Err(error) if error.raw_os_error() == Some(libc::ENOTSUP) => {
                self.no_zero_range.store(true, Ordering::Relaxed);
            }
            Err(_) => {}
        }
        done
    }

    fn grown(&self, end: u64) {
        if end > self.len.load(Ordering::Relaxed) {
            self.len.fetch_max(end, Ordering::Relaxed);
        }
    }

    async fn extent(&self, range: Range<u64>) -> io::Result<Extent> {
        let (data, end) = self.file.data_at(range.clone()).await?;
        let len = end.saturating_sub(range.start);
        Ok(Extent {
            len,
            allocated: true,
            zero: !data,
            data,
            at: Some(range.start),
        })
    }

    async fn set_len(&self, len: u64) -> io::Result<()> {
        if self.file.kind() != FileKind::Regular {
            return Err(errno(libc::ENOTSUP));
        }
        self.file.set_len(len).await?;
        self.len.store(len, Ordering::Relaxed);
        Ok(())
    }

    fn in_use(&self, refused: Refused) -> Error {
        match refused {
            Refused::Io(error) => Error::io(format!("cannot lock '{}'", self.path), error),
            Refused::Held {
                perm,
                sharing,
                byte,
            } => {
                let shared = if sharing { "shared " } else { "" };
                let who = match lock::holder(self.file.as_fd(), byte) {
                    Some(who) => format!("{who} uses it"),
                    None => format!(
                        "another disk here uses it, or another process, which 'fuser -v {}' names",
                        self.path
                    ),
                };
                Error::new(
                    ErrorKind::InUse,
                    format!(
                        "failed to get {shared}\"{perm}\" lock on '{}': {who}",
                        self.path
                    ),
                )
            }
        }
    }
}

/// What the kernel says where an operation does not exist becomes ENOTSUP.
fn unsupported(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::ENOTTY | libc::EINVAL | libc::ENODEV) => {
            errno(libc::ENOTSUP)
        }
        _ => error,
    }
}

impl Driver for HostFile {
    fn submit<'a>(&'a self, req: Request<'a>) -> Io<'a> {
        let range = req.offset..req.offset.saturating_add(req.len);
        match req.op {
            Op::Read(to) => Box::pin(self.file.read_at(req.offset, to)),
            Op::Write(from) => {
                let durable = req.flags.contains(Flags::FUA);
                Box::pin(self.write(self.file.write_at(req.offset, from, durable), range.end))
            }
            Op::Flush => Box::pin(self.flush()),
            Op::Discard => Box::pin(self.discard(range)),
            Op::WriteZeroes => Box::pin(self.zero(range, req.flags)),
        }
    }

    fn status(&self, range: Range<u64>) -> Io<'_, Extent> {
        Box::pin(self.extent(range))
    }

    fn len(&self) -> u64 {
        self.len.load(Ordering::Relaxed)
    }

    fn limits(&self) -> Limits {
        self.limits
    }

    fn perms(&self, _role: Role, above: Perms) -> Perms {
        above
    }

    fn acquire(&self, perms: Perms) -> Result<(), Error> {
        if !self.locking {
            return Ok(());
        }
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        lock::change(self.file.as_fd(), *held, perms).map_err(|refused| self.in_use(refused))?;
        *held = perms;
        Ok(())
    }

    fn resize(&self, len: u64) -> Io<'_> {
        Box::pin(self.set_len(len))
    }
}
