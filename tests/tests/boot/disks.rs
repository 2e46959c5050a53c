//! Disks: how many, how large, and what may be done to them.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tests::guest::{Config, Kit};

use super::Check;
use super::scratch::{MIB, allocated, directory, ext4, holds, image, is_clean, sha256, succeed};

pub(crate) const CHECKS: fn() -> Vec<Check> = || {
    vec![
        Check::new("disks::eight", eight),
        Check::new("disks::read_only_refuses_writes", read_only),
        Check::new("disks::fstrim_punches_holes", fstrim),
        Check::new("disks::two_io_threads_with_four_queues", two_io_threads),
        Check::new("disks::one_tib_sparse", one_tib),
        Check::new("disks::host_device", host_device).host_disk(16 * MIB),
        Check::new("disks::reset_with_requests_in_flight", reset_in_flight),
        Check::new("disks::one_that_hangs_is_named_and_left", hanging)
            .program("fsfreeze", "util-linux")
            .host_disk(64 * MIB),
        Check::new("disks::io_without_io_uring", without_io_uring).program("strace", "strace"),
    ]
};

fn eight(kit: &Kit) -> Result<()> {
    let directory = directory()?;
    let mut config = kit.guest();
    for index in 0..8 {
        let path = image(directory.path(), &format!("disk{index}"), (index + 1) * MIB)?;
        fs::write(&path, format!("this is disk {index}\n"))?;
        OpenOptions::new()
            .write(true)
            .open(&path)?
            .set_len((index + 1) * MIB)?;
        config = config.disk(&path, &format!(",serial=SERIAL{index}"));
    }
    let mut guest = config.boot()?;
    let list = guest.run("lsblk -bdno NAME,SIZE")?;
    for (index, name) in ('a'..='h').enumerate() {
        let line = list
            .lines()
            .find(|line| line.starts_with(&format!("vd{name} ")));
        let line = line.with_context(|| format!("no vd{name}:\n{list}"))?;
        let size = ((index as u64 + 1) * MIB).to_string();
        ensure!(
            line.ends_with(&format!(" {size}")),
            "{line:?} instead of {size} bytes"
        );
        let serial = guest.run(&format!("cat /sys/block/vd{name}/serial"))?;
        ensure!(
            serial == format!("SERIAL{index}"),
            "vd{name} has the serial number {serial}"
        );
        let text = guest.run(&format!("head -n 1 /dev/vd{name}"))?;
        ensure!(text == format!("this is disk {index}"), "vd{name}: {text}");
    }
    guest.power_off()
}

fn read_only(kit: &Kit) -> Result<()> {
    let directory = directory()?;
    let disk = ext4(kit, directory.path(), "disk", 16 * MIB)?;
    let before = sha256(&disk)?;
    let mut guest = kit.guest().disk(&disk, ",readonly=on").boot()?;
    ensure!(
        guest.run("blockdev --getro /dev/vda")? == "1",
        "the guest takes the disk for writable"
    );
    let (status, said) =
        guest.attempt("dd if=/dev/zero of=/dev/vda bs=4k count=1 conv=fsync 2>&1")?;
    ensure!(status != 0, "a write succeeded");
    let refused = [
        "Read-only file system",
        "Operation not permitted",
        "I/O error",
        "Input/output error",
    ];
    ensure!(
        refused.iter().any(|error| said.contains(error)),
        "refused by {said}"
    );
    guest.run("mount -o ro /dev/vda /mnt && ls /mnt/lost+found && umount /mnt")?;
    guest.power_off()?;
    ensure!(sha256(&disk)? == before, "the image has changed");
    Ok(())
}

fn fstrim(kit: &Kit) -> Result<()> {
    let directory = directory()?;
    let disk = ext4(kit, directory.path(), "disk", 128 * MIB)?;
    let mut guest = kit.guest().disk(&disk, ",discard=unmap").boot()?;
    guest.run(
        "mount /dev/vda /mnt && dd if=/dev/urandom of=/mnt/f bs=1M count=64 conv=fsync 2>&1",
    )?;
    let full = allocated(&disk)?;
    ensure!(
        full >= 64 * MIB,
        "only {full} bytes are there after 64 MiB were written"
    );
    guest.run("rm /mnt/f && sync && fstrim -v /mnt && umount /mnt")?;
    let trimmed = allocated(&disk)?;
    ensure!(
        trimmed + 60 * MIB < full,
        "{full} bytes before fstrim, {trimmed} after"
    );
    guest.power_off()?;
    is_clean(kit, &disk)
}

fn two_io_threads(kit: &Kit) -> Result<()> {
    let directory = directory()?;
    let disk = ext4(kit, directory.path(), "disk", 64 * MIB)?;
    let mapping = r#"{"driver":"virtio-blk-pci","drive":"d","num-queues":4,"iothread-vq-mapping":[{"iothread":"a"},{"iothread":"b"}]}"#;
    let mut config = Config {
        cpus: 4,
        ..kit.guest()
    };
    config = config.with(&format!(
        "-drive file={},format=raw,if=none,id=d",
        disk.display()
    ));
    config = config
        .with("-object iothread,id=a -object iothread,id=b -device")
        .with(mapping);
    let mut guest = config.boot()?;
    let queues = guest.run("ls /sys/block/vda/mq | wc -l")?;
    ensure!(queues == "4", "{queues} queues instead of 4");
    // A file from each processor, so through each queue, at the same time.
    guest.run("mount /dev/vda /mnt && dd if=/dev/urandom of=/tmp/f bs=1M count=4 2>&1")?;
    let each = "for c in 1 2 4 8; do taskset $c";
    guest.run(&format!(
        "{each} dd if=/tmp/f of=/mnt/$c bs=64k conv=fsync 2>&1 & done; wait"
    ))?;
    guest.run("umount /mnt && mount /dev/vda /mnt")?;
    guest.run(&format!(
        "{each} cmp /tmp/f /mnt/$c || echo differs > /tmp/bad & done; wait; [ ! -e /tmp/bad ]"
    ))?;
    guest.run("umount /mnt")?;
    guest.power_off()?;
    is_clean(kit, &disk)
}

fn one_tib(kit: &Kit) -> Result<()> {
    const TIB: u64 = 1 << 40;
    let directory = directory()?;
    let disk = image(directory.path(), "disk", TIB)?;
    let mut guest = kit.guest().disk(&disk, "").boot()?;
    let size = guest.run("blockdev --getsize64 /dev/vda")?;
    ensure!(size == TIB.to_string(), "{size} bytes instead of {TIB}");
    let last = TIB / 4096 - 1;
    guest.run(&format!(
        "yes last | head -c 4096 | dd of=/dev/vda bs=4096 seek={last} conv=fsync,notrunc 2>&1"
    ))?;
    guest.power_off()?;
    let mut found = [0; 10];
    fs::File::open(&disk)?.read_exact_at(&mut found, last * 4096)?;
    ensure!(found == *b"last\nlast\n", "the last block holds {found:?}");
    ensure!(allocated(&disk)? < MIB, "the image is sparse no more");
    Ok(())
}

/// A disk of the host: discards and zeroes reach it as such, the rest of it stays.
fn host_device(kit: &Kit) -> Result<()> {
    let device = Path::new("/dev/vda");
    fs::write(device, vec![7; 16 << 20])?;
    let options = ",cache=none,discard=unmap";
    let mut guest = kit.guest().disk(device, options).boot()?;
    let size = guest.run("blockdev --getsize64 /dev/vda")?;
    ensure!(
        size == (16 * MIB).to_string(),
        "{size} bytes instead of 16 MiB"
    );
    guest.run(
        "tr '\\0' x < /dev/zero | dd of=/dev/vda bs=4k count=1 seek=256 conv=notrunc,fsync 2>&1",
    )?;
    guest.run("/usr/bin/blkdiscard --zeroout --offset 4MiB --length 1MiB /dev/vda")?;
    guest.run("/usr/bin/blkdiscard --offset 8MiB --length 1MiB /dev/vda")?;
    guest.power_off()?;

    let content = fs::read(device)?;
    let (chunks, _) = content.as_chunks::<4096>();
    let discarded = |index: usize| (2048..2304).contains(&index);
    for (index, chunk) in chunks
        .iter()
        .enumerate()
        .filter(|(index, _)| !discarded(*index))
    {
        let expected = match index {
            256 => b'x',
            1024..1280 => 0,
            _ => 7,
        };
        ensure!(
            *chunk == [expected; 4096],
            "block {index} is not all {expected}"
        );
    }
    // The twelfth number is that of discards (Documentation/block/stat.rst).
    let stat = fs::read_to_string("/sys/block/vda/stat")?;
    let discards = stat
        .split_whitespace()
        .nth(11)
        .context("no count of discards")?;
    ensure!(discards != "0", "no discard reached the host's disk");
    Ok(())
}

/// Resets the guest while it writes to one disk, and while reads of a slow one are on their way.
fn reset_in_flight(kit: &Kit) -> Result<()> {
    let directory = directory()?;
    let disk = image(directory.path(), "disk", 64 * MIB)?;
    let config = Config {
        cpus: 2,
        ..kit.guest()
    };
    let mut guest = config
        .disk(&disk, "")
        .with("-blockdev driver=null-co,node-name=slow,read-zeroes=on,latency-ns=300000000")
        .with("-device virtio-blk-pci,drive=slow")
        .boot()?;
    for round in 0..3 {
        guest.run(&format!(
            "echo round {round} | dd of=/dev/vda conv=fsync,sync 2>&1"
        ))?;
        guest.run(
            "for i in 1 2 3 4; do \
               dd if=/dev/vdb of=/dev/null bs=64k iflag=direct 2>/dev/null & \
               (while dd if=/dev/urandom of=/dev/vda bs=64k count=64 seek=$((i * 128)) oflag=direct 2>/dev/null; do :; done) & \
             done; sleep 0.5",
        )?;
        let busy = guest.run("cat /sys/block/vdb/inflight")?;
        let reading: u32 = busy
            .split_whitespace()
            .next()
            .and_then(|count| count.parse().ok())
            .context("no count of reads in flight")?;
        ensure!(reading > 0, "nothing is in flight: {busy}");
        guest.send("echo b > /proc/sysrq-trigger")?;
        guest.ready()?;
        let text = guest.run("head -n 1 /dev/vda")?;
        ensure!(text == format!("round {round}"), "the disk says {text:?}");
        guest.run("dd if=/dev/vdb of=/dev/null bs=64k count=1 iflag=direct 2>&1")?;
    }
    guest.power_off()
}

/// Ends spindle while the file system of its image takes nothing: frozen, as a dead NFS server or array is.
fn hanging(kit: &Kit) -> Result<()> {
    let directory = directory()?;
    let (place, messages) = (
        directory.path(),
        directory.path().with_extension("messages"),
    );
    succeed(kit.mkfs.command().args(["-q", "/dev/vda"]))?;
    succeed(Command::new("mount").arg("/dev/vda").arg(place))?;
    let frozen = |how| succeed(Command::new("fsfreeze").arg(how).arg(place)).map(drop);
    let disk = image(place, "disk", 16 * MIB)?;
    let mut config = kit.guest().disk(&disk, ",id=d0");
    let redirect = format!("exec \"$0\" \"$@\" 2>{}", messages.display());
    config
        .command
        .splice(0..0, ["sh".into(), "-c".into(), redirect]);
    let mut guest = config.boot()?;
    frozen("--freeze")?;
    guest.send("dd if=/dev/zero of=/dev/vda bs=4k count=1 oflag=direct conv=fsync")?;
    thread::sleep(Duration::from_secs(2));
    succeed(Command::new("kill").arg(guest.id().to_string()))?;
    let asked = Instant::now();
    let said = loop {
        let said = fs::read_to_string(&messages)?;
        if said.contains('\n') || asked.elapsed() > Duration::from_secs(40) {
            break said;
        }
        thread::sleep(Duration::from_millis(100));
    };
    // Before the process can go, what the kernel does for it must end.
    frozen("--unfreeze")?;
    let status = guest.wait()?;
    fs::remove_file(&messages)?;
    succeed(Command::new("umount").arg(place))?;
    ensure!(
        said.lines().count() == 1
            && said.contains("not at rest after 10 s: requests of virtio-blk-pci over d0"),
        "spindle said {said:?}"
    );
    ensure!(status == 2, "spindle ended with {status}");
    Ok(())
}

/// As in a container whose system call filter refuses io_uring.
fn without_io_uring(kit: &Kit) -> Result<()> {
    let directory = directory()?;
    let disk = ext4(kit, directory.path(), "disk", 128 * MIB)?;
    let log = directory.path().join("calls");
    let mut config = kit.guest().disk(&disk, ",discard=unmap");
    let strace = [
        "strace",
        "-f",
        "--seccomp-bpf",
        "-e",
        "inject=io_uring_setup:error=EPERM",
        "-e",
        "trace=io_uring_setup",
        "-o",
        &log.display().to_string(),
    ]
    .map(str::to_owned);
    config.command.splice(0..0, strace);
    let mut guest = config.boot()?;
    guest.run(
        "mount /dev/vda /mnt && dd if=/dev/urandom of=/mnt/f bs=1M count=16 conv=fsync 2>&1 && fstrim /mnt",
    )?;
    guest.run("echo 3 > /proc/sys/vm/drop_caches")?;
    let sum = guest.run("sha256sum /mnt/f && umount /mnt")?;
    guest.power_off()?;
    let calls = fs::read_to_string(&log)?;
    ensure!(
        calls.contains("INJECTED") && !calls.contains("= 0"),
        "io_uring was not refused: {calls}"
    );
    holds(kit, &disk, "/f", &sum)
}
