//! Interrupt resource descriptors (ACPI 6.5 §6.4.2.1, §6.4.3.6), which list several interrupts where `acpi_tables` takes
//! one.

use acpi_tables::{Aml, AmlSink};

/// An edge-triggered, active-high ISA interrupt that is not shared: `IRQNoFlags () {n}`.
pub(super) struct IsaIrq(pub(super) u32);

impl Aml for IsaIrq {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        sink.byte(0x22);
        sink.word(1 << (self.0 % 16));
    }
}

/// Level-triggered, active-high, shared interrupts to choose from: `Interrupt (ResourceConsumer, Level, ActiveHigh,
/// Shared) {...}`.
///
/// PCI's lines are active low on a real board; KVM's IOAPIC takes every line as active high, whatever its polarity bit.
pub(super) struct PciIrqs<'a>(pub(super) &'a [u32]);

impl Aml for PciIrqs<'_> {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        const CONSUMER: u8 = 1 << 0;
        const SHARED: u8 = 1 << 3;
        sink.byte(0x89);
        sink.word(2 + 4 * self.0.len() as u16);
        sink.byte(CONSUMER | SHARED);
        sink.byte(self.0.len() as u8);
        self.0.iter().for_each(|&irq| sink.dword(irq));
    }
}

/// Bytes made before.
pub(super) struct Raw(pub(super) Vec<u8>);

impl Aml for Raw {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        sink.vec(&self.0);
    }
}
