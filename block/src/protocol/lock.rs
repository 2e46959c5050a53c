//! Locks on image files, byte for byte QEMU's, so that spindle, QEMU and qemu-img exclude each other.
//!
//! For permission number n (`Perm`), a user holds a shared lock on byte 100+n while it *uses* the
//! permission and on byte 200+n while it does *not share* it. Having taken its own, it looks whether
//! anybody holds 200+n for an n it uses, or 100+n for an n it does not share. Taking first and looking
//! second means that of two racing users at least one sees the other.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;

use exec::ofd::{self, Lock};

use crate::perm::{Perm, Perms};

const USED: u64 = 100;
const UNSHARED: u64 = 200;
const COUNT: u64 = 4;

/// Why the locks were not had.
#[derive(Debug)]
pub(super) enum Refused {
    /// Another process uses what `perm` says (or does not share it); its byte tells who.
    Held {
        perm: Perm,
        /// We would share too little, rather than use too much.
        sharing: bool,
        byte: u64,
    },
    /// The file has no such locks.
    Io(io::Error),
}

/// Moves from the locks for `old` to those for `new`. On failure those for `old` are held still.
pub(super) fn change(fd: BorrowedFd<'_>, old: Perms, new: Perms) -> Result<(), Refused> {
    let both = old.and(new);
    let taken = take(fd, both).and_then(|()| check(fd, new));
    let keep = if taken.is_ok() { new } else { old };
    release(fd, keep);
    taken
}

/// Whether the file's file system has such locks.
pub(super) fn supported(fd: BorrowedFd<'_>) -> bool {
    ofd::test(fd, 0, 1, Lock::Exclusive).is_ok()
}

fn bytes() -> impl Iterator<Item = (Perm, u64, u64)> {
    (0..COUNT).map(|n| {
        let perm = Perm::from_bits_truncate(1 << n);
        (perm, USED.saturating_add(n), UNSHARED.saturating_add(n))
    })
}

fn take(fd: BorrowedFd<'_>, perms: Perms) -> Result<(), Refused> {
    for (perm, used, unshared) in bytes() {
        let wanted = [
            (perms.used.contains(perm), used),
            (!perms.shared.contains(perm), unshared),
        ];
        for (_, byte) in wanted.into_iter().filter(|(wanted, _)| *wanted) {
            ofd::set(fd, byte, 1, Lock::Shared).map_err(|error| match error.raw_os_error() {
                // Only an exclusive lock of something that is not QEMU does this.
                Some(libc::EAGAIN | libc::EACCES) => Refused::Held {
                    perm,
                    sharing: byte >= UNSHARED,
                    byte,
                },
                _ => Refused::Io(error),
            })?;
        }
    }
    Ok(())
}

fn check(fd: BorrowedFd<'_>, perms: Perms) -> Result<(), Refused> {
    for (perm, used, unshared) in bytes() {
        let looks = [
            (perms.used.contains(perm), false, unshared),
            (!perms.shared.contains(perm), true, used),
        ];
        for (_, sharing, byte) in looks.into_iter().filter(|(wanted, ..)| *wanted) {
            if !ofd::test(fd, byte, 1, Lock::Exclusive).map_err(Refused::Io)? {
                return Err(Refused::Held {
                    perm,
                    sharing,
                    byte,
                });
            }
        }
    }
    Ok(())
}

/// Gives up every byte that `keep` does not ask for. Giving up cannot fail in a way that matters: the
/// kernel drops the lock with the descriptor at the latest.
fn release(fd: BorrowedFd<'_>, keep: Perms) {
    for (perm, used, unshared) in bytes() {
        for (kept, byte) in [
            (keep.used.contains(perm), used),
            (!keep.shared.contains(perm), unshared),
        ] {
            if !kept {
                let _ = ofd::set(fd, byte, 1, Lock::None);
            }
        }
    }
}

/// The process that holds a lock on `byte` of the file: `qemu-io (pid 123)`. `/proc/locks` has no process
/// for such locks, but each descriptor's fdinfo lists its own. `None` where those cannot be read.
pub(super) fn holder(fd: BorrowedFd<'_>, byte: u64) -> Option<String> {
    let file = rustix::fs::fstat(fd).ok()?;
    let id = format!(
        "{:02x}:{:02x}:{}",
        rustix::fs::major(file.st_dev),
        rustix::fs::minor(file.st_dev),
        file.st_ino
    );
    let own = std::process::id().to_string();
    for process in std::fs::read_dir("/proc").ok()?.flatten() {
        let name = process.file_name();
        let Some(pid) = name
            .to_str()
            .filter(|name| name.bytes().all(|b| b.is_ascii_digit()))
        else {
            continue;
        };
        if holds(&process.path().join("fdinfo"), &id, byte) {
            if pid == own {
                return Some("this process".to_owned());
            }
            let command = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some(format!("{} (pid {pid})", command.trim()));
        }
    }
    None
}

/// Whether one of a process's descriptors holds a lock on the byte. A line is
/// `lock:  1: OFDLCK  ADVISORY  READ -1 08:01:131 100 100`.
fn holds(fdinfo: &Path, id: &str, byte: u64) -> bool {
    let Ok(descriptors) = std::fs::read_dir(fdinfo) else {
        return false;
    };
    descriptors
        .flatten()
        .filter_map(|entry| std::fs::read_to_string(entry.path()).ok())
        .any(|info| {
            info.lines()
                .filter_map(|line| line.strip_prefix("lock:"))
                .any(|line| {
                    let words: Vec<&str> = line.split_whitespace().collect();
                    let [.., file, first, last] = words.as_slice() else {
                        return false;
                    };
                    let first: Option<u64> = first.parse().ok();
                    let last = if *last == "EOF" {
                        Some(u64::MAX)
                    } else {
                        last.parse().ok()
                    };
                    *file == id
                        && first.is_some_and(|first| first <= byte)
                        && last.is_some_and(|last| byte <= last)
                })
        })
}
