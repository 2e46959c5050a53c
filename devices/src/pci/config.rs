//! One function's configuration space (PCI Local Bus 3.0 §6.1, §6.2).
//!
//! Three byte arrays of one length: what reads return, which bits a guest may write, and which bits
//! a guest clears by writing 1. Everything a register does beyond that (BARs, the command register,
//! MSI-X control) is derived from the bytes after each write, so no order of writes can leave the
//! two apart.

use std::ops::Range;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::bus::Mmio;
use crate::pci::Interrupts;

/// Command register bits (PCI 3.0 §6.2.2).
pub mod command {
    /// The function answers in I/O space.
    pub const IO: u16 = 1 << 0;
    /// The function answers in memory space.
    pub const MEMORY: u16 = 1 << 1;
    /// The function may make memory requests, MSI among them.
    pub const BUS_MASTER: u16 = 1 << 2;
    /// The function's INTx pin stays deasserted.
    pub const INTX_DISABLE: u16 = 1 << 10;
    /// Those above, parity error response and SERR#.
    pub(super) const WRITABLE: u16 = 0x0547;
}

const COMMAND: u16 = 0x04;
const STATUS: usize = 0x06;
const STATUS_INTX: u8 = 1 << 3;
const STATUS_CAPABILITIES: u8 = 1 << 4;
const HEADER_TYPE: u16 = 0x0e;
const MULTIFUNCTION: u8 = 1 << 7;
const BARS: u16 = 0x10;
const CAPABILITIES: u16 = 0x34;
const INTERRUPT_LINE: u16 = 0x3c;
const INTERRUPT_PIN: u16 = 0x3d;
const CONVENTIONAL: usize = 0x100;
const CAP_MSIX: u8 = 0x11;

/// What a function says it is.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Base class, subclass and programming interface: 24 bits.
    pub class: u32,
    /// Revision ID.
    pub revision: u8,
    /// Subsystem vendor ID.
    pub subsystem_vendor: u16,
    /// Subsystem ID.
    pub subsystem: u16,
}

/// One of the two address spaces of a PC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Space {
    /// Memory-mapped registers.
    Memory,
    /// I/O ports.
    Io,
}

/// Where a BAR answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// In which space.
    pub space: Space,
    /// Its first address.
    pub base: u64,
    /// Its length in bytes, a power of two.
    pub len: u64,
}

/// The type of a BAR (PCI 3.0 §6.2.5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarKind {
    /// I/O ports.
    Io,
    /// Memory below 4 GiB.
    Memory32 {
        /// Reads have no side effects.
        prefetchable: bool,
    },
    /// Memory anywhere; takes the next BAR too.
    Memory64 {
        /// Reads have no side effects.
        prefetchable: bool,
    },
}

/// A block of registers that the guest can place.
#[derive(Clone)]
pub struct Bar {
    /// Its type.
    pub kind: BarKind,
    /// Its length in bytes, rounded up to a power of two and to the least that a BAR can have (16
    /// bytes of memory, 4 ports).
    pub size: u64,
    /// What answers there.
    pub registers: Arc<dyn Mmio>,
}

impl Bar {
    /// The bits of the register, or pair of registers, that hold the address.
    fn mask(&self) -> u64 {
        !self.size.saturating_sub(1)
    }

    fn flags(&self) -> u8 {
        let prefetch = |on: bool| u8::from(on) << 3;
        match self.kind {
            BarKind::Io => 1,
            BarKind::Memory32 { prefetchable } => prefetch(prefetchable),
            BarKind::Memory64 { prefetchable } => 0x4 | prefetch(prefetchable),
        }
    }

    fn width(&self) -> usize {
        match self.kind {
            BarKind::Memory64 { .. } => 8,
            _ => 4,
        }
    }

    /// In which space it answers.
    pub fn space(&self) -> Space {
        match self.kind {
            BarKind::Io => Space::Io,
            _ => Space::Memory,
        }
    }

    /// Where the BAR answers with `value` in its register. An address of 0 and one whose end is the
    /// end of the space mean "not placed": that is what reset and sizing leave there.
    fn window(&self, value: u64) -> Option<Window> {
        let base = value & self.mask();
        let last = base.checked_add(self.size.checked_sub(1)?)?;
        let fits = match self.kind {
            BarKind::Io => last <= 0xffff,
            BarKind::Memory32 { .. } => last < 0xffff_ffff,
            BarKind::Memory64 { .. } => last < u64::MAX,
        };
        (base != 0 && fits).then_some(Window {
            space: self.space(),
            base,
            len: self.size,
        })
    }
}

/// A function's configuration space.
pub struct PciConfig {
    registers: Mutex<Box<[u8]>>,
    /// After power-on.
    initial: Box<[u8]>,
    writable: Box<[u8]>,
    /// Written 1 to clear.
    clearable: Box<[u8]>,
    bars: [Option<Bar>; 6],
    interrupts: Option<Arc<Interrupts>>,
    /// Where the MSI-X capability is.
    msix: Option<u16>,
    /// The command register, for those who ask on the data path.
    command: AtomicU16,
}

impl PciConfig {
    /// Starts a conventional function: 256 bytes, no BAR, no interrupt.
    pub fn builder(identity: Identity) -> Builder {
        let mut builder = Builder {
            bytes: vec![0; CONVENTIONAL],
            writable: vec![0; CONVENTIONAL],
            clearable: vec![0; CONVENTIONAL],
            bars: Default::default(),
            interrupts: None,
            msix: None,
            last_capability: None,
            free: 0x40,
        };
        builder.set(0x00, &identity.vendor.to_le_bytes());
        builder.set(0x02, &identity.device.to_le_bytes());
        builder.set(
            0x08,
            &(identity.class << 8 | u32::from(identity.revision)).to_le_bytes(),
        );
        builder.set(0x2c, &identity.subsystem_vendor.to_le_bytes());
        builder.set(0x2e, &identity.subsystem.to_le_bytes());
        builder.writable(COMMAND, &command::WRITABLE.to_le_bytes());
        builder.writable(0x0c, &[0xff]); // cache line size
        builder.writable(INTERRUPT_LINE, &[0xff]);
        put(&mut builder.clearable, 0x06, &0xf900_u16.to_le_bytes());
        builder
    }

    /// A load of `size` bytes (up to 4); bytes past the end of the space are all ones.
    pub fn read(&self, offset: u16, size: u8) -> u32 {
        let registers = self.lock();
        let mut value = [0; 4];
        for (i, byte) in value.iter_mut().take(usize::from(size)).enumerate() {
            let at = usize::from(offset).saturating_add(i);
            *byte = registers.get(at).copied().unwrap_or(0xff);
            if at == STATUS && self.interrupts.as_ref().is_some_and(|i| i.is_asserted()) {
                *byte |= STATUS_INTX;
            }
        }
        u32::from_le_bytes(value)
    }

    /// A store of the low `size` bytes (up to 4) of `value` by the guest: only what a guest may
    /// change changes.
    pub fn write(&self, offset: u16, size: u8, value: u32) {
        let mut registers = self.lock();
        let bytes = value.to_le_bytes();
        for (i, new) in bytes.iter().take(usize::from(size)).enumerate() {
            let at = usize::from(offset).saturating_add(i);
            if let (Some(byte), Some(writable), Some(clearable)) = (
                registers.get_mut(at),
                self.writable.get(at),
                self.clearable.get(at),
            ) {
                *byte = (*byte & !writable | new & writable) & !(new & clearable);
            }
        }
        self.changed(&registers);
    }

    /// Sets bytes, read-only ones too: for the function itself.
    pub fn set(&self, offset: u16, bytes: &[u8]) {
        let mut registers = self.lock();
        put(&mut registers, offset, bytes);
        self.changed(&registers);
    }

    /// Back to the state after power-on.
    pub fn reset(&self) {
        let mut registers = self.lock();
        registers.copy_from_slice(&self.initial);
        self.changed(&registers);
        if let Some(interrupts) = &self.interrupts {
            interrupts.reset();
        }
    }

    /// The command register: see [`command`].
    pub fn command(&self) -> u16 {
        self.command.load(Ordering::Acquire)
    }

    /// Whether the function may read and write guest memory.
    pub fn is_bus_master(&self) -> bool {
        self.command() & command::BUS_MASTER != 0
    }

    /// Whether other functions of the same device may exist.
    pub fn is_multifunction(&self) -> bool {
        self.read(HEADER_TYPE, 1) as u8 & MULTIFUNCTION != 0
    }

    /// The INTx pin: 0 none, 1 to 4 for A to D.
    pub fn pin(&self) -> u8 {
        self.read(INTERRUPT_PIN, 1) as u8
    }

    /// The function's interrupts, where it has any.
    pub fn interrupts(&self) -> Option<&Arc<Interrupts>> {
        self.interrupts.as_ref()
    }

    /// The BARs by index; the upper half of a 64-bit BAR is `None`.
    pub fn bars(&self) -> &[Option<Bar>; 6] {
        &self.bars
    }

    /// Where each BAR answers now, as the address in it and the command register say.
    pub fn windows(&self) -> [Option<Window>; 6] {
        let registers = self.lock();
        let command = self.command();
        std::array::from_fn(|index| {
            let bar = self.bars.get(index)?.as_ref()?;
            let enabled = match bar.space() {
                Space::Memory => command & command::MEMORY,
                Space::Io => command & command::IO,
            };
            let mut value = [0; 8];
            let range = bar_range(index, bar.width());
            value
                .get_mut(..bar.width())?
                .copy_from_slice(registers.get(range)?);
            bar.window(u64::from_le_bytes(value))
                .filter(|_| enabled != 0)
        })
    }

    /// Puts an address into a BAR, whatever the command register says.
    pub fn place_bar(&self, index: usize, base: u64) {
        if let Some(Some(bar)) = self.bars.get(index) {
            let value = (base & bar.mask() | u64::from(bar.flags())).to_le_bytes();
            let range = bar_range(index, bar.width());
            if let Some(bytes) = value.get(..bar.width()) {
                self.set(u16::try_from(range.start).unwrap_or(BARS), bytes);
            }
        }
    }

    /// Brings everything derived from the registers up to date.
    fn changed(&self, registers: &[u8]) {
        let word = |at: u16| match registers.get(usize::from(at)..) {
            Some([low, high, ..]) => u16::from_le_bytes([*low, *high]),
            _ => 0,
        };
        self.command.store(word(COMMAND), Ordering::Release);
        if let Some(interrupts) = &self.interrupts {
            let control = self.msix.map_or(0, |msix| word(msix.saturating_add(2)));
            interrupts.configure(word(COMMAND), control);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Box<[u8]>> {
        self.registers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// A configuration space in the making. Its methods are for models, not for guests: an argument that
/// makes no sense is a mistake in the model, caught in test builds.
pub struct Builder {
    bytes: Vec<u8>,
    writable: Vec<u8>,
    clearable: Vec<u8>,
    bars: [Option<Bar>; 6],
    interrupts: Option<Arc<Interrupts>>,
    msix: Option<u16>,
    last_capability: Option<u16>,
    free: u16,
}

impl Builder {
    /// Function 0 of a device that has others.
    pub fn multifunction(&mut self) -> &mut Self {
        self.set(HEADER_TYPE, &[MULTIFUNCTION])
    }

    /// Sets what registers hold after power-on.
    pub fn set(&mut self, offset: u16, bytes: &[u8]) -> &mut Self {
        put(&mut self.bytes, offset, bytes);
        self
    }

    /// Sets which bits of registers a guest may write.
    pub fn writable(&mut self, offset: u16, mask: &[u8]) -> &mut Self {
        put(&mut self.writable, offset, mask);
        self
    }

    /// Adds BAR `index` (0 to 5).
    pub fn bar(&mut self, index: usize, mut bar: Bar) -> &mut Self {
        let least = if bar.kind == BarKind::Io { 4 } else { 16 };
        bar.size = bar
            .size
            .max(least)
            .checked_next_power_of_two()
            .unwrap_or(1 << 63);
        let mask =
            (bar.mask() & !0xf | bar.mask() & if least == 4 { 0xc } else { 0 }).to_le_bytes();
        let start = u16::try_from(bar_range(index, 4).start).unwrap_or(BARS);
        let width = bar.width();
        debug_assert!(
            index.saturating_add(width / 4) <= 6,
            "BAR {index} does not fit"
        );
        self.writable(start, mask.get(..width).unwrap_or_default());
        self.set(start, &[bar.flags()]);
        if let Some(slot) = self.bars.get_mut(index) {
            *slot = Some(bar);
        }
        self
    }

    /// Adds a capability (PCI 3.0 §6.7): `body` follows the two bytes of ID and link. Returns where
    /// the ID is, for [`Builder::writable`].
    pub fn capability(&mut self, id: u8, body: &[u8]) -> u16 {
        let at = self.free;
        let len = u16::try_from(body.len())
            .unwrap_or(u16::MAX)
            .saturating_add(2);
        self.free = at.saturating_add(len).saturating_add(3) & !3;
        debug_assert!(
            usize::from(self.free) <= CONVENTIONAL,
            "no room for capability {id:#x}"
        );
        self.set(at, &[id, 0]);
        self.set(at.saturating_add(2), body);
        let link = self
            .last_capability
            .replace(at)
            .map_or(CAPABILITIES, |last| last.saturating_add(1));
        self.set(link, &[u8::try_from(at).unwrap_or(0)]);
        self.set(0x06, &[STATUS_CAPABILITIES]);
        at
    }

    /// Gives the function its interrupts: INTx on `pin` (1 to 4 for A to D, 0 for none) and, with
    /// `msix_bar`, MSI-X with its table and pending bits in a memory BAR of their own.
    pub fn interrupts(
        &mut self,
        interrupts: &Arc<Interrupts>,
        pin: u8,
        msix_bar: Option<(usize, BarKind)>,
    ) -> &mut Self {
        self.set(INTERRUPT_PIN, &[pin]);
        self.interrupts = Some(interrupts.clone());
        if let Some((index, kind)) = msix_bar.filter(|_| interrupts.vectors() > 0) {
            let bir = u32::try_from(index).unwrap_or(0);
            let mut body = interrupts
                .vectors()
                .saturating_sub(1)
                .to_le_bytes()
                .to_vec();
            body.extend(bir.to_le_bytes());
            body.extend((interrupts.pending_offset() | bir).to_le_bytes());
            let at = self.capability(CAP_MSIX, &body);
            self.writable(at.saturating_add(2), &[0, 0xc0]);
            self.msix = Some(at);
            self.bar(
                index,
                Bar {
                    kind,
                    size: interrupts.table_size(),
                    registers: interrupts.clone(),
                },
            );
        }
        self
    }

    /// The finished configuration space.
    pub fn build(self) -> PciConfig {
        let initial = self.bytes.into_boxed_slice();
        let config = PciConfig {
            registers: Mutex::new(initial.clone()),
            initial,
            writable: self.writable.into_boxed_slice(),
            clearable: self.clearable.into_boxed_slice(),
            bars: self.bars,
            interrupts: self.interrupts,
            msix: self.msix,
            command: AtomicU16::new(0),
        };
        config.changed(&config.initial);
        config
    }
}

fn bar_range(index: usize, width: usize) -> Range<usize> {
    let start = usize::from(BARS).saturating_add(index.saturating_mul(4));
    start..start.saturating_add(width)
}

fn put(registers: &mut [u8], offset: u16, bytes: &[u8]) {
    let start = usize::from(offset);
    let room = registers.get_mut(start..start.saturating_add(bytes.len()));
    debug_assert!(
        room.is_some(),
        "{start:#x} is outside the configuration space"
    );
    if let Some(room) = room {
        room.copy_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests;
