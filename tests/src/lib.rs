//! The harness: everything that boots a real guest outside of spindle itself.
//!
//! The integration tests, the demo and the benchmarks need the same things and share them here: a distribution's
//! kernel and programs, got without root; an initramfs made from them; a host with a working KVM, emulated where the
//! machine has none; the spindle binary; and a guest that can be talked to over its serial port.
//!
//! ```text
//!  bin/demo  tests/boot.rs  bin/figures  bin/kvm-host
//!      └──────────┬──────────────┴───────────┘
//!       guest ► spindle, bare           a guest's serial port; the binary under test, a guest to measure it with
//!         │        host ► host::session a KVM host: this machine, or an emulated one
//!         ▼        ▼
//!       initramfs ► modules, cpio, elf  what a kernel starts with
//!         ▼
//!       kernel ► programs ► apt         what the distribution gives
//!         ▼
//!       cache ► progress                where it is kept, what the user sees meanwhile
//! ```

pub mod apt;
pub mod bare;
pub mod cache;
pub mod cpio;
pub mod elf;
pub mod guest;
pub mod host;
pub mod initramfs;
pub mod kernel;
pub mod modules;
pub mod programs;
pub mod progress;
pub mod spindle;
pub mod terminal;
