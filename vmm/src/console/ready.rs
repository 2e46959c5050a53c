//! Waiting for a descriptor on an executor.
//!
//! An executor watches a descriptor for input, edge-triggered. Any other readiness becomes that through
//! an epoll instance of its own, which is readable when what it watches is ready.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use exec::Kick;
use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};

/// Something to wait for.
pub struct Ready {
    fd: OwnedFd,
    events: PollFlags,
    /// None: a file, which is always ready.
    kick: Option<Kick>,
}

impl Ready {
    /// When `fd` can be read.
    ///
    /// # Errors
    /// No descriptors left.
    pub fn to_read(fd: BorrowedFd<'_>) -> io::Result<Ready> {
        Ready::new(fd, PollFlags::IN, epoll::EventFlags::IN)
    }

    /// When `fd` can be written.
    ///
    /// # Errors
    /// No descriptors left.
    pub fn to_write(fd: BorrowedFd<'_>) -> io::Result<Ready> {
        Ready::new(fd, PollFlags::OUT, epoll::EventFlags::OUT)
    }

    fn new(fd: BorrowedFd<'_>, events: PollFlags, watched: epoll::EventFlags) -> io::Result<Ready> {
        let watch = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let data = epoll::EventData::new_u64(0);
        let kick = match epoll::add(&watch, fd, data, watched) {
            Ok(()) => Some(Kick::new(watch)),
            Err(rustix::io::Errno::PERM) => None,
            Err(error) => return Err(error.into()),
        };
        let fd = fd.try_clone_to_owned()?;
        Ok(Ready { fd, events, kick })
    }

    /// Returns when the descriptor is ready, has an error or was hung up. One task at a time.
    ///
    /// # Errors
    /// None while the descriptor is open.
    pub async fn wait(&self) -> io::Result<()> {
        let Some(kick) = &self.kick else {
            // A file must not keep the executor's other tasks from running.
            exec::yield_now().await;
            return Ok(());
        };
        while !self.is_ready()? {
            kick.wait().await;
        }
        Ok(())
    }

    fn is_ready(&self) -> io::Result<bool> {
        let mut fds = [PollFd::from_borrowed_fd(self.fd.as_fd(), self.events)];
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        Ok(poll(&mut fds, Some(&now))? > 0)
    }
}
