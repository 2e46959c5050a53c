//! `cache=` does what it says, seen from outside: the system calls that reach the image.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use tests::guest::Kit;

use super::Check;
use super::scratch::{MIB, directory, ext4, image, succeed};

pub(crate) const CHECKS: fn() -> Vec<Check> = || {
    let check = |name, run| Check::new(name, run).program("strace", "strace");
    vec![
        check("cache::writeback_flushes_when_asked", |kit| {
            mode(kit, "writeback", false, true)
        }),
        check("cache::none_bypasses_the_page_cache_and_flushes", |kit| {
            mode(kit, "none", true, true)
        }),
        check("cache::writethrough_syncs_each_write", |kit| {
            mode(kit, "writethrough", false, true)
        }),
        check("cache::directsync_bypasses_and_syncs", |kit| {
            mode(kit, "directsync", true, true)
        }),
        check("cache::unsafe_never_flushes", |kit| {
            mode(kit, "unsafe", false, false)
        }),
    ]
};

fn mode(kit: &Kit, cache: &str, direct: bool, flushes: bool) -> Result<()> {
    let place = Place::new(kit)?;
    let disk = image(place.path(), "disk", 16 * MIB)?;
    let log = tempfile::NamedTempFile::new_in("/dev/shm")?;
    let mut config = kit
        .guest()
        .disk(&disk, &format!(",cache={cache},aio=threads"));
    let trace = "openat,openat2,fsync,fdatasync,sync_file_range,pwrite64,pwritev,pwritev2";
    let strace = [
        "strace",
        "-f",
        "-y",
        "-e",
        trace,
        "-o",
        &log.path().display().to_string(),
    ]
    .map(str::to_owned);
    config.command.splice(0..0, strace);
    let mut guest = config.boot()?;

    // One write without a flush, then the same with one.
    let before = Calls::read(log.path(), &disk)?;
    guest.run("dd if=/dev/zero of=/dev/vda bs=4096 count=1 oflag=direct 2>&1")?;
    let written = Calls::read(log.path(), &disk)?;
    guest.run("dd if=/dev/zero of=/dev/vda bs=4096 seek=8 count=1 oflag=direct conv=fsync 2>&1")?;
    let flushed = Calls::read(log.path(), &disk)?;
    guest.power_off()?;

    ensure!(
        written.direct == direct,
        "opened with O_DIRECT: {}",
        written.direct
    );
    let through = matches!(cache, "writethrough" | "directsync");
    let synced = written.syncs > before.syncs || written.dsync > before.dsync;
    ensure!(
        synced == through,
        "a plain write was synced: {synced} ({before:?}, then {written:?})"
    );
    let synced = flushed.syncs > written.syncs || flushed.dsync > written.dsync;
    ensure!(
        synced == flushes,
        "a write with fsync was synced: {synced} ({written:?}, then {flushed:?})"
    );
    Ok(())
}

/// What was done to the image so far.
#[derive(Debug)]
struct Calls {
    direct: bool,
    syncs: usize,
    dsync: usize,
}

impl Calls {
    fn read(log: &Path, disk: &Path) -> Result<Self> {
        let text = fs::read_to_string(log)?;
        let name = disk.to_str().context("a path that is no text")?;
        let lines: Vec<_> = text.lines().filter(|line| line.contains(name)).collect();
        let count = |test: &dyn Fn(&&&str) -> bool| lines.iter().filter(test).count();
        Ok(Self {
            direct: count(&|line| line.contains("open") && line.contains("O_DIRECT")) > 0,
            syncs: count(&|line| line.contains("fsync(") || line.contains("fdatasync(")),
            dsync: count(&|line| line.contains("pwrite") && line.contains("RWF_DSYNC")),
        })
    }
}

/// A directory on a file system that knows O_DIRECT: memory does not on older kernels, nor does 9p.
struct Place {
    directory: TempDir,
    mounted: bool,
}

impl Place {
    fn new(kit: &Kit) -> Result<Self> {
        let here = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        let mut probe = Command::new("dd");
        probe.args(["if=/dev/zero", "bs=4096", "count=1", "oflag=direct"]);
        probe.arg(format!("of={}", here.path().join("probe").display()));
        if succeed(&mut probe).is_ok() {
            return Ok(Self {
                directory: here,
                mounted: false,
            });
        }
        let directory = directory()?;
        let image = ext4(
            kit,
            Path::new("/dev/shm"),
            &format!("{}.ext4", std::process::id()),
            64 * MIB,
        )?;
        let mount = succeed(
            Command::new("mount")
                .args(["-o", "loop"])
                .arg(&image)
                .arg(directory.path()),
        );
        // The mount keeps it.
        fs::remove_file(image)?;
        mount?;
        Ok(Self {
            directory,
            mounted: true,
        })
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.mounted {
            let _ = succeed(Command::new("umount").arg(self.path()));
        }
    }
}
