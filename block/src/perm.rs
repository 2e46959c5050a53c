//! Who may do what with a node.
//!
//! Each user of a node (a drive, or a node above) says what it *uses* and what it lets others use
//! (*shares*). Two users fit together when neither uses what the other does not share. The bits have
//! QEMU's numbers, because image files are locked by them (see `protocol::lock`).

use std::fmt;

bitflags::bitflags! {
    /// Things a user may do with a node.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Perm: u32 {
        /// Reads that must give what was written last.
        const CONSISTENT_READ = 1;
        /// Writes that change what is read.
        const WRITE = 1 << 1;
        /// Writes that leave what is read as it is (copy-on-read, commit).
        const WRITE_UNCHANGED = 1 << 2;
        /// Changes of the length.
        const RESIZE = 1 << 3;
    }
}

impl fmt::Display for Perm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (name, _)) in self.iter_names().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            write!(f, "{comma}{}", name.to_ascii_lowercase().replace('_', "-"))?;
        }
        Ok(())
    }
}

/// What one user (or all users together) uses and shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Perms {
    /// What it does itself.
    pub used: Perm,
    /// What others may do meanwhile.
    pub shared: Perm,
}

impl Perms {
    /// A user that does nothing and minds nothing.
    pub const NONE: Perms = Perms {
        used: Perm::empty(),
        shared: Perm::all(),
    };

    /// A guest's disk: reads, writes unless `read_only`, and lets others write only if `share`.
    pub fn guest(read_only: bool, share: bool) -> Self {
        let write = if read_only {
            Perm::empty()
        } else {
            Perm::WRITE
        };
        let others = if share { Perm::WRITE } else { Perm::empty() };
        Self {
            used: Perm::CONSISTENT_READ | write,
            shared: Perm::CONSISTENT_READ | Perm::WRITE_UNCHANGED | Perm::RESIZE | others,
        }
    }

    /// Both users as one.
    #[must_use]
    pub fn and(self, other: Perms) -> Perms {
        Perms {
            used: self.used | other.used,
            shared: self.shared & other.shared,
        }
    }

    /// What this user does that `other` does not allow.
    pub fn conflict(self, other: Perms) -> Perm {
        self.used.difference(other.shared)
    }
}
