use proptest::prelude::*;

use super::*;

fn smp(cpus: u32, maxcpus: u32, sockets: u32, cores: u32, threads: u32) -> Smp {
    let some = |n| (n > 0).then_some(n);
    Smp {
        cpus: some(cpus),
        maxcpus: some(maxcpus),
        sockets: some(sockets),
        dies: None,
        cores: some(cores),
        threads: some(threads),
    }
}

fn shape(smp: Smp) -> (u32, u32, u32) {
    let t = Topology::new(smp).unwrap();
    (t.sockets, t.cores, t.threads)
}

#[test]
fn missing_counts_are_completed_as_qemu_does() {
    assert_eq!(shape(Smp::default()), (1, 1, 1));
    assert_eq!(shape(smp(4, 0, 0, 0, 0)), (1, 4, 1));
    assert_eq!(shape(smp(8, 0, 2, 0, 0)), (2, 4, 1));
    assert_eq!(shape(smp(8, 0, 0, 2, 0)), (4, 2, 1));
    assert_eq!(shape(smp(8, 0, 0, 0, 2)), (1, 4, 2));
    assert_eq!(shape(smp(8, 0, 2, 2, 0)), (2, 2, 2));
    assert_eq!(shape(smp(0, 0, 2, 2, 2)), (2, 2, 2));
    assert_eq!(shape(smp(0, 6, 0, 0, 0)), (1, 6, 1));
}

#[test]
fn impossible_arrangements_are_refused() {
    for (smp, text) in [
        (smp(3, 0, 2, 2, 1), "is 4, not the 3"),
        (smp(3, 0, 2, 0, 0), "is 2, not the 3"),
        (smp(1, 2, 0, 0, 0), "hotplug"),
        (smp(4, 2, 0, 0, 0), "more than maxcpus"),
        (smp(0, 0, 4096, 4096, 4096), "more than 4096"),
        (smp(5000, 0, 0, 0, 0), "cpus: 5000"),
        (
            Smp {
                cpus: Some(0),
                ..Smp::default()
            },
            "cpus: must be at least 1",
        ),
        (
            Smp {
                cores: Some(0),
                ..Smp::default()
            },
            "cores: must be at least 1",
        ),
    ] {
        let error = Topology::new(smp).unwrap_err();
        assert_eq!(error.kind(), Kind::Topology);
        assert!(error.to_string().contains(text), "{error}");
    }
}

#[test]
fn apic_ids_leave_gaps() {
    let t = Topology::new(smp(0, 0, 2, 3, 2)).unwrap();
    assert_eq!(
        t.apic_ids().collect::<Vec<_>>(),
        [0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 13]
    );
    assert_eq!(
        (t.core_shift(), t.die_shift(), t.package_shift()),
        (1, 3, 3)
    );
}

proptest! {
    #[test]
    fn apic_ids_rise_and_name_their_place(s in 1_u32..5, d in 1_u32..4, c in 1_u32..12, t in 1_u32..3) {
        let smp = Smp { sockets: Some(s), dies: Some(d), cores: Some(c), threads: Some(t), ..Smp::default() };
        let topology = Topology::new(smp).unwrap();
        let ids: Vec<u32> = topology.apic_ids().collect();
        prop_assert_eq!(ids.len() as u32, s * d * c * t);
        prop_assert_eq!(ids[0], 0);
        prop_assert!(ids.is_sorted_by(|a, b| a < b));
        for socket in 0..s {
            let here = ids.iter().filter(|&&id| id >> topology.package_shift() == socket).count() as u32;
            prop_assert_eq!(here, topology.package_cpus());
        }
    }
}
