//! The virtual machine monitor behind the program `spindle`.
//!
//! | module | what it is |
//! |---|---|
//! | [`cli`] | the command line, in QEMU's words |
//! | [`config`] | what it asks for, in plain values |
//! | [`models`] | the devices that can be plugged in |
//! | [`console`] | the other end of the serial port |
//! | [`sandbox`] | what spindle itself may do |
//! | [`pidfile`] | `-pidfile` |
//! | [`overwrite`] | that logs and pid files are none of the machine's own files |
//! | [`machine`] | a PC from a configuration, its boot, its resets and its end |
//! | [`kvm`] | drives a machine with KVM |
//! | [`error`] | what can go wrong, before the guest runs and while it does |
#![deny(unsafe_code)]

pub mod cli;
pub mod config;
pub mod console;
pub mod error;
pub mod kvm;
pub mod machine;
pub mod models;
pub mod overwrite;
pub mod pidfile;
pub mod sandbox;
