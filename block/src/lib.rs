//! The block graph: what is behind every disk.
//!
//! ```text
//! Drive ──► Edge ──► Node(raw) ──► Edge ──► Node(file) ──► exec::File
//!   one guest disk     io.rs policy on every edge            leaf operations
//! ```
//!
//! - [`mod@options`]: the one schema behind command lines and JSON; used by the whole workspace.
//! - [`request`]: one operation on one range of bytes. [`driver`]: what every node does with it.
//! - [`edge`]: the only way to call a node; `io`: how an edge makes any request fit the node.
//! - [`node`]: a driver with its name and policy. [`perm`]: who may do what with it.
//! - [`drive`]: the root of a tree, as a device holds it: read-only, write cache, counters, parking.
//! - [`graph`]: nodes and drives by name; makes, attaches, drains, removes and closes them.
//! - `protocol`, `format`: the drivers.
//!
//! Arrows point down: `graph → drive → edge → io → node → driver → request`; drivers know their own
//! edges and nothing above them.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

pub mod drive;
pub mod driver;
pub mod edge;
mod error;
pub mod format;
pub mod graph;
#[cfg_attr(
    not(test),
    expect(
        clippy::arithmetic_side_effects,
        reason = "each range is checked against MAX_LEN once, on entry; see io::shape"
    )
)]
mod io;
pub mod node;
#[cfg_attr(
    not(test),
    expect(
        clippy::arithmetic_side_effects,
        reason = "positions in a text that is at hand, and sizes with bounded digits"
    )
)]
pub mod options;
pub mod perm;
pub mod protocol;
pub mod request;

pub use drive::options::DriveConfig;
pub use drive::{Attach, Drive, DriveEvents, Stats};
pub use driver::{Driver, Extent, Limits};
pub use edge::Edge;
pub use error::{Error, ErrorKind};
pub use graph::{Added, Drained, Graph};
pub use io::{MAX_LEN, SECTOR};
pub use node::Node;
pub use request::{Flags, Io, Op, OpKind, Request};
