//! PCI: configuration space, base address registers, interrupts, and the host that reaches them.
//!
//! | module | what it is |
//! |---|---|
//! | [`config`] | one function's configuration space: write masks, capabilities, BARs |
//! | [`interrupts`] | INTx or MSI-X, decided in one place; models only raise a vector |
//! | [`host`] | finds functions, performs configuration accesses, maps BARs where the guest puts them |
//! | [`address`] | the place of a function on the bus, as users write it (`1f.2`) |
//! | [`assign`] | gives BARs their first addresses where no firmware does |
//! | [`pirq`] | the ICH9's wires from INTx pins to GSIs |
//! | [`mch`] | the q35 host bridge |
//! | [`lpc`] | the ICH9 LPC bridge |
//! | [`q35`] | those put together |
//!
//! Lock order: a function's place in the host → its registers → its interrupts → the wires. A device
//! is called with the first of these held and never calls the host.

pub mod address;
pub mod assign;
pub mod config;
pub mod host;
pub mod interrupts;
pub mod lpc;
pub mod mch;
pub mod pirq;
pub mod q35;

use crate::bus::Action;

pub use address::Address;
pub use config::{Bar, BarKind, Identity, PciConfig, Space, Window};
pub use host::PciHost;
pub use interrupts::Interrupts;

/// One PCI function.
///
/// The host serialises configuration writes, moves and resets of one function; reads come at any time.
pub trait PciDevice: Send + Sync {
    /// What the user calls it, for messages.
    fn name(&self) -> &str;

    /// Its configuration space.
    fn config(&self) -> &PciConfig;

    /// Back to the state after power-on. Just before, the host has reset the configuration space,
    /// unmapped the BARs and told of the bus mastering that ended.
    fn reset(&self);

    /// A configuration load of 1, 2 or 4 bytes. For functions whose registers have side effects.
    fn read_config(&self, offset: u16, size: u8) -> u32 {
        self.config().read(offset, size)
    }

    /// A configuration store of 1, 2 or 4 bytes. For functions whose registers have side effects;
    /// the host looks for moved BARs and a changed bus master bit afterwards by itself.
    fn write_config(&self, offset: u16, size: u8, value: u32) -> Action {
        self.config().write(offset, size, value);
        Action::None
    }

    /// A BAR now answers at `window`, or nowhere. The bus has already changed.
    fn bar_moved(&self, bar: usize, window: Option<Window>) {
        let _ = (bar, window);
    }

    /// Bus Master Enable changed. A function that may have transfers under way returns
    /// [`Action::Wait`] when it is cleared: they must be over when the store retires.
    fn bus_master(&self, enabled: bool) -> Action {
        let _ = enabled;
        Action::None
    }
}
