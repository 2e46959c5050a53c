//! Nodes that give a meaning to the bytes of the node below.

mod magic;
pub mod raw;
