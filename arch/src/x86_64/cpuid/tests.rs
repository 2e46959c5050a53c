use proptest::prelude::*;

use super::*;
use crate::x86_64::topology::Smp;

fn entry(function: u32, index: u32, [eax, ebx, ecx, edx]: [u32; 4]) -> CpuidEntry {
    CpuidEntry {
        function,
        index,
        flags: u32::from(matches!(function, 4 | 7 | 0xb | 0xd | 0x1f | 0x8000_001d)),
        eax,
        ebx,
        ecx,
        edx,
    }
}

fn vendor(max: u32, name: &[u8; 12]) -> CpuidEntry {
    let word = |at: usize| u32::from_le_bytes(name[at..at + 4].try_into().unwrap());
    entry(0, 0, [max, word(0), word(8), word(4)])
}

/// What a KVM on an AMD host may answer: 48 address bits, 16 threads a package, caches shared by 2 and 8.
fn amd() -> Vec<CpuidEntry> {
    vec![
        vendor(0xd, b"AuthenticAMD"),
        entry(1, 0, [0x0080_0f12, 0x0510_0800, 0x7ef8_3203, 0x178b_fbff]),
        entry(7, 0, [0, 0x209c_01a9, 0x10, 0]),
        entry(0xd, 0, [7, 0x340, 0x340, 0]),
        entry(0xd, 1, [0xf, 0x340, 0, 0]),
        entry(
            0x4000_0000,
            0,
            [0x4000_0001, 0x4b4d_564b, 0x564b_4d56, 0x4d],
        ),
        entry(0x4000_0001, 0, [0x0100_7efb, 0, 0, 0]),
        entry(0x8000_0000, 0, [0x8000_001f, 0, 0, 0]),
        entry(0x8000_0001, 0, [0x0080_0f12, 0, 0x0040_01f7, 0x2fd3_fbff]),
        entry(0x8000_0007, 0, [0, 0, 0, 0x100]),
        entry(0x8000_0008, 0, [0x3030, 0x1000, 0x400f, 0]),
        entry(0x8000_000a, 0, [1, 8, 0, 9]),
        entry(0x8000_001d, 0, [0x4121, 0x01c0_003f, 63, 0]),
        entry(0x8000_001d, 3, [0x1_c163, 0x03c0_003f, 8191, 1]),
        entry(0x8000_001e, 0, [5, 0x102, 1, 0]),
    ]
}

/// What a KVM on an Intel host may answer: 39 address bits, host topology in the cache leaf.
fn intel() -> Vec<CpuidEntry> {
    vec![
        vendor(0x16, b"GenuineIntel"),
        entry(1, 0, [0x000a_0655, 0x0710_0800, 0xfeda_3203, 0x1fcb_fbff]),
        entry(4, 0, [0x1c00_4121, 0x01c0_003f, 63, 0]),
        entry(4, 3, [0x1c03_c163, 0x03c0_003f, 8191, 6]),
        entry(4, 4, [0; 4]),
        entry(6, 0, [4, 0, 0, 0]),
        entry(7, 0, [0, 0x029c_6fbb, 0x1c, 0xac00_0400]),
        entry(0xa, 0, [0x0730_0402, 0, 0, 0x603]),
        entry(0xb, 0, [1, 2, 0x100, 7]),
        entry(0x1f, 0, [0, 0, 0, 7]),
        entry(0xd, 0, [0x1f, 0x440, 0x440, 0]),
        entry(
            0x4000_0000,
            0,
            [0x4000_0001, 0x4b4d_564b, 0x564b_4d56, 0x4d],
        ),
        entry(0x4000_0001, 0, [0x0100_7efb, 0, 0, 0]),
        entry(0x8000_0001, 0, [0, 0, 0x121, 0x2c10_0800]),
        entry(0x8000_0008, 0, [0x3027, 0, 0, 0]),
    ]
}

fn supported(entries: &[CpuidEntry]) -> Supported<'_> {
    Supported {
        entries,
        tsc_deadline: true,
        ext_dest_id: true,
    }
}

fn smp(sockets: u32, dies: u32, cores: u32, threads: u32) -> Topology {
    Topology::new(Smp {
        sockets: Some(sockets),
        dies: Some(dies),
        cores: Some(cores),
        threads: Some(threads),
        ..Smp::default()
    })
    .unwrap()
}

fn cpus(host: &[CpuidEntry], model: &str, topology: Topology) -> Result<Cpus, Error> {
    Cpus::new(&supported(host), &Model::parse(model)?, topology)
}

/// What the first processor says.
fn first(host: &[CpuidEntry], model: &str, topology: Topology) -> Vec<CpuidEntry> {
    cpus(host, model, topology).unwrap().entries(0)
}

fn get(entries: &[CpuidEntry], function: u32, index: u32) -> CpuidEntry {
    let mut found = entries
        .iter()
        .filter(|e| e.function == function && e.index == index);
    let entry = *found
        .next()
        .unwrap_or_else(|| panic!("no leaf {function:#x}.{index}"));
    assert!(found.next().is_none(), "leaf {function:#x}.{index} twice");
    entry
}

fn has(entries: &[CpuidEntry], name: &str) -> bool {
    Feature::named(name)[0].is_set(entries)
}

fn message(result: Result<Cpus, Error>) -> String {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), Kind::Cpu);
    error.to_string()
}

#[test]
fn host_is_what_kvm_supports_and_what_it_leaves_unsaid() {
    for host in [amd(), intel()] {
        let cpu = first(&host, "host", smp(1, 1, 2, 1));
        assert!(has(&cpu, "hypervisor") && has(&cpu, "tsc-deadline") && has(&cpu, "arat"));
        for name in features::names() {
            // OSXSAVE and OSPKE have no names, HTT and CMP_LEGACY are the topology's.
            if has(&host, name) && !["ht", "cmp-legacy"].contains(&name) {
                assert!(has(&cpu, name), "{name}");
            }
        }
        assert_eq!(get(&cpu, 1, 0).ecx & 1 << 27, 0);
        assert_eq!(get(&cpu, 7, 0).ecx & 1 << 4, 0);
        let (ours, theirs) = (get(&cpu, 0, 0), get(&host, 0, 0));
        assert_eq!(
            (ours.ebx, ours.ecx, ours.edx),
            (theirs.ebx, theirs.ecx, theirs.edx)
        );
        assert_eq!(first(&host, "max", smp(1, 1, 2, 1)), cpu);
    }
}

#[test]
fn features_are_taken_away_by_name() {
    let cpu = first(
        &amd(),
        "host,-cx16,aes=off,sse4_1=off,-sse3,-kvmclock",
        smp(1, 1, 1, 1),
    );
    for name in ["cx16", "aes", "sse4.1", "pni", "kvmclock"] {
        assert!(!has(&cpu, name), "{name}");
    }
    // Both of its bits.
    assert_eq!(get(&cpu, 0x4000_0001, 0).eax & 0b1001, 0);
    assert!(has(&cpu, "sse4.2"));
}

#[test]
fn last_word_on_a_feature_counts() {
    assert!(has(
        &first(&amd(), "host,-cx16,+cx16", smp(1, 1, 1, 1)),
        "cx16"
    ));
    assert!(!has(
        &first(&amd(), "host,cx16=on,-cx16", smp(1, 1, 1, 1)),
        "cx16"
    ));
}

#[test]
fn dependents_and_their_leaves_go_too() {
    let cpu = first(&amd(), "host,-xsave", smp(1, 1, 1, 1));
    for name in ["xsave", "avx", "avx2", "fma", "f16c", "xsaveopt"] {
        assert!(has(&amd(), name) && !has(&cpu, name), "{name}");
    }
    assert!(!cpu.iter().any(|e| e.function == 0xd));
    let cpu = first(&amd(), "host,-svm", smp(1, 1, 1, 1));
    assert!(!cpu.iter().any(|e| e.function == 0x8000_000a));
    // AMD says it twice.
    let cpu = first(&amd(), "host,-mmx", smp(1, 1, 1, 1));
    assert_eq!(
        (get(&cpu, 1, 0).edx | get(&cpu, 0x8000_0001, 0).edx) & 1 << 23,
        0
    );
    // Intel does not, so its bit 11, which is SYSCALL there and SEP here, stays.
    let cpu = first(&intel(), "host,-sep", smp(1, 1, 1, 1));
    assert!(!has(&cpu, "sep") && has(&cpu, "syscall"));
}

#[test]
fn impossible_wishes_are_refused() {
    let one = smp(1, 1, 1, 1);
    let fails = |model: &str| message(cpus(&amd(), model, one));
    assert_eq!(
        fails("host,+avx512f"),
        "the feature 'avx512f' is not supported by this host's KVM"
    );
    assert_eq!(
        fails("host,-xsave,+avx2"),
        "the feature 'avx2' needs one that was turned off"
    );
    assert_eq!(
        fails("host,+cx116"),
        "unknown feature 'cx116'; did you mean 'cx16'?"
    );
    assert_eq!(
        fails("host,avx3=on"),
        "unknown feature 'avx3'; did you mean 'avx'?"
    );
    assert_eq!(
        fails("host,phys-bit=40"),
        "unknown feature 'phys-bit'; did you mean 'phys-bits'?"
    );
    assert_eq!(
        fails("host,phys-bits=49"),
        "phys-bits: 49 is more than this host's 48"
    );
    assert_eq!(
        fails("host,phys-bits=x"),
        "phys-bits: expected 32 to 52, got 'x'"
    );
    assert_eq!(
        fails("host,cx16=maybe"),
        "cx16: expected on or off, got 'maybe'"
    );
    assert_eq!(
        fails("EPYC"),
        "the CPU model 'EPYC' is not in this build; use host or max"
    );
    assert_eq!(
        fails(""),
        "the CPU model '' is not in this build; use host or max"
    );
    assert_eq!(
        fails("host,somethingquiteelse"),
        "unknown feature 'somethingquiteelse'"
    );
    assert!(fails("host,enforce=off").contains("always an error"));
    assert!(fails("host,").contains("unknown feature ''"));
}

#[test]
fn properties_beside_features() {
    let one = smp(1, 1, 1, 1);
    let cpu = first(&intel(), "host,kvm=off,pmu=off", one);
    assert!(
        !cpu.iter()
            .any(|e| e.function == 0xa || e.function >> 8 == 0x40_0000)
    );
    assert!(has(&cpu, "hypervisor"));
    assert!(has(&first(&amd(), "host", one), "invtsc"));
    assert!(!has(&first(&amd(), "host,migratable=on", one), "invtsc"));
    assert!(cpus(&amd(), "host,migratable=off,enforce,host-phys-bits=on", one).is_ok());
}

#[test]
fn address_width() {
    let one = smp(1, 1, 1, 1);
    assert_eq!(
        (
            host_phys_bits(&amd()),
            host_phys_bits(&intel()),
            host_phys_bits(&[])
        ),
        (48, 39, 36)
    );
    let cpus = cpus(&intel(), "host,phys-bits=36", one).unwrap();
    assert_eq!(
        (cpus.phys_bits(), get(&cpus.entries(0), 0x8000_0008, 0).eax),
        (36, 0x3024)
    );
}

#[test]
fn each_cpu_knows_its_id() {
    for host in [amd(), intel()] {
        let topology = smp(2, 1, 3, 2);
        let cpus = cpus(&host, "host", topology).unwrap();
        for (index, id) in (0..).zip(topology.apic_ids()) {
            let cpu = cpus.entries(index);
            assert_eq!(get(&cpu, 1, 0).ebx >> 24, id);
            assert_eq!((get(&cpu, 0xb, 0).edx, get(&cpu, 0xb, 2).edx), (id, id));
        }
        let cpu = cpus.entries(0);
        // 8 ids for 6 CPUs, cflush size untouched.
        assert_eq!(get(&cpu, 1, 0).ebx, 0x0008_0800);
        assert!(has(&cpu, "ht"));
        assert!(get(&cpu, 0, 0).eax >= 0xb);
        let (smt, core, end) = (get(&cpu, 0xb, 0), get(&cpu, 0xb, 1), get(&cpu, 0xb, 2));
        assert_eq!((smt.eax, smt.ebx, smt.ecx), (1, 2, 0x100));
        assert_eq!((core.eax, core.ebx, core.ecx), (3, 6, 0x201));
        assert_eq!((end.eax, end.ebx, end.ecx), (0, 0, 2));
        assert!(!cpu.iter().any(|e| e.function == 0x1f));
    }
}

#[test]
fn single_cpu_claims_no_siblings() {
    for host in [amd(), intel()] {
        let cpu = first(&host, "host", smp(4, 1, 1, 1));
        assert!(!has(&cpu, "ht") && !has(&cpu, "cmp-legacy"));
        assert_eq!(get(&cpu, 1, 0).ebx >> 16 & 0xff, 1);
    }
}

#[test]
fn intel_caches_and_dies() {
    let cpus = cpus(&intel(), "host", smp(1, 2, 3, 2)).unwrap();
    let cpu = cpus.entries(7);
    let (l1, l3, none) = (
        get(&cpu, 4, 0).eax,
        get(&cpu, 4, 3).eax,
        get(&cpu, 4, 4).eax,
    );
    // 8 core ids a package; the first level shared by 2 ids, the third by the die's 8.
    assert_eq!((l1 >> 26, l1 >> 14 & 0xfff, l1 & 0x3fff), (7, 1, 0x121));
    assert_eq!((l3 >> 26, l3 >> 14 & 0xfff, none), (7, 7, 0));
    let levels: Vec<_> = (0..4)
        .map(|n| get(&cpu, 0x1f, n))
        .map(|e| (e.eax, e.ebx, e.ecx, e.edx))
        .collect();
    assert_eq!(
        levels,
        [
            (1, 2, 0x100, 9),
            (3, 6, 0x201, 9),
            (4, 12, 0x502, 9),
            (0, 0, 3, 9)
        ]
    );
    assert_eq!(get(&cpu, 0, 0).eax, 0x1f);
    assert!(!has(&cpu, "cmp-legacy"));
}

#[test]
fn amd_leaves() {
    let cpu = cpus(&amd(), "host", smp(2, 1, 4, 2)).unwrap().entries(11);
    assert!(has(&cpu, "cmp-legacy"));
    let address = get(&cpu, 0x8000_0008, 0);
    assert_eq!(
        (
            address.ecx & 0xff,
            address.ecx >> 12 & 15,
            address.eax & 0xff
        ),
        (7, 3, 48)
    );
    let (l1, l3) = (get(&cpu, 0x8000_001d, 0).eax, get(&cpu, 0x8000_001d, 3).eax);
    assert_eq!((l1 >> 14 & 0xfff, l3 >> 14 & 0xfff), (1, 7));
    let id = get(&cpu, 0x8000_001e, 0);
    assert_eq!((id.eax, id.ebx, id.ecx), (11, 0x101, 0));
    // Intel's CPUs have no such leaves and get none.
    let cpu = cpus(&intel(), "host", smp(2, 1, 4, 2)).unwrap().entries(11);
    assert_eq!(get(&cpu, 0x8000_0008, 0).ecx, 0);
    assert!(!cpu.iter().any(|e| e.function == 0x8000_001e));
}

#[test]
fn many_cpus_get_wide_ids() {
    let cpus = cpus(&intel(), "host", smp(1, 1, 300, 1)).unwrap();
    let cpu = cpus.entries(299);
    assert_eq!(
        (get(&cpu, 1, 0).ebx >> 24, get(&cpu, 0xb, 0).edx),
        (299 & 0xff, 299)
    );
    assert_eq!(get(&cpu, 1, 0).ebx >> 16 & 0xff, 255);
    assert!(has(&cpu, "kvm-msi-ext-dest-id"));
    assert!(!has(
        &first(&intel(), "host", smp(1, 1, 4, 1)),
        "kvm-msi-ext-dest-id"
    ));
}

#[test]
fn hosts_without_leaves_are_no_problem() {
    let cpus = cpus(&[], "host", smp(1, 1, 2, 1)).unwrap();
    assert!(has(&cpus.entries(1), "hypervisor"));
    assert_eq!(cpus.phys_bits(), 36);
}

#[test]
fn names_are_unique_but_one() {
    let mut names: Vec<_> = features::names().collect();
    names.sort_unstable();
    let twice: Vec<_> = names
        .array_windows()
        .filter(|[a, b]| a == b)
        .map(|[a, _]| *a)
        .collect();
    assert_eq!(twice, ["kvmclock"]);
    // Spot checks of the bit counting, one a word.
    for (name, function, index, register, bit) in [
        ("pbe", 1, 0, 3, 31),
        ("hypervisor", 1, 0, 2, 31),
        ("avx512vl", 7, 0, 1, 31),
        ("pks", 7, 0, 2, 31),
        ("rdpid", 7, 0, 2, 22),
        ("ssbd", 7, 0, 3, 31),
        ("arch-lbr", 7, 0, 3, 19),
        ("lam", 7, 1, 0, 26),
        ("xsaves", 0xd, 1, 0, 3),
        ("kvm-msi-ext-dest-id", 0x4000_0001, 0, 0, 15),
        ("3dnow", 0x8000_0001, 0, 3, 31),
        ("lm", 0x8000_0001, 0, 3, 29),
        ("topoext", 0x8000_0001, 0, 2, 22),
        ("perfctr-nb", 0x8000_0001, 0, 2, 24),
        ("amd-psfd", 0x8000_0008, 0, 1, 28),
        ("vgif", 0x8000_000a, 0, 3, 16),
        ("vnmi", 0x8000_000a, 0, 3, 25),
        ("srso-no", 0x8000_0021, 0, 0, 29),
    ] {
        let mut registers = [0; 4];
        registers[register] = 1 << bit;
        assert!(has(&[entry(function, index, registers)], name), "{name}");
    }
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "(host|max)?(,[+-]?[a-z0-9._-]{0,12}(=(on|off|[0-9]{0,4}))?){0,4}") {
        if let Ok(model) = Model::parse(&text) {
            let _ = Cpus::new(&supported(&amd()), &model, smp(1, 1, 2, 1));
        }
    }

    #[test]
    fn any_topology(s in 1_u32..6, d in 1_u32..4, c in 1_u32..70, t in 1_u32..3) {
        let topology = smp(s, d, c, t);
        for host in [amd(), intel()] {
            let cpu = cpus(&host, "host", topology).unwrap().entries(topology.cpus() - 1);
            let (smt, package) = (get(&cpu, 0xb, 0), get(&cpu, 0xb, 1));
            prop_assert_eq!(smt.edx, topology.apic_id(topology.cpus() - 1));
            prop_assert!(package.ebx <= 1 << package.eax);
            prop_assert_eq!(smt.edx >> package.eax, s - 1);
        }
    }
}
