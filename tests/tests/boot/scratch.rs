//! Places for images on the KVM host.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use tests::guest::Kit;

pub(crate) const MIB: u64 = 1 << 20;

/// A directory in memory that goes away.
pub(crate) fn directory() -> Result<TempDir> {
    tempfile::Builder::new()
        .prefix("spindle.")
        .tempdir_in("/dev/shm")
        .context("/dev/shm")
}

/// A sparse image.
pub(crate) fn image(directory: &Path, name: &str, size: u64) -> Result<PathBuf> {
    let path = directory.join(name);
    File::create_new(&path)?.set_len(size)?;
    Ok(path)
}

/// A sparse image with an empty ext4 on it.
pub(crate) fn ext4(kit: &Kit, directory: &Path, name: &str, size: u64) -> Result<PathBuf> {
    let path = image(directory, name, size)?;
    succeed(kit.mkfs.command().args(["-q", "-F"]).arg(&path))?;
    Ok(path)
}

/// Bytes that a file takes on its file system.
pub(crate) fn allocated(path: &Path) -> Result<u64> {
    Ok(fs::metadata(path)?.blocks() * 512)
}

/// The SHA-256 of a file, as the guest's `sha256sum` prints it.
pub(crate) fn sha256(path: &Path) -> Result<String> {
    let out = succeed(Command::new("sha256sum").arg(path))?;
    Ok(out.split_whitespace().next().unwrap_or_default().to_owned())
}

/// Checks an unmounted ext4: nothing to mend.
pub(crate) fn is_clean(kit: &Kit, image: &Path) -> Result<()> {
    succeed(kit.fsck.command().arg("-fn").arg(image)).map(drop)
}

/// Checks that an unmounted ext4 has nothing to mend, and that `file` on it is what the guest's `sha256sum` saw.
pub(crate) fn holds(kit: &Kit, image: &Path, file: &str, sum: &str) -> Result<()> {
    is_clean(kit, image)?;
    let copy = image.with_extension("copy");
    let request = format!("dump {file} {}", copy.display());
    succeed(kit.debugfs.command().arg("-R").arg(request).arg(image))?;
    let found = sha256(&copy)?;
    fs::remove_file(copy)?;
    ensure!(
        sum.contains(&found),
        "the host finds {found}, the guest wrote {sum}"
    );
    Ok(())
}

/// Runs a command that must succeed: what it printed.
pub(crate) fn succeed(command: &mut Command) -> Result<String> {
    let out = command
        .output()
        .with_context(|| format!("cannot run {command:?}"))?;
    let (text, errors) = (
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr),
    );
    ensure!(
        out.status.success(),
        "{command:?}: {}\n{text}\n{errors}",
        out.status
    );
    Ok(text.into_owned())
}
