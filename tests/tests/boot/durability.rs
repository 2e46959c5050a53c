//! What a guest has made durable stays: after a power-off, after a kill, after the host's power cut.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use tests::guest::Kit;

use super::scratch::{MIB, directory, ext4, holds, succeed};
use super::{Check, DEADLINE, artifact, job, run};

pub(crate) const CHECKS: fn() -> Vec<Check> = || {
    vec![
        Check::new("durability::ext4_survives_power_off", power_off),
        Check::new("durability::ext4_survives_kill_after_fsync", kill),
    ]
};

/// Trials on an emulated host that loses its power: name, cache mode, whether what was fsynced stays.
pub(crate) const POWER_CUTS: [(&str, &str, bool); 2] = [
    (
        "durability::fsynced_blocks_survive_a_power_cut",
        "writeback",
        true,
    ),
    (
        "durability::cache_unsafe_loses_blocks_in_a_power_cut",
        "unsafe",
        false,
    ),
];

const WRITE: &str =
    "mount /dev/vda /mnt && dd if=/dev/urandom of=/mnt/f bs=1M count=64 conv=fsync 2>&1";

fn power_off(kit: &Kit) -> Result<()> {
    let directory = directory()?;
    let disk = ext4(kit, directory.path(), "disk", 256 * MIB)?;
    let mut guest = kit.guest().disk(&disk, "").boot()?;
    guest.run(WRITE)?;
    let sum = guest.run("sha256sum /mnt/f && umount /mnt")?;
    guest.power_off()?;
    holds(kit, &disk, "/f", &sum)
}

fn kill(kit: &Kit) -> Result<()> {
    let directory = directory()?;
    let disk = ext4(kit, directory.path(), "disk", 256 * MIB)?;
    let mut guest = kit.guest().disk(&disk, "").boot()?;
    // The sum is taken before, so that nothing touches the disk between the fsync and the kill.
    let sum = guest.run("dd if=/dev/urandom of=/tmp/f bs=1M count=64 2>&1; sha256sum /tmp/f")?;
    guest.run("mount /dev/vda /mnt && dd if=/tmp/f of=/mnt/f bs=1M conv=fsync 2>&1")?;
    guest.kill()?;
    // A mounted file system was cut off: its journal is replayed first (status 1), as any mount would.
    let mut replay = kit.fsck.command();
    let status = replay.arg("-p").arg(&disk).stdout(Stdio::null()).status()?;
    ensure!(
        matches!(status.code(), Some(0 | 1)),
        "the file system's journal cannot be replayed: {status}"
    );
    holds(kit, &disk, "/f", &sum)
}

/// Checks that run on the emulated host before and after its power cut.
pub(crate) const WRITER: &str = "durability::writer::";
pub(crate) const READER: &str = "durability::reader";

/// Where the emulated host mounts its disk, and the guest's image on it.
const MOUNT: &str = "/run/disk";
const IMAGE: &str = "image";
const BLOCK: u64 = 4096;
const BLOCKS: u64 = 4096;
/// How many acknowledged blocks make the cut worth it.
const ENOUGH: u64 = 60;

/// Cuts the emulated host's power while a guest writes to an image on that host's own disk, boots it again from the
/// same disk, and counts what is there.
pub(crate) fn power_cut(name: &str, kit: &Kit, cache: &str, survives: bool) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let disk = directory.path().join("disk");
    File::create_new(&disk)?.set_len(256 * MIB)?;
    let content = directory.path().join("content");
    fs::create_dir(&content)?;
    // Allocated throughout, so that nothing but the blocks themselves has to reach the disk.
    fs::write(
        content.join(IMAGE),
        vec![0xff; usize::try_from(BLOCKS * BLOCK)?],
    )?;
    succeed(
        kit.mkfs
            .command()
            .args(["-q", "-F", "-d"])
            .arg(&content)
            .arg(&disk),
    )?;

    let mut writer = job(&format!("{WRITER}{cache}"), kit)?;
    (writer.emulate, writer.disks) = (true, vec![disk.clone()]);
    let mut running = writer.start()?;
    let mut output = BufReader::new(running.stdout.take().context("no output")?);
    let mut log = Vec::new();
    let mut acknowledged = None;
    let deadline = Instant::now() + DEADLINE;
    let cut = loop {
        let start = log.len();
        if output.read_until(b'\n', &mut log)? == 0 || Instant::now() > deadline {
            break false;
        }
        let line = String::from_utf8_lossy(&log[start..]).into_owned();
        if let Some(block) = line
            .trim()
            .strip_prefix("@written ")
            .and_then(|block| block.parse::<u64>().ok())
        {
            acknowledged = Some(block);
            if block >= ENOUGH {
                break true;
            }
        }
    };
    running.kill();
    let messages = running.kernel_messages();
    drop(running);
    if !cut {
        let path = artifact(name)?;
        fs::write(&path, [&log[..], messages.as_bytes()].concat())?;
        anyhow::bail!(
            "the guest wrote only up to {acknowledged:?}; its serial log: {}",
            path.display()
        );
    }

    let mut reader = job(READER, kit)?;
    (reader.emulate, reader.disks) = (true, vec![disk]);
    let found = run(name, &reader, DEADLINE)?;
    let found: u64 = found
        .trim()
        .parse()
        .with_context(|| format!("not a count: {found}"))?;
    let written = acknowledged.unwrap_or(0) + 1;
    if survives {
        ensure!(
            found >= written,
            "{written} blocks were fsynced, {found} are there after the power cut"
        );
    } else {
        ensure!(
            found < written,
            "all {written} blocks are there: this test could not find a lost one"
        );
    }
    Ok(())
}

fn mount() -> Result<()> {
    fs::create_dir_all(MOUNT)?;
    // Nothing is written back in the background: what reaches the disk was flushed to it.
    fs::write("/proc/sys/vm/dirty_writeback_centisecs", "0")?;
    succeed(Command::new("mount").args(["-t", "ext4", "-o", "commit=3600", "/dev/vda", MOUNT]))
        .map(drop)
}

/// Before the cut: a guest writes and fsyncs numbered blocks and says each number, for as long as there is power.
pub(crate) fn write_until_killed(kit: &Kit, cache: &str) -> Result<()> {
    mount()?;
    let mut guest = kit
        .guest()
        .disk(&Path::new(MOUNT).join(IMAGE), &format!(",cache={cache}"))
        .boot()?;
    let write = "echo block $i | dd of=/dev/vda bs=4096 count=1 seek=$i conv=sync,notrunc,fsync 2> /dev/null";
    guest.send(&format!(
        "i=0; while [ $i -lt {BLOCKS} ] && {write}; do echo @written $i; i=$((i+1)); done"
    ))?;
    guest.until("@status").map(drop)
}

/// After the cut: prints how many blocks from the first on hold what the guest wrote.
pub(crate) fn count_blocks() -> Result<()> {
    mount()?;
    let image = fs::read(Path::new(MOUNT).join(IMAGE))?;
    let blocks = image.chunks(usize::try_from(BLOCK)?).enumerate();
    let there = blocks
        .take_while(|(index, block)| block.starts_with(format!("block {index}\n").as_bytes()));
    writeln!(std::io::stdout(), "{}", there.count())?;
    Ok(())
}
