//! What the command line asked for, checked and in plain values.
//!
//! [`crate::cli`] makes it, [`crate::machine`] builds from it. Nothing here opens a file or knows how
//! an option is spelled.

use std::path::{Path, PathBuf};

use block::options::{Tree, Value};
use uuid::Uuid;

use crate::models::Model;

/// A machine to be built.
#[derive(Debug)]
pub struct Config {
    /// `-uuid`.
    pub uuid: Option<Uuid>,
    /// `-pidfile`.
    pub pidfile: Option<PathBuf>,
    /// RAM in bytes, a multiple of 1 MiB.
    pub memory: u64,
    /// `-smp`.
    pub cpus: Cpus,
    /// `-cpu`, as written: `host,-cx16`.
    pub cpu_model: String,
    /// What is booted.
    pub boot: Boot,
    /// Where COM1 goes.
    pub serial: Serial,
    /// Whether a guest reset ends the run (`-no-reboot`).
    pub no_reboot: bool,
    /// `-sandbox`.
    pub sandbox: Sandbox,
    /// `-object iothread,id=`, in order.
    pub iothreads: Vec<IoThread>,
    /// `-blockdev`, in order. All of them are made before `drives`.
    pub blockdevs: Vec<Blockdev>,
    /// `-drive`, in order.
    pub drives: Vec<Drive>,
    /// `-device`, and the front ends of `-drive if=`, in order.
    pub devices: Vec<Device>,
}

/// Virtual processors: `cpus == sockets * dies * cores * threads`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpus {
    /// How many run.
    pub cpus: u32,
    /// Packages.
    pub sockets: u32,
    /// Dies a package.
    pub dies: u32,
    /// Cores a die.
    pub cores: u32,
    /// Threads a core.
    pub threads: u32,
}

/// Direct boot of a Linux kernel.
#[derive(Clone, Debug)]
pub struct Boot {
    /// `-kernel`: a bzImage or an ELF.
    pub kernel: PathBuf,
    /// `-initrd`.
    pub initrd: Option<PathBuf>,
    /// `-append`.
    pub append: String,
}

/// The other end of a serial port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Serial {
    /// The terminal, or whatever stdin and stdout are; Ctrl-A x ends the run.
    Stdio,
    /// A file, truncated.
    File(PathBuf),
    /// A listening Unix socket.
    Unix {
        /// Its name.
        path: PathBuf,
        /// Whether the guest starts only when someone has connected.
        wait: bool,
    },
    /// A new pseudo-terminal, whose name is logged.
    Pty,
    /// A port without a cable.
    Null,
    /// No port.
    None,
}

/// `-sandbox` and `-allow-path`.
#[derive(Clone, Debug)]
pub struct Sandbox {
    /// Whether seccomp and Landlock are in force.
    pub on: bool,
    /// Folders that may be opened later, beside the files that were named.
    pub allow: Vec<PathBuf>,
}

/// `-object iothread`.
#[derive(Clone, Debug)]
pub struct IoThread {
    /// Its name.
    pub id: String,
    /// The longest busy wait before sleeping, in ns; `None`: the default.
    pub poll_max_ns: Option<u64>,
}

/// `-blockdev`.
#[derive(Clone, Debug)]
pub struct Blockdev {
    /// The node and those described inside it.
    pub options: block::options::Tree,
    /// How the option is named in messages: `-blockdev #1`.
    pub origin: String,
}

/// `-drive`.
#[derive(Clone, Debug)]
pub struct Drive {
    /// The nodes and what belongs to the disk. It has an id, given or generated, and an index.
    pub config: block::DriveConfig,
    /// How the option is named in messages: `-drive #2`.
    pub origin: String,
}

/// A file that a machine is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named<'a> {
    /// How the option that names it is named in messages.
    pub origin: &'a str,
    /// Its path.
    pub path: &'a Path,
    /// Nothing is written to it.
    pub read_only: bool,
}

impl Config {
    /// The files of kernel, initrd and disks.
    pub fn files(&self) -> Vec<Named<'_>> {
        let boot = |origin, path| Named {
            origin,
            path,
            read_only: true,
        };
        let initrd = self.boot.initrd.as_deref();
        let mut files = vec![boot("-kernel", &*self.boot.kernel)];
        files.extend(initrd.map(|path| boot("-initrd", path)));
        let nodes = self.blockdevs.iter().map(|b| (&*b.origin, &b.options));
        let drives = self.drives.iter().map(|d| (&*d.origin, &d.config.node));
        for (origin, tree) in nodes.chain(drives) {
            images(origin, tree, false, &mut files);
        }
        files
    }
}

/// The files of a block node and of those below it, which are read-only if it is and they do not say.
fn images<'a>(origin: &'a str, node: &'a Tree, read_only: bool, files: &mut Vec<Named<'a>>) {
    let Some(members) = node.as_map() else {
        return;
    };
    let said = members.get("read-only").cloned().map(bool::from_tree);
    let read_only = said.and_then(Result::ok).unwrap_or(read_only);
    if let Some(Tree::Text(path) | Tree::Str(path)) = members.get("filename") {
        files.push(Named {
            origin,
            path: Path::new(path),
            read_only,
        });
    }
    for (_, member) in members.iter() {
        images(origin, member, read_only, files);
    }
}

impl Drive {
    /// Its name.
    pub fn id(&self) -> Option<&str> {
        self.config.id.as_deref()
    }
}

/// A device to be plugged in.
#[derive(Clone, Debug)]
pub struct Device {
    /// Its model and properties.
    pub model: Model,
    /// How the option is named in messages: `-device #1`.
    pub origin: String,
}
