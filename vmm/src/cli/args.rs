//! Every option there is, and the line split into them.
//!
//! QEMU's options begin with one dash and take their value as the next word, whatever that word looks
//! like (`-append "-drive x"`). [`Args::read`] therefore walks the line itself and hands clap
//! `--name=value`, so that one definition serves parsing and help.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use block::options::nearest;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use super::{refused, wrong};
use crate::error::Error;

/// An option as help shows it: its name, the form of its value if it takes one, and what it is for.
type Row = (&'static str, Option<&'static str>, &'static str);

/// The options of this build, in the order of `-help`.
const OPTIONS: &[Row] = &[
    (
        "kernel",
        Some("FILE"),
        "Linux kernel to boot: bzImage or ELF vmlinux",
    ),
    ("initrd", Some("FILE"), "initial RAM disk"),
    ("append", Some("TEXT"), "kernel command line"),
    (
        "m",
        Some("SIZE"),
        "guest RAM: 512 (MiB), 1G, size=1G (default 128M)",
    ),
    (
        "smp",
        Some("N|cpus=N,..."),
        "processors: cpus, sockets, dies, cores, threads (default 1)",
    ),
    (
        "cpu",
        Some("MODEL,..."),
        "processor model and features: host,-cx16 (default host)",
    ),
    (
        "machine",
        Some("TYPE,..."),
        "board: q35 (see -machine help)",
    ),
    ("M", Some("TYPE,..."), "the same as -machine"),
    ("accel", Some("NAME"), "accelerator: kvm"),
    ("enable-kvm", None, "the same as -accel kvm"),
    (
        "drive",
        Some("KEY=VALUE,..."),
        "a disk: file=disk.img,format=raw,if=virtio (see -drive help)",
    ),
    (
        "blockdev",
        Some("KEY=VALUE,..."),
        "a block node: driver=file,node-name=n0,filename=disk.img",
    ),
    (
        "device",
        Some("MODEL,..."),
        "a device: virtio-blk-pci,drive=n0 (see -device help)",
    ),
    (
        "object",
        Some("TYPE,..."),
        "an object: iothread,id=t0 (see -object help)",
    ),
    (
        "serial",
        Some("WHERE"),
        "serial port: stdio, mon:stdio, file:PATH, unix:PATH,server=on[,wait=off], pty, null, none",
    ),
    (
        "nographic",
        None,
        "no display; serial port on this terminal, Ctrl-A h for help",
    ),
    ("display", Some("none"), "no display"),
    ("vga", Some("none"), "no display adapter"),
    ("nic", Some("none"), "no network card"),
    ("net", Some("none"), "no network card"),
    ("monitor", Some("none"), "no monitor"),
    (
        "nodefaults",
        None,
        "no devices but those asked for: no serial port without -serial",
    ),
    (
        "no-user-config",
        None,
        "read no configuration files (there are none)",
    ),
    ("no-reboot", None, "end when the guest resets"),
    ("rtc", Some("base=utc"), "the guest's clock shows UTC"),
    (
        "name",
        Some("NAME"),
        "a label for who lists processes; the guest does not see it",
    ),
    (
        "uuid",
        Some("UUID"),
        "the system's UUID in its SMBIOS tables",
    ),
    (
        "pidfile",
        Some("FILE"),
        "write the process ID to FILE once the guest is ready; one spindle a file",
    ),
    (
        "sandbox",
        Some("on|off"),
        "give up system calls and files that are not needed (default on)",
    ),
    (
        "allow-path",
        Some("DIR"),
        "let files below DIR be opened in spite of the sandbox",
    ),
    ("help", None, "this text"),
    ("h", None, "the same as -help"),
    ("version", None, "the version"),
];

/// What the line said, in order.
#[derive(Debug)]
pub struct Args(ArgMatches);

/// One occurrence of an option that takes a value.
#[derive(Clone, Copy, Debug)]
pub struct Given<'a> {
    /// The option's name without its dash.
    pub option: &'static str,
    /// Which of its occurrences, from 1.
    pub number: usize,
    /// Its value.
    pub value: &'a OsStr,
}

impl<'a> Given<'a> {
    /// How messages name it: `-drive #2`.
    pub fn origin(&self) -> String {
        format!("-{} #{}", self.option, self.number)
    }

    /// The value as text.
    ///
    /// # Errors
    /// It is not UTF-8.
    pub fn text(&self) -> Result<&'a str, Error> {
        let problem = || wrong(&self.origin(), "the value is not UTF-8");
        self.value.to_str().ok_or_else(problem)
    }
}

/// The one definition of all options.
pub fn command() -> Command {
    let args = OPTIONS.iter().map(|(name, value, help)| {
        let arg = Arg::new(*name).long(*name).help(*help);
        match value {
            Some(value) => arg
                .value_name(*value)
                .value_parser(value_parser!(OsString))
                .action(ArgAction::Append),
            None => arg.action(ArgAction::Count),
        }
    });
    Command::new("spindle")
        .version(env!("CARGO_PKG_VERSION"))
        .disable_help_flag(true)
        .disable_version_flag(true)
        .args(args)
}

impl Args {
    /// Splits a line (without its first word) into options.
    ///
    /// # Errors
    /// An unknown or refused option, or one whose value is missing.
    pub fn read(line: impl IntoIterator<Item = OsString>) -> Result<Args, Error> {
        let mut words = line.into_iter();
        let mut plain = vec![OsString::from("spindle")];
        while let Some(word) = words.next() {
            let (name, value) = find(&word)?;
            let mut long = OsString::from(format!("--{name}"));
            if value.is_some() {
                let value = words
                    .next()
                    .ok_or_else(|| wrong(&format!("-{name}"), "its value is missing"))?;
                long.push("=");
                long.push(value);
            }
            plain.push(long);
        }
        match command().try_get_matches_from(plain) {
            Ok(matches) => Ok(Args(matches)),
            Err(error) => Err(Error::user(error.kind().to_string())),
        }
    }

    /// Whether an option without a value is there.
    pub fn flag(&self, option: &str) -> bool {
        self.0.get_count(option) > 0
    }

    /// All occurrences of an option.
    pub fn all(&self, option: &'static str) -> impl Iterator<Item = Given<'_>> {
        let values = self.0.get_many::<OsString>(option).into_iter().flatten();
        values.zip(1..).map(move |(value, number)| Given {
            option,
            number,
            value,
        })
    }

    /// All occurrences of several options in the order of the line.
    pub fn in_order(&self, options: &[&'static str]) -> Vec<Given<'_>> {
        let mut all: Vec<(usize, Given<'_>)> = Vec::new();
        for option in options {
            let places = self.0.indices_of(option).into_iter().flatten();
            all.extend(places.zip(self.all(option)));
        }
        all.sort_by_key(|(place, _)| *place);
        all.into_iter().map(|(_, given)| given).collect()
    }

    /// The value of an option that may be there once.
    fn once(&self, option: &'static str) -> Result<Option<Given<'_>>, Error> {
        let mut all = self.all(option);
        match (all.next(), all.next()) {
            (given, None) => Ok(given),
            _ => Err(wrong(&format!("-{option}"), "is given twice; give it once")),
        }
    }

    /// The text of an option that may be there once.
    ///
    /// # Errors
    /// It is there twice, or not UTF-8.
    pub fn text(&self, option: &'static str) -> Result<Option<&str>, Error> {
        let problem = || wrong(&format!("-{option}"), "the value is not UTF-8");
        match self.once(option)? {
            None => Ok(None),
            Some(given) => given.value.to_str().ok_or_else(problem).map(Some),
        }
    }

    /// The path that an option gives that may be there once.
    ///
    /// # Errors
    /// It is there twice, or empty.
    pub fn path(&self, option: &'static str) -> Result<Option<PathBuf>, Error> {
        match self.once(option)? {
            Some(given) if given.value.is_empty() => {
                Err(wrong(&format!("-{option}"), "names no file"))
            }
            given => Ok(given.map(|given| given.value.into())),
        }
    }
}

/// The option that a word names, and the form of its value.
fn find(word: &OsStr) -> Result<(&'static str, Option<&'static str>), Error> {
    let shown = word.display();
    let name = word.to_str().and_then(|text| {
        let name = text.strip_prefix('-')?;
        Some(name.strip_prefix('-').unwrap_or(name))
    });
    let Some(name) = name else {
        return Err(Error::user(format!(
            "'{shown}': options begin with a dash; a disk is -drive file={shown},format=raw,if=virtio"
        )));
    };
    if let Some((name, value, _)) = OPTIONS.iter().find(|(known, ..)| *known == name) {
        return Ok((name, *value));
    }
    if let Some(reason) = refused::reason(name) {
        return Err(wrong(&format!("-{name}"), reason));
    }
    let known = OPTIONS.iter().map(|(name, ..)| *name);
    Err(Error::user(match nearest(name, known) {
        Some(near) => format!("{shown}: unknown option; did you mean -{near}?"),
        None => format!("{shown}: unknown option; -help lists those there are"),
    }))
}

/// The rows of `-help`: each option with the form of its value, and what it is for.
pub fn rows() -> Vec<(String, String)> {
    command()
        .get_arguments()
        .map(|arg| {
            let name = arg.get_long().unwrap_or_default();
            let form = arg.get_value_names().and_then(|names| names.first());
            let option = match form {
                Some(form) => format!("-{name} {form}"),
                None => format!("-{name}"),
            };
            let help = arg.get_help().map(ToString::to_string);
            (option, help.unwrap_or_default())
        })
        .collect()
}
