//! One node of the graph: a driver with its name and the policy that edges apply for it.

use std::sync::{Mutex, PoisonError};

use crate::driver::{Driver, Limits};
use crate::edge::Edge;
use crate::io::{Overlaps, SECTOR};
use crate::options::Tree;
use crate::perm::Perms;

crate::options! {
    /// What a node does with discards.
    pub enum Discard {
        /// They are acknowledged and forgotten.
        Ignore = "ignore" | "off",
        /// They give space back to the host.
        Unmap = "unmap" | "on",
    }
}

crate::options! {
    /// What a node does with written data that is all zero.
    pub enum DetectZeroes {
        /// It is written like other data.
        Off = "off",
        /// It becomes a request to zero the range.
        On = "on",
        /// It becomes such a request, which may give space back if `discard=unmap`.
        Unmap = "unmap",
    }
}

crate::options! {
    /// How a node uses the host's page cache.
    pub struct CacheOptions {
        /// Bypasses it (`O_DIRECT`).
        pub direct: Option<bool> = None,
        /// Never flushes: data is lost when the host fails.
        pub no_flush: Option<bool> = None,
    }
}

/// A node: made by the graph, shared by those above it.
pub struct Node {
    pub(crate) name: String,
    pub(crate) driver_name: &'static str,
    pub(crate) driver: Box<dyn Driver>,
    pub(crate) limits: Limits,
    /// Writes are refused with EPERM.
    pub(crate) read_only: bool,
    /// Discards reach the driver.
    pub(crate) discard: bool,
    pub(crate) detect_zeroes: DetectZeroes,
    /// Flushes end here: `cache.no-flush` on a node without children (above one, the children's own
    /// setting decides, since a format must still write its metadata to them).
    pub(crate) ignores_flush: bool,
    /// Other processes may do anything with the image.
    pub(crate) force_share: bool,
    /// Nothing above looks at writes that fit.
    pub(crate) plain_writes: bool,
    overlaps: Option<Overlaps>,
    /// Made inside another node's options: it lives and dies with that.
    pub(crate) inline: bool,
    /// The options it was made from, for printing back.
    pub(crate) options: Tree,
    /// What its users together need, as far as the driver knows.
    pub(crate) perms: Mutex<Perms>,
}

/// What [`Node::new`] needs beside the driver.
pub(crate) struct NodeConfig {
    pub(crate) name: String,
    pub(crate) driver_name: &'static str,
    pub(crate) read_only: bool,
    pub(crate) discard: Discard,
    pub(crate) detect_zeroes: DetectZeroes,
    pub(crate) no_flush: bool,
    pub(crate) force_share: bool,
    pub(crate) inline: bool,
    pub(crate) options: Tree,
}

impl Node {
    pub(crate) fn new(config: NodeConfig, driver: Box<dyn Driver>) -> Self {
        let mut limits = driver.limits();
        // A piece of memory is a part of a request: what it must be a multiple of, the request must be, too.
        limits.request_alignment = limits.request_alignment.max(limits.memory_alignment);
        let overlaps = (limits.request_alignment > 1).then(Overlaps::default);
        Self {
            plain_writes: !config.read_only
                && overlaps.is_none()
                && config.detect_zeroes == DetectZeroes::Off,
            ignores_flush: config.no_flush && driver.children().is_empty(),
            name: config.name,
            driver_name: config.driver_name,
            driver,
            limits,
            read_only: config.read_only,
            discard: config.discard == Discard::Unmap,
            detect_zeroes: config.detect_zeroes,
            force_share: config.force_share,
            overlaps,
            inline: config.inline,
            options: config.options,
            perms: Mutex::new(Perms::NONE),
        }
    }

    /// The name users call it by; generated ones start with `#`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name of its driver.
    pub fn driver_name(&self) -> &'static str {
        self.driver_name
    }

    /// The options it was made from.
    pub fn options(&self) -> &Tree {
        &self.options
    }

    /// Bytes on it.
    pub fn len(&self) -> u64 {
        self.driver.len()
    }

    /// Whether nothing is on it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether it refuses writes.
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// What its driver can do.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// The nodes below.
    pub fn children(&self) -> &[Edge] {
        self.driver.children()
    }

    /// What its users together use and share.
    pub fn perms(&self) -> Perms {
        *self.perms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The end of the last block: requests up to here are inside.
    pub(crate) fn bound(&self) -> u64 {
        let block = SECTOR.max(self.limits.request_alignment.into());
        self.driver
            .len()
            .checked_next_multiple_of(block)
            .unwrap_or(u64::MAX)
    }

    /// Takes a write's turn among those that overlap it, where that matters.
    pub(crate) async fn overlaps(
        &self,
        offset: u64,
        len: u64,
        modifies: bool,
    ) -> Option<crate::io::Turn<'_>> {
        let overlaps = self.overlaps.as_ref()?;
        let blocks = !(u64::from(self.limits.request_alignment).wrapping_sub(1));
        let end = offset.saturating_add(len);
        let range = match modifies {
            true => offset & blocks..end.saturating_add(!blocks) & blocks,
            false => offset..end,
        };
        Some(overlaps.enter(range, modifies).await)
    }
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node")
            .field("name", &self.name)
            .field("driver", &self.driver_name)
            .finish_non_exhaustive()
    }
}
