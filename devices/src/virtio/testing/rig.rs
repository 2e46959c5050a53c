//! A machine for one virtio function: buses, a PCI host, an interrupt sink, doorbells, an I/O thread.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::{Driver, ram};
use crate::bus::{Action, Bus};
use crate::irq::{Doorbell, IrqLine, MsiMessage, MsiRoute, MsiSink, Notify};
use crate::memory::GuestRam;
use crate::pci::{Address, PciHost};
use crate::virtio::pci::{Seams, VirtioPci};

/// Where the rig puts BAR 4 and the MSI-X table.
pub(crate) const BAR: u64 = 0xe000_0000;
const MSIX: u64 = 0xf000_0000;
const VERSION_1: u64 = 1 << 32;

/// What a device did to the machine.
#[derive(Default)]
pub(crate) struct Machine {
    messages: Mutex<Vec<u32>>,
    level: Mutex<bool>,
    doorbells: Mutex<Vec<(Doorbell, OwnedFd)>>,
}

impl MsiSink for Machine {
    fn send(&self, message: MsiMessage) {
        self.messages.lock().unwrap().push(message.data);
    }

    fn route(&self, _: MsiMessage) -> Option<Box<dyn MsiRoute>> {
        None
    }
}

impl Notify for Machine {
    fn attach(&self, at: Doorbell, eventfd: BorrowedFd<'_>) -> io::Result<()> {
        let mut doorbells = self.doorbells.lock().unwrap();
        if doorbells.iter().any(|(other, _)| *other == at) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        doorbells.push((at, eventfd.try_clone_to_owned()?));
        Ok(())
    }

    fn detach(&self, at: Doorbell, _: BorrowedFd<'_>) {
        let mut doorbells = self.doorbells.lock().unwrap();
        let index = doorbells.iter().position(|(other, _)| *other == at);
        doorbells.remove(index.expect("what is detached was attached"));
    }
}

struct Pin(Arc<Machine>);

impl IrqLine for Pin {
    fn set(&self, level: bool) {
        *self.0.level.lock().unwrap() = level;
    }
}

pub(crate) struct Rig {
    pub(crate) ram: Arc<GuestRam>,
    pub(crate) memory: Arc<Bus>,
    pub(crate) host: Arc<PciHost>,
    pub(crate) machine: Arc<Machine>,
    pub(crate) at: Address,
    threads: Mutex<Vec<exec::IoThread>>,
}

impl Rig {
    /// A machine with `threads` I/O threads, and the function that `make` makes for it, running and
    /// placed.
    pub(crate) fn new(
        threads: usize,
        make: impl FnOnce(Seams, Vec<exec::Handle>) -> Arc<VirtioPci>,
    ) -> Rig {
        let (memory, ports) = (Arc::new(Bus::new()), Arc::new(Bus::new()));
        let machine = Arc::new(Machine::default());
        let pin = machine.clone();
        let wires = move |_, _| Arc::new(Pin(pin.clone())) as Arc<dyn IrqLine>;
        let host = PciHost::new(memory.clone(), ports, Box::new(wires));
        let ram = ram();
        let seams = Seams {
            ram: ram.clone(),
            msi: machine.clone(),
            notify: machine.clone(),
        };
        let spawn = |_| exec::IoThread::spawn(exec::Config::default()).unwrap();
        let threads: Vec<_> = (0..threads).map(spawn).collect();
        let device = make(seams, threads.iter().map(|t| t.handle()).collect());
        let at = host.add(device, None).unwrap();
        let rig = Rig {
            ram,
            memory,
            host,
            machine,
            at,
            threads: Mutex::new(threads),
        };
        let _ = rig.configure(0x14, 4, MSIX as u32);
        rig.place(BAR);
        rig
    }

    /// Puts BAR 4 somewhere, enables it and bus mastering.
    pub(crate) fn place(&self, base: u64) {
        let _ = self.configure(0x20, 4, base as u32);
        let _ = self.configure(0x24, 4, (base >> 32) as u32);
        let _ = self.configure(0x04, 2, 6);
    }

    pub(crate) fn configure(&self, offset: u16, size: u8, value: u32) -> Action {
        self.host.write(self.at, offset, size, value)
    }

    pub(crate) fn configuration(&self, offset: u16, size: u8) -> u32 {
        self.host.read(self.at, offset, size)
    }

    /// The `index`th capability with this ID, and with this type if it is virtio's.
    pub(crate) fn capability(&self, id: u8, kind: Option<u8>) -> u16 {
        let mut at = self.configuration(0x34, 1) as u16;
        while at != 0 {
            let this = (
                self.configuration(at, 1) as u8,
                self.configuration(at + 3, 1) as u8,
            );
            if this.0 == id && kind.is_none_or(|kind| kind == this.1) {
                return at;
            }
            at = self.configuration(at + 1, 1) as u16;
        }
        panic!("no capability {id:#x}");
    }

    /// MSI-X on, vector `n` unmasked with `100 + n` as its data.
    pub(crate) fn enable_msix(&self, vectors: u16) {
        for vector in 0..u64::from(vectors) {
            let _ = self.memory.write(MSIX + vector * 16, 4, 0xfee0_0000);
            let _ = self.memory.write(MSIX + vector * 16 + 8, 4, 100 + vector);
            let _ = self.memory.write(MSIX + vector * 16 + 12, 4, 0);
        }
        let _ = self.configure(self.capability(0x11, None) + 2, 2, 0x8000);
    }

    pub(crate) fn read(&self, offset: u64, size: u8) -> u64 {
        self.memory.read(BAR + offset, size)
    }

    pub(crate) fn write(&self, offset: u64, size: u8, value: u64) {
        assert!(matches!(
            self.memory.write(BAR + offset, size, value),
            Action::None
        ));
    }

    pub(crate) fn status(&self) -> u8 {
        self.read(20, 1) as u8
    }

    pub(crate) fn device_features(&self) -> u64 {
        let half = |select| {
            self.write(0, 4, select);
            self.read(4, 4)
        };
        half(0) | half(1) << 32
    }

    /// Acknowledges the device and agrees on `features` and `VERSION_1`.
    pub(crate) fn negotiate(&self, features: u64) {
        let features = features | VERSION_1;
        self.write(20, 1, 1);
        self.write(20, 1, 3);
        for half in [0, 1] {
            self.write(8, 4, half);
            self.write(12, 4, features >> (32 * half) & 0xffff_ffff);
        }
        self.write(20, 1, 11);
        assert_eq!(self.status(), 11, "features {features:#x} were refused");
    }

    /// Writes the registers of a queue, with vector `queue + 1`.
    pub(crate) fn set_up(&self, queue: u16, driver: &Driver) {
        let layout = driver.layout;
        self.write(22, 2, queue.into());
        self.write(24, 2, layout.size.into());
        self.write(26, 2, u64::from(queue) + 1);
        for (offset, address) in [
            (32, layout.descriptors),
            (40, layout.available),
            (48, layout.used),
        ] {
            self.write(offset, 4, address & 0xffff_ffff);
            self.write(offset + 4, 4, address >> 32);
        }
        self.write(28, 2, 1);
    }

    /// Brings the device up with a queue of 16 descriptors for each driver returned.
    pub(crate) fn start(&self, queues: u16, features: u64) -> Vec<Driver> {
        self.negotiate(features);
        let drivers: Vec<_> = (0..queues)
            .map(|queue| Driver::new(&self.ram, 0x1000 * (1 + u64::from(queue)), 16))
            .collect();
        (0..)
            .zip(&drivers)
            .for_each(|(queue, driver)| self.set_up(queue, driver));
        self.write(20, 1, 15);
        drivers
    }

    /// What a store to a doorbell does, whoever takes it.
    pub(crate) fn kick(&self, queue: u16) {
        self.kick_at(BAR + 0x3000 + u64::from(queue) * 4, queue);
    }

    pub(crate) fn kick_at(&self, at: u64, queue: u16) {
        let doorbells = self.machine.doorbells.lock().unwrap();
        match doorbells
            .iter()
            .find(|(other, _)| *other == Doorbell::Mmio(at))
        {
            Some((_, eventfd)) => {
                rustix::io::write(eventfd.as_fd(), &1u64.to_ne_bytes()).unwrap();
            }
            None => drop(self.memory.write(at, 2, queue.into())),
        }
    }

    /// Where doorbells are attached.
    pub(crate) fn doorbells(&self) -> Vec<Doorbell> {
        self.machine
            .doorbells
            .lock()
            .unwrap()
            .iter()
            .map(|(at, _)| *at)
            .collect()
    }

    /// Messages since the last call, by their data.
    pub(crate) fn messages(&self) -> Vec<u32> {
        std::mem::take(&mut self.machine.messages.lock().unwrap())
    }

    pub(crate) fn pin(&self) -> bool {
        *self.machine.level.lock().unwrap()
    }

    /// The first of the I/O threads.
    pub(crate) fn thread(&self) -> exec::Handle {
        self.threads.lock().unwrap()[0].handle()
    }

    /// Waits until the I/O threads have done all that they can do now.
    pub(crate) fn settle(&self) {
        for thread in &*self.threads.lock().unwrap() {
            for _ in 0..8 {
                thread.handle().call_blocking(exec::yield_now);
            }
        }
    }

    /// Resets the machine, waits for its tickets and ends the I/O threads.
    pub(crate) fn end(self) {
        self.host
            .reset()
            .iter()
            .for_each(|(_, ticket)| ticket.wait());
        drop(self.host);
        for thread in self.threads.into_inner().unwrap() {
            thread.stop(Duration::from_secs(30)).unwrap();
        }
    }
}

/// Waits up to 30 seconds for something that another thread brings about.
pub(crate) fn until(what: &str, mut done: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(
            begin.elapsed() < Duration::from_secs(30),
            "waited in vain until {what}"
        );
        std::thread::sleep(Duration::from_micros(200));
    }
}
