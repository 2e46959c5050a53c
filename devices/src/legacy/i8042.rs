//! The keyboard controller (Intel 8042 as in the PC/AT) with nothing plugged into either port.
//!
//! It is there for what else hangs on it: the reset line, the A20 gate, and drivers that want to see
//! it pass its self test. A byte sent to a keyboard or mouse is answered at once the way a controller
//! answers for an empty socket: 0xfe with the time-out bit, so that no driver waits.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::bus::Action;
use crate::irq::IrqLine;
use crate::legacy::ByteWide;

/// Port 0x60: data.
pub const DATA_PORT: u64 = 0x60;
/// Port 0x64: status and commands.
pub const COMMAND_PORT: u64 = 0x64;
/// Port 0x92: fast A20 and reset.
pub const FAST_PORT: u64 = 0x92;

const OUTPUT_FULL: u8 = 1 << 0;
const SYSTEM: u8 = 1 << 2;
const COMMAND: u8 = 1 << 3;
const UNLOCKED: u8 = 1 << 4;
const AUX_FULL: u8 = 1 << 5;
const TIMEOUT: u8 = 1 << 6;

const MODE: usize = 0;
const MODE_KEYBOARD_IRQ: u8 = 1 << 0;
const MODE_AUX_IRQ: u8 = 1 << 1;
const MODE_SYSTEM: u8 = 1 << 2;
const MODE_KEYBOARD_OFF: u8 = 1 << 4;
const MODE_AUX_OFF: u8 = 1 << 5;

/// Output port: not in reset, A20 open.
const OUTPUT_RUN: u8 = 1 << 0;
const OUTPUT_A20: u8 = 1 << 1;
/// Port 0x92: reset.
const FAST_RESET: u8 = 1 << 0;
/// What a device that does not understand says, and the controller for one that is not there.
const RESEND: u8 = 0xfe;
const QUEUE: usize = 16;

/// The controller.
pub struct I8042 {
    keyboard_irq: Arc<dyn IrqLine>,
    aux_irq: Arc<dyn IrqLine>,
    state: Mutex<State>,
}

struct State {
    /// The controller's RAM; byte 0 is the mode.
    ram: [u8; 32],
    output_port: u8,
    /// What waits to be read at port 0x60, with the status bits that come with it.
    output: VecDeque<(u8, u8)>,
    last: u8,
    /// What the next byte to port 0x60 is for.
    expects: Expects,
    /// The last store went to the command port.
    command_last: bool,
}

#[derive(Clone, Copy)]
enum Expects {
    Keyboard,
    Ram(usize),
    OutputPort,
    KeyboardOutput,
    AuxOutput,
    Aux,
}

impl I8042 {
    /// A controller that interrupts on IRQ 1 and IRQ 12.
    pub fn new(keyboard_irq: Arc<dyn IrqLine>, aux_irq: Arc<dyn IrqLine>) -> Arc<I8042> {
        Arc::new(I8042 {
            keyboard_irq,
            aux_irq,
            state: Mutex::new(State::new()),
        })
    }

    /// Power-on state.
    pub fn reset(&self) {
        let mut state = self.state();
        *state = State::new();
        self.drive(&state);
    }

    /// Ports 0x60, 0x64 and 0x92, each to be mapped alone at its address.
    pub fn ports(self: &Arc<Self>) -> [(u64, Arc<dyn crate::bus::Mmio>); 3] {
        [DATA_PORT, COMMAND_PORT, FAST_PORT].map(|at| {
            (
                at,
                Arc::new(Port {
                    controller: self.clone(),
                    at,
                }) as Arc<_>,
            )
        })
    }

    fn drive(&self, state: &State) {
        let mode = state.mode();
        let front = state.output.front().map(|(_, flags)| flags & AUX_FULL != 0);
        self.keyboard_irq
            .set(front == Some(false) && mode & MODE_KEYBOARD_IRQ != 0);
        self.aux_irq
            .set(front == Some(true) && mode & MODE_AUX_IRQ != 0);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn new() -> State {
        let mut ram = [0; 32];
        ram[MODE] = MODE_KEYBOARD_OFF | MODE_AUX_OFF;
        State {
            ram,
            output_port: OUTPUT_RUN | OUTPUT_A20,
            output: VecDeque::new(),
            last: 0,
            expects: Expects::Keyboard,
            command_last: false,
        }
    }

    fn mode(&self) -> u8 {
        self.ram[MODE]
    }

    fn status(&self) -> u8 {
        UNLOCKED
            | if self.command_last { COMMAND } else { 0 }
            | if self.mode() & MODE_SYSTEM != 0 {
                SYSTEM
            } else {
                0
            }
            | self
                .output
                .front()
                .map_or(0, |(_, flags)| OUTPUT_FULL | flags)
    }

    /// Gives the guest a byte. One that does not read what it asked for loses the rest.
    fn answer(&mut self, value: u8, flags: u8) {
        if self.output.len() < QUEUE {
            self.output.push_back((value, flags));
        }
    }

    fn set_output_port(&mut self, value: u8) -> Action {
        self.output_port = value | OUTPUT_RUN;
        if value & OUTPUT_RUN == 0 {
            Action::Reset
        } else {
            Action::None
        }
    }

    fn command(&mut self, command: u8) -> Action {
        self.command_last = true;
        self.expects = Expects::Keyboard;
        let cell = usize::from(command & 0x1f);
        match command {
            0x20..=0x3f => self.answer(self.ram.get(cell).copied().unwrap_or(0), 0),
            0x60..=0x7f => self.expects = Expects::Ram(cell),
            0xa7 => self.ram[MODE] |= MODE_AUX_OFF,
            0xa8 => self.ram[MODE] &= !MODE_AUX_OFF,
            0xa9 | 0xab => self.answer(0x00, 0), // port test: passed
            0xaa => {
                // Self test: passed; the controller starts anew.
                self.ram[MODE] |= MODE_SYSTEM | MODE_KEYBOARD_OFF | MODE_AUX_OFF;
                self.answer(0x55, 0);
            }
            0xad => self.ram[MODE] |= MODE_KEYBOARD_OFF,
            0xae => self.ram[MODE] &= !MODE_KEYBOARD_OFF,
            0xc0 => self.answer(0x80, 0), // input port: not locked
            0xd0 => {
                let full = if self.output.is_empty() { 0 } else { 0x10 };
                self.answer(self.output_port | full, 0);
            }
            0xd1 => self.expects = Expects::OutputPort,
            0xd2 => self.expects = Expects::KeyboardOutput,
            0xd3 => self.expects = Expects::AuxOutput,
            0xd4 => self.expects = Expects::Aux,
            0xdd => self.output_port &= !OUTPUT_A20,
            0xdf => self.output_port |= OUTPUT_A20,
            // Pulses the output port's bits that are 0 here; bit 0 is the reset line.
            0xf0..=0xff if command & 1 == 0 => return Action::Reset,
            _ => {}
        }
        Action::None
    }

    fn data(&mut self, value: u8) -> Action {
        self.command_last = false;
        match std::mem::replace(&mut self.expects, Expects::Keyboard) {
            Expects::Keyboard => {
                // Sending to the keyboard turns its port on.
                self.ram[MODE] &= !MODE_KEYBOARD_OFF;
                self.answer(RESEND, TIMEOUT);
            }
            Expects::Aux => self.answer(RESEND, TIMEOUT | AUX_FULL),
            Expects::Ram(cell) => {
                if let Some(cell) = self.ram.get_mut(cell) {
                    *cell = value;
                }
            }
            Expects::OutputPort => return self.set_output_port(value),
            Expects::KeyboardOutput => self.answer(value, 0),
            Expects::AuxOutput => self.answer(value, AUX_FULL),
        }
        Action::None
    }
}

struct Port {
    controller: Arc<I8042>,
    at: u64,
}

impl ByteWide for Port {
    fn load(&self, _offset: u64) -> u8 {
        let mut state = self.controller.state();
        match self.at {
            DATA_PORT => {
                if let Some((value, _)) = state.output.pop_front() {
                    state.last = value;
                    // What comes next makes an edge of its own.
                    self.controller.keyboard_irq.set(false);
                    self.controller.aux_irq.set(false);
                    self.controller.drive(&state);
                }
                state.last
            }
            COMMAND_PORT => state.status(),
            _ => state.output_port & OUTPUT_A20,
        }
    }

    fn store(&self, _offset: u64, value: u8) -> Action {
        let mut state = self.controller.state();
        let action = match self.at {
            DATA_PORT => state.data(value),
            COMMAND_PORT => state.command(value),
            // Bit 1 is A20, and a 1 in bit 0 resets.
            _ => {
                state.output_port = state.output_port & !OUTPUT_A20 | value & OUTPUT_A20;
                if value & FAST_RESET != 0 {
                    Action::Reset
                } else {
                    Action::None
                }
            }
        };
        self.controller.drive(&state);
        action
    }
}

#[cfg(test)]
mod tests;
