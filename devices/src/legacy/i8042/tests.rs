use super::*;
use crate::bus::Mmio;
use crate::legacy::tests::{Line, accesses, hammer};

struct Rig {
    keyboard: Arc<Line>,
    aux: Arc<Line>,
    data: Arc<dyn Mmio>,
    command: Arc<dyn Mmio>,
    fast: Arc<dyn Mmio>,
    controller: Arc<I8042>,
}

fn rig() -> Rig {
    let (keyboard, aux) = (Arc::new(Line::default()), Arc::new(Line::default()));
    let controller = I8042::new(keyboard.clone(), aux.clone());
    let [data, command, fast] = controller.ports().map(|(_, port)| port);
    Rig {
        keyboard,
        aux,
        data,
        command,
        fast,
        controller,
    }
}

impl Rig {
    fn ask(&self, command: u64) -> u64 {
        let _ = self.command.write(0, 1, command);
        assert_eq!(self.command.read(0, 1) & 1, 1);
        self.data.read(0, 1)
    }
    fn tell(&self, command: u64, data: u64) {
        let _ = self.command.write(0, 1, command);
        let _ = self.data.write(0, 1, data);
    }
}

#[test]
fn a_driver_finds_a_controller_that_passes_its_tests() {
    let rig = rig();
    assert_eq!(rig.command.read(0, 1) & 1, 0);
    assert_eq!(rig.ask(0xaa), 0x55);
    assert_eq!(rig.ask(0xab), 0x00);
    assert_eq!(rig.ask(0xa9), 0x00);
    rig.tell(0x60, 0x65);
    assert_eq!(rig.ask(0x20), 0x65);
    // The auxiliary loop that drivers probe with; no multiplexer answers.
    rig.tell(0xd3, 0xa4);
    assert_eq!(rig.command.read(0, 1) & 0x21, 0x21);
    assert_eq!(rig.data.read(0, 1), 0xa4);
}

#[test]
fn empty_sockets_time_out_at_once() {
    let rig = rig();
    rig.tell(0x60, 0x03);
    let _ = rig.data.write(0, 1, 0xf2);
    assert_eq!(rig.command.read(0, 1) & 0x61, 0x41);
    assert!(rig.keyboard.level() && !rig.aux.level());
    assert_eq!(rig.data.read(0, 1), 0xfe);
    assert_eq!(rig.keyboard.changes(), [true, false]);
    rig.tell(0xd4, 0xf2);
    assert_eq!(rig.command.read(0, 1) & 0x61, 0x61);
    assert!(rig.aux.level());
    assert_eq!(rig.data.read(0, 1), 0xfe);
    assert_eq!(rig.aux.changes(), [true, false]);
    // Nothing more: the last byte stays on the port.
    assert_eq!(rig.data.read(0, 1), 0xfe);
}

#[test]
fn each_byte_makes_an_edge() {
    let rig = rig();
    rig.tell(0x60, 0x01);
    rig.tell(0xd2, 1);
    rig.tell(0xd2, 2);
    assert_eq!(rig.data.read(0, 1), 1);
    assert_eq!(rig.keyboard.changes(), [true, false, true]);
}

#[test]
fn the_reset_line_has_four_ways_to_it() {
    let rig = rig();
    assert!(matches!(rig.command.write(0, 1, 0xfe), Action::Reset));
    assert!(matches!(rig.command.write(0, 1, 0xff), Action::None));
    let _ = rig.command.write(0, 1, 0xd1);
    assert!(matches!(rig.data.write(0, 1, 0x02), Action::Reset));
    assert!(matches!(rig.fast.write(0, 1, 0x02), Action::None));
    assert!(matches!(rig.fast.write(0, 1, 0x03), Action::Reset));
}

#[test]
fn a20_is_one_gate_with_three_handles() {
    let rig = rig();
    assert_eq!(rig.fast.read(0, 1), 2);
    let _ = rig.command.write(0, 1, 0xdd);
    assert_eq!((rig.fast.read(0, 1), rig.ask(0xd0) & 3), (0, 1));
    let _ = rig.fast.write(0, 1, 2);
    assert_eq!(rig.ask(0xd0) & 3, 3);
    let _ = rig.command.write(0, 1, 0xd1);
    let _ = rig.data.write(0, 1, 1);
    assert_eq!(rig.fast.read(0, 1), 0);
    rig.controller.reset();
    assert_eq!(rig.fast.read(0, 1), 2);
}

proptest::proptest! {
    #[test]
    fn no_access_breaks_it(stores: Vec<(u8, u8)>, accesses in accesses(1)) {
        let rig = rig();
        for (port, value) in stores {
            let port = [&rig.data, &rig.command, &rig.fast][usize::from(port % 3)];
            let _ = port.write(0, 1, u64::from(value));
            rig.data.read(0, 1);
        }
        hammer(&*rig.data, accesses.clone());
        hammer(&*rig.command, accesses);
    }
}
