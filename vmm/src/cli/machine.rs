//! The board, its processors and its memory.

use arch::x86_64::cpuid::Model;
use arch::x86_64::topology::{Smp, Topology};
use block::options::{Options, parse_size};

use super::{args::Args, host, options, wrong};
use crate::config::Cpus;
use crate::error::Error;

const MIB: u64 = 1 << 20;

/// RAM without `-m`, as in QEMU.
const DEFAULT_MEMORY: u64 = 128 * MIB;

/// The least RAM: below 1 MiB are our own tables, above it a kernel.
const LEAST_MEMORY: u64 = 2 * MIB;

block::options! {
    /// The board.
    pub struct MachineOptions {
        /// q35.
        pub kind as "type": Option<String> = None,
        /// kvm.
        pub accel: Option<String> = None,
        /// on: the interrupt controllers are KVM's.
        pub kernel_irqchip: Option<String> = None,
        /// off: no AHCI controller.
        pub sata: Option<String> = None,
        /// off: no USB controller.
        pub usb: Option<String> = None,
        /// off: no display.
        pub graphics: Option<String> = None,
        /// off: no VMware port.
        pub vmport: Option<String> = None,
        /// off: no system management mode.
        pub smm: Option<String> = None,
        /// off: no HPET.
        pub hpet: Option<String> = None,
        /// off: RAM pages are not merged.
        pub mem_merge: Option<String> = None,
        /// off: no memory devices.
        pub nvdimm: Option<String> = None,
        /// off: no heterogeneous memory table.
        pub hmat: Option<String> = None,
        /// on: a keyboard controller, for its reset line.
        pub i8042: Option<String> = None,
        /// on: the interval timer.
        pub pit: Option<String> = None,
        /// on: the old interrupt controller.
        pub pic: Option<String> = None,
        /// on: the guest is described by ACPI tables.
        pub acpi: Option<String> = None,
        /// off: a core dump of spindle has not the guest's RAM.
        pub dump_guest_core: Option<String> = None,
    }
}

block::options! {
    /// Guest RAM.
    pub struct MemoryOptions {
        /// Its size; a number without a suffix counts MiB.
        pub size: Option<String> = None,
        /// No slots for memory that comes later.
        pub slots: u32 = 0,
        /// The same as size.
        pub maxmem: Option<String> = None,
    }
}

block::options! {
    /// Processors: what is not given follows from the rest, cores first.
    pub struct SmpOptions {
        /// How many.
        pub cpus: Option<u32> = None,
        /// Packages.
        pub sockets: Option<u32> = None,
        /// Dies a package.
        pub dies: Option<u32> = None,
        /// 1.
        pub clusters: Option<u32> = None,
        /// 1.
        pub modules: Option<u32> = None,
        /// Cores a die.
        pub cores: Option<u32> = None,
        /// Threads a core.
        pub threads: Option<u32> = None,
        /// The same as cpus.
        pub maxcpus: Option<u32> = None,
    }
}

block::options! {
    /// The accelerator.
    pub struct AccelOptions {
        /// kvm.
        pub accel: String,
        /// on: the interrupt controllers are KVM's.
        pub kernel_irqchip: Option<String> = None,
    }
}

/// Checks `-machine`, `-M`, `-accel` and `-enable-kvm`: there is one board and one accelerator.
pub(super) fn board(args: &Args) -> Result<(), Error> {
    for given in args.in_order(&["machine", "M"]) {
        let option = format!("-{}", given.option);
        let wanted: MachineOptions = options(&option, given.text()?, Some("type"))?;
        match wanted.kind.as_deref() {
            None | Some("q35") => {}
            Some(kind) => {
                return Err(wrong(
                    &option,
                    format!("machine {kind} is not in this build; use -M q35"),
                ));
            }
        }
        if let Some(accel) = &wanted.accel {
            only_kvm(&option, accel)?;
        }
        for (key, value, only) in [
            ("kernel-irqchip", &wanted.kernel_irqchip, "on"),
            ("sata", &wanted.sata, "off"),
            ("usb", &wanted.usb, "off"),
            ("graphics", &wanted.graphics, "off"),
            ("vmport", &wanted.vmport, "off"),
            ("smm", &wanted.smm, "off"),
            ("hpet", &wanted.hpet, "off"),
            ("mem-merge", &wanted.mem_merge, "off"),
            ("nvdimm", &wanted.nvdimm, "off"),
            ("hmat", &wanted.hmat, "off"),
            ("i8042", &wanted.i8042, "on"),
            ("pit", &wanted.pit, "on"),
            ("pic", &wanted.pic, "on"),
            ("acpi", &wanted.acpi, "on"),
            ("dump-guest-core", &wanted.dump_guest_core, "off"),
        ] {
            is_only(&option, key, value.as_deref(), only)?;
        }
    }
    for given in args.all("accel") {
        let wanted: AccelOptions = options("-accel", given.text()?, Some("accel"))?;
        only_kvm("-accel", &wanted.accel)?;
        is_only(
            "-accel",
            "kernel-irqchip",
            wanted.kernel_irqchip.as_deref(),
            "on",
        )?;
    }
    Ok(())
}

fn only_kvm(option: &str, accel: &str) -> Result<(), Error> {
    match accel {
        "kvm" => Ok(()),
        other => Err(wrong(
            option,
            format!("accelerator '{other}' is not in this build; use -accel kvm"),
        )),
    }
}

/// A switch that stands in one position: it may be named, not moved.
fn is_only(option: &str, key: &str, value: Option<&str>, only: &str) -> Result<(), Error> {
    match value {
        None | Some("auto") => Ok(()),
        Some(value) if value == only => Ok(()),
        Some(value) => Err(wrong(
            option,
            format!("'{key}': '{value}' is not in this build; use {key}={only} or leave it out"),
        )),
    }
}

/// RAM in bytes.
pub(super) fn memory(args: &Args) -> Result<u64, Error> {
    let Some(text) = args.text("m")? else {
        return Ok(DEFAULT_MEMORY);
    };
    let given: MemoryOptions = options("-m", text, Some("size"))?;
    let size =
        |key: &str, text: &str| parse_size(text, MIB).map_err(|error| wrong("-m", error.at(key)));
    let memory = match &given.size {
        Some(text) => size("size", text)?,
        None => DEFAULT_MEMORY,
    };
    let max = given
        .maxmem
        .as_deref()
        .map(|text| size("maxmem", text))
        .transpose()?;
    if given.slots > 0 || max.is_some_and(|max| max != memory) {
        return Err(wrong(
            "-m",
            "no memory hotplug in this build; leave slots and maxmem out",
        ));
    }
    if !memory.is_multiple_of(MIB) {
        return Err(wrong(
            "-m",
            format!("{memory} bytes are not a whole number of MiB"),
        ));
    }
    if memory < LEAST_MEMORY {
        return Err(wrong(
            "-m",
            format!(
                "{} MiB are too few: a machine has at least {} MiB, and Linux needs about 64",
                memory / MIB,
                LEAST_MEMORY / MIB
            ),
        ));
    }
    host::can_hold(memory).map_err(|reason| wrong("-m", reason))?;
    Ok(memory)
}

/// Processors and their arrangement.
pub(super) fn cpus(args: &Args) -> Result<Cpus, Error> {
    let given: SmpOptions = options("-smp", args.text("smp")?.unwrap_or("1"), Some("cpus"))?;
    for (key, number) in [("clusters", given.clusters), ("modules", given.modules)] {
        if number.is_some_and(|number| number != 1) {
            let what = format!("'{key}': is not in this build; use sockets, dies, cores, threads");
            return Err(wrong("-smp", what));
        }
    }
    let topology = Topology::new(Smp {
        cpus: given.cpus,
        maxcpus: given.maxcpus,
        sockets: given.sockets,
        dies: given.dies,
        cores: given.cores,
        threads: given.threads,
    })
    .map_err(|error| wrong("-smp", error))?;
    Ok(Cpus {
        cpus: topology.cpus(),
        sockets: topology.sockets(),
        dies: topology.dies(),
        cores: topology.cores(),
        threads: topology.threads(),
    })
}

/// Models of `-cpu` and what they are.
pub const CPU_MODELS: &[(&str, &str)] = &[
    ("host", "what the host's processor and KVM have (default)"),
    ("max", "the same as host"),
];

/// The processor model, checked as far as it can be without KVM.
pub(super) fn cpu_model(args: &Args) -> Result<String, Error> {
    let text = args.text("cpu")?.unwrap_or("host");
    Model::parse(text).map_err(|error| wrong("-cpu", error))?;
    Ok(text.to_owned())
}

/// The keys of an option of this file, for `-OPTION help`.
pub(super) fn schema(option: &str) -> Option<&'static block::options::Schema> {
    match option {
        "machine" | "M" => Some(MachineOptions::SCHEMA),
        "m" => Some(MemoryOptions::SCHEMA),
        "smp" => Some(SmpOptions::SCHEMA),
        "accel" => Some(AccelOptions::SCHEMA),
        _ => None,
    }
}
