//! The command line, in QEMU's words.
//!
//! | module | what it is |
//! |---|---|
//! | [`args`] | every option there is, and the line split into them |
//! | [`refused`] | QEMU's options that this build has nothing for, and what to say |
//! | [`machine`] | the board, its processors and its memory |
//! | [`disks`] | `-drive`, `-blockdev`, `-device`, `-object` |
//! | [`serial`] | where a serial port's other end is |
//! | [`host`] | whether this host can carry such a machine |
//! | [`help`] | `-help` and `-OPTION help` |
//!
//! What is asked for is there, or refused by name with what would work: no option is taken and
//! ignored. Options that only say what holds anyway (`-machine usb=off`) are taken.

use std::ffi::OsString;
use std::fmt::Display;
use std::path::PathBuf;

use crate::config::{Boot, Config, Sandbox, Serial};
use crate::error::Error;
use args::Args;
use block::options::{Tree, from_tree};
use uuid::Uuid;

pub mod args;
pub mod disks;
pub mod help;
pub mod host;
pub mod machine;
pub mod refused;
pub mod serial;
#[cfg(test)]
mod tests;

/// What a command line asks for.
#[derive(Debug)]
pub enum Request {
    /// A machine.
    Run(Box<Config>),
    /// Text on stdout, and no machine.
    Print(String),
}

block::options! {
    /// Who the guest is.
    struct NameOptions {
        /// The guest's name.
        guest: Option<String> = None,
        /// Threads carry names, as they always do.
        debug_threads: bool = true,
    }
}

block::options! {
    /// The clock that the guest reads at boot.
    struct RtcOptions {
        /// utc.
        base: String = "utc".into(),
        /// host.
        clock: String = "host".into(),
        /// none.
        driftfix: String = "none".into(),
    }
}

block::options! {
    /// Whether spindle gives up what it does not need.
    struct SandboxOptions {
        /// on or off.
        enable: bool,
        /// deny: system calls that are obsolete.
        obsolete: Option<String> = None,
        /// deny: more privileges.
        elevateprivileges: Option<String> = None,
        /// deny: new processes.
        spawn: Option<String> = None,
        /// deny: scheduling and limits.
        resourcecontrol: Option<String> = None,
    }
}

/// Reads a command line without its first word.
///
/// # Errors
/// The first mistake, in one line that names the option.
pub fn parse(line: impl IntoIterator<Item = OsString>) -> Result<Request, Error> {
    let args = Args::read(line)?;
    if let Some(text) = help::asked(&args)? {
        return Ok(Request::Print(text));
    }
    config(&args).map(|config| Request::Run(Box::new(config)))
}

fn config(args: &Args) -> Result<Config, Error> {
    nothing_but(args, "vga", "none", "no display adapter")?;
    nothing_but(args, "nic", "none", "no network card")?;
    nothing_but(args, "net", "none", "no network card")?;
    nothing_but(args, "monitor", "none", "no monitor")?;
    nothing_but(args, "display", "none", "no display")?;
    rtc(args)?;
    machine::board(args)?;
    let memory = machine::memory(args)?;
    let cpus = machine::cpus(args)?;
    let cpu_model = machine::cpu_model(args)?;
    let disks = disks::read(args, u16::try_from(cpus.cpus).unwrap_or(u16::MAX))?;
    name(args)?;
    Ok(Config {
        uuid: uuid(args)?,
        pidfile: args.path("pidfile")?,
        memory,
        cpus,
        cpu_model,
        serial: console(args)?,
        no_reboot: args.flag("no-reboot"),
        sandbox: sandbox(args)?,
        iothreads: disks.iothreads,
        blockdevs: disks.blockdevs,
        drives: disks.drives,
        devices: disks.devices,
        // Last: of a line with several mistakes this is the least telling.
        boot: boot(args)?,
    })
}

/// A label for whoever lists processes; the guest does not see it.
fn name(args: &Args) -> Result<(), Error> {
    let Some(text) = args.text("name")? else {
        return Ok(());
    };
    let given: NameOptions = options("-name", text, Some("guest"))?;
    match given.debug_threads {
        true => Ok(()),
        false => Err(wrong(
            "-name",
            "threads always carry names; leave debug-threads out",
        )),
    }
}

fn uuid(args: &Args) -> Result<Option<Uuid>, Error> {
    let Some(text) = args.text("uuid")? else {
        return Ok(None);
    };
    text.parse().map(Some).map_err(|_| {
        let reason =
            format!("'{text}' is no UUID; write one like 12345678-1234-1234-1234-123456789abc");
        wrong("-uuid", reason)
    })
}

fn boot(args: &Args) -> Result<Boot, Error> {
    let kernel = args.path("kernel")?.ok_or_else(|| {
        wrong("-kernel", "must be given: there is no firmware in this build; -kernel vmlinuz boots a Linux kernel")
    })?;
    Ok(Boot {
        kernel,
        initrd: args.path("initrd")?,
        append: args.text("append")?.unwrap_or_default().to_owned(),
    })
}

/// The serial port, as `-nographic`, `-nodefaults`, `-display` and `-serial` together mean it.
fn console(args: &Args) -> Result<Serial, Error> {
    let mut given = args.all("serial");
    let first = given.next();
    // Further ports are not there: that may be said.
    if let Some(more) = given.find(|more| more.value != "none") {
        let what = "there is one serial port in this build; give -serial once";
        return Err(wrong(&more.origin(), what));
    }
    if let Some(first) = first {
        return serial::parse(first.text()?);
    }
    match (
        args.flag("nodefaults"),
        args.flag("nographic"),
        args.text("display")?,
    ) {
        (true, _, _) => Ok(Serial::None),
        (false, true, _) => Ok(Serial::Stdio),
        (false, false, Some(_)) => Ok(Serial::Null),
        (false, false, None) => Err(wrong(
            "-display",
            "no display in this build; -nographic puts the console on this terminal, -display none goes without",
        )),
    }
}

fn sandbox(args: &Args) -> Result<Sandbox, Error> {
    let allow: Vec<PathBuf> = args.all("allow-path").map(|a| a.value.into()).collect();
    let Some(text) = args.text("sandbox")? else {
        return Ok(Sandbox { on: true, allow });
    };
    let given: SandboxOptions = options("-sandbox", text, Some("enable"))?;
    for (key, value) in [
        ("obsolete", given.obsolete),
        ("elevateprivileges", given.elevateprivileges),
        ("spawn", given.spawn),
        ("resourcecontrol", given.resourcecontrol),
    ] {
        if value.is_some_and(|value| value != "deny") {
            return Err(wrong(
                "-sandbox",
                format!("'{key}': is always deny; -sandbox off is all that can be had"),
            ));
        }
    }
    if !given.enable && !allow.is_empty() {
        return Err(wrong(
            "-allow-path",
            "has nothing to allow with -sandbox off; leave one of them out",
        ));
    }
    Ok(Sandbox {
        on: given.enable,
        allow,
    })
}

fn rtc(args: &Args) -> Result<(), Error> {
    let Some(text) = args.text("rtc")? else {
        return Ok(());
    };
    let given: RtcOptions = options("-rtc", text, None)?;
    for (key, value, only) in [
        ("base", given.base, "utc"),
        ("clock", given.clock, "host"),
        ("driftfix", given.driftfix, "none"),
    ] {
        if value != only {
            return Err(wrong(
                "-rtc",
                format!("'{key}': '{value}' is not in this build; use {key}={only}"),
            ));
        }
    }
    Ok(())
}

/// An option that can only say that something is not wanted.
fn nothing_but(args: &Args, option: &'static str, only: &str, lacking: &str) -> Result<(), Error> {
    match args.all(option).find(|arg| arg.value != only) {
        None => Ok(()),
        Some(arg) => Err(wrong(
            &format!("-{option}"),
            format!(
                "{lacking} in this build ('{}'); use -{option} {only}",
                arg.value.display()
            ),
        )),
    }
}

/// A mistake in `option`.
fn wrong(option: &str, reason: impl Display) -> Error {
    Error::user(format!("{option}: {reason}"))
}

/// Reads `key=value` text into a structure. Nothing at all is a variable that a script forgot to set.
fn options<T: block::options::Options>(
    option: &str,
    text: &str,
    implied: Option<&str>,
) -> Result<T, Error> {
    if text.is_empty() {
        return Err(wrong(option, "its value is empty"));
    }
    Tree::parse_keyval(text, implied)
        .and_then(from_tree)
        .map_err(|error| wrong(option, error))
}
