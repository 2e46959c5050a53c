//! Landlock: which files can be opened by name, whoever asks.
//!
//! What the command line names and what spindle itself reads of the host, nothing else, and nothing
//! can be executed. Rules hold on the file and not on its name: a path is resolved here, once.
//! Kernels differ in what they can forbid; what one lacks (5.13 the first, 6.1 no truncation rule,
//! 6.7 TCP, 6.12 signals and abstract sockets) is left out.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, PathBeneath, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetStatus, Scope, make_bitflags,
};

use crate::config::{Config, Serial};
use crate::error::Error;

/// The newest interface this file was written for.
const KNOWN: ABI = ABI::V6;

/// What may be done with a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read a file, or what is below a folder.
    Read,
    /// Read and write a file, or call a device.
    Write,
    /// Anything but execute, on all that is below a folder.
    Folder,
    /// Remove files from a folder.
    Remove,
}

/// A path and what may be done with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The path, as it was named.
    pub path: PathBuf,
    /// What may be done with it.
    pub access: Access,
}

/// What spindle reads of the host, whatever the command line says.
const ALWAYS: &[(&str, Access)] = &[
    ("/dev/kvm", Access::Write),
    ("/dev/null", Access::Write),
    ("/dev/urandom", Access::Read),
    // What block devices are like.
    ("/sys/block", Access::Read),
    ("/sys/dev/block", Access::Read),
    ("/sys/devices", Access::Read),
    // What KVM can do.
    ("/sys/module", Access::Read),
    ("/proc/cpuinfo", Access::Read),
    ("/proc/meminfo", Access::Read),
    ("/proc/sys/kernel", Access::Read),
];

/// What a machine of `config` opens.
pub fn of(config: &Config) -> Vec<Grant> {
    let grant = |path: &Path, access| Grant {
        path: path.to_owned(),
        access,
    };
    let mut grants: Vec<Grant> = ALWAYS
        .iter()
        .map(|(path, access)| grant(Path::new(path), *access))
        .collect();
    grants.extend(config.files().iter().map(|file| {
        let access = match file.read_only {
            true => Access::Read,
            false => Access::Write,
        };
        grant(file.path, access)
    }));
    grants.extend(
        config
            .sandbox
            .allow
            .iter()
            .map(|p| grant(p, Access::Folder)),
    );
    // Both were made before, and are taken away at the end (a log only if no guest starts).
    let ours = match &config.serial {
        Serial::Unix { path, .. } | Serial::File(path) => Some(path),
        _ => None,
    };
    for path in ours.into_iter().chain(&config.pidfile) {
        grants.push(grant(folder_of(path), Access::Remove));
    }
    grants
}

/// Restricts the calling thread, and those it makes, to `grants`.
///
/// # Errors
/// A folder of `-allow-path` that cannot be opened. Any other path may be missing: opening it fails
/// later, and says more.
pub fn restrict(grants: &[Grant]) -> Result<(), Error> {
    let failed = |error: landlock::RulesetError| {
        Error::user("-sandbox: Landlock refuses; -sandbox off runs without").because(error)
    };
    let mut rules = Ruleset::default()
        .handle_access(AccessFs::from_all(KNOWN))
        .and_then(|rules| rules.handle_access(AccessNet::from_all(KNOWN)))
        .and_then(|rules| rules.scope(Scope::from_all(KNOWN)))
        .and_then(Ruleset::create)
        .map_err(failed)?;
    for Grant { path, access } in grants {
        let file = match open(path) {
            Ok(file) => file,
            Err(error) if *access == Access::Folder => {
                let path = path.display();
                return Err(
                    Error::user(format!("-allow-path: cannot open '{path}'")).because(error)
                );
            }
            Err(_) => continue,
        };
        let is_dir = file.metadata().is_ok_and(|m| m.is_dir());
        let rule = PathBeneath::new(file, rights(*access, is_dir));
        rules = rules.add_rule(rule).map_err(failed)?;
    }
    let status = rules.restrict_self().map_err(failed)?;
    if status.ruleset == RulesetStatus::NotEnforced {
        tracing::warn!("-sandbox: this kernel has no Landlock: files are not restricted");
    }
    Ok(())
}

fn rights(access: Access, is_dir: bool) -> BitFlags<AccessFs> {
    let write = make_bitflags!(AccessFs::{ReadFile | WriteFile | Truncate | IoctlDev});
    match (access, is_dir) {
        (Access::Read, false) => AccessFs::ReadFile.into(),
        (Access::Read, true) => AccessFs::ReadFile | AccessFs::ReadDir,
        (Access::Write, _) | (Access::Folder, false) => write,
        (Access::Folder, true) => AccessFs::from_all(KNOWN) & !BitFlags::from(AccessFs::Execute),
        (Access::Remove, _) => AccessFs::RemoveFile.into(),
    }
}

/// A name for the file that gives no access to it.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_CLOEXEC)
        .open(path)
}

/// The folder that a path's last name is in.
pub fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
