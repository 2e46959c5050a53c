//! `cargo figures [RUNS]`: what spindle costs before its guest does anything.
//!
//! Measured with the release build and a guest without an operating system, on this machine's own KVM, a software
//! one included, or on an emulated host where there is none (then the times are the emulator's).
#![allow(clippy::print_stdout, reason = "its output is what it is for")]

use std::env;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tests::host::{self, Ended, Job, Kvm};
use tests::{bare, progress, spindle};

const RUNS: usize = 41;
/// Guest memory, and what tells its mapping from all others.
const MEMORY_MIB: u64 = 512;

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            progress::say(&format!("figures: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<ExitCode> {
    let args: Vec<_> = env::args().skip(1).collect();
    // On an emulated host we are started again with what was built outside.
    if let [spindle, guest, runs] = &args[..] {
        return measure(Path::new(spindle), Path::new(guest), runs.parse()?);
    }
    let runs: usize = args
        .first()
        .map_or(Ok(RUNS), |runs| runs.parse())
        .context("usage: figures [RUNS]")?;
    let spindle = spindle::build("release")?;
    let guest = bare::path()?;
    if host::kvm() != Kvm::Absent {
        return measure(&spindle, guest, runs);
    }
    host::prepare()?;
    let this = env::current_exe()?;
    let words = [&*this, &*spindle, guest].map(|path| path.display().to_string());
    let command = words.into_iter().chain([runs.to_string()]).collect();
    match host::run_attached(&Job::new(command), None)? {
        Ended::Status(0) => Ok(ExitCode::SUCCESS),
        _ => Ok(ExitCode::FAILURE),
    }
}

fn measure(spindle: &Path, guest: &Path, runs: usize) -> Result<ExitCode> {
    let mut times = (0..runs.max(1))
        .map(|_| first_byte(spindle, guest))
        .collect::<Result<Vec<_>>>()?;
    times.sort();
    let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
    let (best, median) = (times[0], times[times.len() / 2]);
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!(
        "KVM: {:?}; load {}",
        host::kvm(),
        load.split(' ').next().unwrap_or_default()
    );
    println!(
        "exec to the guest's first byte: {:.2} ms median, {:.2} ms best of {runs}",
        milliseconds(median),
        milliseconds(best)
    );
    println!(
        "private memory beyond guest RAM, one disk: {:.2} MiB",
        private_memory(spindle, guest)? as f64 / 1024.0
    );
    println!(
        "release binary: {:.2} MiB",
        fs::metadata(spindle)?.len() as f64 / f64::from(1 << 20)
    );
    Ok(ExitCode::SUCCESS)
}

fn start(spindle: &Path, guest: &Path, memory: &str, args: &[&str]) -> Result<Child> {
    let mut command = Command::new(spindle);
    command.arg("-kernel").arg(guest).args([
        "-m",
        memory,
        "-nographic",
        "-device",
        "isa-debug-exit,iobase=0xf4,iosize=4",
    ]);
    command
        .args(args)
        // That KVM is a slow one is said once, by the figures.
        .env("SPINDLE_LOG", "error")
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    command
        .spawn()
        .with_context(|| format!("cannot run {}", spindle.display()))
}

/// Reads the byte that the guest prints.
fn hear(process: &mut Child) -> Result<()> {
    let mut byte = [0];
    process
        .stdout
        .as_mut()
        .context("a pipe was asked for")?
        .read_exact(&mut byte)
        .context("the guest is silent")?;
    ensure!(byte == *b"!", "the guest printed {byte:?}");
    Ok(())
}

fn first_byte(spindle: &Path, guest: &Path) -> Result<Duration> {
    let start = Instant::now();
    let mut process = self::start(spindle, guest, "128M", &[])?;
    let heard = hear(&mut process);
    let time = start.elapsed();
    process.wait()?;
    heard.map(|()| time)
}

/// Pages that nobody shares, KiB, the guest's memory left out.
fn private_memory(spindle: &Path, guest: &Path) -> Result<u64> {
    let disk = tempfile::NamedTempFile::new()?;
    disk.as_file().set_len(64 << 20)?;
    let drive = format!("file={},format=raw,if=virtio", disk.path().display());
    let mut process = start(
        spindle,
        guest,
        &format!("{MEMORY_MIB}M"),
        &["-append", "w", "-drive", &drive],
    )?;
    let result = hear(&mut process).and_then(|()| {
        // Let threads that are starting settle.
        thread::sleep(Duration::from_millis(300));
        let maps = fs::read_to_string(PathBuf::from(format!("/proc/{}/smaps", process.id())))?;
        Ok(sum_private(&maps))
    });
    process.kill()?;
    process.wait()?;
    result
}

fn sum_private(maps: &str) -> u64 {
    let (mut sum, mut guest) = (0, false);
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let (Some(name), Some(Ok(value))) = (words.next(), words.next().map(str::parse::<u64>))
        else {
            continue;
        };
        match name {
            "Size:" => guest = value >= MEMORY_MIB << 10,
            "Private_Clean:" | "Private_Dirty:" | "Private_Hugetlb:" if !guest => sum += value,
            _ => {}
        }
    }
    sum
}
