//! Address spaces: who answers at an address, and what a store asks of the machine.
//!
//! A [`Bus`] keeps the list of what is mapped and, made from it at each change, a flat view without
//! overlaps that look-ups search. Guests may move a BAR on top of anything: where ranges overlap,
//! the one with the higher [`Priority`] answers, and among equals the one mapped first.
//!
//! Lock order: the bus lock is never held while a device runs, so a device may map and unmap from
//! within its own register handler.

use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock};

/// Registers behind a range of addresses.
pub trait Mmio: Send + Sync {
    /// A load of `size` bytes (1, 2, 4 or 8) at `offset` from the start of the range.
    fn read(&self, offset: u64, size: u8) -> u64;

    /// A store of the low `size` bytes of `value`; what it asks of the machine is returned, and
    /// done when the device's locks are free.
    fn write(&self, offset: u64, size: u8, value: u64) -> Action;
}

/// What a store asks of the machine beyond the device itself.
#[derive(Debug, Default)]
#[must_use]
pub enum Action {
    /// Nothing.
    #[default]
    None,
    /// The instruction may not retire before the ticket is redeemed.
    Wait(Ticket),
    /// Power off (ACPI S5).
    Shutdown,
    /// A machine reset.
    Reset,
    /// The guest says that it crashed; it goes on running.
    GuestPanicked,
    /// The guest says that it crashed and that a crash kernel takes over.
    GuestCrashLoaded,
    /// End with this exit status (`isa-debug-exit`).
    Exit(u8),
}

/// A wait for something that another thread does.
#[derive(Debug, Clone)]
pub struct Ticket(Arc<Wait>);

/// The other end of a [`Ticket`]: dropping it redeems the ticket.
#[derive(Debug)]
pub struct Redeem(Arc<Wait>);

#[derive(Debug, Default)]
struct Wait {
    done: Mutex<bool>,
    changed: Condvar,
}

impl Ticket {
    /// A ticket and what redeems it.
    pub fn new() -> (Ticket, Redeem) {
        let wait = Arc::new(Wait::default());
        (Ticket(wait.clone()), Redeem(wait))
    }

    /// Blocks the calling thread, which holds no lock and is no executor, until redeemed.
    pub fn wait(&self) {
        let done = self.0.done.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.0.changed.wait_while(done, |done| !*done));
    }

    /// Whether the wait is over.
    pub fn is_redeemed(&self) -> bool {
        *self.0.done.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Redeem {
    fn drop(&mut self) {
        *self.0.done.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.changed.notify_all();
    }
}

/// Who answers where ranges overlap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// What a guest can move: BARs.
    Movable,
    /// What the board fixes in place.
    Fixed,
}

/// A mapping on a [`Bus`], to be given back to [`Bus::unmap`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MappingId(u64);

/// An address space: memory-mapped registers or I/O ports.
#[derive(Default)]
pub struct Bus {
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    next: u64,
    mappings: Vec<Mapping>,
    flat: Vec<Span>,
}

#[derive(Clone)]
struct Mapping {
    id: MappingId,
    base: u64,
    /// Inclusive, so that a range may end at the top of the address space.
    last: u64,
    priority: Priority,
    device: Arc<dyn Mmio>,
}

/// A piece of the flat view: `[first, last]` is answered by one mapping.
struct Span {
    first: u64,
    last: u64,
    base: u64,
    device: Arc<dyn Mmio>,
}

impl Bus {
    /// An empty address space.
    pub fn new() -> Bus {
        Bus::default()
    }

    /// Maps `device` at `[base, base + len)`. A `len` of 0 or a range that leaves the 64-bit space is
    /// cut to what exists, so that no BAR a guest can write is an error.
    pub fn map(&self, base: u64, len: u64, priority: Priority, device: Arc<dyn Mmio>) -> MappingId {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let id = MappingId(state.next);
        state.next = state.next.wrapping_add(1);
        if let Some(span) = len.checked_sub(1) {
            let last = base.saturating_add(span);
            state.mappings.push(Mapping {
                id,
                base,
                last,
                priority,
                device,
            });
            // Stable: among equals the one mapped first stays in front.
            state
                .mappings
                .sort_by_key(|m| std::cmp::Reverse(m.priority));
            state.flatten();
        }
        id
    }

    /// Removes a mapping. Unknown ids are ignored: an empty mapping never had one in the list.
    pub fn unmap(&self, id: MappingId) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        state.mappings.retain(|m| m.id != id);
        state.flatten();
    }

    /// A load; where nobody answers, or the access leaves the range of who does, all ones.
    pub fn read(&self, address: u64, size: u8) -> u64 {
        match self.find(address, size) {
            Some((device, offset)) => device.read(offset, size) & ones(size),
            None => ones(size),
        }
    }

    /// A store; where nobody answers it is lost.
    pub fn write(&self, address: u64, size: u8, value: u64) -> Action {
        match self.find(address, size) {
            Some((device, offset)) => device.write(offset, size, value & ones(size)),
            None => Action::None,
        }
    }

    /// Whether nothing answers anywhere in `[base, base + len)`.
    pub fn is_free(&self, base: u64, len: u64) -> bool {
        let Some(span) = len.checked_sub(1) else {
            return true;
        };
        let last = base.saturating_add(span);
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let mut mappings = state.mappings.iter();
        !mappings.any(|mapping| mapping.base <= last && base <= mapping.last)
    }

    fn find(&self, address: u64, size: u8) -> Option<(Arc<dyn Mmio>, u64)> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let index = state.flat.partition_point(|span| span.last < address);
        let span = state.flat.get(index)?;
        let end = address.checked_add(u64::from(size).checked_sub(1)?)?;
        (span.first <= address && end <= span.last)
            .then(|| (span.device.clone(), address.wrapping_sub(span.base)))
    }
}

/// Registers that the chipset decodes where one of its own registers says: at one place or nowhere.
pub struct Region {
    bus: Arc<Bus>,
    registers: Arc<dyn Mmio>,
    at: Mutex<Option<(u64, u64, MappingId)>>,
}

impl Region {
    /// Registers that answer nowhere yet.
    pub fn new(bus: &Arc<Bus>, registers: Arc<dyn Mmio>) -> Region {
        Region {
            bus: bus.clone(),
            registers,
            at: Mutex::new(None),
        }
    }

    /// Answers at `(base, len)` from now on, or nowhere.
    pub fn place(&self, place: Option<(u64, u64)>) {
        let mut at = self.at.lock().unwrap_or_else(PoisonError::into_inner);
        if at.map(|(base, len, _)| (base, len)) == place {
            return;
        }
        if let Some((_, _, id)) = at.take() {
            self.bus.unmap(id);
        }
        *at = place.map(|(base, len)| {
            let id = self
                .bus
                .map(base, len, Priority::Fixed, self.registers.clone());
            (base, len, id)
        });
    }
}

impl State {
    /// Lays the mappings, the most important first, into whatever space is still free.
    fn flatten(&mut self) {
        let mut flat: Vec<Span> = Vec::with_capacity(self.mappings.len());
        for mapping in &self.mappings {
            let mut first = Some(mapping.base);
            let mut added = Vec::new();
            for taken in flat
                .iter()
                .filter(|s| s.last >= mapping.base && s.first <= mapping.last)
            {
                let Some(start) = first else { break };
                if start < taken.first {
                    added.push(mapping.span(start, taken.first.saturating_sub(1)));
                }
                first = taken.last.checked_add(1);
            }
            if let Some(start) = first.filter(|start| *start <= mapping.last) {
                added.push(mapping.span(start, mapping.last));
            }
            flat.extend(added);
            flat.sort_by_key(|span| span.first);
        }
        self.flat = flat;
    }
}

impl Mapping {
    fn span(&self, first: u64, last: u64) -> Span {
        Span {
            first,
            last,
            base: self.base,
            device: self.device.clone(),
        }
    }
}

/// The all-ones value of `size` bytes.
fn ones(size: u8) -> u64 {
    match size {
        1 => 0xff,
        2 => 0xffff,
        4 => 0xffff_ffff,
        _ => u64::MAX,
    }
}

#[cfg(test)]
mod tests;
