//! `-pidfile`: one running spindle a file, and its process ID in it once the guest is ready.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::error::Error;

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
    /// The file cannot be had, or another process holds it.
    pub fn lock(path: &Path) -> Result<PidFile, Error> {
        let shown = path.display();
        loop {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o644)
                .open(path)
                .map_err(|error| {
                    Error::user(format!("-pidfile: cannot open '{shown}'")).because(error)
                })?;
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
