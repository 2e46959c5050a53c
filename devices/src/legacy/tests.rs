use super::*;
use std::sync::Mutex;

use crate::irq::IrqLine;

/// A line that writes down its changes.
#[derive(Default)]
pub(crate) struct Line {
    level: Mutex<bool>,
    changes: Mutex<Vec<bool>>,
}

impl Line {
    pub(crate) fn level(&self) -> bool {
        *self.level.lock().unwrap()
    }
    /// The changes since last asked.
    pub(crate) fn changes(&self) -> Vec<bool> {
        std::mem::take(&mut *self.changes.lock().unwrap())
    }
}

impl IrqLine for Line {
    fn set(&self, level: bool) {
        if std::mem::replace(&mut *self.level.lock().unwrap(), level) != level {
            self.changes.lock().unwrap().push(level);
        }
    }
}

/// Any access that a guest can make: (offset, width, value, is it a store).
pub(crate) type Access = (u64, u8, u64, bool);

/// Accesses over `span` bytes, most of them within it, of every width that a bus passes on and more.
pub(crate) fn accesses(span: u64) -> impl proptest::strategy::Strategy<Value = Vec<Access>> {
    use proptest::prelude::*;
    let offset = prop_oneof![8 => 0..span, 1 => any::<u64>(), 1 => u64::MAX - 9..=u64::MAX];
    let size =
        prop_oneof![4 => Just(1), 2 => Just(2), 2 => Just(4), 1 => Just(8), 1 => any::<u8>()];
    let value = prop_oneof![any::<u64>(), 0..=255_u64];
    prop::collection::vec((offset, size, value, any::<bool>()), 0..300)
}

pub(crate) fn hammer(device: &dyn Mmio, accesses: Vec<Access>) {
    for (offset, size, value, store) in accesses {
        if store {
            let _ = device.write(offset, size, value);
        } else {
            device.read(offset, size);
        }
    }
}

struct Bytes(Mutex<Vec<(u64, u8)>>);

impl ByteWide for Bytes {
    fn load(&self, offset: u64) -> u8 {
        offset as u8
    }
    fn store(&self, offset: u64, value: u8) -> Action {
        self.0.lock().unwrap().push((offset, value));
        if value == 0xfe {
            Action::Reset
        } else {
            Action::None
        }
    }
}

#[test]
fn wide_accesses_arrive_as_bytes() {
    let bytes = Bytes(Mutex::default());
    assert_eq!(bytes.read(2, 4), 0x0504_0302);
    assert_eq!(bytes.read(u64::MAX, 2) & 0xff, 0xff);
    assert!(matches!(bytes.write(1, 4, 0x04fe_0201), Action::Reset));
    assert_eq!(
        *bytes.0.lock().unwrap(),
        [(1, 1), (2, 2), (3, 0xfe), (4, 4)]
    );
}
