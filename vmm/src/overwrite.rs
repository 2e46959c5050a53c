//! What spindle writes beside the disks (a log, a pid file) is none of the files that the machine is
//! made of.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use crate::config::{Config, Named, Serial};
use crate::error::Error;
use crate::sandbox::files::folder_of;

/// Checks that before anything is opened: to open may be to make, and what was made is removed when the
/// start fails.
///
/// # Errors
/// The option that would overwrite, and the one whose file it is.
pub fn check(config: &Config) -> Result<(), Error> {
    let mut files = config.files();
    let pidfile = config.pidfile.as_deref();
    if let Some(path) = pidfile {
        refuse("-pidfile", path, &files)?;
    }
    if let Serial::File(path) = &config.serial {
        files.extend(pidfile.map(|path| Named {
            origin: "-pidfile",
            path,
            read_only: false,
        }));
        refuse("-serial", path, &files)?;
    }
    Ok(())
}

fn refuse(option: &str, path: &Path, files: &[Named<'_>]) -> Result<(), Error> {
    let ours = identity(path);
    let is_ours = |file: &&Named<'_>| ours.is_some() && identity(file.path) == ours;
    match files.iter().find(is_ours) {
        None => Ok(()),
        Some(file) => Err(Error::user(format!(
            "{option}: '{}' is the file of {}, too, and would be overwritten; give another path",
            path.display(),
            file.origin
        ))),
    }
}

/// What tells a file from others that have something to lose, whatever it is called.
#[derive(PartialEq)]
enum Identity {
    /// Device and inode.
    File(u64, u64),
    BlockDevice(u64),
    /// Not there yet: device and inode of its folder, and its name.
    New(u64, u64, OsString),
}

fn identity(path: &Path) -> Option<Identity> {
    match fs::metadata(path) {
        Ok(file) if file.is_file() => Some(Identity::File(file.dev(), file.ino())),
        Ok(file) if file.file_type().is_block_device() => Some(Identity::BlockDevice(file.rdev())),
        Ok(_) => None,
        Err(_) => {
            let folder = fs::metadata(folder_of(path)).ok()?;
            let name = path.file_name()?.to_owned();
            Some(Identity::New(folder.dev(), folder.ino(), name))
        }
    }
}
