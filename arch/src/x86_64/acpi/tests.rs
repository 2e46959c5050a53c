use super::*;

fn config(layout: &Layout, cpus: u32) -> Config<'_> {
    Config {
        layout,
        topology: Topology::flat(cpus).unwrap(),
        serial: true,
        i8042: false,
        vga: false,
        pvpanic: Some(0x505),
    }
}

fn get<'a>(tables: &'a Tables, name: &str) -> &'a Table {
    tables.tables.iter().find(|t| t.name == name).unwrap()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

fn has(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle)
}

#[test]
fn tables_lead_to_each_other() {
    let layout = Layout::new(1 << 30, 40).unwrap();
    let tables = tables(&config(&layout, 2)).unwrap();
    let (rsdp, xsdt, fadt) = (
        get(&tables, "RSDP"),
        get(&tables, "XSDT"),
        get(&tables, "FACP"),
    );
    assert_eq!(
        (rsdp.address, &rsdp.bytes[..8]),
        (tables.rsdp(), &b"RSD PTR "[..])
    );
    assert_eq!((sum(&rsdp.bytes[..20]), sum(&rsdp.bytes)), (0, 0));
    assert_eq!(u64_at(&rsdp.bytes, 24), xsdt.address);
    let entries: Vec<u64> = xsdt.bytes[36..]
        .chunks(8)
        .map(|entry| u64_at(entry, 0))
        .collect();
    assert_eq!(
        entries,
        ["FACP", "APIC", "MCFG"].map(|name| get(&tables, name).address)
    );
    assert_eq!(
        u64::from(u32_at(&fadt.bytes, 36)),
        get(&tables, "FACS").address
    );
    assert_eq!(u64_at(&fadt.bytes, 140), get(&tables, "DSDT").address);
}

#[test]
fn tables_are_whole_and_in_their_place() {
    let layout = Layout::new(1 << 30, 40).unwrap();
    let tables = tables(&config(&layout, 2000)).unwrap().tables;
    for table in &tables[1..] {
        assert_eq!(&table.bytes[..4], table.name.as_bytes());
        assert_eq!(
            u32_at(&table.bytes, 4) as usize,
            table.bytes.len(),
            "{}",
            table.name
        );
        assert!(
            table.name == "FACS" || sum(&table.bytes) == 0,
            "{}",
            table.name
        );
        assert!(table.address.is_multiple_of(ALIGNMENT));
    }
    for pair in tables.windows(2) {
        assert!(pair[0].address + pair[0].bytes.len() as u64 <= pair[1].address);
    }
    assert!(tables.iter().all(|t| t.address >= layout::ACPI.start));
    assert!(
        tables
            .iter()
            .all(|t| t.address + t.bytes.len() as u64 <= layout::ACPI.end)
    );
}

#[test]
fn more_cpus_than_fit_are_refused() {
    let layout = Layout::new(1 << 30, 40).unwrap();
    assert_eq!(
        tables(&config(&layout, 4096)).unwrap_err().kind(),
        Kind::Topology
    );
}

#[test]
fn fadt_has_the_ich9_block() {
    let layout = Layout::new(1 << 30, 40).unwrap();
    let fadt = &get(&tables(&config(&layout, 1)).unwrap(), "FACP")
        .bytes
        .clone();
    assert_eq!(u16::from_le_bytes([fadt[46], fadt[47]]), 9);
    let blocks = [56, 64, 76, 80].map(|at| u32_at(fadt, at));
    assert_eq!(blocks, [0x600, 0x604, 0x608, 0x620]);
    assert_eq!((fadt[88], fadt[89], fadt[91], fadt[92]), (4, 2, 4, 16));
    assert_eq!((u32_at(fadt, 48), fadt[52], fadt[53]), (0xb2, 2, 3));
    let flags = u32_at(fadt, 112);
    // The power button is fixed hardware, the timer has 24 bits, the machine is not hardware reduced.
    assert_eq!(flags & (1 << 4 | 1 << 8 | 1 << 20), 0);
    assert_ne!(flags & 1 << 10, 0);
    assert_eq!((fadt[116], u64_at(fadt, 120), fadt[128]), (1, 0xcf9, 6));
}

#[test]
fn boot_architecture_says_what_is_there() {
    let layout = Layout::new(1 << 30, 40).unwrap();
    for (i8042, vga, flags) in [
        (false, false, 0b101),
        (true, false, 0b111),
        (false, true, 0b001),
    ] {
        let config = Config {
            i8042,
            vga,
            ..config(&layout, 1)
        };
        assert_eq!(get(&tables(&config).unwrap(), "FACP").bytes[109], flags);
    }
}

#[test]
fn madt_lists_every_cpu() {
    let layout = Layout::new(1 << 30, 40).unwrap();
    let madt = get(&tables(&config(&layout, 300)).unwrap(), "APIC")
        .bytes
        .clone();
    let mut rest = &madt[44..];
    let (mut xapic, mut x2apic, mut nmi) = (Vec::new(), Vec::new(), Vec::new());
    while let [kind, len, ..] = *rest {
        match kind {
            0 => xapic.push((rest[2].into(), u32::from(rest[3]))),
            9 => x2apic.push((u32_at(rest, 12), u32_at(rest, 4))),
            4 | 10 => nmi.push(kind),
            _ => {}
        }
        rest = &rest[usize::from(len)..];
    }
    assert_eq!(
        xapic,
        (0..=254_u32).map(|n| (n, n)).collect::<Vec<(u32, u32)>>()
    );
    assert_eq!(x2apic, (255..300).map(|n| (n, n)).collect::<Vec<_>>());
    assert_eq!(nmi, [4, 10]);
    let small = get(&tables(&config(&layout, 1)).unwrap(), "APIC")
        .bytes
        .clone();
    // The timer's and the SCI's override.
    assert!(has(&small, &[2, 10, 0, 0, 2, 0, 0, 0, 0, 0]));
    assert!(has(&small, &[2, 10, 0, 9, 9, 0, 0, 0, 0xd, 0]));
    assert!(!has(&small, &[10, 12, 0, 0]));
}

#[test]
fn dsdt_has_the_devices_asked_for() {
    let layout = Layout::new(1 << 30, 40).unwrap();
    let dsdt = |config: Config<'_>| get(&tables(&config).unwrap(), "DSDT").bytes.clone();
    let all = dsdt(Config {
        i8042: true,
        ..config(&layout, 1)
    });
    let none = dsdt(Config {
        serial: false,
        pvpanic: None,
        ..config(&layout, 1)
    });
    for name in ["COM1", "KBD_", "PEVT", "QEMU0001"] {
        assert!(has(&all, name.as_bytes()), "{name}");
        assert!(!has(&none, name.as_bytes()), "{name}");
    }
    assert!(
        has(&all, &[0x47, 1, 0x05, 0x05, 0x05, 0x05, 1, 1]),
        "IO port 0x505"
    );
    assert!(has(&none, b"RTC_") && has(&none, b"_S5_"));
}

#[test]
fn routes_are_those_of_the_devices() {
    let layout = Layout::new(1 << 30, 40).unwrap();
    let dsdt = get(&tables(&config(&layout, 1)).unwrap(), "DSDT")
        .bytes
        .clone();
    for device in 1..32_u8 {
        for pin in 0..4 {
            let line = char::from(b'A' + crate::x86_64::interrupts::pirq(device, pin));
            let pin = if pin < 2 { vec![pin] } else { vec![0x0a, pin] };
            for prefix in ["LNK", "GSI"] {
                let link = format!("{prefix}{line}");
                let route = [
                    &[0x0c, 0xff, 0xff, device, 0][..],
                    &pin,
                    link.as_bytes(),
                    &[0],
                ]
                .concat();
                assert!(has(&dsdt, &route), "{device} {link}");
            }
        }
    }
}

#[test]
fn no_64_bit_window_where_there_is_no_room() {
    const QWORD_ADDRESS_SPACE: [u8; 3] = [0x8a, 0x2b, 0];
    let window = |layout: &Layout| {
        let tables = tables(&config(layout, 1)).unwrap();
        has(&get(&tables, "DSDT").bytes, &QWORD_ADDRESS_SPACE)
    };
    assert!(window(&Layout::new(1 << 30, 40).unwrap()));
    assert!(!window(&Layout::new(62 << 30, 36).unwrap()));
}
