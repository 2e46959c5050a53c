//! How an interrupt line reaches a CPU: one truth for the devices, the hypervisor's routing table and ACPI.
//!
//! A PCI pin becomes one of the ICH9's eight PIRQ lines (ICH9 datasheet §5.9, §10.1). With the IOAPIC in use, PIRQ A
//! to H are its inputs 16 to 23. With the 8259s in use, each PIRQ goes to the ISA IRQ that its routing register in the
//! LPC bridge's configuration space names.

/// Input of the ACPI system control interrupt: level, active high.
pub const SCI: u32 = 9;
/// COM1.
pub const COM1: u32 = 4;
/// The real-time clock.
pub const RTC: u32 = 8;
/// The keyboard controller.
pub const KEYBOARD: u32 = 1;
/// Input pins of the IOAPIC.
pub const IOAPIC_PINS: u32 = 24;
/// The IOAPIC input of PIRQ A.
pub const PIRQ_GSI: u32 = 16;
/// ISA IRQs that the guest may route PIRQs to in 8259 mode.
pub const PIRQ_ISA_IRQS: [u32; 3] = [5, 10, 11];
/// Offsets of the routing registers for PIRQ A to H in the LPC bridge's (00:1f.0) configuration space.
pub const PIRQ_ROUTE_REGISTERS: [u8; 8] = [0x60, 0x61, 0x62, 0x63, 0x68, 0x69, 0x6a, 0x6b];
/// In a routing register: not routed to the 8259s (IRQEN#). The low four bits are the ISA IRQ.
pub const PIRQ_ROUTE_DISABLE: u8 = 0x80;

/// The PIRQ line, 0 (A) to 7 (H), of a device's pin on bus 0.
///
/// `device` is the PCI device number, 0 to 31; `pin` is 0 for INTA# to 3 for INTD#. Devices 0 to 24 share PIRQ E to H,
/// rotated by the device number; the PCI bridge's 30 has E to H unrotated; the rest, which are inside the ICH9, have A to
/// D unrotated (reset values of D25IR to D31IR). Both arguments are taken modulo their range.
pub fn pirq(device: u8, pin: u8) -> u8 {
    let pin = pin % 4;
    match device % 32 {
        device @ 0..=24 => 4 + (device + pin) % 4,
        30 => 4 + pin,
        _ => pin,
    }
}

/// The IOAPIC input (GSI 16 to 23) of a device's pin on bus 0; arguments as for [`pirq`].
pub fn gsi(device: u8, pin: u8) -> u32 {
    PIRQ_GSI + u32::from(pirq(device, pin))
}

/// An interrupt controller's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// Pin of the primary 8259, 0 to 7.
    PicPrimary(u32),
    /// Pin of the secondary 8259, 0 to 7.
    PicSecondary(u32),
    /// Pin of the IOAPIC, 0 to 23.
    IoApic(u32),
}

/// The (GSI, input) pairs to give the hypervisor.
///
/// An ISA IRQ goes to its 8259 pin and its IOAPIC pin; IRQ 0 goes to IOAPIC pin 2 as the MADT's override says, and IRQ 2
/// is the cascade, so it goes nowhere.
pub fn routes() -> Vec<(u32, Input)> {
    let isa = (0..16).filter(|&irq| irq != 2).map(|irq| {
        let input = if irq < 8 {
            Input::PicPrimary(irq)
        } else {
            Input::PicSecondary(irq - 8)
        };
        (irq, input)
    });
    let ioapic = (0..IOAPIC_PINS)
        .filter(|&gsi| gsi != 2)
        .map(|gsi| (gsi, Input::IoApic(if gsi == 0 { 2 } else { gsi })));
    isa.chain(ioapic).collect()
}

#[cfg(test)]
mod tests;
