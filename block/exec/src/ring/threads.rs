//! The ring for hosts that refuse io_uring: operations go to the pool, descriptors are watched by epoll.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;

use rustix::event::{Timespec, epoll};

use super::{Completion, Ring, Wait};
use crate::file::Leaf;
use crate::op::Op;

pub(crate) struct Threads {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
    /// Watches that were ended and still owe their last completion.
    ended: Vec<u64>,
}

impl Threads {
    pub(crate) fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Self {
            epoll,
            events: Vec::with_capacity(64),
            ended: Vec::new(),
        })
    }
}

impl Ring for Threads {
    unsafe fn push(&mut self, _: &Op, _: Option<&Arc<Leaf>>, _: u64) -> bool {
        false
    }

    fn cancel(&mut self, _: u64) {}

    fn watch(&mut self, fd: RawFd, token: u64) -> io::Result<()> {
        // SAFETY: the caller keeps `fd` open while it is watched.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        let data = epoll::EventData::new_u64(token);
        Ok(epoll::add(
            &self.epoll,
            fd,
            data,
            epoll::EventFlags::IN | epoll::EventFlags::ET,
        )?)
    }

    fn unwatch(&mut self, fd: RawFd, token: u64) {
        // SAFETY: the caller keeps `fd` open until the watch's last completion.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        // It was added, so this cannot fail; and if it did, the completion below would still be due.
        let _ = epoll::delete(&self.epoll, fd);
        self.ended.push(token);
    }

    fn enter(&mut self, wait: Wait, out: &mut Vec<Completion>) -> io::Result<()> {
        let timeout = match wait {
            Wait::Until(limit) if self.ended.is_empty() => limit.map(|t| Timespec {
                tv_sec: t.as_secs().min(i64::MAX as u64).cast_signed(),
                tv_nsec: t.subsec_nanos().into(),
            }),
            _ => Some(Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            }),
        };
        self.events.clear();
        match epoll::wait(
            &self.epoll,
            rustix::buffer::spare_capacity(&mut self.events),
            timeout.as_ref(),
        ) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ended = &self.ended;
        let alive = self
            .events
            .iter()
            .map(|event| event.data.u64())
            .filter(|token| !ended.contains(token));
        out.extend(alive.map(|token| Completion {
            token,
            result: 1,
            more: true,
        }));
        out.extend(self.ended.drain(..).map(|token| Completion {
            token,
            result: 0,
            more: false,
        }));
        Ok(())
    }

    fn is_ready(&mut self) -> bool {
        // Pool results come as messages; kicks would cost a system call to see, which is what sleeping is for.
        !self.ended.is_empty()
    }

    fn event_fd(&mut self) -> io::Result<BorrowedFd<'_>> {
        Ok(self.epoll.as_fd())
    }
}
