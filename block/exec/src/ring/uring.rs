//! The ring proper: one io_uring, owned by one thread.
//!
//! - `SINGLE_ISSUER | DEFER_TASKRUN` where the kernel has them (6.1): completions are worked out when this thread
//!   enters with GETEVENTS, so `is_ready` also looks at the TASKRUN flag. Older kernels get COOP_TASKRUN or nothing, and
//!   so does a ring that another loop polls.
//! - Leaves are registered in a sparse table the first time they are used here; slot = the leaf's index. A slot is
//!   emptied when the leaf is dropped, else the ring would keep the file open.
//! - The ring is restricted (5.10) to the operations of this file before it is enabled: what goes through a ring passes
//!   no seccomp filter, so a subverted thread must not find open or connect in it.
//! - Watches are multishot polls, which are edge-triggered; the executor re-arms one that completes without F_MORE.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;

use io_uring::types::{Fd, Fixed, FsyncFlags, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, register::Restriction, squeue};

use super::{Completion, IGNORE, Ring, Wait};
use crate::file::Leaf;
use crate::op::{Memory, Op};

const ENTRIES: u32 = 256;
const COMPLETIONS: u32 = 4096;
/// Slots for registered files; leaves with a higher index go unregistered.
const FILES: u32 = 1024;
const ENTER_GETEVENTS: u32 = 1;

pub(crate) struct Uring {
    ring: IoUring,
    /// Entries that found the submission queue full.
    backlog: VecDeque<squeue::Entry>,
    /// The generation of the leaf in each slot, 0 for none; `None` where there is no sparse table (before 5.19).
    files: Option<Vec<u64>>,
    messages: bool,
}

impl Uring {
    /// `hosted`: another loop polls the ring's descriptor. A ring with DEFER_TASKRUN does not wake who polls it, and its
    /// eventfd falls silent (seen on 6.18) after a completion that another eventfd caused.
    ///
    /// # Errors
    /// What io_uring_setup says, or ENOSYS when the kernel's io_uring lacks what is needed (5.13).
    pub(crate) fn new(hosted: bool) -> io::Result<Self> {
        let builder = || {
            let mut builder = IoUring::builder();
            builder
                .setup_clamp()
                .setup_cqsize(COMPLETIONS)
                .setup_r_disabled()
                .dontfork();
            builder
        };
        let deferred = || {
            builder()
                .setup_single_issuer()
                .setup_defer_taskrun()
                .setup_taskrun_flag()
                .setup_submit_all()
                .build(ENTRIES)
        };
        let cooperative = || {
            builder()
                .setup_coop_taskrun()
                .setup_taskrun_flag()
                .setup_submit_all()
                .build(ENTRIES)
        };
        let ring = match hosted {
            true => builder().setup_single_issuer().build(ENTRIES),
            false => deferred().or_else(|_| cooperative()),
        }
        .or_else(|_| builder().build(ENTRIES))?;
        let params = ring.params();
        // Resource tagging came with multishot poll.
        if !(params.is_feature_ext_arg()
            && params.is_feature_nodrop()
            && params.is_feature_resource_tagging())
        {
            return Err(io::Error::from_raw_os_error(libc::ENOSYS));
        }
        let files = ring
            .submitter()
            .register_files_sparse(FILES)
            .is_ok()
            .then(Vec::new);
        let mut probe = io_uring::Probe::new();
        let messages = ring.submitter().register_probe(&mut probe).is_ok()
            && params.is_setup_single_issuer()
            && probe.is_supported(opcode::MsgRingData::CODE);
        restrict(&ring, messages)?;
        ring.submitter().register_enable_rings()?;
        Ok(Self {
            ring,
            backlog: VecDeque::new(),
            files,
            messages,
        })
    }

    fn queue(&mut self, entry: squeue::Entry) {
        // SAFETY: every entry comes from `push` (whose contract keeps its memory valid) or names no memory.
        if !self.backlog.is_empty() || unsafe { self.ring.submission().push(&entry) }.is_err() {
            self.backlog.push_back(entry);
        }
    }

    /// The slot of `leaf`, if it has or can get one.
    fn slot(&mut self, leaf: &Arc<Leaf>) -> Option<Fixed> {
        let files = self.files.as_mut()?;
        let index = leaf.index();
        if let Some(held) = files.get(index as usize)
            && *held == leaf.generation()
        {
            return Some(Fixed(index));
        }
        if index >= FILES
            || self
                .ring
                .submitter()
                .register_files_update(index, &[leaf.raw_fd()])
                .is_err()
        {
            return None;
        }
        let place = index as usize;
        if files.len() <= place {
            files.resize(place + 1, 0);
        }
        if let Some(held) = files.get_mut(place) {
            *held = leaf.generation();
        }
        leaf.registered_here();
        Some(Fixed(index))
    }
}

/// What may be asked of a ring from here on.
fn restrict(ring: &IoUring, messages: bool) -> io::Result<()> {
    const OPERATIONS: [u8; 9] = [
        opcode::Nop::CODE,
        opcode::Read::CODE,
        opcode::Readv::CODE,
        opcode::Write::CODE,
        opcode::Writev::CODE,
        opcode::Fsync::CODE,
        opcode::Fallocate::CODE,
        opcode::AsyncCancel::CODE,
        opcode::PollAdd::CODE,
    ];
    // IORING_REGISTER_EVENTFD, IORING_REGISTER_FILES_UPDATE (linux/io_uring.h).
    const REGISTRATIONS: [u8; 2] = [4, 6];
    // IOSQE_FIXED_FILE.
    let flags = Restriction::sqe_flags_allowed(1);
    // A kernel refuses to hear of an operation that it does not have.
    let message = messages.then_some(opcode::MsgRingData::CODE);
    let operations = OPERATIONS
        .into_iter()
        .chain(message)
        .map(Restriction::sqe_op);
    let registrations = REGISTRATIONS.map(Restriction::register_op);
    let mut all: Vec<Restriction> = operations.chain(registrations).collect();
    all.push(flags);
    ring.submitter().register_restrictions(&mut all)
}

/// Builds an entry on a registered slot or on the plain descriptor.
macro_rules! on {
    ($target:expr, |$fd:ident| $build:expr) => {
        match $target {
            Ok($fd) => $build.build(),
            Err($fd) => $build.build(),
        }
    };
}

impl Ring for Uring {
    unsafe fn push(&mut self, op: &Op, leaf: Option<&Arc<Leaf>>, token: u64) -> bool {
        let Some(leaf) = leaf else {
            self.queue(opcode::Nop::new().build().user_data(token));
            return true;
        };
        let target = self.slot(leaf).ok_or(Fd(leaf.raw_fd()));
        let entry = match *op {
            Op::Nop => opcode::Nop::new().build(),
            Op::Read {
                to: Memory::One(ptr, len),
                offset,
            } => {
                let len = len.min(1 << 30) as u32;
                on!(target, |fd| opcode::Read::new(fd, ptr, len).offset(offset))
            }
            Op::Read {
                to: Memory::Many(iov, count),
                offset,
            } => {
                on!(target, |fd| opcode::Readv::new(fd, iov, count as u32)
                    .offset(offset))
            }
            Op::Write {
                from: Memory::One(ptr, len),
                offset,
                dsync,
            } => {
                let len = len.min(1 << 30) as u32;
                let flags = if dsync { libc::RWF_DSYNC } else { 0 };
                on!(target, |fd| opcode::Write::new(fd, ptr, len)
                    .offset(offset)
                    .rw_flags(flags))
            }
            Op::Write {
                from: Memory::Many(iov, count),
                offset,
                dsync,
            } => {
                let flags = if dsync { libc::RWF_DSYNC } else { 0 };
                on!(target, |fd| opcode::Writev::new(fd, iov, count as u32)
                    .offset(offset)
                    .rw_flags(flags))
            }
            Op::Sync { data_only } => {
                let flags = if data_only {
                    FsyncFlags::DATASYNC
                } else {
                    FsyncFlags::empty()
                };
                on!(target, |fd| opcode::Fsync::new(fd).flags(flags))
            }
            Op::Allocate { mode, offset, len } => {
                on!(target, |fd| opcode::Fallocate::new(fd, len)
                    .offset(offset)
                    .mode(mode))
            }
            Op::Discard { .. } | Op::ZeroOut { .. } | Op::SetLen(_) | Op::Seek { .. } => {
                return false;
            }
        };
        self.queue(entry.user_data(token));
        true
    }

    fn cancel(&mut self, token: u64) {
        self.queue(opcode::AsyncCancel::new(token).build().user_data(IGNORE));
    }

    fn watch(&mut self, fd: RawFd, token: u64) -> io::Result<()> {
        let poll = opcode::PollAdd::new(Fd(fd), libc::POLLIN as u32).multi(true);
        self.queue(poll.build().user_data(token));
        Ok(())
    }

    fn unwatch(&mut self, _: RawFd, token: u64) {
        self.cancel(token);
    }

    fn enter(&mut self, wait: Wait, out: &mut Vec<Completion>) -> io::Result<()> {
        let before = out.len();
        loop {
            while let Some(entry) = self.backlog.front() {
                // SAFETY: as in `queue`.
                if unsafe { self.ring.submission().push(entry) }.is_err() {
                    break;
                }
                self.backlog.pop_front();
            }
            let more = !self.backlog.is_empty();
            let queue = self.ring.submission();
            let (queued, work) = (queue.len() as u32, queue.taskrun() || queue.cq_overflow());
            drop(queue);
            let done = match wait {
                Wait::Until(limit)
                    if !more && out.len() == before && self.ring.completion().is_empty() =>
                {
                    let limit = limit.map(Timespec::from);
                    let args = SubmitArgs::new();
                    let args = match &limit {
                        Some(limit) => args.timespec(limit),
                        None => args,
                    };
                    self.ring.submitter().submit_with_args(1, &args)
                }
                _ if queued != 0 || work => {
                    // SAFETY: no argument; the queued entries are covered by `push`'s contract.
                    unsafe {
                        self.ring.submitter().enter::<()>(
                            queued,
                            0,
                            if work { ENTER_GETEVENTS } else { 0 },
                            None,
                        )
                    }
                }
                _ => Ok(0),
            };
            out.extend(self.ring.completion().map(|entry| Completion {
                token: entry.user_data(),
                result: entry.result().into(),
                more: cqueue::more(entry.flags()),
            }));
            match done.map_err(|error| (error.raw_os_error(), error)) {
                Ok(_) | Err((Some(libc::ETIME | libc::EINTR), _)) => {}
                // Completions first, then the kernel has room again.
                Err((Some(libc::EBUSY | libc::EAGAIN), _)) if out.len() > before => return Ok(()),
                Err((Some(libc::EBUSY | libc::EAGAIN), _)) => {
                    // SAFETY: no argument.
                    let _ = unsafe {
                        self.ring
                            .submitter()
                            .enter::<()>(0, 0, ENTER_GETEVENTS, None)
                    };
                    std::thread::sleep(std::time::Duration::from_micros(50));
                    return Ok(());
                }
                Err((_, error)) => return Err(error),
            }
            if !more {
                return Ok(());
            }
        }
    }

    fn is_ready(&mut self) -> bool {
        let queue = self.ring.submission();
        let work = !queue.is_empty() || queue.taskrun() || queue.cq_overflow();
        drop(queue);
        work || !self.backlog.is_empty() || !self.ring.completion().is_empty()
    }

    fn event_fd(&mut self) -> io::Result<BorrowedFd<'_>> {
        // SAFETY: the ring keeps its descriptor open, and the borrow keeps the ring.
        Ok(unsafe { BorrowedFd::borrow_raw(self.ring.as_raw_fd()) })
    }

    fn message(&mut self, target: RawFd, wake: u64, token: u64) -> bool {
        if self.messages && target >= 0 {
            self.queue(
                opcode::MsgRingData::new(Fd(target), 0, wake, None)
                    .build()
                    .user_data(token),
            );
        }
        self.messages && target >= 0
    }

    fn message_fd(&self) -> RawFd {
        if self.messages {
            self.ring.as_raw_fd()
        } else {
            -1
        }
    }

    fn forget(&mut self, index: u32, generation: u64) {
        if let Some(held) = self
            .files
            .as_mut()
            .and_then(|files| files.get_mut(index as usize))
            && *held == generation
        {
            *held = 0;
            // Emptying a slot that is in use cannot fail but for memory, and then the next use of the slot replaces it.
            let _ = self.ring.submitter().register_files_update(index, &[-1]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What an attacker would use a ring for.
    #[test]
    fn a_ring_opens_nothing() {
        let Ok(mut ring) = Uring::new(false) else {
            // Where io_uring is refused there is nothing to restrict.
            return;
        };
        let path = c"/etc/passwd";
        let open = opcode::OpenAt::new(Fd(libc::AT_FDCWD), path.as_ptr()).build();
        let socket = opcode::Socket::new(libc::AF_UNIX, libc::SOCK_STREAM, 0).build();
        let linked = opcode::Nop::new().build().flags(squeue::Flags::IO_LINK);
        for (what, entry) in [("open", open), ("socket", socket), ("link", linked)] {
            ring.queue(entry.user_data(7));
            let mut done = Vec::new();
            while done.is_empty() {
                ring.enter(Wait::Until(None), &mut done).unwrap();
            }
            assert_eq!(done[0].result, -i64::from(libc::EACCES), "{what}");
        }
        let again = ring
            .ring
            .submitter()
            .register_restrictions(&mut [Restriction::sqe_op(18)]);
        assert!(again.is_err());
    }
}
