//! The interrupt wires that ACPI tells the guest of are those that the devices pull.
#![allow(missing_docs, reason = "a test")]

use arch::x86_64::interrupts;
use devices::pci::Address;
use devices::pci::pirq::Pirqs;

#[test]
fn acpi_and_the_chipset_agree_on_every_pin() {
    for device in 0..32 {
        let address = Address::new(device, 0).unwrap();
        for pin in 0..4 {
            let (told, wired) = (interrupts::pirq(device, pin), Pirqs::pirq(address, pin + 1));
            assert_eq!(told, wired, "device {device}, pin {pin}");
            let (told, wired) = (interrupts::gsi(device, pin), Pirqs::gsi(address, pin + 1));
            assert_eq!(told, u32::from(wired), "device {device}, pin {pin}");
        }
    }
}
