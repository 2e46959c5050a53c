//! The DSDT: the PCI root with its windows and interrupt routes, what is on the LPC bus, what is reserved, the CPUs.

use acpi_tables::Aml;
use acpi_tables::aml::{
    self, AddressSpace, AddressSpaceCacheable, Arg, CreateDWordField, Device, EISAName, Else,
    Equal, Field, FieldAccessType, FieldEntry, FieldLockRule, FieldUpdateRule, If, Local,
    Memory32Fixed, Method, Name, NotEqual, ONE, OpRegion, OpRegionSpace, Or, Package,
    PackageBuilder, Path, ResourceTemplate, Return, Scope, Store, Uuid, ZERO,
};
use acpi_tables::sdt::Sdt;

use super::resource::{IsaIrq, PciIrqs, Raw};
use super::{Config, OEM, OEM_REVISION, OEM_TABLE, bytes, pm};
use crate::x86_64::interrupts::{self, PIRQ_GSI, PIRQ_ISA_IRQS, PIRQ_ROUTE_DISABLE, pirq};
use crate::x86_64::layout;

/// 2 and more: integers have 64 bits.
const REVISION: u8 = 2;
const HEADER: u32 = 36;
/// `_ADR` of the LPC bridge, 00:1f.0.
const LPC: u32 = 0x1f << 16;
const PIRQS: u8 = 8;

/// The table.
pub(super) fn dsdt(config: &Config<'_>) -> Vec<u8> {
    let mut body = Vec::new();
    let s5 = Package::new(vec![&pm::SLEEP_TYPE_S5, &ZERO, &ZERO, &ZERO]);
    Name::new("_S5_".into(), &s5).to_aml_bytes(&mut body);
    interrupt_model().to_aml_bytes(&mut body);
    Scope::new(
        "_SB_".into(),
        vec![&pci_root(config), &links(), &reserved(), &cpus(config)],
    )
    .to_aml_bytes(&mut body);
    let mut sdt = Sdt::new(*b"DSDT", HEADER, REVISION, OEM, OEM_TABLE, OEM_REVISION);
    sdt.append_slice(&body);
    bytes(&sdt)
}

/// A field or variable by name.
fn var(name: &str) -> Path {
    Path::new(name)
}

fn all(parts: &[&dyn Aml]) -> Raw {
    let mut out = Vec::new();
    parts.iter().for_each(|part| part.to_aml_bytes(&mut out));
    Raw(out)
}

fn hid(id: &str) -> Name {
    Name::new("_HID".into(), &EISAName::new(id))
}

fn uid(n: u32) -> Name {
    Name::new("_UID".into(), &n)
}

fn crs(resources: Vec<&dyn Aml>) -> Name {
    Name::new("_CRS".into(), &ResourceTemplate::new(resources))
}

/// The OS says by `_PIC` whether it uses the 8259s (0) or the IOAPIC (1).
fn interrupt_model() -> Raw {
    all(&[
        &Name::new("PICF".into(), &ZERO),
        &Method::new(
            "_PIC".into(),
            1,
            false,
            vec![&Store::new(&var("PICF"), &Arg(0))],
        ),
    ])
}

fn pci_root(config: &Config<'_>) -> Raw {
    let routes = all(&[&Method::new(
        "_PRT".into(),
        0,
        false,
        vec![
            &If::new(
                &Equal::new(&var("PICF"), &ZERO),
                vec![&Return::new(&var("PRTP"))],
            ),
            &Else::new(vec![&Return::new(&var("PRTA"))]),
        ],
    )]);
    all(&[&Device::new(
        "PCI0".into(),
        vec![
            &hid("PNP0A08"),
            &Name::new("_CID".into(), &EISAName::new("PNP0A03")),
            &uid(0),
            &Name::new("_SEG".into(), &ZERO),
            &Name::new("_BBN".into(), &ZERO),
            &windows(config),
            &os_capabilities(),
            &Name::new("PRTP".into(), &route_table("LNK")),
            &Name::new("PRTA".into(), &route_table("GSI")),
            &routes,
            &lpc(config),
        ],
    )])
}

/// What the root forwards: all buses, I/O ports but its own configuration ports, the 32-bit and the 64-bit window.
fn windows(config: &Config<'_>) -> Name {
    let memory = AddressSpaceCacheable::NotCacheable;
    let mmio32 = layout::MMIO32;
    let mmio64 = config.layout.mmio64();
    let window64 = if mmio64.is_empty() {
        Raw(Vec::new())
    } else {
        all(&[&AddressSpace::new_memory(
            AddressSpaceCacheable::NotCacheable,
            true,
            mmio64.start,
            mmio64.end - 1,
            None,
        )])
    };
    crs(vec![
        &AddressSpace::new_bus_number(0_u16, 255),
        &aml::IO::new(0xcf8, 0xcf8, 1, 8),
        &AddressSpace::new_io(0_u16, 0xcf7, None),
        &AddressSpace::new_io(0xd00_u16, 0xffff, None),
        &AddressSpace::new_memory(
            memory,
            true,
            mmio32.start as u32,
            (mmio32.end - 1) as u32,
            None,
        ),
        &window64,
    ])
}

/// `_OSC` (PCI Firmware spec 3.3 §4.5): the OS may have native hotplug, SHPC, PME, AER and the capability structure.
fn os_capabilities() -> Raw {
    const PCI_ROOT: &str = "33db4d5b-1ff7-401c-9657-7441c03dd766";
    const GRANTED: u8 = 0x1f;
    const UNKNOWN_UUID: u8 = 1 << 2;
    const UNKNOWN_REVISION: u8 = 1 << 3;
    const MASKED: u8 = 1 << 4;
    let status = || var("CDW1");
    let control = || var("CDW3");
    let add = |bit: u8| all(&[&Or::new(&status(), &status(), &bit)]);
    let body = all(&[
        &CreateDWordField::new(&status(), &Arg(3), &ZERO),
        &If::new(
            &Equal::new(&Arg(0), &Uuid::new(PCI_ROOT)),
            vec![
                &CreateDWordField::new(&control(), &Arg(3), &8_u8),
                &aml::And::new(&Local(0), &control(), &GRANTED),
                &If::new(&NotEqual::new(&Arg(1), &ONE), vec![&add(UNKNOWN_REVISION)]),
                &If::new(&NotEqual::new(&control(), &Local(0)), vec![&add(MASKED)]),
                &Store::new(&control(), &Local(0)),
            ],
        ),
        &Else::new(vec![&add(UNKNOWN_UUID)]),
        &Return::new(&Arg(3)),
    ]);
    // Serialized, since it makes named fields.
    all(&[&Method::new("_OSC".into(), 4, true, vec![&body])])
}

/// `_PRT`'s package: for each pin of each device on bus 0, the link `prefix`A to `prefix`H that it is wired to.
fn route_table(prefix: &str) -> PackageBuilder {
    let mut table = PackageBuilder::new();
    for device in 0..32_u8 {
        for pin in 0..4_u8 {
            let address = u32::from(device) << 16 | 0xffff;
            let link = link_name(prefix, pirq(device, pin));
            table.add_element(&Package::new(vec![&address, &pin, &link, &ZERO]));
        }
    }
    table
}

fn link_name(prefix: &str, pirq: u8) -> Path {
    Path::new(&format!("{prefix}{}", char::from(b'A' + pirq % PIRQS)))
}

/// The routing register of a PIRQ.
fn route_register(pirq: u8) -> String {
    format!("PRQ{}", char::from(b'A' + pirq % PIRQS))
}

/// Interrupt link devices: LNKx through the LPC bridge's routing registers to an ISA IRQ, GSIx to a fixed IOAPIC input.
fn links() -> Raw {
    let mut out = Vec::new();
    for n in 0..PIRQS {
        pic_link(n).to_aml_bytes(&mut out);
    }
    for n in 0..PIRQS {
        ioapic_link(n).to_aml_bytes(&mut out);
    }
    Raw(out)
}

fn pic_link(n: u8) -> Raw {
    // Of `Interrupt (..) {n}`: where the number is.
    const NUMBER_AT: u8 = 5;
    let register = Path::new(&format!("\\_SB_.PCI0.ISA_.{}", route_register(n)));
    let choices = PciIrqs(&PIRQ_ISA_IRQS);
    all(&[&Device::new(
        link_name("LNK", n),
        vec![
            &hid("PNP0C0F"),
            &uid(n.into()),
            &Name::new("_PRS".into(), &ResourceTemplate::new(vec![&choices])),
            &Method::new(
                "_STA".into(),
                0,
                false,
                vec![
                    &If::new(
                        &aml::And::new(&ZERO, &register, &PIRQ_ROUTE_DISABLE),
                        vec![&Return::new(&0x9_u8)],
                    ),
                    &Return::new(&0xb_u8),
                ],
            ),
            &Method::new(
                "_DIS".into(),
                0,
                false,
                vec![&Or::new(&register, &register, &PIRQ_ROUTE_DISABLE)],
            ),
            // Outside the method: objects made at each call are slow, says iasl.
            &Name::new("BUF0".into(), &ResourceTemplate::new(vec![&PciIrqs(&[0])])),
            &CreateDWordField::new(&var("IRQN"), &var("BUF0"), &NUMBER_AT),
            &Method::new(
                "_CRS".into(),
                0,
                false,
                vec![
                    &aml::And::new(&var("IRQN"), &register, &0xf_u8),
                    &Return::new(&var("BUF0")),
                ],
            ),
            &Method::new(
                "_SRS".into(),
                1,
                true,
                vec![
                    &CreateDWordField::new(&var("CHSN"), &Arg(0), &NUMBER_AT),
                    &Store::new(&register, &var("CHSN")),
                ],
            ),
        ],
    )])
}

fn ioapic_link(n: u8) -> Raw {
    let gsi = [PIRQ_GSI + u32::from(n)];
    let irq = PciIrqs(&gsi);
    all(&[&Device::new(
        link_name("GSI", n),
        vec![
            &hid("PNP0C0F"),
            &uid(u32::from(PIRQS) + u32::from(n)),
            &Name::new("_PRS".into(), &ResourceTemplate::new(vec![&irq])),
            &crs(vec![&irq]),
            &Method::new("_SRS".into(), 1, false, vec![]),
        ],
    )])
}

/// The LPC bridge: PIRQ routing and the legacy devices.
fn lpc(config: &Config<'_>) -> Raw {
    let mut devices = Vec::new();
    let mut push = |present: bool, device: Device<'_>| {
        if present {
            device.to_aml_bytes(&mut devices);
        }
    };
    let io = |base: u16, len: u8| aml::IO::new(base, base, 1, len);
    push(
        config.serial,
        Device::new(
            "COM1".into(),
            vec![
                &hid("PNP0501"),
                &uid(1),
                &crs(vec![&io(0x3f8, 8), &IsaIrq(interrupts::COM1)]),
            ],
        ),
    );
    push(
        true,
        Device::new(
            "RTC_".into(),
            vec![
                &hid("PNP0B00"),
                &crs(vec![&io(0x70, 2), &IsaIrq(interrupts::RTC)]),
            ],
        ),
    );
    push(
        config.i8042,
        Device::new(
            "KBD_".into(),
            vec![
                &hid("PNP0303"),
                &crs(vec![
                    &io(0x60, 1),
                    &io(0x64, 1),
                    &IsaIrq(interrupts::KEYBOARD),
                ]),
            ],
        ),
    );
    if let Some(port) = config.pvpanic {
        push(
            true,
            Device::new(
                "PEVT".into(),
                vec![
                    &Name::new("_HID".into(), &"QEMU0001"),
                    &crs(vec![&io(port, 1)]),
                ],
            ),
        );
    }
    let registers = &interrupts::PIRQ_ROUTE_REGISTERS;
    let [first, .., last] = *registers;
    let mut fields = Vec::new();
    let mut at = first;
    for (n, &register) in (0_u8..).zip(registers) {
        if register > at {
            fields.push(FieldEntry::Reserved(usize::from(register - at) * 8));
        }
        let name = route_register(n);
        fields.push(FieldEntry::Named(
            name.as_bytes().first_chunk().copied().unwrap_or_default(),
            8,
        ));
        at = register + 1;
    }
    all(&[&Device::new(
        "ISA_".into(),
        vec![
            &Name::new("_ADR".into(), &LPC),
            &OpRegion::new(
                "PIRQ".into(),
                OpRegionSpace::PCIConfig,
                &first,
                &(last + 1 - first),
            ),
            &Field::new(
                "PIRQ".into(),
                FieldAccessType::Byte,
                FieldLockRule::NoLock,
                FieldUpdateRule::Preserve,
                fields,
            ),
            &Raw(devices),
        ],
    )])
}

/// What no driver may claim: ECAM (an OS uses it only if it is reserved here), KVM's pages, the PM block.
fn reserved() -> Raw {
    let ecam = layout::ECAM;
    let kvm = layout::KVM_PAGES;
    all(&[&Device::new(
        "MBRD".into(),
        vec![
            &hid("PNP0C02"),
            &uid(0),
            &crs(vec![
                &Memory32Fixed::new(true, ecam.start as u32, (ecam.end - ecam.start) as u32),
                &Memory32Fixed::new(true, kvm.start as u32, (kvm.end - kvm.start) as u32),
                &aml::IO::new(pm::BASE, pm::BASE, 1, pm::LEN as u8),
            ]),
        ],
    )])
}

/// A device for each CPU, whose `_UID` the MADT names.
fn cpus(config: &Config<'_>) -> Raw {
    let mut out = Vec::new();
    for n in 0..config.topology.cpus() {
        Device::new(
            Path::new(&format!("C{n:03X}")),
            vec![&Name::new("_HID".into(), &"ACPI0007"), &uid(n)],
        )
        .to_aml_bytes(&mut out);
    }
    Raw(out)
}
