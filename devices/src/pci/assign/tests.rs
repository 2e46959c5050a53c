use super::*;
use crate::pci::host::tests::{card, rig};

fn windows() -> Windows {
    Windows {
        low: 0xc000_0000..0xc001_0000,
        high: 1 << 40..(1 << 40) + 0x8000,
        io: 0xc000..0xc100,
    }
}

#[test]
fn every_bar_gets_an_aligned_place_of_its_own_and_answers() {
    let rig = rig();
    for tag in 1..4 {
        rig.host.add(card(tag, false), None).unwrap();
    }
    assign(&rig.host, &windows(), |address, pin| {
        address.device() * 10 + pin
    })
    .unwrap();
    let mut places = Vec::new();
    for (address, device) in rig.host.devices() {
        for window in device.config().windows().into_iter().flatten() {
            assert_eq!(window.base % window.len, 0);
            places.push((window.space, window.base, window.len));
        }
        assert_eq!(
            u32::from(address.device() * 10 + 1),
            rig.host.read(address, 0x3c, 1)
        );
        assert!(!device.config().is_bus_master());
    }
    assert_eq!(places.len(), 9);
    places.sort();
    assert!(
        places
            .windows(2)
            .all(|p| p[0].0 != p[1].0 || p[0].1 + p[0].2 <= p[1].1)
    );
    // The third 64-bit BAR did not fit above and went below.
    assert_eq!(rig.memory.read(1 << 40, 4), 0x14_0000);
    assert_eq!(rig.memory.read(0xc000_0000, 4), 0x34_0000);
    assert_eq!(rig.io.read(0xc020, 4), 0x20_0000);
}

#[test]
fn what_does_not_fit_is_named() {
    let rig = rig();
    let address = rig.host.add(card(1, false), None).unwrap();
    let none = Windows {
        io: 0xc000..0xc010,
        ..windows()
    };
    let error = NoRoom {
        address,
        bar: 0,
        size: 0x20,
    };
    assert_eq!(assign(&rig.host, &none, |_, _| 0), Err(error));
    // An empty high window is no window, and address 0 is no place.
    let low = Windows {
        high: 0..0,
        io: 0..0x40,
        ..windows()
    };
    assign(&rig.host, &low, |_, _| 0).unwrap();
    assert_eq!(rig.io.read(0x20, 1), 0);
}
