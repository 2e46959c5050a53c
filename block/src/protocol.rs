//! Nodes without children: where the bytes are.

pub mod file;
mod lock;
pub mod null;
