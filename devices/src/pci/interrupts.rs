//! How a function interrupts: INTx or MSI-X, decided here and nowhere else.
//!
//! A model calls [`Interrupts::raise`] with a vector, from any thread. With MSI-X enabled that is the
//! table's message, held back as a pending bit while something masks it (PCI 3.0 §6.8.2); without, it
//! asserts the function's INTx pin, whichever vector it is, until [`Interrupts::acknowledge`].
//!
//! Invariant: whoever takes a mask away looks at the pending bits afterwards, and `raise` reads the
//! masks while it holds the vector, so a message is either sent or seen pending, never lost.
//!
//! Lock order: a vector, or the pin; never both. The machine's interrupt seams are called with one
//! of them held.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::bus::{Action, Mmio};
use crate::irq::{IrqLine, MsiMessage, MsiRoute, MsiSink};
use crate::pci::config::command;

const CONTROL_MASK: u16 = 1 << 14;
const CONTROL_ENABLE: u16 = 1 << 15;

/// MSI-X is in use.
const ENABLED: u8 = 1;
/// No message may go out: function mask set or bus master clear.
const HELD: u8 = 2;

const ENTRY: u64 = 16;
const MASKED: u32 = 1;

/// Interrupts of one function. As [`Mmio`] it is the MSI-X table and pending bits.
pub struct Interrupts {
    msi: Arc<dyn MsiSink>,
    state: AtomicU8,
    vectors: Box<[Mutex<Vector>]>,
    pin: Mutex<Pin>,
}

struct Vector {
    message: MsiMessage,
    /// Vector Control, of which only the mask bit exists.
    masked: bool,
    pending: bool,
    /// A prepared way and the message that it delivers.
    route: Option<(MsiMessage, Box<dyn MsiRoute>)>,
}

#[derive(Default)]
struct Pin {
    line: Option<Arc<dyn IrqLine>>,
    /// The function wants service: Interrupt Status.
    asserted: bool,
    /// INTx Disable is set.
    disabled: bool,
}

impl Interrupts {
    /// Interrupts with an INTx pin and `vectors` MSI-X vectors (0 for none, at most 2048).
    pub fn new(msi: Arc<dyn MsiSink>, vectors: u16) -> Arc<Interrupts> {
        let vectors = (0..vectors.min(2048))
            .map(|_| Mutex::new(Vector::new()))
            .collect();
        Arc::new(Interrupts {
            msi,
            state: AtomicU8::new(0),
            vectors,
            pin: Mutex::default(),
        })
    }

    /// How many MSI-X vectors there are.
    pub fn vectors(&self) -> u16 {
        u16::try_from(self.vectors.len()).unwrap_or(u16::MAX)
    }

    /// Whether the guest uses MSI-X.
    pub fn is_msix(&self) -> bool {
        self.state.load(Ordering::Acquire) & ENABLED != 0
    }

    /// Interrupts the guest: by `vector`'s message, or by the pin. With MSI-X, a vector that does
    /// not exist (as virtio's `NO_VECTOR`) does nothing.
    pub fn raise(&self, vector: u16) {
        if !self.is_msix() {
            let mut pin = self.pin();
            pin.asserted = true;
            self.drive(&pin);
        } else if let Some(mut vector) = self.vector(usize::from(vector)) {
            vector.pending = true;
            self.deliver(&mut vector);
        }
    }

    /// Takes the cause of the interrupt away and deasserts the pin. `clear` clears and returns the
    /// cause; a [`Interrupts::raise`] for a cause that it did not see is not lost.
    pub fn acknowledge<T>(&self, clear: impl FnOnce() -> T) -> T {
        let mut pin = self.pin();
        let cause = clear();
        pin.asserted = false;
        self.drive(&pin);
        cause
    }

    /// Whether the function wants service by its pin (Interrupt Status), disabled or not.
    pub fn is_asserted(&self) -> bool {
        self.pin().asserted
    }

    /// Wires the pin. The host does this when it gives the function its place.
    pub(crate) fn connect(&self, line: Option<Arc<dyn IrqLine>>) {
        let mut pin = self.pin();
        if let Some(old) = std::mem::replace(&mut pin.line, line) {
            old.set(false);
        }
        self.drive(&pin);
    }

    /// Takes over the command register and MSI-X message control.
    pub(crate) fn configure(&self, command: u16, control: u16) {
        let enabled = control & CONTROL_ENABLE != 0;
        let held = control & CONTROL_MASK != 0 || command & command::BUS_MASTER == 0;
        let state = if enabled { ENABLED } else { 0 } | if held { HELD } else { 0 };
        let old = self.state.swap(state, Ordering::AcqRel);
        {
            let mut pin = self.pin();
            pin.disabled = command & command::INTX_DISABLE != 0;
            self.drive(&pin);
        }
        if old != state {
            for vector in &self.vectors {
                let mut vector = lock(vector);
                if !enabled {
                    vector.route = None;
                }
                self.prepare(&mut vector);
                self.deliver(&mut vector);
            }
        }
    }

    pub(crate) fn reset(&self) {
        for vector in &self.vectors {
            *lock(vector) = Vector::new();
        }
        self.acknowledge(|| ());
    }

    /// Bytes from the start of the table to the pending bits.
    pub(crate) fn pending_offset(&self) -> u32 {
        u32::from(self.vectors()).saturating_mul(16).max(0x800)
    }

    /// Bytes of table and pending bits together.
    pub(crate) fn table_size(&self) -> u64 {
        let pending = u64::from(self.vectors()).div_ceil(64).saturating_mul(8);
        u64::from(self.pending_offset())
            .saturating_add(pending)
            .next_power_of_two()
    }

    /// Sends what is pending unless something masks it.
    fn deliver(&self, vector: &mut Vector) {
        let state = self.state.load(Ordering::Acquire);
        if state == ENABLED && vector.pending && !vector.masked {
            vector.pending = false;
            match &vector.route {
                Some((message, route)) if *message == vector.message => route.trigger(),
                _ => self.msi.send(vector.message),
            }
        }
    }

    /// Makes the route fit the message, when the vector is in use.
    fn prepare(&self, vector: &mut Vector) {
        if vector.masked || self.state.load(Ordering::Acquire) != ENABLED {
            return;
        }
        let message = vector.message;
        vector.route = match vector.route.take() {
            Some((old, route)) if old == message => Some((old, route)),
            Some((_, route)) => route.update(message).is_ok().then_some((message, route)),
            None => self.msi.route(message).map(|route| (message, route)),
        };
    }

    fn drive(&self, pin: &Pin) {
        if let Some(line) = &pin.line {
            line.set(pin.asserted && !pin.disabled && !self.is_msix());
        }
    }

    fn pin(&self) -> MutexGuard<'_, Pin> {
        self.pin.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn vector(&self, index: usize) -> Option<MutexGuard<'_, Vector>> {
        self.vectors.get(index).map(lock)
    }

    /// The table, or pending bits, as dwords. Both read as 0 in the space between.
    fn read_dword(&self, offset: u64) -> u32 {
        let pending = u64::from(self.pending_offset());
        if let Some(bit) = offset.checked_sub(pending) {
            let first = usize::try_from(bit.saturating_mul(8)).unwrap_or(usize::MAX);
            return self
                .vectors
                .iter()
                .skip(first)
                .take(32)
                .enumerate()
                .fold(0, |bits, (i, v)| bits | u32::from(lock(v).pending) << i);
        }
        let Some(vector) = usize::try_from(offset / ENTRY)
            .ok()
            .and_then(|i| self.vector(i))
        else {
            return 0;
        };
        match offset % ENTRY {
            0 => vector.message.address as u32,
            4 => (vector.message.address >> 32) as u32,
            8 => vector.message.data,
            _ => u32::from(vector.masked),
        }
    }

    fn write_dword(&self, offset: u64, value: u32) {
        let Some(mut vector) = usize::try_from(offset / ENTRY)
            .ok()
            .and_then(|i| self.vector(i))
        else {
            return;
        };
        let (address, wide) = (vector.message.address, u64::from(value));
        match offset % ENTRY {
            0 => vector.message.address = address & !0xffff_ffff | wide & !3,
            4 => vector.message.address = address & 0xffff_ffff | wide << 32,
            8 => vector.message.data = value,
            _ => vector.masked = value & MASKED != 0,
        }
        self.prepare(&mut vector);
        self.deliver(&mut vector);
    }
}

impl Vector {
    fn new() -> Vector {
        Vector {
            message: MsiMessage::default(),
            masked: true,
            pending: false,
            route: None,
        }
    }
}

/// The MSI-X table and pending bits. Only aligned dwords and qwords are defined (PCI 3.0 §6.8.2):
/// other loads see all ones, other stores are lost.
impl Mmio for Interrupts {
    fn read(&self, offset: u64, size: u8) -> u64 {
        let low = || u64::from(self.read_dword(offset));
        match size {
            4 if offset.is_multiple_of(4) => low(),
            8 if offset.is_multiple_of(8) => low() | u64::from(self.read_dword(offset | 4)) << 32,
            _ => u64::MAX,
        }
    }

    fn write(&self, offset: u64, size: u8, value: u64) -> Action {
        match size {
            4 if offset.is_multiple_of(4) => self.write_dword(offset, value as u32),
            8 if offset.is_multiple_of(8) => {
                self.write_dword(offset, value as u32);
                self.write_dword(offset | 4, (value >> 32) as u32);
            }
            _ => {}
        }
        Action::None
    }
}

fn lock(vector: &Mutex<Vector>) -> MutexGuard<'_, Vector> {
    vector.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
