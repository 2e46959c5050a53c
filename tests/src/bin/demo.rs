//! `cargo demo`: a Debian or Ubuntu kernel with a disk, booted by spindle, from nothing but this source tree.

use std::fs;
use std::io::{IsTerminal, stdin};
use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tests::host::{self, Ended, Job};
use tests::initramfs::Contents;
use tests::{kernel, programs, progress, spindle};

const CONTENTS: Contents<'_> = Contents {
    init: include_str!("../../../resources/guest/demo-init"),
    modules: &["virtio_pci", "virtio_blk", "ext4"],
    programs: &[("lsblk", "util-linux")],
};
const DISK: u64 = 64 << 20;
/// How long the guest may take where nobody sits at it.
const DEADLINE: Duration = Duration::from_secs(120);

fn main() -> ExitCode {
    match run() {
        Ok(0) => ExitCode::SUCCESS,
        Ok(status) => {
            progress::say(&format!("spindle ended with status {status}"));
            ExitCode::FAILURE
        }
        Err(error) => {
            progress::say(&format!("demo: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<i32> {
    let spindle = spindle::path()?;
    if let Some(why) = host::why_emulated() {
        progress::say(&why);
    }
    host::prepare()?;
    let kernel = kernel::find()?;
    let initrd = progress::step("making the guest's initramfs", || CONTENTS.build(&kernel))?;
    let directory = tempfile::Builder::new().prefix("spindle-demo.").tempdir()?;
    let disk = directory.path().join("disk.img");
    make_disk(&disk)?;

    let shell = stdin().is_terminal();
    let append = if shell {
        "console=ttyS0 quiet demo.shell"
    } else {
        "console=ttyS0 quiet"
    };
    let drive = format!("file={},format=raw,if=virtio", disk.display());
    let words = [
        &spindle.display().to_string(),
        "-kernel",
        &kernel.vmlinux.display().to_string(),
        "-initrd",
        &initrd.display().to_string(),
        "-append",
        append,
        "-m",
        "1G",
        "-smp",
        "2",
        "-drive",
        &drive,
        "-nographic",
    ];
    let shown: Vec<_> = words
        .iter()
        .map(|word| {
            if word.contains(' ') {
                format!("\"{word}\"")
            } else {
                (*word).into()
            }
        })
        .collect();
    progress::say(&shown.join(" "));

    let mut job = Job::new(words.map(str::to_owned).into());
    job.work = Some(directory.path().to_owned());
    let deadline = if shell {
        None
    } else {
        Some(Instant::now() + DEADLINE)
    };
    match host::run_attached(&job, deadline)? {
        Ended::Status(status) => Ok(status),
        Ended::Late => anyhow::bail!(
            "the guest did not power off within {} s",
            DEADLINE.as_secs()
        ),
    }
}

/// A small ext4 with a file to read.
fn make_disk(disk: &Path) -> Result<()> {
    let content = tempfile::tempdir()?;
    fs::write(
        content.path().join("hello.txt"),
        "Hello from a disk image, through spindle's virtio-blk.\n",
    )?;
    fs::File::create_new(disk)?.set_len(DISK)?;
    let mut mkfs = programs::find("mkfs.ext4", "e2fsprogs")?.command();
    mkfs.args(["-q", "-F", "-d"]).arg(content.path()).arg(disk);
    let status = mkfs.stdin(Stdio::null()).status().context("mkfs.ext4")?;
    ensure!(status.success(), "mkfs.ext4 failed");
    Ok(())
}
