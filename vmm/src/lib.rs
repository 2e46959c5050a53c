//! The virtual machine monitor behind the program `spindle`.
//!
//! | module | what it is |
//! |---|---|
//! | [`error`] | what can go wrong, before the guest runs and while it does |

pub mod error;
