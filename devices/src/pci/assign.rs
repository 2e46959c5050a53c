//! The first addresses of BARs, where no firmware gives them: a `-kernel` boot.
//!
//! Largest first within a window, each at a multiple of its size, so that no space is lost to
//! alignment. A guest may move them all afterwards.

use std::cmp::Reverse;
use std::ops::Range;

use crate::bus::Action;
use crate::pci::config::command;
use crate::pci::{Address, BarKind, PciHost};

const COMMAND: u16 = 0x04;
const INTERRUPT_LINE: u16 = 0x3c;

/// Address space for BARs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Windows {
    /// Memory below 4 GiB.
    pub low: Range<u64>,
    /// Memory above 4 GiB, for 64-bit prefetchable BARs; may be empty.
    pub high: Range<u64>,
    /// I/O ports.
    pub io: Range<u64>,
}

/// No window has room left for a BAR.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoRoom {
    /// The function.
    pub address: Address,
    /// Which of its BARs.
    pub bar: usize,
    /// Its size in bytes.
    pub size: u64,
}

/// Places every BAR, lets each function answer there, and records the interrupt line that
/// `irq(address, pin)` gives (pin 1 to 4 for A to D). Bus mastering is left to the guest's driver.
///
/// # Errors
/// [`NoRoom`] for the first BAR that fits nowhere.
pub fn assign(
    host: &PciHost,
    windows: &Windows,
    irq: impl Fn(Address, u8) -> u8,
) -> Result<(), NoRoom> {
    let devices = host.devices();
    let mut bars: Vec<_> = devices
        .iter()
        .flat_map(|(address, device)| {
            let bars = device.config().bars().iter().enumerate();
            bars.filter_map(move |(index, bar)| Some((bar.as_ref()?, *address, index, device)))
        })
        .collect();
    bars.sort_by_key(|(bar, address, index, _)| (Reverse(bar.size), *address, *index));

    let mut free = windows.clone();
    for (bar, address, index, device) in bars {
        let base = match bar.kind {
            BarKind::Io => take(&mut free.io, bar.size),
            BarKind::Memory64 { prefetchable: true } => {
                take(&mut free.high, bar.size).or_else(|| take(&mut free.low, bar.size))
            }
            _ => take(&mut free.low, bar.size),
        };
        let base = base.ok_or(NoRoom {
            address,
            bar: index,
            size: bar.size,
        })?;
        device.config().place_bar(index, base);
    }
    for (address, device) in &devices {
        let config = device.config();
        if config.pin() != 0 {
            config.set(INTERRUPT_LINE, &[irq(*address, config.pin())]);
        }
        let enable = config.command() | command::IO | command::MEMORY;
        // Mapping is the host's; nothing that enables decoding has an effect beyond it.
        let _: Action = host.write(*address, COMMAND, 2, u32::from(enable));
    }
    Ok(())
}

/// The lowest `size` bytes of `free` that are aligned to their size (a power of two).
fn take(free: &mut Range<u64>, size: u64) -> Option<u64> {
    // Address 0 means "not placed".
    let base = free.start.max(1).checked_next_multiple_of(size)?;
    let end = base.checked_add(size)?;
    (end <= free.end).then(|| {
        free.start = end;
        base
    })
}

impl std::fmt::Display for NoRoom {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let NoRoom { address, bar, size } = self;
        write!(
            f,
            "no address space is left for BAR {bar} of PCI function {address} ({size} bytes)"
        )
    }
}

impl std::error::Error for NoRoom {}

#[cfg(test)]
mod tests;
