//! The PCI host: configuration accesses, and where functions and their BARs are.
//!
//! Configuration space is reached through ports 0xcf8 and 0xcfc and through a memory window (ECAM).
//! After each store the host compares where a function's BARs should answer with where they do, and
//! moves them: there is no other place that maps a BAR.
//!
//! Lock order: the list of functions is only held to look one up. A function's place is held while
//! its registers are written, mapped, reset or removed, so these never overlap; then the bus.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::bus::{Action, Bus, MappingId, Mmio, Priority, Ticket};
use crate::irq::IrqLine;
use crate::pci::{Address, PciDevice, Space, Window};

/// Where the configuration ports begin: 0xcf8 address, 0xcf9 reset control, 0xcfc data.
pub const CONFIG_PORTS: u64 = 0xcf8;
/// How many ports they are.
pub const CONFIG_PORTS_LEN: u64 = 8;

const ENABLE: u32 = 1 << 31;
const RESET_CPU: u8 = 1 << 2;

/// Gives the wire for a function's pin (1 to 4 for A to D).
pub type Wires = Box<dyn Fn(Address, u8) -> Arc<dyn IrqLine> + Send + Sync>;

/// The host bridge's view of bus 0.
pub struct PciHost {
    memory: Arc<Bus>,
    io: Arc<Bus>,
    wires: Wires,
    functions: Mutex<BTreeMap<Address, Arc<Function>>>,
}

/// Why a function cannot be added.
#[derive(Debug, PartialEq, Eq)]
pub enum AddError {
    /// Another function is there: its name.
    Taken(Address, String),
    /// Function 0 of the device does not admit others, of which this would be one.
    SingleFunction(Address),
    /// All 32 devices exist.
    Full,
}

struct Function {
    device: Arc<dyn PciDevice>,
    place: Mutex<Place>,
}

#[derive(Default)]
struct Place {
    removed: bool,
    bus_master: bool,
    mapped: [Option<(Window, MappingId)>; 6],
}

impl PciHost {
    /// An empty bus whose BARs appear in `memory` and `io`. The ports and ECAM are mapped by the board.
    pub fn new(memory: Arc<Bus>, io: Arc<Bus>, wires: Wires) -> Arc<PciHost> {
        Arc::new(PciHost {
            memory,
            io,
            wires,
            functions: Mutex::default(),
        })
    }

    /// Plugs a function in: at `address`, or as function 0 of the first device that is free.
    ///
    /// # Errors
    /// [`AddError`]; nothing has changed then.
    pub fn add(
        &self,
        device: Arc<dyn PciDevice>,
        address: Option<Address>,
    ) -> Result<Address, AddError> {
        let mut functions = self.functions();
        let address = match address {
            Some(address) => address,
            None => (0..32)
                .filter_map(|slot| Address::new(slot, 0))
                .find(|at| !functions.keys().any(|used| used.device() == at.device()))
                .ok_or(AddError::Full)?,
        };
        if let Some(taken) = functions.get(&address) {
            return Err(AddError::Taken(address, taken.device.name().to_owned()));
        }
        let single = |device: &Arc<dyn PciDevice>| !device.config().is_multifunction();
        let mut siblings = functions
            .iter()
            .filter(|(at, _)| at.device() == address.device());
        // Nobody looks behind a function 0 that says it is alone.
        let hidden = match address.function() {
            0 if single(&device) => siblings.next().map(|(at, _)| *at),
            0 => None,
            _ => siblings
                .next()
                .filter(|(at, first)| at.function() == 0 && single(&first.device))
                .map(|_| address),
        };
        if let Some(hidden) = hidden {
            return Err(AddError::SingleFunction(hidden));
        }
        if let Some(interrupts) = device.config().interrupts() {
            let pin = device.config().pin();
            interrupts.connect((1..=4).contains(&pin).then(|| (self.wires)(address, pin)));
        }
        let function = Function {
            device,
            place: Mutex::default(),
        };
        functions.insert(address, Arc::new(function));
        Ok(address)
    }

    /// Unplugs a function: it answers nowhere and interrupts nobody from now on. Returned with it is
    /// what to wait for before its last transfer is over.
    pub fn remove(&self, address: Address) -> Option<(Arc<dyn PciDevice>, Action)> {
        let function = self.functions().remove(&address)?;
        let mut place = function.place();
        place.removed = true;
        function.device.config().reset();
        let action = self.settle(&function.device, &mut place);
        if let Some(interrupts) = function.device.config().interrupts() {
            interrupts.connect(None);
        }
        Some((function.device.clone(), action))
    }

    /// The functions, by address.
    pub fn devices(&self) -> Vec<(Address, Arc<dyn PciDevice>)> {
        self.functions()
            .iter()
            .map(|(at, f)| (*at, f.device.clone()))
            .collect()
    }

    /// Power-on state for every function; BARs answer nowhere afterwards. What is returned is to be
    /// waited for before guest memory may be taken to be still: the last transfers, by the function's name.
    #[must_use]
    pub fn reset(&self) -> Vec<(String, Ticket)> {
        let functions: Vec<_> = self.functions().values().cloned().collect();
        let mut tickets = Vec::new();
        for function in functions {
            let mut place = function.place();
            function.device.config().reset();
            if let Action::Wait(ticket) = self.settle(&function.device, &mut place) {
                tickets.push((function.device.name().to_owned(), ticket));
            }
            function.device.reset();
        }
        tickets
    }

    /// A configuration load of 1, 2 or 4 bytes; all ones where there is no function.
    pub fn read(&self, address: Address, offset: u16, size: u8) -> u32 {
        match self.function(address) {
            Some(function) => function.device.read_config(offset, size),
            None => u32::MAX,
        }
    }

    /// A configuration store of 1, 2 or 4 bytes; lost where there is no function.
    pub fn write(&self, address: Address, offset: u16, size: u8, value: u32) -> Action {
        let Some(function) = self.function(address) else {
            return Action::None;
        };
        let mut place = function.place();
        if place.removed {
            return Action::None;
        }
        let action = function.device.write_config(offset, size, value);
        match self.settle(&function.device, &mut place) {
            Action::None => action,
            settled => settled,
        }
    }

    /// Makes the bus and the device agree with the configuration space.
    fn settle(&self, device: &Arc<dyn PciDevice>, place: &mut Place) -> Action {
        let windows = device.config().windows();
        // Everything that leaves goes before anything that comes, so that two BARs can swap places.
        let mut moved = [false; 6];
        for ((mapped, window), moved) in place.mapped.iter_mut().zip(&windows).zip(&mut moved) {
            *moved = mapped.as_ref().map(|(window, _)| *window) != *window;
            if let Some((old, id)) = mapped.take_if(|_| *moved) {
                self.bus(old.space).unmap(id);
            }
        }
        for (index, (mapped, window)) in place.mapped.iter_mut().zip(windows).enumerate() {
            if !moved.get(index).copied().unwrap_or(false) {
                continue;
            }
            let bar = device.config().bars().get(index).and_then(Option::as_ref);
            if let (Some(window), Some(bar)) = (window, bar) {
                let bus = self.bus(window.space);
                let id = bus.map(
                    window.base,
                    window.len,
                    Priority::Movable,
                    bar.registers.clone(),
                );
                *mapped = Some((window, id));
            }
            device.bar_moved(index, window);
        }
        let bus_master = device.config().is_bus_master();
        if std::mem::replace(&mut place.bus_master, bus_master) != bus_master {
            return device.bus_master(bus_master);
        }
        Action::None
    }

    fn bus(&self, space: Space) -> &Bus {
        match space {
            Space::Memory => &self.memory,
            Space::Io => &self.io,
        }
    }

    fn function(&self, address: Address) -> Option<Arc<Function>> {
        self.functions().get(&address).cloned()
    }

    fn functions(&self) -> MutexGuard<'_, BTreeMap<Address, Arc<Function>>> {
        self.functions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Function {
    fn place(&self) -> MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ports 0xcf8 to 0xcff: configuration mechanism #1 (PCI 3.0 §3.2.2.3.2) and, in the middle of it,
/// the reset control register at 0xcf9 (ICH9 §13.7.5).
pub struct ConfigPorts {
    host: Weak<PciHost>,
    /// CONFIG_ADDRESS, kept whole: bits 1:0 take part in the address of a data access, which is what
    /// software relies on that always uses port 0xcfc.
    address: AtomicU32,
    reset: AtomicU8,
}

impl ConfigPorts {
    /// The ports of `host`, to be mapped at [`CONFIG_PORTS`].
    pub fn new(host: &Arc<PciHost>) -> Arc<ConfigPorts> {
        Arc::new(ConfigPorts {
            host: Arc::downgrade(host),
            address: AtomicU32::new(0),
            reset: AtomicU8::new(0),
        })
    }

    /// Power-on state.
    pub fn reset(&self) {
        self.address.store(0, Ordering::Relaxed);
        self.reset.store(0, Ordering::Relaxed);
    }

    /// The function and register that a data access at 0xcfc + `lane` means.
    fn target(&self, lane: u64) -> Option<(Arc<PciHost>, Address, u16)> {
        let address = self.address.load(Ordering::Relaxed);
        // Enabled, and bus 0: there is no other.
        if address & ENABLE == 0 || address >> 16 & 0xff != 0 {
            return None;
        }
        let [register, devfn, ..] = address.to_le_bytes();
        let offset = u16::from(register) | u16::try_from(lane & 3).unwrap_or(0);
        Some((self.host.upgrade()?, Address::from_devfn(devfn), offset))
    }
}

impl Mmio for ConfigPorts {
    fn read(&self, offset: u64, size: u8) -> u64 {
        match (offset, size) {
            (0, 4) => u64::from(self.address.load(Ordering::Relaxed)),
            (1, 1) => u64::from(self.reset.load(Ordering::Relaxed)),
            (4..8, 1 | 2 | 4) => match self.target(offset) {
                Some((host, address, register)) => u64::from(host.read(address, register, size)),
                None => u64::MAX,
            },
            _ => u64::MAX,
        }
    }

    fn write(&self, offset: u64, size: u8, value: u64) -> Action {
        match (offset, size) {
            (0, 4) => self.address.store(value as u32, Ordering::Relaxed),
            (1, 1) => {
                let value = value as u8;
                // FULL_RST and SYS_RST say how to reset; RST_CPU does it and reads as 0.
                self.reset.store(value & 0x0a, Ordering::Relaxed);
                if value & RESET_CPU != 0 {
                    return Action::Reset;
                }
            }
            (4..8, 1 | 2 | 4) => {
                if let Some((host, address, register)) = self.target(offset) {
                    return host.write(address, register, size, value as u32);
                }
            }
            _ => {}
        }
        Action::None
    }
}

/// The memory window on configuration space (PCI Express 5.0 §7.2.2): 4 KiB a function, 1 MiB a bus.
/// Its first function is 00.0, wherever the window is mapped.
pub struct Ecam(Weak<PciHost>);

impl Ecam {
    /// The window on the functions of `host`.
    pub fn new(host: &Arc<PciHost>) -> Arc<Ecam> {
        Arc::new(Ecam(Arc::downgrade(host)))
    }

    fn target(&self, offset: u64) -> Option<(Arc<PciHost>, Address, u16)> {
        let devfn = u8::try_from(offset >> 12).ok()?;
        let register = u16::try_from(offset & 0xfff).ok()?;
        Some((self.0.upgrade()?, Address::from_devfn(devfn), register))
    }
}

impl Mmio for Ecam {
    fn read(&self, offset: u64, size: u8) -> u64 {
        let Some((host, address, register)) = self.target(offset) else {
            return u64::MAX;
        };
        let low = u64::from(host.read(address, register, size.min(4)));
        match size {
            8 => low | u64::from(host.read(address, register.saturating_add(4), 4)) << 32,
            _ => low,
        }
    }

    fn write(&self, offset: u64, size: u8, value: u64) -> Action {
        let Some((host, address, register)) = self.target(offset) else {
            return Action::None;
        };
        let low = host.write(address, register, size.min(4), value as u32);
        if size != 8 {
            return low;
        }
        match host.write(address, register.saturating_add(4), 4, (value >> 32) as u32) {
            Action::None => low,
            high => high,
        }
    }
}

impl fmt::Display for AddError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AddError::Taken(at, name) => write!(f, "PCI address {at} is taken by {name}"),
            AddError::SingleFunction(at) => {
                write!(
                    f,
                    "PCI address {at}: function 0 of that device is without multifunction=on"
                )
            }
            AddError::Full => f.write_str("no free PCI slot is left"),
        }
    }
}

impl std::error::Error for AddError {}

#[cfg(test)]
pub(crate) mod tests;
