//! The block graph: what is behind every disk.
//!
//! - [`options`]: the one schema behind command lines and JSON; used by the whole workspace.
#![forbid(unsafe_code)]

pub mod options;
