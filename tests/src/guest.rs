//! A guest under test: spindle with a kernel and our init, talked to over its serial port.
//!
//! The guest's init says `@ready`, then runs each line that it is sent and says `@status N`, so that a check is
//! written in one place, the guest's half beside the host's. All that the guest says is copied to standard output,
//! which is its log.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::host::plain_status;
use crate::initramfs::Contents;
use crate::kernel::{self, Kernel};
use crate::programs::{self, Program};

/// How long a guest may take from its start to its end, unless said otherwise.
pub const DEADLINE: Duration = Duration::from_secs(120);

const CONTENTS: Contents<'_> = Contents {
    init: include_str!("../../resources/guest/init"),
    modules: &["virtio_pci", "virtio_blk", "ext4", "pvpanic_mmio"],
    programs: &[
        ("lsblk", "util-linux"),
        ("fstrim", "util-linux"),
        ("blockdev", "util-linux"),
        ("blkdiscard", "util-linux"),
    ],
};

/// What guests are made of. It is put together where there is a network and a cache, and used on the KVM host.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Kit {
    /// The binary under test.
    pub spindle: PathBuf,
    /// The guests' kernel.
    pub kernel: Kernel,
    /// The guests' initramfs.
    pub initrd: PathBuf,
    /// Makes an ext4 file system in an image.
    pub mkfs: Program,
    /// Checks it.
    pub fsck: Program,
    /// Reads files out of it, unmounted.
    pub debugfs: Program,
}

impl Kit {
    /// Gets all that this machine lacks.
    pub fn prepare(spindle: &Path) -> Result<Self> {
        let kernel = kernel::find()?;
        Ok(Self {
            spindle: spindle.to_owned(),
            initrd: CONTENTS.build(&kernel)?,
            kernel,
            mkfs: programs::find("mkfs.ext4", "e2fsprogs")?,
            fsck: programs::find("e2fsck", "e2fsprogs")?,
            debugfs: programs::find("debugfs", "e2fsprogs")?,
        })
    }

    /// A guest of 256 MiB and one processor, started from the unpacked kernel.
    pub fn guest(&self) -> Config {
        Config {
            command: vec![self.spindle.display().to_string()],
            kernel: self.kernel.vmlinux.clone(),
            initrd: self.initrd.clone(),
            memory: "256M".into(),
            cpus: 1,
            args: Vec::new(),
            deadline: DEADLINE,
        }
    }
}

/// A guest to boot.
#[derive(Clone, Debug)]
pub struct Config {
    /// spindle, behind what runs it (strace and its arguments).
    pub command: Vec<String>,
    /// The kernel image.
    pub kernel: PathBuf,
    /// The initramfs.
    pub initrd: PathBuf,
    /// `-m`.
    pub memory: String,
    /// `-smp`.
    pub cpus: u32,
    /// Further arguments.
    pub args: Vec<String>,
    /// How long it may run.
    pub deadline: Duration,
}

impl Config {
    /// The same with these further arguments, split at blanks.
    #[must_use]
    pub fn with(mut self, args: &str) -> Self {
        self.args.extend(args.split_whitespace().map(str::to_owned));
        self
    }

    /// The same with a raw image as a virtio disk.
    #[must_use]
    pub fn disk(self, image: &Path, options: &str) -> Self {
        self.with(&format!(
            "-drive file={},format=raw,if=virtio{options}",
            image.display()
        ))
    }

    /// Starts it and waits until it listens.
    pub fn boot(&self) -> Result<Guest> {
        let mut guest = self.start()?;
        guest.ready()?;
        Ok(guest)
    }

    /// Starts it.
    pub fn start(&self) -> Result<Guest> {
        let [program, args @ ..] = &self.command[..] else {
            bail!("no command")
        };
        let mut command = Command::new(program);
        command
            .args(args)
            .arg("-kernel")
            .arg(&self.kernel)
            .arg("-initrd")
            .arg(&self.initrd);
        command.args([
            "-append",
            "console=ttyS0 quiet",
            "-m",
            &self.memory,
            "-smp",
            &self.cpus.to_string(),
            "-nographic",
        ]);
        command.args(&self.args);
        let words: Vec<_> = command
            .get_args()
            .map(|arg| arg.to_string_lossy())
            .collect();
        println(&format!("\n$ {program} {}", words.join(" ")));
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = process.stdin.take().context("a pipe was asked for")?;
        let mut output = process.stdout.take().context("a pipe was asked for")?;
        let (send, receive) = channel();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count) = output.read(&mut buffer)
                && count > 0
            {
                log(&buffer[..count]);
                if send.send(buffer[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Ok(Guest {
            process,
            input,
            output: receive,
            unread: Vec::new(),
            deadline: Instant::now() + self.deadline,
        })
    }
}

/// A running guest. Dropping it kills it.
pub struct Guest {
    process: Child,
    input: ChildStdin,
    output: Receiver<Vec<u8>>,
    unread: Vec<u8>,
    deadline: Instant,
}

impl Guest {
    /// Waits until its init listens: after a start and after each reset.
    pub fn ready(&mut self) -> Result<()> {
        self.until("@ready").map(drop)
    }

    /// Runs a line in the guest, which must succeed: what it printed.
    pub fn run(&mut self, line: &str) -> Result<String> {
        let (status, text) = self.attempt(line)?;
        ensure!(
            status == 0,
            "the guest's `{line}` ended with {status}: {text}"
        );
        Ok(text)
    }

    /// Runs a line in the guest: its status and what it printed.
    pub fn attempt(&mut self, line: &str) -> Result<(i32, String)> {
        self.send(line)?;
        let text = self.until("@status ")?;
        let status = self.until("\n")?;
        let status = status
            .trim()
            .parse()
            .with_context(|| format!("not a status: {status}"))?;
        Ok((status, text.trim().to_owned()))
    }

    /// Sends a line and does not wait.
    pub fn send(&mut self, line: &str) -> Result<()> {
        self.input
            .write_all(format!("{line}\n").as_bytes())
            .context("spindle reads no more")
    }

    /// Waits until the guest says `marker`: what it said before.
    pub fn until(&mut self, marker: &str) -> Result<String> {
        loop {
            let found = self
                .unread
                .windows(marker.len())
                .position(|window| window == marker.as_bytes());
            if let Some(at) = found {
                let rest = self.unread.split_off(at + marker.len());
                let said = std::mem::replace(&mut self.unread, rest);
                return Ok(String::from_utf8_lossy(&said[..at]).into_owned());
            }
            match self
                .output
                .recv_timeout(self.deadline.saturating_duration_since(Instant::now()))
            {
                Ok(piece) => self
                    .unread
                    .extend(piece.into_iter().filter(|byte| *byte != b'\r')),
                Err(RecvTimeoutError::Timeout) => bail!("the guest did not say {marker:?} in time"),
                Err(RecvTimeoutError::Disconnected) => {
                    let status = self.wait()?;
                    bail!("spindle ended with {status}, the guest did not say {marker:?}");
                }
            }
        }
    }

    /// Powers the guest off and waits for spindle's end, which must be a success.
    pub fn power_off(mut self) -> Result<()> {
        self.send("sync; poweroff -f")?;
        let status = self.wait()?;
        ensure!(
            status == 0,
            "spindle ended with {status} after the guest's power-off"
        );
        Ok(())
    }

    /// Waits for spindle's end: its status.
    pub fn wait(&mut self) -> Result<i32> {
        loop {
            if let Some(status) = self.process.try_wait()? {
                return Ok(plain_status(status));
            }
            ensure!(
                Instant::now() < self.deadline,
                "spindle did not end in time"
            );
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// The process that was started.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Kills spindle at once (SIGKILL).
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

fn println(line: &str) {
    log(line.as_bytes());
    log(b"\n");
}

/// Nobody reads the log if this fails.
fn log(bytes: &[u8]) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(bytes).and_then(|()| out.flush());
}
