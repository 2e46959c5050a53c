use super::*;
use crate::bus::Mmio;
use crate::legacy::tests::{Line, accesses, hammer};
use std::sync::atomic::AtomicUsize;

#[derive(Clone, Default)]
struct Wire(Arc<Mutex<Vec<u8>>>);

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

struct Rig {
    serial: Serial,
    line: Arc<Line>,
    wire: Wire,
    room: Arc<AtomicUsize>,
}

fn rig() -> Rig {
    let (line, wire, room) = (
        Arc::new(Line::default()),
        Wire::default(),
        Arc::new(AtomicUsize::new(0)),
    );
    let told = room.clone();
    let serial = Serial::new(
        line.clone(),
        Box::new(wire.clone()),
        Box::new(move || {
            told.fetch_add(1, Ordering::SeqCst);
        }),
    );
    Rig {
        serial,
        line,
        wire,
        room,
    }
}

#[test]
fn what_the_guest_writes_comes_out() {
    let rig = rig();
    for byte in *b"hello" {
        let _ = rig.serial.store(0, byte);
    }
    assert_eq!(*rig.wire.0.lock().unwrap(), b"hello");
    assert_eq!(rig.serial.load(5) & 0x60, 0x60);
}

#[test]
fn input_interrupts_until_it_is_read() {
    let rig = rig();
    let _ = rig.serial.store(1, 1);
    assert_eq!(rig.serial.input(b"ab"), 2);
    assert_eq!(rig.line.changes(), [true]);
    assert_eq!(rig.serial.load(2), 0xc4);
    assert_eq!(rig.serial.load(0), b'a');
    assert_eq!(
        (rig.serial.load(2), rig.line.changes()),
        (0xc4, vec![]),
        "not all of it is read"
    );
    assert_eq!(rig.serial.load(0), b'b');
    assert_eq!(rig.serial.load(2), 0xc1);
    assert_eq!(rig.serial.load(5) & 1, 0);
    assert!(!rig.line.level());
}

#[test]
fn a_second_cause_makes_a_second_edge() {
    let rig = rig();
    let _ = rig.serial.store(1, 3);
    assert_eq!(rig.line.changes(), [true], "the transmitter is empty");
    rig.serial.input(b"x");
    assert_eq!(rig.line.changes(), [false, true]);
}

#[test]
fn causes_are_told_one_at_a_time_the_most_urgent_first() {
    let rig = rig();
    let _ = rig.serial.store(1, 3);
    rig.serial.input(b"x");
    assert_eq!((rig.serial.load(2), rig.serial.load(2)), (0xc4, 0xc4));
    rig.serial.load(0);
    assert!(rig.line.level());
    assert_eq!(rig.serial.load(2), 0xc2);
    assert!(!rig.line.level());
    assert_eq!(rig.serial.load(2), 0xc1);
}

#[test]
fn disabling_a_cause_lets_the_line_go() {
    let rig = rig();
    let _ = rig.serial.store(1, 2);
    let _ = rig.serial.store(1, 0);
    assert_eq!(rig.line.changes(), [true, false]);
    let _ = rig.serial.store(1, 1);
    rig.serial.input(b"x");
    assert_eq!(rig.line.changes(), [true]);
}

#[test]
fn a_full_fifo_refuses_and_says_when_there_is_room() {
    let rig = rig();
    let long = [b'z'; 100];
    let taken = rig.serial.input(&long);
    assert!(taken < long.len());
    assert_eq!(rig.serial.input(&long), 0);
    for _ in 1..taken {
        rig.serial.load(0);
    }
    assert_eq!(rig.room.load(Ordering::SeqCst), 0);
    rig.serial.load(0);
    rig.serial.load(0);
    assert_eq!(rig.room.load(Ordering::SeqCst), 1);
    assert_eq!(rig.serial.input(b"a"), 1);
}

#[test]
fn the_fifo_can_be_cleared_and_turned_off() {
    let rig = rig();
    rig.serial.input(&[1; 100]);
    let _ = rig.serial.store(3, 0x83);
    let _ = rig.serial.store(2, 0x07);
    assert_eq!(rig.serial.load(3), 0x83);
    assert_eq!(rig.room.load(Ordering::SeqCst), 1);
    let _ = rig.serial.store(3, 3);
    assert_eq!(rig.serial.load(5) & 1, 0);
    assert_eq!(rig.serial.load(2) & 0xc0, 0xc0);
    let _ = rig.serial.store(2, 0);
    assert_eq!(rig.serial.load(2), 1);
}

#[test]
fn loopback_keeps_bytes_in_and_input_out() {
    let rig = rig();
    let _ = rig.serial.store(4, 0x1a);
    assert_eq!(rig.serial.load(6) & 0xf0, 0x90);
    let _ = rig.serial.store(0, b'q');
    assert_eq!(rig.serial.input(b"x"), 0);
    assert_eq!(rig.serial.load(0), b'q');
    assert!(rig.wire.0.lock().unwrap().is_empty());
    assert_eq!(rig.room.load(Ordering::SeqCst), 0);
    let _ = rig.serial.store(4, 0x0b);
    assert_eq!(rig.room.load(Ordering::SeqCst), 1);
}

#[test]
fn reset_forgets_everything() {
    let rig = rig();
    let _ = rig.serial.store(1, 3);
    rig.serial.input(&[1; 100]);
    rig.serial.reset();
    assert!(!rig.line.level());
    assert_eq!(rig.serial.read(0, 8) & 0xffff_ff00, 0x03c1_0000);
    assert_eq!(rig.room.load(Ordering::SeqCst), 1);
}

proptest::proptest! {
    #[test]
    fn no_access_breaks_it(accesses in accesses(LEN), input: Vec<u8>) {
        let rig = rig();
        hammer(&rig.serial, accesses.clone());
        rig.serial.input(&input);
        hammer(&rig.serial, accesses);
    }
}
