//! Guest RAM.

/// Guest RAM as devices see it: a few mapped regions, fixed for the life of the machine.
pub type GuestRam = vm_memory::GuestMemoryMmap<()>;
