//! A host with a working KVM: this machine, or one that QEMU emulates.
//!
//! spindle's guests are ordinary kernels, which need hardware virtualization. Many machines have none, or only a
//! software KVM (`kvm_pvm`) that cannot run an ordinary kernel; there a job runs inside an emulated machine that has
//! it, on the same files and with the same result.

use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::terminal::Raw;
use crate::{apt, programs, progress};

mod emulated;
mod qemu;

/// What `/dev/kvm` is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kvm {
    /// The processor's own virtualization: runs any guest.
    Real,
    /// A KVM without hardware virtualization: runs small guests only.
    Software,
    /// None that we can open.
    Absent,
}

/// What this machine, or the emulated host that we run in, has.
pub fn kvm() -> Kvm {
    let usable = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .is_ok();
    match (usable, virtualizes()) {
        (true, true) => Kvm::Real,
        (true, false) => Kvm::Software,
        (false, _) => Kvm::Absent,
    }
}

/// Whether the processor shows hardware virtualization.
fn virtualizes() -> bool {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    info.split_whitespace()
        .any(|word| word == "svm" || word == "vmx")
}

/// Why guests do not run on this machine itself, in one line; nothing if they do.
pub fn why_emulated() -> Option<String> {
    let reason = match kvm() {
        Kvm::Real => return None,
        Kvm::Software => "/dev/kvm is a software KVM",
        Kvm::Absent if !virtualizes() => "the processor shows neither svm nor vmx",
        Kvm::Absent if Path::new("/dev/kvm").exists() => {
            "/dev/kvm cannot be opened: sudo usermod -aG kvm $USER"
        }
        Kvm::Absent => "no /dev/kvm: sudo modprobe -a kvm_amd kvm_intel",
    };
    Some(format!(
        "no hardware virtualization ({reason}): running in an emulated KVM host"
    ))
}

/// A command to run on a KVM host, and what it needs there.
#[derive(Clone, Debug)]
pub struct Job {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Memory of an emulated host, MiB.
    pub memory: u32,
    /// Processors of an emulated host.
    pub cpus: u32,
    /// A directory that the job may write to; on an emulated host all else that it writes is dropped.
    pub work: Option<PathBuf>,
    /// Raw images that an emulated host sees as `/dev/vda` and so on. With any of these it boots cold.
    pub disks: Vec<PathBuf>,
    /// An emulated host even where KVM is real: one whose power can be cut.
    pub emulate: bool,
}

impl Job {
    /// A job with the memory and processors that most need.
    pub fn new(command: Vec<String>) -> Self {
        Self {
            command,
            memory: 3072,
            cpus: 1,
            work: None,
            disks: Vec::new(),
            emulate: false,
        }
    }

    /// Starts it: on this machine if that has real KVM, else on an emulated host.
    pub fn start(&self) -> Result<Running> {
        if kvm() == Kvm::Real && !self.emulate {
            self.start_here()
        } else {
            emulated::start(self)
        }
    }

    fn runs_here(&self) -> bool {
        kvm() == Kvm::Real && !self.emulate
    }

    fn start_here(&self) -> Result<Running> {
        let [program, args @ ..] = &self.command[..] else {
            anyhow::bail!("no command")
        };
        let mut command = Command::new(program);
        command
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot run {program}"))?;
        let missing = "a pipe was asked for";
        Ok(Running {
            stdin: Some(Box::new(child.stdin.take().context(missing)?)),
            stdout: Some(Box::new(child.stdout.take().context(missing)?)),
            stderr: Some(Box::new(child.stderr.take().context(missing)?)),
            process: Process(child),
            emulated: None,
        })
    }
}

/// A started job. Dropping it kills it.
pub struct Running {
    /// Where its standard input comes from; dropping it is the end of input.
    pub stdin: Option<Box<dyn Write + Send>>,
    /// Its standard output.
    pub stdout: Option<Box<dyn Read + Send>>,
    /// Its standard error.
    pub stderr: Option<Box<dyn Read + Send>>,
    process: Process,
    emulated: Option<emulated::Machine>,
}

/// A process that does not outlive its handle.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// How a job ended.
#[derive(Clone, Debug)]
pub enum Ended {
    /// By itself, with this status; 128 and the signal's number for a signal.
    Status(i32),
    /// Killed at its deadline.
    Late,
}

impl Running {
    /// Waits for its end, but no longer than until `deadline`. The output is to be read by others meanwhile.
    pub fn wait(&mut self, deadline: Option<Instant>) -> Result<Ended> {
        let status = loop {
            if let Some(status) = self.process.0.try_wait()? {
                break status;
            }
            if deadline.is_some_and(|deadline| Instant::now() > deadline) {
                self.kill();
                return Ok(Ended::Late);
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        match &mut self.emulated {
            Some(machine) => Ok(Ended::Status(machine.status()?)),
            None => Ok(Ended::Status(plain_status(status))),
        }
    }

    /// Kernel messages of an emulated host, as far as there are any.
    pub fn kernel_messages(&self) -> String {
        self.emulated
            .as_ref()
            .map(emulated::Machine::kernel_messages)
            .unwrap_or_default()
    }

    /// Ends it at once: for an emulated host, a power cut.
    pub fn kill(&mut self) {
        let _ = self.process.0.kill();
        let _ = self.process.0.wait();
    }
}

/// The status as a shell gives it.
pub fn plain_status(status: std::process::ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// Makes sure that jobs can run: installs QEMU where it is needed, missing and we are root.
/// The error names the command that mends it.
pub fn prepare() -> Result<()> {
    if kvm() == Kvm::Real {
        Ok(())
    } else {
        prepare_emulated()
    }
}

/// The same for jobs that need the emulated host even where KVM is real.
pub fn prepare_emulated() -> Result<()> {
    if qemu::find().is_none() {
        need("qemu-system-x86_64", qemu::PACKAGES, qemu::install)?;
    }
    Ok(())
}

/// Makes sure that a program is there, installing its package as root. The error names the command that mends it.
pub fn need_program(name: &str, package: &str) -> Result<PathBuf> {
    match programs::installed(name) {
        Some(path) => Ok(path),
        None => {
            need(name, package, || apt::install(&[package]))?;
            programs::installed(name).with_context(|| format!("package {package} has no {name}"))
        }
    }
}

fn need(name: &str, packages: &str, install: impl FnOnce() -> Result<()>) -> Result<()> {
    let mend = format!("{name} is missing: sudo apt-get install {packages}");
    if !rustix::process::geteuid().is_root() {
        anyhow::bail!(mend);
    }
    progress::say(&format!("{name} is missing"));
    install().context(mend)
}

/// Runs a job on this process's own terminal, input and outputs, until it ends.
pub fn run_attached(job: &Job, deadline: Option<Instant>) -> Result<Ended> {
    if job.runs_here() && deadline.is_none() {
        let [program, args @ ..] = &job.command[..] else {
            anyhow::bail!("no command")
        };
        let status = Command::new(program)
            .args(args)
            .status()
            .with_context(|| format!("cannot run {program}"))?;
        return Ok(Ended::Status(plain_status(status)));
    }
    let mut running = job.start()?;
    // The keys belong to the job, whose terminal is elsewhere.
    let raw = Raw::enter()?;
    let copies = [
        running
            .stdout
            .take()
            .map(|from| pump(from, std::io::stdout())),
        running
            .stderr
            .take()
            .map(|from| pump(from, std::io::stderr())),
    ];
    if let Some(to) = running.stdin.take() {
        // Ends with our input or with the process: nobody waits for it.
        pump(std::io::stdin(), to);
    }
    let ended = running.wait(deadline)?;
    for copy in copies.into_iter().flatten() {
        let _ = copy.join();
    }
    drop(raw);
    Ok(ended)
}

/// For a test program that needs any KVM, be it a software one: where there is none, runs the whole program on an
/// emulated host, with these variables set to files built here. Its status, if so.
pub fn elsewhere(variables: &[(&str, &Path)]) -> Result<Option<i32>> {
    if kvm() != Kvm::Absent {
        return Ok(None);
    }
    prepare()?;
    let variables = variables
        .iter()
        .map(|(name, file)| format!("{name}={}", file.display()));
    let this = std::env::current_exe()?.display().to_string();
    let command = ["env".to_owned()]
        .into_iter()
        .chain(variables)
        .chain([this]);
    let job = Job::new(command.chain(std::env::args().skip(1)).collect());
    match run_attached(&job, Some(Instant::now() + Duration::from_secs(300)))? {
        Ended::Status(status) => Ok(Some(status)),
        Ended::Late => anyhow::bail!("the emulated KVM host was too slow"),
    }
}

/// Copies on a thread, each piece as it comes.
fn pump(
    mut from: impl Read + Send + 'static,
    mut to: impl Write + Send + 'static,
) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(count) = from.read(&mut buffer) {
            // A reader of ours that is gone ends the copy.
            if count == 0
                || to
                    .write_all(&buffer[..count])
                    .and_then(|()| to.flush())
                    .is_err()
            {
                return;
            }
        }
    })
}
