//! `-pidfile`: one running spindle a file, and its process ID in it once the guest is ready.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::error::Error;

/// The longest process ID and its end of line, with room for blanks.
const PID_MAX: u64 = 16;

/// A locked file, removed when this is dropped.
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
    file: File,
}

impl PidFile {
    /// Makes and locks the file; what is in it stays until [`PidFile::write`].
    ///
    /// # Errors
    /// The file cannot be had, another process holds it, or it is anything but a pid file: it would be
    /// overwritten, and removed at the end.
    pub fn lock(path: &Path) -> Result<PidFile, Error> {
        let shown = path.display();
        let failed = |error| Error::user(format!("-pidfile: cannot open '{shown}'")).because(error);
        loop {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o644)
                // Nobody need be at the other end of a pipe.
                .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
                .open(path)
                .map_err(failed)?;
            if !file.metadata().map_err(failed)?.is_file() {
                let what = format!("-pidfile: '{shown}' is no regular file; give another path");
                return Err(Error::user(what));
            }
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    return Err(Error::user(format!(
                        "-pidfile: '{shown}' is held by a running process; give another path"
                    )));
                }
                Err(error) => {
                    let what = format!("-pidfile: cannot lock '{shown}'");
                    return Err(Error::user(what).because(io::Error::from(error)));
                }
            }
            if !is_pid(&file).map_err(failed)? {
                return Err(Error::user(format!(
                    "-pidfile: '{shown}' has something else in it than a process ID; give another path"
                )));
            }
            let locked = PidFile {
                path: path.to_owned(),
                file,
            };
            // Its holder may have removed it before we had the lock.
            if locked.is_there() {
                return Ok(locked);
            }
        }
    }

    /// Writes the process ID.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&mut self) -> Result<(), Error> {
        let line = format!("{}\n", std::process::id());
        self.file
            .set_len(0)
            .and_then(|()| self.file.write_all(line.as_bytes()))
            .map_err(|error| {
                let shown = self.path.display();
                Error::user(format!("-pidfile: cannot write '{shown}'")).because(error)
            })
    }

    fn is_there(&self) -> bool {
        let identity = |file: std::fs::Metadata| (file.dev(), file.ino());
        match (self.file.metadata(), std::fs::symlink_metadata(&self.path)) {
            (Ok(ours), Ok(named)) => {
                // A symbolic link is followed by who opens it.
                named.is_symlink() || identity(ours) == identity(named)
            }
            _ => false,
        }
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if self.is_there() {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Whether a file is empty or has a process ID in it.
fn is_pid(mut file: &File) -> io::Result<bool> {
    let mut content = Vec::new();
    file.take(PID_MAX + 1).read_to_end(&mut content)?;
    file.rewind()?;
    let is_short = content.len() as u64 <= PID_MAX;
    Ok(is_short
        && content
            .iter()
            .all(|b| b.is_ascii_digit() || b.is_ascii_whitespace()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holder_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pid");
        let mut first = PidFile::lock(&path).unwrap();
        let error = PidFile::lock(&path).unwrap_err().to_string();
        assert!(error.contains("held by a running process"), "{error}");
        first.write().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.trim(), std::process::id().to_string());
        drop(first);
        assert!(!path.exists());
        drop(PidFile::lock(&path).unwrap());
    }

    #[test]
    fn what_is_no_pid_file_stays() {
        let folder = tempfile::tempdir().unwrap();
        let refused = |path: &Path, reason: &str| {
            let error = PidFile::lock(path).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        };
        // As root this device would be gone at the end.
        refused(Path::new("/dev/null"), "is no regular file");
        let pipe = folder.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR).unwrap();
        refused(&pipe, "is no regular file");
        assert!(pipe.exists());
        let image = folder.path().join("disk.img");
        for data in [&b"data"[..], &[0; 4096], b"1234567890123456789"] {
            std::fs::write(&image, data).unwrap();
            refused(&image, "something else in it than a process ID");
            assert_eq!(std::fs::read(&image).unwrap(), data);
        }
        let left = folder.path().join("left");
        std::fs::write(&left, "4711\n").unwrap();
        let mut ours = PidFile::lock(&left).unwrap();
        ours.write().unwrap();
        let text = std::fs::read_to_string(&left).unwrap();
        assert_eq!(text, format!("{}\n", std::process::id()));
    }

    #[test]
    fn a_file_that_took_its_place_is_not_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pid");
        let first = PidFile::lock(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "other").unwrap();
        drop(first);
        assert!(path.exists());
    }
}
