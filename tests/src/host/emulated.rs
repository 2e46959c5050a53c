//! The emulated KVM host: QEMU without acceleration emulates a processor with SVM and nested paging, on which the
//! distribution's kernel has a working `/dev/kvm`.
//!
//! The real machine's `/` is shared read-only (9p) below a memory overlay, the work directory read-write at its own
//! place, so that a command finds the same files at the same paths. It is booted once for each size and kept as a
//! snapshot taken before the first mount; a job restores that, which takes half a second.

use std::collections::HashMap;
use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Job, Process, Running, qemu};
use crate::initramfs::Contents;
use crate::kernel::{self, Kernel};
use crate::{cache, progress};

/// Bits that KVM on AMD needs, less those that cost time or trip over emulation.
const PROCESSOR: &str = "EPYC,+svm,+npt,-fxsr-opt,-misalignsse,-osvw,-topoext,-nrip-save,-xsavec";
const KERNEL_ARGS: &str =
    "console=ttyS0 quiet panic=-1 mitigations=off nokaslr nowatchdog no_timer_check tsc=reliable";
const CONTENTS: Contents<'_> = Contents {
    init: include_str!("../../../resources/guest/host-init"),
    modules: &[
        "virtio_pci",
        "virtio_console",
        "virtio_rng",
        "virtio_blk",
        "9p",
        "9pnet_virtio",
        "overlay",
        "ext4",
        "loop",
        "kvm_amd",
    ],
    programs: &[],
};
/// Sockets between us and the machine's ports, in the order of their numbers.
const PORTS: [&str; 5] = ["control", "out", "err", "messages", "in"];
/// How long the machine may take to boot on a slow and busy computer.
const BOOT: Duration = Duration::from_secs(120);

/// The parts of a running machine that its job does not see.
pub(super) struct Machine {
    run: TempDir,
    control: BufReader<UnixStream>,
    _input: UnixStream,
}

/// Starts a job on an emulated host.
pub(super) fn start(job: &Job) -> Result<Running> {
    let boot = Boot::new(job)?;
    let snapshot = if job.disks.is_empty() {
        Some(boot.snapshot()?)
    } else {
        None
    };
    let (process, mut machine, mut ports) = boot.start(snapshot.as_deref())?;
    machine.hand_over(job)?;
    Ok(Running {
        stdin: ports.remove("in").map(|port| Box::new(Input(port)) as _),
        stdout: ports.remove("out").map(|port| Box::new(port) as _),
        stderr: ports.remove("err").map(|port| Box::new(port) as _),
        process,
        emulated: Some(machine),
    })
}

/// Our end of the job's standard input. Dropping it tells the end but keeps the connection, which the machine holds
/// too: once that is gone, QEMU drops what it has not read yet.
struct Input(UnixStream);

impl Write for Input {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        let _ = self.0.shutdown(std::net::Shutdown::Write);
    }
}

impl Machine {
    fn hand_over(&mut self, job: &Job) -> Result<()> {
        let script = self.run.path().join("job");
        fs::write(&script, self::script(&job.command)?)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let mut seed = [0; 32];
        fs::File::open("/dev/urandom")?.read_exact(&mut seed)?;
        let seed: String = seed.iter().map(|byte| format!("{byte:02x}")).collect();
        let work = job.work.as_deref().unwrap_or(Path::new(""));
        let order = format!("{now} {seed}\n{}\n{}\n", script.display(), work.display());
        self.control
            .get_mut()
            .write_all(order.as_bytes())
            .context("the emulated KVM host is gone")
    }

    /// The job's status, once QEMU has ended.
    pub(super) fn status(&mut self) -> Result<i32> {
        let mut said = String::new();
        // What was said before the connection broke counts.
        let _ = self.control.read_to_string(&mut said);
        let status = said.lines().find_map(|line| line.strip_prefix("status "));
        match status.and_then(|status| status.trim().parse().ok()) {
            Some(status) => Ok(status),
            None => bail!(
                "the emulated KVM host died ({}):\n{}",
                said.trim(),
                last_words(self.run.path())
            ),
        }
    }

    pub(super) fn kernel_messages(&self) -> String {
        let messages = |name| fs::read(self.run.path().join(name)).unwrap_or_default();
        let mut text = messages("console");
        text.extend(messages("messages"));
        String::from_utf8_lossy(&text).into_owned()
    }
}

/// The job as a shell script: this process's environment and directory, then the command.
fn script(command: &[String]) -> Result<Vec<u8>> {
    let mut script = Vec::new();
    for (name, value) in env::vars_os() {
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
        if name.as_bytes().iter().all(plain)
            && !name.as_bytes().first().is_none_or(u8::is_ascii_digit)
        {
            script.extend([b"export ", name.as_bytes(), b"=", &quoted(&value), b"\n"].concat());
        }
    }
    let here = env::current_dir()?;
    script.extend([b"cd ", &quoted(here.as_os_str())[..], b" || exit 125\nexec"].concat());
    for word in command {
        script.extend([b" ", &quoted(OsStr::new(word))[..]].concat());
    }
    script.push(b'\n');
    Ok(script)
}

/// A word that a shell takes as it is.
fn quoted(word: &OsStr) -> Vec<u8> {
    let mut out = vec![b'\''];
    for byte in word.as_bytes() {
        match byte {
            b'\'' => out.extend(b"'\\''"),
            byte => out.push(*byte),
        }
    }
    out.push(b'\'');
    out
}

fn last_words(run: &Path) -> String {
    let tail = |name: &str| {
        let text = fs::read(run.join(name)).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    };
    [tail("qemu"), tail("console")].join("\n")
}

/// How to boot a machine for a job.
struct Boot<'a> {
    job: &'a Job,
    kernel: Kernel,
    initrd: PathBuf,
}

impl<'a> Boot<'a> {
    fn new(job: &'a Job) -> Result<Self> {
        super::prepare_emulated()?;
        let kernel = kernel::find()?;
        let initrd = CONTENTS.build(&kernel)?;
        Ok(Self {
            job,
            kernel,
            initrd,
        })
    }

    /// The saved state of a machine like this, ready for a job.
    fn snapshot(&self) -> Result<PathBuf> {
        let parts = (
            self.fixed_args(),
            qemu::version()?,
            cache::stamp(&self.kernel.vmlinux)?,
            cache::stamp(&self.initrd)?,
        );
        let entry = cache::entry("snapshots", &cache::key(&parts), |dir| {
            progress::step("booting an emulated KVM host (kept for later runs)", || {
                self.save(&dir.join("state"))
            })
        })?;
        Ok(entry.join("state"))
    }

    fn save(&self, file: &Path) -> Result<()> {
        let (mut process, mut machine, _ports) = self.start(None)?;
        let mut line = String::new();
        machine.control.get_mut().set_read_timeout(Some(BOOT))?;
        let ready = machine.control.read_line(&mut line);
        let run = machine.run.path().to_owned();
        ensure!(
            ready.is_ok() && line.trim() == "ready",
            "the emulated KVM host does not boot:\n{}",
            last_words(&run)
        );
        let mut monitor = Monitor::connect(&run.join("monitor"))?;
        monitor.command(
            "migrate-set-parameters",
            json!({"max-bandwidth": 1u64 << 40}),
        )?;
        // Saving to a file by its name came with QEMU 8.2; a program that writes it serves all.
        let file = String::from_utf8(quoted(file.as_os_str()))?;
        monitor.command("migrate", json!({"uri": format!("exec:cat > {file}")}))?;
        let deadline = Instant::now() + BOOT;
        loop {
            let state = monitor.command("query-migrate", json!({}))?;
            match state["status"].as_str() {
                Some("completed") => break,
                Some("failed" | "cancelled") => bail!("cannot save the emulated KVM host: {state}"),
                _ => ensure!(
                    Instant::now() < deadline,
                    "saving the emulated KVM host takes too long"
                ),
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = monitor.command("quit", json!({}));
        process.0.wait()?;
        Ok(())
    }

    /// Starts QEMU, restoring `snapshot` if there is one.
    fn start(
        &self,
        snapshot: Option<&Path>,
    ) -> Result<(Process, Machine, HashMap<&'static str, UnixStream>)> {
        let run = tempfile::Builder::new().prefix("spindle-host.").tempdir()?;
        let listen = |name: &'static str| {
            let listener =
                UnixListener::bind(run.path().join(name)).context("cannot make a socket")?;
            listener.set_nonblocking(true)?;
            Ok((name, listener))
        };
        let listeners: Vec<_> = [PORTS[0], PORTS[1], PORTS[2], PORTS[4]]
            .into_iter()
            .map(listen)
            .collect::<Result<_>>()?;
        let qemu = qemu::find().context("qemu-system-x86_64 is missing")?;
        // An emulated host must not outlive us, however we end.
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL"])
            .arg(qemu)
            .args(self.fixed_args())
            .args(self.run_args(run.path()));
        if let Some(snapshot) = snapshot {
            let file = String::from_utf8(quoted(snapshot.as_os_str()))?;
            command.arg("-incoming").arg(format!("exec:cat {file}"));
        }
        let log = fs::File::create(run.path().join("qemu"))?;
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let mut process = Process(
            command
                .spawn()
                .context("cannot run setpriv (package util-linux)")?,
        );
        let mut ports = HashMap::new();
        for (name, listener) in listeners {
            let stream = accept(&listener, &mut process).with_context(|| last_words(run.path()))?;
            ports.insert(name, stream);
        }
        let control = BufReader::new(ports.remove("control").context("no control port")?);
        let input = ports.get("in").context("no input port")?.try_clone()?;
        Ok((
            process,
            Machine {
                run,
                control,
                _input: input,
            },
            ports,
        ))
    }

    /// Arguments that are the same for each run: what a snapshot depends on.
    fn fixed_args(&self) -> Vec<String> {
        let mut args = format!(
            "-accel tcg,thread=multi -cpu {PROCESSOR} -smp {} -m {} -M q35,vmport=off -nodefaults -no-user-config -display none \
             -no-reboot -boot menu=off -device isa-debug-exit,iobase=0xf4,iosize=4 -device virtio-rng-pci \
             -device virtio-serial-pci,max_ports=8 -device virtio-9p-pci,fsdev=root,mount_tag=root \
             -device virtio-9p-pci,fsdev=work,mount_tag=work",
            self.job.cpus, self.job.memory
        );
        for (index, name) in PORTS.iter().enumerate() {
            args += &format!(" -device virtserialport,nr={},chardev={name}", index + 1);
        }
        args.split(' ')
            .map(str::to_owned)
            .chain(["-append".into(), KERNEL_ARGS.into()])
            .collect()
    }

    /// Arguments that name this run's files.
    fn run_args(&self, run: &Path) -> Vec<String> {
        let escaped = |path: &Path| path.display().to_string().replace(',', ",,");
        let file = |name: &str| escaped(&run.join(name));
        let work = escaped(self.job.work.as_deref().unwrap_or(run));
        let share = "security_model=none,multidevs=remap";
        let mut args = vec![
            "-kernel".into(),
            self.kernel.vmlinux.display().to_string(),
            "-initrd".into(),
            self.initrd.display().to_string(),
            "-serial".into(),
            format!("file:{}", file("console")),
            "-fsdev".into(),
            format!("local,id=root,path=/,readonly=on,{share}"),
            "-fsdev".into(),
            format!("local,id=work,path={work},{share}"),
            "-qmp".into(),
            format!("unix:{},server=on,wait=off", file("monitor")),
        ];
        for name in PORTS {
            let back = if name == "messages" { "file" } else { "socket" };
            args.extend([
                "-chardev".into(),
                format!("{back},id={name},path={}", file(name)),
            ]);
        }
        for (index, disk) in self.job.disks.iter().enumerate() {
            // Cached by this machine's kernel: it outlives a QEMU that is killed, as a disk outlives a power cut.
            args.extend([
                "-drive".into(),
                format!("file={},if=none,id=disk{index},format=raw", escaped(disk)),
            ]);
            args.extend([
                "-device".into(),
                format!("virtio-blk-pci,drive=disk{index}"),
            ]);
        }
        args
    }
}

/// Waits for QEMU to connect.
fn accept(listener: &UnixListener, process: &mut Process) -> Result<UnixStream> {
    let deadline = Instant::now() + BOOT;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                return Ok(stream);
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
        ensure!(
            process.0.try_wait()?.is_none() && Instant::now() < deadline,
            "QEMU does not start"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The least of a QMP client: a command and its answer, events passed over.
struct Monitor(BufReader<UnixStream>);

impl Monitor {
    fn connect(path: &Path) -> Result<Self> {
        let mut monitor = Self(BufReader::new(UnixStream::connect(path)?));
        monitor.read()?;
        monitor.command("qmp_capabilities", json!({}))?;
        Ok(monitor)
    }

    fn command(&mut self, name: &str, arguments: Value) -> Result<Value> {
        let line = json!({"execute": name, "arguments": arguments}).to_string() + "\n";
        self.0.get_mut().write_all(line.as_bytes())?;
        loop {
            let mut answer = self.read()?;
            ensure!(answer.get("error").is_none(), "{name}: {}", answer["error"]);
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
        }
    }

    fn read(&mut self) -> Result<Value> {
        let mut line = String::new();
        ensure!(
            self.0.read_line(&mut line)? > 0,
            "QEMU has closed its monitor"
        );
        Ok(serde_json::from_str(&line)?)
    }
}
