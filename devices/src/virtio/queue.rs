//! Virtqueues as a device uses them (virtio 1.3 §2.6 to §2.8).
//!
//! [`Ring`] is all that devices know of a virtqueue, so that packed rings can stand beside
//! [`SplitRing`]. Everything in a ring's memory is the driver's to spoil: whatever cannot be what a
//! correct driver writes is an [`Error`], after which the device asks to be reset, and no range
//! leaves this module unchecked.
//!
//! A [`Chain`] is linear: it is answered ([`Chain::complete`]), or dropped because a reset took the
//! question back ([`Chain::discard`]). Losing one would leave the driver waiting forever, so in a
//! checked build that panics.

use std::num::Wrapping;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use virtio_bindings::bindings::virtio_ring::VRING_AVAIL_F_NO_INTERRUPT;
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{Address, Bytes, GuestAddress};

use crate::memory::{GuestBuffers, GuestRam};

/// What a driver did that ends a queue until the device is reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The size is 0, no power of two or beyond what the device offers (§2.7).
    #[error("the queue size is not one that was offered")]
    Size,
    /// A part of the ring is not aligned as §2.7 asks.
    #[error("a part of the ring is misaligned")]
    Alignment,
    /// A part of the ring is not in guest RAM.
    #[error("a part of the ring is not in guest memory")]
    RingOutOfRam,
    /// The available index is further ahead than the queue is long, or a buffer was offered again
    /// before it was used (§2.7.6).
    #[error("more buffers are available than the queue holds")]
    AvailIndex,
    /// A chain that loops, leaves its table or guest RAM, is over 4 GiB, or has an indirect table
    /// that is malformed or inside another one (§2.7.5).
    #[error("a descriptor chain is broken")]
    Chain,
    /// A chain of more descriptors than the device offers (§2.7.5.3.1).
    #[error("a descriptor chain is longer than the queue")]
    TooLong,
    /// A buffer that is not in guest RAM.
    #[error("a buffer is not in guest memory")]
    BufferOutOfRam,
    /// A buffer to read from behind one to write to (§2.7.4.2).
    #[error("a readable buffer follows a writable one")]
    Order,
    /// A request without a place for its status (§5.2.6).
    #[error("a request has no room for its status")]
    NoStatus,
}

/// A virtqueue, as the one task that serves it sees it.
pub trait Ring: Send {
    /// The next chain that the driver made available, if there is one.
    ///
    /// # Errors
    /// What the driver did wrong; the ring is then of no more use.
    fn pop(&mut self) -> Result<Option<Chain>, Error>;

    /// Gives chains back: all of them become visible to the driver at once. Returns whether the
    /// driver wants an interrupt for it.
    ///
    /// # Errors
    /// [`Error::RingOutOfRam`].
    fn publish(&mut self, used: &[Used]) -> Result<bool, Error>;

    /// Asks the driver to notify of the next chain it makes available. Returns whether one became
    /// available meanwhile, which may have been without notice.
    ///
    /// # Errors
    /// [`Error::RingOutOfRam`].
    fn enable_notification(&mut self) -> Result<bool, Error>;

    /// Tells the driver that notifications are not needed now; it may still send some.
    ///
    /// # Errors
    /// [`Error::RingOutOfRam`].
    fn disable_notification(&mut self) -> Result<(), Error>;

    /// Whether [`Ring::pop`] has something to say.
    fn is_ready(&self) -> bool;
}

/// Where a driver put a split ring, and how long it is: the registers of one queue (§4.1.4.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// Descriptors.
    pub size: u16,
    /// The descriptor table, 16-byte aligned.
    pub descriptors: u64,
    /// The available ring, 2-byte aligned.
    pub available: u64,
    /// The used ring, 4-byte aligned.
    pub used: u64,
}

/// A split virtqueue (§2.7).
pub struct SplitRing {
    ram: Arc<GuestRam>,
    queue: Queue,
    /// Chains popped and not yet published.
    in_flight: u16,
}

/// Offsets in both rings (§2.7.6, §2.7.8): `flags` at 0, `idx` at 2, then the elements.
const INDEX: u64 = 2;
const ELEMENTS: u64 = 4;
const USED_ELEMENT: u64 = 8;
const AVAIL_ELEMENT: u64 = 2;

impl SplitRing {
    /// The ring that a driver laid out, on a device that offers up to `max` descriptors (a power of
    /// two, at most 32768).
    ///
    /// # Errors
    /// [`Error::Size`], [`Error::Alignment`], [`Error::RingOutOfRam`].
    pub fn new(
        ram: Arc<GuestRam>,
        max: u16,
        layout: &Layout,
        event_idx: bool,
    ) -> Result<SplitRing, Error> {
        let mut queue = Queue::new(max).map_err(|_| Error::Size)?;
        queue.try_set_size(layout.size).map_err(|_| Error::Size)?;
        queue
            .try_set_desc_table_address(GuestAddress(layout.descriptors))
            .and_then(|()| queue.try_set_avail_ring_address(GuestAddress(layout.available)))
            .and_then(|()| queue.try_set_used_ring_address(GuestAddress(layout.used)))
            .map_err(|_| Error::Alignment)?;
        queue.set_event_idx(event_idx);
        queue.set_ready(true);
        // An available ring at 0 is how `Queue` says "none"; page 0 is no place for a ring anyway.
        if layout.available == 0 || !queue.is_valid(&*ram) {
            return Err(Error::RingOutOfRam);
        }
        Ok(SplitRing {
            ram,
            queue,
            in_flight: 0,
        })
    }

    /// Walks one chain, copying each descriptor once.
    fn chain(&mut self) -> Result<Option<Chain>, Error> {
        // Only a wild available index fails here: that the ring is RAM was checked.
        let mut heads = self.queue.iter(&*self.ram).map_err(|_| Error::AvailIndex)?;
        let Some(mut descriptors) = heads.next() else {
            return Ok(None);
        };
        if self.in_flight >= self.queue.size() {
            return Err(Error::AvailIndex);
        }
        let head = descriptors.head_index();
        let mut buffers = GuestBuffers::new(self.ram.clone());
        let (mut count, mut more, mut writing) = (0u16, true, false);
        for descriptor in descriptors.by_ref() {
            count = count.saturating_add(1);
            if count > self.queue.max_size() {
                return Err(Error::TooLong);
            }
            more = descriptor.has_next();
            // At most 32 bits wide on a 64-bit host.
            let len = descriptor.len() as usize;
            let pushed = if descriptor.is_write_only() {
                writing = true;
                buffers.push_writable(descriptor.addr(), len)
            } else if writing {
                return Err(Error::Order);
            } else {
                buffers.push_readable(descriptor.addr(), len)
            };
            pushed.map_err(|_| Error::BufferOutOfRam)?;
        }
        // The walk also ends, and says nothing, where it cannot go on.
        if more {
            return Err(Error::Chain);
        }
        self.in_flight = self.in_flight.saturating_add(1);
        Ok(Some(Chain {
            head,
            buffers,
            ended: false,
        }))
    }

    /// The address `offset` bytes into a ring, which was checked to be RAM.
    fn at(ring: u64, offset: u64) -> Result<GuestAddress, Error> {
        GuestAddress(ring)
            .checked_add(offset)
            .ok_or(Error::RingOutOfRam)
    }

    /// Whether the driver wants to hear of the used index going from `old` to `new` (§2.7.7, §2.7.10).
    fn wants_interrupt(&self, old: u16, new: u16) -> Result<bool, Error> {
        // The index must be visible before the driver's wish is read, or both sides may wait.
        fence(Ordering::SeqCst);
        let avail = self.queue.avail_ring();
        let offset = match self.queue.event_idx_enabled() {
            true => u64::from(self.queue.size())
                .saturating_mul(AVAIL_ELEMENT)
                .saturating_add(ELEMENTS),
            false => 0,
        };
        let wish: u16 = self
            .ram
            .load(Self::at(avail, offset)?, Ordering::Relaxed)
            .map(u16::from_le)
            .map_err(|_| Error::RingOutOfRam)?;
        Ok(match self.queue.event_idx_enabled() {
            true => {
                let passed = new.wrapping_sub(wish).wrapping_sub(1);
                passed < new.wrapping_sub(old)
            }
            false => u32::from(wish) & VRING_AVAIL_F_NO_INTERRUPT == 0,
        })
    }
}

impl Ring for SplitRing {
    fn pop(&mut self) -> Result<Option<Chain>, Error> {
        self.chain()
    }

    fn publish(&mut self, used: &[Used]) -> Result<bool, Error> {
        let ring = self.queue.used_ring();
        let old = self.queue.next_used();
        let mut next = old;
        for used in used {
            let slot = next.checked_rem(self.queue.size()).ok_or(Error::Size)?;
            let offset = u64::from(slot)
                .saturating_mul(USED_ELEMENT)
                .saturating_add(ELEMENTS);
            let element = u64::from(used.head) | (u64::from(used.written) << 32);
            self.ram
                .write_obj(element.to_le(), Self::at(ring, offset)?)
                .map_err(|_| Error::RingOutOfRam)?;
            next = next.wrapping_add(1);
        }
        self.ram
            .store(next.to_le(), Self::at(ring, INDEX)?, Ordering::Release)
            .map_err(|_| Error::RingOutOfRam)?;
        self.queue.set_next_used(next);
        self.in_flight = self.in_flight.saturating_sub(next.wrapping_sub(old));
        self.wants_interrupt(old, next)
    }

    fn enable_notification(&mut self) -> Result<bool, Error> {
        self.queue
            .enable_notification(&*self.ram)
            .map_err(|_| Error::RingOutOfRam)
    }

    fn disable_notification(&mut self) -> Result<(), Error> {
        self.queue
            .disable_notification(&*self.ram)
            .map_err(|_| Error::RingOutOfRam)
    }

    fn is_ready(&self) -> bool {
        self.queue
            .avail_idx(&*self.ram, Ordering::Acquire)
            .is_ok_and(|index| index != Wrapping(self.queue.next_avail()))
    }
}

/// One request of a driver: buffers to read, then buffers to write.
#[must_use]
pub struct Chain {
    head: u16,
    buffers: GuestBuffers,
    ended: bool,
}

/// An answered chain, on its way to the used ring.
#[derive(Debug)]
#[must_use]
pub struct Used {
    head: u16,
    written: u32,
}

/// The right to drop a chain without an answer: the driver reset the device or the queue, or the
/// device asked for it.
#[derive(Clone, Copy, Debug)]
pub struct Reset(pub(super) ());

impl Chain {
    /// The buffers.
    pub fn buffers(&mut self) -> &mut GuestBuffers {
        &mut self.buffers
    }

    /// Answers, having written `written` bytes to the writable buffers.
    pub fn complete(mut self, written: u32) -> Used {
        self.ended = true;
        Used {
            head: self.head,
            written,
        }
    }

    /// Ends a chain that nobody waits for any more.
    pub fn discard(mut self, _: Reset) {
        self.ended = true;
    }
}

impl Drop for Chain {
    fn drop(&mut self) {
        debug_assert!(
            self.ended || std::thread::panicking(),
            "a descriptor chain was lost"
        );
    }
}

#[cfg(test)]
mod tests;
