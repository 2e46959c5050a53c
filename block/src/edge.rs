//! The way from a user (a drive, or a node above) to a node: the only way to call it.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use exec::DrainCell;

use crate::driver::{Extent, Limits};
use crate::io;
use crate::node::Node;
use crate::perm::Perm;
use crate::request::{Io, Request};

/// What a child is to its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The top of a drive's tree.
    Root,
    /// What a format's image lies in: data and metadata.
    Image,
    /// What a filter passes requests on to.
    Filtered,
}

/// A user's hold on a node. Every request passes here, and `io` makes it fit.
pub struct Edge {
    role: Role,
    key: &'static str,
    node: DrainCell<Arc<Node>>,
    /// Bits of what the user may do; set by the graph.
    used: AtomicU32,
}

impl Edge {
    /// `key` is the option that names the child in its parent (`file`).
    pub(crate) fn new(role: Role, key: &'static str, node: Arc<Node>) -> Self {
        Self {
            role,
            key,
            node: DrainCell::new(node),
            used: AtomicU32::new(0),
        }
    }

    /// Does one request of any range, in any memory.
    ///
    /// # Errors
    /// `EPERM` for writes to a read-only node, `EIO` for writes past the end, else the driver's.
    pub fn submit<'a>(&'a self, req: Request<'a>) -> Io<'a> {
        let node = self.node();
        if io::fits(node, &req) {
            return node.driver.submit(req);
        }
        Box::pin(io::shape(node, self.may_grow(), req))
    }

    /// What is known about the first bytes of `range`.
    pub fn status(&self, range: Range<u64>) -> Io<'_, Extent> {
        let end = range.end.min(self.len());
        if range.start >= end {
            let len = range.end.saturating_sub(range.start);
            let beyond = Extent {
                len,
                allocated: false,
                zero: true,
                data: false,
                at: None,
            };
            return Box::pin(std::future::ready(Ok(beyond)));
        }
        self.node().driver.status(range.start..end)
    }

    /// Changes the node's length.
    ///
    /// # Errors
    /// `EPERM` without the resize permission or on a read-only node, else the driver's.
    pub fn resize(&self, len: u64) -> Io<'_> {
        if !self.may_grow() || self.node().read_only || len > io::MAX_LEN {
            let code = if len > io::MAX_LEN {
                libc::EFBIG
            } else {
                libc::EPERM
            };
            return Box::pin(std::future::ready(Err(crate::error::errno(code))));
        }
        self.node().driver.resize(len)
    }

    /// Bytes on the node.
    pub fn len(&self) -> u64 {
        self.node().driver.len()
    }

    /// Whether nothing is on the node.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What the node can do; the edge makes anything fit, so these are advice for the user.
    pub fn limits(&self) -> Limits {
        self.node().limits
    }

    /// What the node is to the user.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The option that names the child.
    pub fn key(&self) -> &'static str {
        self.key
    }

    /// The node.
    pub fn node(&self) -> &Arc<Node> {
        self.node.get()
    }

    /// Set by the graph when the user's permissions change.
    pub(crate) fn allow(&self, used: Perm) {
        self.used.store(used.bits(), Ordering::Relaxed);
    }

    fn may_grow(&self) -> bool {
        self.used.load(Ordering::Relaxed) & Perm::RESIZE.bits() != 0
    }
}

impl std::fmt::Debug for Edge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Edge")
            .field("role", &self.role)
            .field("node", self.node())
            .finish_non_exhaustive()
    }
}
