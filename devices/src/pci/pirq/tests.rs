use super::*;
use crate::legacy::tests::Line;

struct Rig {
    wires: Arc<Pirqs>,
    gsis: [Arc<Line>; 8],
    isa: [Arc<Line>; 16],
}

fn rig() -> Rig {
    let (gsis, isa): ([Arc<Line>; 8], [Arc<Line>; 16]) = Default::default();
    let wires = Pirqs::new(
        gsis.each_ref().map(|line| line.clone() as _),
        isa.each_ref().map(|line| line.clone() as _),
    );
    Rig { wires, gsis, isa }
}

fn at(device: u8) -> Address {
    Address::new(device, 0).unwrap()
}

#[test]
fn pins_lead_where_the_chipset_says() {
    for (device, pin, gsi) in [
        (0, 1, 20),
        (1, 1, 21),
        (3, 4, 22),
        (24, 1, 20),
        (25, 1, 16),
        (29, 4, 19),
        (30, 1, 20),
        (30, 4, 23),
        (31, 2, 17),
    ] {
        assert_eq!(
            Pirqs::gsi(at(device), pin),
            gsi,
            "device {device} pin {pin}"
        );
    }
}

#[test]
fn pins_that_share_a_wire_are_ored() {
    let rig = rig();
    let (a, b) = (rig.wires.pin(at(1), 1), rig.wires.pin(at(5), 1));
    a.set(true);
    b.set(true);
    b.set(true);
    a.set(false);
    assert_eq!(rig.gsis[5].changes(), [true]);
    b.set(false);
    assert_eq!(rig.gsis[5].changes(), [false]);
}

#[test]
fn routes_to_the_8259_follow_their_registers() {
    let rig = rig();
    let (e, f) = (rig.wires.pin(at(0), 1), rig.wires.pin(at(1), 1));
    e.set(true);
    assert!(rig.isa.iter().all(|line| !line.level()));
    rig.wires.route(4, 11);
    rig.wires.route(5, 11);
    assert!(rig.isa[11].level());
    f.set(true);
    e.set(false);
    assert_eq!(rig.isa[11].changes(), [true]);
    rig.wires.route(5, 10);
    assert!(!rig.isa[11].level() && rig.isa[10].level());
    rig.wires.route(5, UNROUTED | 10);
    assert!(!rig.isa[10].level());
    // The board's own interrupts cannot be reached, and nothing else exists.
    for route in [0, 1, 2, 8, 13, 0x1b, 0x7f] {
        rig.wires.route(5, route);
    }
    rig.wires.route(8, 5);
    assert!(rig.isa.iter().all(|line| !line.level()));
}
