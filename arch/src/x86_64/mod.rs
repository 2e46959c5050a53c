//! The x86-64 PC of `-M q35`.
//!
//! - [`layout`]: where RAM, MMIO windows and our own structures are; [`e820`] tells the guest
//! - [`interrupts`]: which interrupt a PCI pin raises and how lines reach the PICs and the IOAPIC
//! - [`topology`]: `-smp` to sockets, cores, threads and APIC ids; [`cpuid`] shows them, and features, to the guest
//! - [`regs`]: what a vCPU starts with, built from [`gdt`], [`paging`] and [`msr`]; [`entry_check`] holds it against
//!   the processor manuals
//! - [`boot`]: kernel, initrd and command line to a list of writes into guest RAM; uses [`layout`], [`e820`], [`regs`]
//! - [`acpi`]: the tables; uses [`layout`], [`interrupts`], [`topology`]
//! - [`smbios`]: what the machine is called; uses [`layout`]

pub mod acpi;
pub mod boot;
pub mod cpuid;
pub mod e820;
pub mod entry_check;
pub mod gdt;
pub mod interrupts;
pub mod layout;
pub mod msr;
pub mod paging;
pub mod regs;
pub mod smbios;
pub mod topology;
