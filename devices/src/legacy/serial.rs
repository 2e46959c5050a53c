//! A 16550 serial port: `vm-superio`'s registers on a PC's interrupt line and a console with flow
//! control.
//!
//! `vm-superio` says when a cause of interrupt arises; the line is a level. It is worked out after
//! each access from what is pending and enabled, and a cause that arises while another holds the
//! line high makes a new edge, since the ISA interrupt is edge-triggered.
//!
//! Lock order: the port, then the line. The console is told that there is room with no lock held.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vm_superio::Trigger;
use vm_superio::serial::NoEvents;

use crate::bus::Action;
use crate::irq::IrqLine;
use crate::legacy::ByteWide;

/// COM1's ports and interrupt.
pub const COM1: (u64, usize) = (0x3f8, 4);
/// How many ports it takes.
pub const LEN: u64 = 8;

const DATA: u8 = 0;
const IIR_FCR: u8 = 2;
const LCR: u8 = 3;
const MCR_LOOP: u8 = 1 << 4;
const LCR_DLAB: u8 = 1 << 7;
const FCR_ENABLE: u8 = 1 << 0;
const FCR_CLEAR_RECEIVE: u8 = 1 << 1;
const IIR_FIFO: u8 = 0xc0;
const IIR_NONE: u8 = 0b001;
const IIR_TRANSMITTER_EMPTY: u8 = 0b010;
const IIR_DATA: u8 = 0b100;
const IER_DATA: u8 = 0b01;
const IER_TRANSMITTER_EMPTY: u8 = 0b10;

type Uart = vm_superio::Serial<Arisen, NoEvents, Box<dyn Write + Send>>;

/// Room for input has come back.
pub type OnRoom = Box<dyn Fn() + Send + Sync>;

/// A serial port.
pub struct Serial {
    port: Mutex<Port>,
    line: Arc<dyn IrqLine>,
    on_room: OnRoom,
}

struct Port {
    uart: Uart,
    arisen: Arc<AtomicBool>,
    /// FCR bit 0, which IIR shows.
    fifo: bool,
    /// Input was refused: the console waits for room.
    full: bool,
}

/// Remembers that a cause of interrupt arose.
struct Arisen(Arc<AtomicBool>);

impl Trigger for Arisen {
    type E = std::convert::Infallible;

    fn trigger(&self) -> Result<(), Self::E> {
        self.0.store(true, Ordering::Relaxed);
        Ok(())
    }
}

impl Serial {
    /// A port that interrupts on `line` and writes what the guest sends to `output`, a byte at a time
    /// and flushed; what `output` refuses is lost, as on a wire. `on_room` is called after
    /// [`Serial::input`] took less than it was given, once the guest has read everything.
    pub fn new(line: Arc<dyn IrqLine>, output: Box<dyn Write + Send>, on_room: OnRoom) -> Serial {
        let arisen = Arc::new(AtomicBool::new(false));
        let uart = Uart::with_events(Arisen(arisen.clone()), NoEvents, output);
        let port = Port {
            uart,
            arisen,
            fifo: true,
            full: false,
        };
        Serial {
            port: Mutex::new(port),
            line,
            on_room,
        }
    }

    /// Gives `bytes` to the guest; returns how many it has room for.
    pub fn input(&self, bytes: &[u8]) -> usize {
        let mut port = self.port();
        // In loopback the wire is disconnected: the input waits.
        let taken = port.uart.enqueue_raw_bytes(bytes).unwrap_or_default();
        port.full = taken < bytes.len();
        self.drive(&mut port);
        taken
    }

    /// Power-on state. Bytes that the guest has not read are lost, as they are on a real one.
    pub fn reset(&self) {
        let room = {
            let mut port = self.port();
            for register in [1, 4] {
                // Nothing arises from clearing IER and MCR.
                let _ = port
                    .uart
                    .write(LCR, 0)
                    .and_then(|()| port.uart.write(register, 0));
            }
            port.clear_input();
            port.uart.read(IIR_FCR);
            let _ = port.uart.write(LCR, 3);
            port.fifo = true;
            self.drive(&mut port);
            std::mem::take(&mut port.full)
        };
        if room {
            (self.on_room)();
        }
    }

    /// Brings the line up to date.
    fn drive(&self, port: &mut Port) {
        let level = port.cause().is_some();
        if port.arisen.swap(false, Ordering::Relaxed) {
            self.line.set(false);
        }
        self.line.set(level);
    }

    fn port(&self) -> MutexGuard<'_, Port> {
        self.port.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Port {
    /// The most urgent cause that is pending and enabled, as IIR has it (16550 data sheet, table 4).
    fn cause(&self) -> Option<u8> {
        let state = self.uart.state();
        let enabled = state.interrupt_enable;
        let emptied = state.interrupt_identification & IIR_TRANSMITTER_EMPTY != 0;
        if !state.in_buffer.is_empty() && enabled & IER_DATA != 0 {
            Some(IIR_DATA)
        } else if emptied && enabled & IER_TRANSMITTER_EMPTY != 0 {
            Some(IIR_TRANSMITTER_EMPTY)
        } else {
            None
        }
    }

    /// Reads IIR. That clears an empty transmitter, and only when that is what it says; `vm-superio`
    /// would clear, and show, both causes at once.
    fn identify(&mut self) -> u8 {
        let cause = self.cause();
        if cause == Some(IIR_TRANSMITTER_EMPTY) {
            self.uart.read(IIR_FCR);
        }
        cause.unwrap_or(IIR_NONE) | if self.fifo { IIR_FIFO } else { 0 }
    }

    fn clear_input(&mut self) {
        let lcr = self.uart.read(LCR);
        // With DLAB set, the data register is another one.
        let _ = self.uart.write(LCR, lcr & !LCR_DLAB);
        while !self.uart.state().in_buffer.is_empty() {
            self.uart.read(DATA);
        }
        let _ = self.uart.write(LCR, lcr);
    }

    /// Whether the console should be told that there is room: once.
    fn has_room_again(&mut self) -> bool {
        if !self.full {
            return false;
        }
        let state = self.uart.state();
        let room = state.in_buffer.is_empty() && state.modem_control & MCR_LOOP == 0;
        self.full = !room;
        room
    }
}

impl ByteWide for Serial {
    fn load(&self, offset: u64) -> u8 {
        let Ok(offset) = u8::try_from(offset) else {
            return 0xff;
        };
        let (value, room) = {
            let mut port = self.port();
            let value = match offset {
                IIR_FCR => port.identify(),
                _ => port.uart.read(offset),
            };
            self.drive(&mut port);
            (value, port.has_room_again())
        };
        if room {
            (self.on_room)();
        }
        value
    }

    fn store(&self, offset: u64, value: u8) -> Action {
        let Ok(offset) = u8::try_from(offset) else {
            return Action::None;
        };
        let room = {
            let mut port = self.port();
            if offset == IIR_FCR {
                port.fifo = value & FCR_ENABLE != 0;
                if value & FCR_CLEAR_RECEIVE != 0 {
                    port.clear_input();
                }
            }
            // A refused byte is lost: a wire has nobody to tell.
            let _ = port.uart.write(offset, value);
            self.drive(&mut port);
            port.has_room_again()
        };
        if room {
            (self.on_room)();
        }
        Action::None
    }
}

#[cfg(test)]
mod tests;
