//! The user's cache directory: made once, found by every later run.
//!
//! An entry is a directory `KIND/KEY` that is either whole or absent: it is filled under another name and renamed.
//! Processes that want the same entry wait for the one that makes it (an advisory lock on `KIND/KEY.lock`, the only
//! lock held while making; entries may nest as long as kinds do not form a cycle).

use std::fs::{self, File, FileTimes};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use std::{env, io};

use anyhow::{Context, Result};

/// How long an entry stays after its last use.
const KEEP: Duration = Duration::from_secs(14 * 24 * 3600);

/// `$XDG_CACHE_HOME/spindle`, or `~/.cache/spindle`.
pub fn dir() -> Result<PathBuf> {
    let base = match env::var_os("XDG_CACHE_HOME").filter(|value| Path::new(value).is_absolute()) {
        Some(path) => PathBuf::from(path),
        None => env::home_dir()
            .context("no cache directory: set HOME or XDG_CACHE_HOME")?
            .join(".cache"),
    };
    Ok(base.join("spindle"))
}

/// A short name for what an entry depends on.
pub fn key(parts: &(impl Hash + ?Sized)) -> String {
    let mut hasher = DefaultHasher::new();
    parts.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// What tells two states of a file apart: its name, size and time of change.
pub fn stamp(path: &Path) -> Result<impl Hash + use<>> {
    let meta = fs::metadata(path).with_context(|| path.display().to_string())?;
    Ok((path.to_owned(), meta.len(), meta.modified()?))
}

/// The directory `kind/key` of the user's cache, filled by `make` if it is not there yet.
pub fn entry(kind: &str, key: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    entry_in(&dir()?, kind, key, make)
}

fn entry_in(
    root: &Path,
    kind: &str,
    key: &str,
    make: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let kind = root.join(kind);
    let path = kind.join(key);
    if touch(&path) {
        return Ok(path);
    }
    fs::create_dir_all(&kind).with_context(|| format!("cannot create {}", kind.display()))?;
    let lock = kind.join(format!("{key}.lock"));
    let lock = File::create(&lock).with_context(|| format!("cannot create {}", lock.display()))?;
    lock.lock()?;
    if touch(&path) {
        return Ok(path);
    }
    let partial = kind.join(format!("{key}.partial"));
    remove(&partial)?;
    fs::create_dir(&partial)?;
    make(&partial)?;
    fs::rename(&partial, &path)?;
    prune(&kind);
    Ok(path)
}

/// Marks an entry as used; false if there is none.
fn touch(path: &Path) -> bool {
    let Ok(entry) = File::open(path) else {
        return false;
    };
    // A cache that cannot be written (another user's, a read-only mount) still serves.
    let _ = entry.set_times(FileTimes::new().set_modified(SystemTime::now()));
    true
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Removes the entries of `kind` that nobody has used for a while. Lock files stay: another process may hold one.
fn prune(kind: &Path) {
    let Ok(entries) = fs::read_dir(kind) else {
        return;
    };
    for entry in entries.flatten() {
        let stale = entry.metadata().is_ok_and(|meta| {
            meta.is_dir()
                && meta
                    .modified()
                    .is_ok_and(|at| at.elapsed().is_ok_and(|age| age > KEEP))
        });
        if stale {
            let _ = remove(&entry.path());
        }
    }
}

#[cfg(test)]
mod tests;
