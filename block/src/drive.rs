//! What a device holds: the root of a tree of nodes, with the policy and the counters of one guest disk.
//!
//! Here is what concerns the disk as a guest sees it: its length in whole sectors, read-only, the write
//! cache, requests in flight, accounting. What concerns a node is on its edges (`io`).
//!
//! Errors are reported to the guest: `rerror=report,werror=report` is the only policy until a monitor
//! can stop and resume the machine. The first of each kind of request that the host fails is logged, so
//! that a full file system is known outside the guest too; further ones are not, since a guest can make
//! as many as it likes.
//!
//! A `Drive` is made and owned by a [`Graph`](crate::Graph); requests may come from any executor.

mod filename;
pub mod options;
mod parked;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use exec::drain::Gate;

use crate::driver::{Extent, Limits};
use crate::edge::{Edge, Role};
use crate::error::errno;
use crate::io::SECTOR;
use crate::node::Node;
use crate::perm::Perms;
use crate::request::{Flags, Io, Op, OpKind, Request};
use parked::Parked;

/// What a device offers its drive. Called on the main executor without a lock held; implementations
/// never await and send the drive no requests. The defaults are those of a fixed disk.
pub trait DriveEvents: Send + Sync {
    /// A medium was put in (`loaded`) or taken out.
    fn media_changed(&self, _loaded: bool) {}
    /// Somebody wants the medium out; `force`: a lock by the guest does not count.
    fn eject_requested(&self, _force: bool) {}
    /// Whether the tray is open.
    fn is_tray_open(&self) -> bool {
        false
    }
    /// Whether the guest has locked the medium in.
    fn is_medium_locked(&self) -> bool {
        false
    }
    /// The length has changed.
    fn resized(&self) {}
    /// No request is in flight any more, and none will start until [`DriveEvents::resumed`].
    fn drained(&self) {}
    /// Requests may start again.
    fn resumed(&self) {}
}

/// How a device uses a drive.
#[derive(Clone, Debug, Default)]
pub struct Attach {
    /// The device that holds it, as error messages name it.
    pub device: String,
    /// The guest must not write, although the node could.
    pub read_only: bool,
    /// Others may write to the image meanwhile.
    pub share_rw: bool,
}

/// A guest's disk.
pub struct Drive {
    id: String,
    root: Edge,
    serial: Option<String>,
    /// The node can be written.
    writable: bool,
    read_only: AtomicBool,
    /// A device holds it.
    attached: AtomicBool,
    write_cache: AtomicBool,
    gate: Gate,
    parked: Parked,
    stats: [OpStats; 5],
    events: Mutex<Option<Arc<dyn DriveEvents>>>,
    /// Who holds it.
    user: Mutex<Option<User>>,
    /// Made for one device from a node's name: it goes when the device goes.
    pub(crate) anonymous: bool,
}

#[cfg(test)]
mod tests;

struct User {
    device: String,
    perms: Perms,
}

/// Counters of one operation.
#[derive(Default)]
#[repr(align(64))]
struct OpStats {
    count: AtomicU64,
    bytes: AtomicU64,
    failed: AtomicU64,
    /// A failure was logged.
    told: AtomicBool,
}

/// What a drive has done since it was made, by [`OpKind`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats([OpCount; 5]);

/// What became of the requests of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpCount {
    /// Requests that succeeded.
    pub count: u64,
    /// Bytes they moved.
    pub bytes: u64,
    /// Requests that failed, refused ones included.
    pub failed: u64,
}

impl std::ops::Index<OpKind> for Stats {
    type Output = OpCount;

    fn index(&self, kind: OpKind) -> &OpCount {
        let [read, write, write_zeroes, discard, flush] = &self.0;
        match kind {
            OpKind::Read => read,
            OpKind::Write => write,
            OpKind::WriteZeroes => write_zeroes,
            OpKind::Discard => discard,
            OpKind::Flush => flush,
        }
    }
}

impl Drive {
    pub(crate) fn new(
        id: String,
        node: Arc<Node>,
        config: &options::DriveConfig,
        anonymous: bool,
    ) -> Self {
        let writable = !node.read_only;
        Self {
            id,
            root: Edge::new(Role::Root, "", node),
            serial: config.serial.clone(),
            writable,
            read_only: AtomicBool::new(!writable),
            attached: AtomicBool::new(false),
            write_cache: AtomicBool::new(config.write_cache),
            gate: Gate::new(),
            parked: Parked::default(),
            stats: Default::default(),
            events: Mutex::new(None),
            user: Mutex::new(None),
            anonymous,
        }
    }

    /// Does one request of the guest, which is in flight from this call on. It waits while the drive is drained.
    ///
    /// # Errors
    /// `EROFS` for a change of a read-only disk, `EIO` for a range that is not on the disk, `EINVAL` for
    /// buffers of another length than the request, `ECANCELED` when the request was parked and
    /// [`Drive::discard_parked`] was called, `ENODEV` when it was detached or closed meanwhile, else what the node says.
    pub fn submit<'a>(
        &'a self,
        req: Request<'a>,
    ) -> impl Future<Output = io::Result<()>> + use<'a> {
        let (kind, len) = (req.kind(), req.len);
        // What can be done before the first wait is done outside the future, which then holds little.
        let (inside, work) = match self.gate.try_enter() {
            Some(inside) => (Some(inside), self.begin(req)),
            None => (None, Ok(self.park(req))),
        };
        async move {
            let result = match work {
                Ok(work) => {
                    let done = work.await;
                    done.inspect_err(|error| self.tell(kind, error))
                }
                Err(refused) => Err(refused),
            };
            drop(inside);
            self.account(kind, len, result.is_ok());
            result
        }
    }

    fn begin<'a>(&'a self, req: Request<'a>) -> io::Result<Io<'a>> {
        self.admit(req).map(|req| self.root.submit(req))
    }

    /// Begins when the gate is open again.
    fn park<'a>(&'a self, req: Request<'a>) -> Io<'a> {
        Box::pin(async move {
            let _inside = self.parked.enter(&self.gate).await?;
            self.begin(req)?.await
        })
    }

    /// What the guest may ask, with the write cache's flag.
    fn admit<'a>(&self, mut req: Request<'a>) -> io::Result<Request<'a>> {
        if !self.attached.load(Ordering::Relaxed) {
            return Err(errno(libc::ENODEV));
        }
        let buffers = match &req.op {
            Op::Read(to) => to.len() as u64,
            Op::Write(from) => from.len() as u64,
            _ => req.len,
        };
        if buffers != req.len {
            return Err(errno(libc::EINVAL));
        }
        if req.end().is_none_or(|end| end > self.len()) {
            return Err(errno(libc::EIO));
        }
        if req.is_write() {
            if self.is_read_only() {
                return Err(errno(libc::EROFS));
            }
            if !self.write_cache() && !matches!(req.op, Op::Discard) {
                req.flags |= Flags::FUA;
            }
        }
        Ok(req)
    }

    fn tell(&self, kind: OpKind, error: &io::Error) {
        let stats = self.stats.get(kind as usize);
        // An answer, and the end of what was parked: no failures of the host.
        if let Some(libc::EOPNOTSUPP | libc::ECANCELED) = error.raw_os_error() {
            return;
        }
        if stats.is_some_and(|stats| !stats.told.swap(true, Ordering::Relaxed)) {
            tracing::warn!(
                "disk '{}': {kind:?} failed: {error}; the guest is told, and no further such failure is shown",
                self.id
            );
        }
    }

    fn account(&self, kind: OpKind, len: u64, done: bool) {
        let Some(stats) = self.stats.get(kind as usize) else {
            return;
        };
        if done {
            stats.count.fetch_add(1, Ordering::Relaxed);
            stats.bytes.fetch_add(len, Ordering::Relaxed);
        } else {
            stats.failed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What is known about the first bytes of a range.
    pub fn status(&self, range: std::ops::Range<u64>) -> Io<'_, Extent> {
        self.root.status(range)
    }

    /// The name it goes by: `id=`, or the node's name.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The serial number for the guest, if one was given.
    pub fn serial(&self) -> Option<&str> {
        self.serial.as_deref()
    }

    /// The top node of its tree.
    pub fn node(&self) -> &Arc<Node> {
        self.root.node()
    }

    pub(crate) fn root(&self) -> &Edge {
        &self.root
    }

    /// Bytes on the disk, in whole sectors of 512: a shorter end of an image is rounded up.
    pub fn len(&self) -> u64 {
        let len = self.root.len();
        len.checked_next_multiple_of(SECTOR).unwrap_or(len)
    }

    /// Whether the disk has no sector.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the guest must not write.
    pub fn is_read_only(&self) -> bool {
        self.read_only.load(Ordering::Relaxed)
    }

    /// What suits the medium. Any request is made to fit; `request_alignment` is the smallest block that
    /// needs no read-modify-write. `max_discard` and `max_write_zeroes` are never 0.
    pub fn limits(&self) -> Limits {
        let limits = self.root.limits();
        Limits {
            request_alignment: limits.request_alignment.max(limits.logical_block),
            ..limits
        }
    }

    /// Whether acknowledged writes may be lost with the host until a flush.
    pub fn write_cache(&self) -> bool {
        self.write_cache.load(Ordering::Relaxed)
    }

    /// Switches the write cache; when it is off every write is durable before it is acknowledged. What
    /// was written before is not flushed by this: a guest that switches it off flushes.
    pub fn set_write_cache(&self, on: bool) {
        self.write_cache.store(on, Ordering::Relaxed);
    }

    /// Sets who hears of changes: the device.
    pub fn set_events(&self, events: Option<Arc<dyn DriveEvents>>) {
        *self.events.lock().unwrap_or_else(PoisonError::into_inner) = events;
    }

    pub(crate) fn events(&self) -> Option<Arc<dyn DriveEvents>> {
        self.events
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Waits until none of the requests made so far is in flight; later ones wait until then, too. Not
    /// from inside a request.
    pub async fn drain(&self) {
        drop(self.gate.drain().await);
    }

    /// Where its requests are counted.
    pub(crate) fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Ends every parked request with `ECANCELED`: the device that made them was reset or unplugged.
    pub fn discard_parked(&self) {
        self.parked.discard();
    }

    /// What it has done since it was made.
    pub fn stats(&self) -> Stats {
        Stats(self.stats.each_ref().map(|stats| OpCount {
            count: stats.count.load(Ordering::Relaxed),
            bytes: stats.bytes.load(Ordering::Relaxed),
            failed: stats.failed.load(Ordering::Relaxed),
        }))
    }

    /// What its device uses and shares.
    pub fn perms(&self) -> Perms {
        self.user
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_ref()
            .map_or(Perms::NONE, |user| user.perms)
    }

    /// The device that holds it.
    pub fn device(&self) -> Option<String> {
        self.user
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_ref()
            .map(|user| user.device.clone())
    }

    /// Set by the graph, which has checked the permissions.
    pub(crate) fn set_user(&self, attach: Option<(&Attach, Perms)>) {
        let read_only = !self.writable || attach.is_some_and(|(attach, _)| attach.read_only);
        self.read_only.store(read_only, Ordering::Relaxed);
        self.attached.store(attach.is_some(), Ordering::Relaxed);
        *self.user.lock().unwrap_or_else(PoisonError::into_inner) =
            attach.map(|(attach, perms)| User {
                device: attach.device.clone(),
                perms,
            });
    }
}

impl std::fmt::Debug for Drive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Drive")
            .field("id", &self.id)
            .field("node", self.node())
            .finish_non_exhaustive()
    }
}
