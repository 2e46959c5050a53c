//! The other side of a virtqueue: a small driver for tests, which also does everything wrong.

pub(crate) mod rig;

use std::sync::Arc;

use vm_memory::{Bytes, GuestAddress};

use super::queue::Layout;
use crate::memory::GuestRam;

pub(crate) const NEXT: u16 = 1;
pub(crate) const WRITE: u16 = 2;
pub(crate) const INDIRECT: u16 = 4;

/// RAM of all tests here: two regions that touch, nothing behind.
pub(crate) const RAM: u64 = 0x20_0000;

pub(crate) fn ram() -> Arc<GuestRam> {
    let half = (RAM / 2) as usize;
    let regions = [(GuestAddress(0), half), (GuestAddress(RAM / 2), half)];
    Arc::new(GuestRam::from_ranges(&regions).unwrap())
}

/// A split ring in guest memory, from the driver's side.
pub(crate) struct Driver {
    pub(crate) ram: Arc<GuestRam>,
    pub(crate) layout: Layout,
    avail: u16,
    used: u16,
}

impl Driver {
    /// A ring of `size` descriptors in the page at `at` and the few behind it.
    pub(crate) fn new(ram: &Arc<GuestRam>, at: u64, size: u16) -> Driver {
        let descriptors = at;
        let available = descriptors + u64::from(size) * 16;
        let used = (available + 6 + u64::from(size) * 2 + 3) & !3;
        Driver {
            ram: ram.clone(),
            layout: Layout {
                size,
                descriptors,
                available,
                used,
            },
            avail: 0,
            used: 0,
        }
    }

    /// Writes descriptor `index` of the table at `table`.
    pub(crate) fn descriptor_at(
        &self,
        table: u64,
        index: u16,
        (at, len, flags, next): (u64, u32, u16, u16),
    ) {
        let entry = GuestAddress(table + u64::from(index) * 16);
        let words = u64::from(len) | u64::from(flags) << 32 | u64::from(next) << 48;
        self.ram.write_obj(at, entry).unwrap();
        self.ram
            .write_obj(words, GuestAddress(entry.0 + 8))
            .unwrap();
    }

    /// Writes descriptor `index` of the ring's own table.
    pub(crate) fn descriptor(&self, index: u16, descriptor: (u64, u32, u16, u16)) {
        self.descriptor_at(self.layout.descriptors, index, descriptor);
    }

    /// Chains `pieces` (address, length, writable) from descriptor `head` on, and makes them available.
    pub(crate) fn offer(&mut self, head: u16, pieces: &[(u64, u32, bool)]) {
        for (index, (at, len, writable)) in (head..).zip(pieces) {
            let more = usize::from(index - head) + 1 < pieces.len();
            let flags = (u16::from(more) * NEXT) | (u16::from(*writable) * WRITE);
            self.descriptor(index, (*at, *len, flags, index + 1));
        }
        self.make_available(head);
    }

    /// Makes a chain available that is already in the table.
    pub(crate) fn make_available(&mut self, head: u16) {
        let slot = u64::from(self.avail % self.layout.size);
        self.ram
            .write_obj(head, GuestAddress(self.layout.available + 4 + slot * 2))
            .unwrap();
        self.avail = self.avail.wrapping_add(1);
        self.set_avail_index(self.avail);
    }

    pub(crate) fn set_avail_index(&self, index: u16) {
        self.ram
            .write_obj(index, GuestAddress(self.layout.available + 2))
            .unwrap();
    }

    /// The flags of the available ring: 1 asks for no interrupts.
    pub(crate) fn set_flags(&self, flags: u16) {
        self.ram
            .write_obj(flags, GuestAddress(self.layout.available))
            .unwrap();
    }

    /// Asks to be interrupted when the used index passes `event`.
    pub(crate) fn set_used_event(&self, event: u16) {
        let at = self.layout.available + 4 + u64::from(self.layout.size) * 2;
        self.ram.write_obj(event, GuestAddress(at)).unwrap();
    }

    /// After which available index the device wants a notification.
    pub(crate) fn avail_event(&self) -> u16 {
        let at = self.layout.used + 4 + u64::from(self.layout.size) * 8;
        self.ram.read_obj(GuestAddress(at)).unwrap()
    }

    pub(crate) fn used_index(&self) -> u16 {
        self.ram
            .read_obj(GuestAddress(self.layout.used + 2))
            .unwrap()
    }

    /// The next used element: head and length.
    pub(crate) fn take_used(&mut self) -> Option<(u32, u32)> {
        if self.used == self.used_index() {
            return None;
        }
        let slot = u64::from(self.used % self.layout.size);
        let element: u64 = self
            .ram
            .read_obj(GuestAddress(self.layout.used + 4 + slot * 8))
            .unwrap();
        self.used = self.used.wrapping_add(1);
        Some((element as u32, (element >> 32) as u32))
    }
}

/// All of guest RAM, to compare.
pub(crate) fn image(ram: &GuestRam) -> Vec<u8> {
    let mut bytes = vec![0; RAM as usize];
    ram.read_slice(&mut bytes, GuestAddress(0)).unwrap();
    bytes
}
