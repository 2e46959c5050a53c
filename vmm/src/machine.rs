//! A PC from a configuration, its boot, its resets and its end.
//!
//! | module | what it is |
//! |---|---|
//! | [`boot`] | what is in guest RAM before the first instruction |
//! | [`disks`] | block graph, I/O threads |
//! | [`pc`] | the board: chipset, legacy devices, what `-device` plugs in |
//! | [`events`] | what processors, signals and the console tell the main thread |
//! | `life` | the main task: boot, resets, end |
//! | `signals` | those that end a run |
//!
//! [`pc`] knows the four seams of `devices` and not who is behind them; here it is KVM.
//!
//! Order of start: files → KVM → the machine → threads → sandbox → first instruction. Until then
//! nothing is changed that the user would miss.

pub mod boot;
pub mod disks;
pub mod events;
mod life;
mod main_loop;
pub mod pc;
pub(crate) mod signals;

use std::mem::ManuallyDrop;
use std::sync::Arc;

use arch::x86_64::acpi;
use arch::x86_64::boot::{Content, Write};
use arch::x86_64::cpuid::Model;
use arch::x86_64::layout::{self, Layout};
use arch::x86_64::smbios;
use arch::x86_64::topology::{Smp, Topology};
use devices::bus::Bus;
use exec::Executor;

use self::boot::{Files, blame};
use self::disks::Disks;
use self::events::{Event, Events};
use self::life::Life;
use self::pc::{Pc, Seams};
use crate::config::{Config, Cpus, Serial};
use crate::console::Console;
use crate::error::Error;
use crate::kvm::Board;
use crate::kvm::host::Host;
use crate::kvm::processors::Processors;
use crate::kvm::ram;
use crate::kvm::threads::{Setup, Threads};
use crate::models;
use crate::sandbox::{Sandbox, Thread};

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The guest powered off.
    PowerOff,
    /// The guest reset, which ends the run under `-no-reboot`.
    Reset,
    /// The guest reported a panic.
    Panicked,
    /// The guest did what no processor survives: what and where.
    Crashed(String),
    /// The guest asked for this exit status.
    Exit(u8),
    /// The user ended it: how.
    Quit(&'static str),
}

/// A machine that is ready to run its guest.
pub struct Machine {
    executor: Executor,
    life: Life,
}

/// Builds the machine that `config` describes. `sandbox` is already in force for files; it takes in
/// every thread made here.
///
/// # Errors
/// What cannot be had, by the option that asks for it. No guest has run and no image is changed then.
pub fn build(config: &Config, sandbox: &Sandbox, console: Console) -> Result<Machine, Error> {
    signals::block()?;
    let files = Files::open(&config.boot)?;
    let main = exec::Config {
        name: "main".into(),
        on_start: Some(sandbox.on_start_of_main()),
        hosted: true,
        ..exec::Config::default()
    };
    let executor = Executor::new(main)
        .map_err(|error| Error::host("cannot make an executor").because(error))?;
    let disks = executor.block_on(Disks::open(config, sandbox))?;

    let host = Host::open()?;
    let topology = topology(&config.cpus)?;
    let model = Model::parse(&config.cpu_model).map_err(blame)?;
    let processors = Processors::new(&host, &model, topology)?;
    let layout = Layout::new(config.memory, processors.phys_bits()).map_err(blame)?;
    let has = |wanted: fn(&models::Model) -> Option<u16>| {
        config
            .devices
            .iter()
            .find_map(|device| wanted(&device.model))
    };
    let tables = acpi::tables(&acpi::Config {
        layout: &layout,
        topology,
        serial: config.serial != Serial::None,
        i8042: false,
        vga: false,
        pvpanic: has(|model| match model {
            models::Model::Pvpanic(device) => Some(device.ioport),
            _ => None,
        }),
    })
    .map_err(blame)?;
    let mut plan = files.plan(&layout, tables.rsdp())?;
    plan.writes
        .extend(tables.tables.into_iter().map(|table| Write {
            address: table.address,
            content: Content::Bytes(table.bytes),
        }));
    let system = smbios::System {
        manufacturer: "spindle",
        product: "q35",
        version: env!("CARGO_PKG_VERSION"),
        uuid: config.uuid.unwrap_or_default().into_bytes(),
    };
    plan.writes.push(Write {
        address: layout::SMBIOS.start,
        content: Content::Bytes(smbios::bytes(&system)),
    });

    let ram = Arc::new(ram::allocate(&layout)?);
    let board = Board::new(host, (*ram).clone())?;
    let (memory, ports) = (Arc::new(Bus::new()), Arc::new(Bus::new()));
    let events = Arc::new(Events::new()?);
    let threads = Threads::start(
        Setup {
            vm: board.vm(),
            memory: memory.clone(),
            ports: ports.clone(),
            enter: {
                let sandbox = sandbox.clone();
                Box::new(move || sandbox.enter(Thread::Vcpu))
            },
            report: {
                let events = events.clone();
                Box::new(move |index, stop| events.push(Event::Processor(index, stop)))
            },
        },
        processors.list()?,
    )?;
    // While the processors come up:
    let seams = Seams {
        ram: ram.clone(),
        lines: board.lines(),
        messages: board.messages(),
        doorbells: board.doorbells(),
    };
    let pc = Pc::new(config, &layout, &seams, &memory, &ports, &console)?;
    executor.block_on(pc.plug(config, &seams, &disks, &ports))?;
    pc.place()?;
    files.write(&plan.writes, &ram, true)?;
    threads.ready()?;
    Host::warn_if_slow();
    Ok(Machine {
        executor,
        life: Life {
            no_reboot: config.no_reboot,
            wait_for_console: matches!(config.serial, Serial::Unix { wait: true, .. }),
            sandbox: sandbox.clone(),
            console,
            events,
            files,
            plan,
            ram,
            board,
            threads,
            pc,
            disks,
        },
    })
}

impl Machine {
    /// Runs the guest until it or the user ends it, and takes the machine down. The process is to end then.
    ///
    /// # Errors
    /// The host failed, or something could not be brought to rest.
    pub fn run(self) -> Result<Outcome, Error> {
        // Never dropped, since that waits for what is in flight: a write to someone who does not read, a
        // flush of a disk that does not answer. The process ends with it.
        let executor = ManuallyDrop::new(self.executor);
        let (outcome, disks, deadline) = main_loop::run(&executor, self.life.run())??;
        disks.stop(deadline)?;
        Ok(outcome)
    }
}

fn topology(cpus: &Cpus) -> Result<Topology, Error> {
    Topology::new(Smp {
        cpus: Some(cpus.cpus),
        maxcpus: None,
        sockets: Some(cpus.sockets),
        dies: Some(cpus.dies),
        cores: Some(cpus.cores),
        threads: Some(cpus.threads),
    })
    .map_err(blame)
}
