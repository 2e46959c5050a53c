//! The memory map a kernel is told (ACPI 6.5 §15): the same entries for the zero page and for PVH.

use super::layout::{self, Layout};

/// What an [`Entry`] is; the discriminants are e820's and PVH's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Type {
    /// RAM, free to use.
    Ram = 1,
    /// Not to be used: devices, firmware, tables.
    Reserved = 2,
}

/// One range of the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// First byte.
    pub address: u64,
    /// Length in bytes, never zero.
    pub size: u64,
    /// What is there.
    pub kind: Type,
}

/// The map of a machine, sorted and without overlaps.
///
/// The hole from the EBDA to 1 MiB is not RAM to the guest although RAM is behind it: our ACPI tables are there.
pub fn table(layout: &Layout) -> Vec<Entry> {
    let entry = |start: u64, end: u64, kind| Entry {
        address: start,
        size: end.saturating_sub(start),
        kind,
    };
    let high_end = layout::FOUR_GIB.saturating_add(layout.high_ram());
    [
        entry(0, layout::EBDA, Type::Ram),
        entry(layout::EBDA, layout::VGA, Type::Reserved),
        entry(layout::TABLES.start, layout::TABLES.end, Type::Reserved),
        entry(layout::HIGH_MEMORY, layout.low_ram(), Type::Ram),
        entry(layout::ECAM.start, layout::ECAM.end, Type::Reserved),
        entry(
            layout::KVM_PAGES.start,
            layout::KVM_PAGES.end,
            Type::Reserved,
        ),
        entry(layout::FIRMWARE.start, layout::FIRMWARE.end, Type::Reserved),
        entry(layout::FOUR_GIB, high_end, Type::Ram),
    ]
    .into_iter()
    .filter(|entry| entry.size > 0)
    .collect()
}

#[cfg(test)]
mod tests;
