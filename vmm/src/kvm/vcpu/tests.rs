use std::sync::{Arc, Mutex};

use devices::bus::{Mmio, Priority};

use super::*;

/// Remembers every access; loads return the offset in each byte.
#[derive(Default)]
struct Log(Mutex<Vec<(u64, u8, Option<u64>)>>);

impl Mmio for Log {
    fn read(&self, offset: u64, size: u8) -> u64 {
        self.0.lock().unwrap().push((offset, size, None));
        (0..8).map(|byte| (offset + byte) << (8 * byte)).sum()
    }

    fn write(&self, offset: u64, size: u8, value: u64) -> Action {
        self.0.lock().unwrap().push((offset, size, Some(value)));
        Action::None
    }
}

fn bus() -> (Bus, Arc<Log>) {
    let (bus, log) = (Bus::new(), Arc::new(Log::default()));
    bus.map(0x1000, 0x100, Priority::Fixed, log.clone());
    (bus, log)
}

#[test]
fn odd_lengths_become_accesses_that_registers_have() {
    let (bus, log) = bus();
    let mut data = [0; 7];
    load(&bus, 0x1000, &mut data);
    assert_eq!(data, [0, 1, 2, 3, 4, 5, 6]);
    let stored = store(&bus, 0x1010, &[0xaa, 0xbb, 0xcc]);
    assert!(matches!(stored, Action::None));
    assert_eq!(
        *log.0.lock().unwrap(),
        [
            (0, 4, None),
            (4, 2, None),
            (6, 1, None),
            (0x10, 2, Some(0xbbaa)),
            (0x12, 1, Some(0xcc)),
        ]
    );
}

#[test]
fn natural_lengths_stay_one_access() {
    let (bus, log) = bus();
    for (index, len) in [1, 2, 4, 8].into_iter().enumerate() {
        load(&bus, 0x1000, &mut vec![0; len]);
        assert_eq!(log.0.lock().unwrap()[index], (0, len as u8, None));
    }
}

#[test]
fn what_the_state_does_not_name_stays() {
    let old = kvm_sregs {
        apic_base: 0xfee0_0900,
        cr0: 0x6000_0010,
        ..Default::default()
    };
    let state = SpecialRegs {
        cr0: 0x11,
        cr3: 0x9000,
        ..Default::default()
    };
    let new = special_registers(old, &state);
    assert_eq!(
        (new.apic_base, new.cr0, new.cr3),
        (0xfee0_0900, 0x11, 0x9000)
    );
}
