//! The board: chipset, legacy devices, what `-device` plugs in.

use std::future::Future;
use std::sync::Arc;
use std::time::SystemTime;

use arch::x86_64::acpi::pm;
use arch::x86_64::layout::{self, Layout};
use block::Attach;
use devices::bus::{Bus, Mmio, Priority, Ticket};
use devices::irq::{IrqLine, MsiSink, Notify, SharedLine};
use devices::legacy::debug_exit::DebugExit;
use devices::legacy::i8042::I8042;
use devices::legacy::pvpanic::Pvpanic;
use devices::legacy::rtc::{self, Rtc};
use devices::legacy::serial::{self, Serial};
use devices::memory::GuestRam;
use devices::pci::assign::Windows;
use devices::pci::q35::Q35;
use devices::time::Timers;
use devices::virtio::{self, blk::request::ID_LEN};

use super::disks::Disks;
use crate::config::{self, Config};
use crate::console::Console;
use crate::error::Error;
use crate::models::Model;

/// Where I/O BARs go: above everything that a board has at fixed ports.
const IO_WINDOW: std::ops::Range<u64> = 0xc000..0x1_0000;

/// What is behind a machine: KVM, or a test program.
pub struct Seams {
    /// Guest RAM.
    pub ram: Arc<GuestRam>,
    /// The interrupt controllers' inputs, GSI 0 to 23, for one owner each.
    pub lines: [Arc<dyn IrqLine>; 24],
    /// Where messages go.
    pub messages: Arc<dyn MsiSink>,
    /// Where doorbells are attached.
    pub doorbells: Arc<dyn Notify>,
}

/// A q35 board with its devices.
pub struct Pc {
    chipset: Q35,
    timers: Arc<Timers>,
    rtc: Arc<Rtc>,
    i8042: Arc<I8042>,
    serial: Option<Arc<Serial>>,
    windows: Windows,
}

impl Pc {
    /// A board in power-on state, without what `-device` plugs in.
    ///
    /// # Errors
    /// The chipset's.
    pub fn new(
        config: &Config,
        layout: &Layout,
        seams: &Seams,
        memory: &Arc<Bus>,
        ports: &Arc<Bus>,
        console: &Console,
    ) -> Result<Pc, Error> {
        let timers = Timers::new(Arc::new(exec::Monotonic));
        let gsis = seams.lines.clone().map(SharedLine::new);
        let [_, keyboard, _, _, com1, _, _, _, clock, _, _, _, mouse, ..] = &gsis;
        let chipset = Q35::new(memory, ports, &gsis, &timers, pm::SLEEP_TYPE_S5)
            .map_err(|error| Error::host("-M q35").because(error))?;

        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let rtc = Rtc::new(&timers, clock.source(), now.unwrap_or_default());
        rtc.set_memory(layout.low_ram(), layout.high_ram());
        ports.map(rtc::PORTS, rtc::LEN, Priority::Fixed, rtc.clone());
        let i8042 = I8042::new(keyboard.source(), mouse.source());
        for (port, registers) in i8042.ports() {
            ports.map(port, 1, Priority::Fixed, registers);
        }
        let serial = (config.serial != config::Serial::None).then(|| {
            let room = console.input_ready();
            let on_room = Box::new(move || room.signal());
            let serial = Serial::new(com1.source(), Box::new(console.output()), on_room);
            let serial = Arc::new(serial);
            ports.map(serial::COM1.0, serial::LEN, Priority::Fixed, serial.clone());
            serial
        });
        Ok(Pc {
            chipset,
            timers,
            rtc,
            i8042,
            serial,
            windows: Windows {
                low: layout::MMIO32,
                high: layout.mmio64(),
                io: IO_WINDOW,
            },
        })
    }

    /// Plugs in what `-device` and `-drive if=` ask for.
    ///
    /// # Errors
    /// What cannot be had, by its option.
    pub async fn plug(
        &self,
        config: &Config,
        seams: &Seams,
        disks: &Disks,
        ports: &Bus,
    ) -> Result<(), Error> {
        let cpus = u16::try_from(config.cpus.cpus).unwrap_or(u16::MAX);
        for device in &config.devices {
            let place = |key: &str, base: u16, len: u64, registers: Arc<dyn Mmio>| {
                if !ports.is_free(base.into(), len) {
                    return Err(Error::user(format!(
                        "{}: '{key}': port {base:#x} is taken; give another",
                        device.origin
                    )));
                }
                ports.map(base.into(), len, Priority::Fixed, registers);
                Ok(())
            };
            match &device.model {
                Model::IsaDebugExit(exit) => {
                    place(
                        "iobase",
                        exit.iobase,
                        exit.iosize.into(),
                        Arc::new(DebugExit),
                    )?;
                }
                Model::Pvpanic(panic) => {
                    place("ioport", panic.ioport, 1, Arc::new(Pvpanic))?;
                }
                Model::VirtioBlkPci(disk) => {
                    let blame = |error: Box<dyn std::error::Error + Send + Sync>| {
                        Error::user(&device.origin).because(error)
                    };
                    let attach = Attach {
                        device: disk.id.clone().unwrap_or_else(|| device.origin.clone()),
                        read_only: false,
                        share_rw: disk.share_rw,
                    };
                    let drive = disks
                        .attach(&disk.drive, &attach)
                        .await
                        .map_err(|error| blame(error.into()))?;
                    let serial = disk.serial.as_deref().or(drive.serial());
                    if let Some(serial) = serial.filter(|serial| serial.len() > ID_LEN) {
                        // Refused it is not: names of 36 bytes are common, and QEMU cuts them off, too.
                        tracing::warn!(
                            "{}: 'serial': the guest sees the first {ID_LEN} bytes of '{serial}'",
                            device.origin
                        );
                    }
                    let seams = virtio::pci::Seams {
                        ram: seams.ram.clone(),
                        msi: seams.messages.clone(),
                        notify: seams.doorbells.clone(),
                    };
                    let threads = |name: Option<&str>| disks.thread(name);
                    let function = disk
                        .build(drive, cpus, &threads, seams)
                        .map_err(|error| blame(error.into()))?;
                    let address = disk.address().map_err(|error| blame(error.into()))?;
                    self.chipset
                        .host
                        .add(function, address)
                        .map_err(|error| blame(error.into()))?;
                }
            }
        }
        Ok(())
    }

    /// Does what firmware would do: gives every BAR its place. At first and after each reset.
    ///
    /// # Errors
    /// They do not fit.
    pub fn place(&self) -> Result<(), Error> {
        self.chipset
            .boot_without_firmware(layout::ECAM.start, &self.windows)
            .map_err(|error| Error::user("-device").because(error))
    }

    /// Power-on state for every device, in this order: PCI functions and chipset, then the clock, the
    /// keyboard controller, the serial port. Guest RAM is still when all tickets, which carry their
    /// device's name, are redeemed.
    #[must_use]
    pub fn reset(&self) -> Vec<(String, Ticket)> {
        let tickets = self.chipset.reset();
        self.rtc.reset();
        self.i8042.reset();
        if let Some(serial) = &self.serial {
            serial.reset();
        }
        tickets
    }

    /// COM1.
    pub fn serial(&self) -> Option<Arc<Serial>> {
        self.serial.clone()
    }

    /// Rings the devices' alarms, as a task.
    pub fn timers(&self) -> impl Future<Output = ()> + use<> {
        self.timers.drive()
    }
}
