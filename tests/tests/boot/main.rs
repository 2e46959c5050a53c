//! Guest-boot tests: real kernels on spindle, on this machine's KVM or an emulated host.
//!
//! Each check is a function that runs on the KVM host, in a process of its own: this program, started again there
//! with the check's name in `SPINDLE_CHECK`. What it prints is the guest's serial log; when it fails, the log stays in
//! `tests/artifacts/NAME.log`. A check that cannot run here is reported as ignored, with its reason and the command
//! that mends it; with `SPINDLE_TEST_REQUIRE=all` it fails instead.
#![allow(missing_docs, reason = "a program, not a library")]

mod cache_modes;
mod disks;
mod durability;
mod emulated_host;
mod machine;
mod sandbox;
mod scratch;

use std::env;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use libtest_mimic::{Arguments, Failed, Trial};
use tests::guest::Kit;
use tests::host::{self, Ended, Job};
use tests::{progress, spindle};

const CHECK: &str = "SPINDLE_CHECK";
const KIT: &str = "SPINDLE_KIT";

/// How long a whole check may take, start of an emulated host included. Each guest has its own, shorter one.
const DEADLINE: Duration = Duration::from_secs(400);

type Run = fn(&Kit) -> Result<()>;
type RunOnce = Box<dyn FnOnce(&Kit) -> Result<()> + Send>;

/// One check.
struct Check {
    name: &'static str,
    run: Run,
    /// Memory of an emulated host, MiB.
    memory: u32,
    /// A program that the check needs on the host, and its package.
    program: Option<(&'static str, &'static str)>,
    /// Bytes of a disk of the host's own, its `/dev/vda`; such a check runs on an emulated host on any machine.
    host_disk: Option<u64>,
}

impl Check {
    const fn new(name: &'static str, run: Run) -> Self {
        Self {
            name,
            run,
            memory: 3072,
            program: None,
            host_disk: None,
        }
    }

    const fn program(mut self, name: &'static str, package: &'static str) -> Self {
        self.program = Some((name, package));
        self
    }

    const fn memory(mut self, mebibytes: u32) -> Self {
        self.memory = mebibytes;
        self
    }

    const fn host_disk(mut self, bytes: u64) -> Self {
        self.host_disk = Some(bytes);
        self
    }
}

fn checks() -> Vec<Check> {
    [
        machine::CHECKS,
        disks::CHECKS,
        durability::CHECKS,
        cache_modes::CHECKS,
        sandbox::CHECKS,
    ]
    .into_iter()
    .flat_map(|make| make())
    .collect()
}

fn main() -> ExitCode {
    if let Ok(name) = env::var(CHECK) {
        return inside(&name);
    }
    let args = Arguments::from_args();
    // Listing must be quick and change nothing.
    let ready = if args.list {
        Err("not prepared".into())
    } else {
        prepare().map_err(|error| format!("{error:#}"))
    };
    let strict = env::var("SPINDLE_TEST_REQUIRE").is_ok_and(|value| value == "all");
    let trial = |name: &'static str, missing: Result<(), String>, run: RunOnce| {
        let ready = ready.clone().and_then(|kit| missing.map(|()| kit));
        match ready {
            Ok(kit) => Trial::test(name, move || {
                run(&kit).map_err(|error| Failed::from(format!("{error:#}")))
            }),
            Err(_) if args.list => Trial::test(name, || Ok(())),
            Err(reason) if strict => Trial::test(name, move || Err(reason.into())),
            Err(reason) => Trial::test(name, || Ok(()))
                .with_kind(reason)
                .with_ignored_flag(true),
        }
    };
    let mut trials = Vec::new();
    for check in checks() {
        let missing = if args.list { Ok(()) } else { check.missing() };
        trials.push(trial(
            check.name,
            missing,
            Box::new(move |kit| check.run(kit)),
        ));
    }
    let emulated = match args.list {
        true => Ok(()),
        false => host::prepare_emulated().map_err(|error| format!("{error:#}")),
    };
    for (name, cache, survives) in durability::POWER_CUTS {
        let run = move |kit: &Kit| durability::power_cut(name, kit, cache, survives);
        trials.push(trial(name, emulated.clone(), Box::new(run)));
    }
    for (name, run) in emulated_host::TRIALS {
        trials.push(trial(name, emulated.clone(), Box::new(move |_| run())));
    }
    libtest_mimic::run(&args, trials).exit_code()
}

/// Gets ready what all checks need.
fn prepare() -> Result<Kit> {
    if let Some(why) = host::why_emulated() {
        progress::say(&why);
    }
    host::prepare()?;
    Kit::prepare(spindle::path()?)
}

impl Check {
    /// What keeps this check from running.
    fn missing(&self) -> Result<(), String> {
        if let Some((program, package)) = self.program {
            host::need_program(program, package).map_err(|error| format!("{error:#}"))?;
        }
        if self.host_disk.is_some() {
            host::prepare_emulated().map_err(|error| format!("{error:#}"))?;
        }
        let info = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let available = info.lines().find_map(|line| {
            line.strip_prefix("MemAvailable:")?
                .split_whitespace()
                .next()
        });
        let available: u64 = available.and_then(|kib| kib.parse().ok()).unwrap_or(0) >> 10;
        let needed = u64::from(self.memory) + 256;
        if available < needed {
            return Err(format!(
                "needs {needed} MiB of free memory, {available} are free: end other programs"
            ));
        }
        Ok(())
    }

    /// Runs it on a KVM host.
    fn run(&self, kit: &Kit) -> Result<()> {
        let mut job = job(self.name, kit)?;
        job.memory = self.memory;
        let directory = tempfile::tempdir()?;
        if let Some(size) = self.host_disk {
            job.emulate = true;
            job.disks = vec![scratch::image(directory.path(), "disk", size)?];
        }
        run(self.name, &job, DEADLINE).map(drop)
    }
}

/// This program as a job that runs one check.
fn job(name: &str, kit: &Kit) -> Result<Job> {
    let this = env::current_exe()?.display().to_string();
    let kit = serde_json::to_string(kit)?;
    Ok(Job::new(vec![
        "env".into(),
        format!("{CHECK}={name}"),
        format!("{KIT}={kit}"),
        this,
    ]))
}

/// Runs a job to its end, which must be a success: what it printed. Leaves a log if it fails.
fn run(name: &str, job: &Job, limit: Duration) -> Result<String> {
    let mut running = job.start()?;
    let collect = |from: Option<Box<dyn Read + Send>>| {
        thread::spawn(move || {
            let mut bytes = Vec::new();
            if let Some(mut from) = from {
                let _ = from.read_to_end(&mut bytes);
            }
            String::from_utf8_lossy(&bytes).into_owned()
        })
    };
    let (out, err) = (
        collect(running.stdout.take()),
        collect(running.stderr.take()),
    );
    let ended = running.wait(Some(Instant::now() + limit));
    let messages = running.kernel_messages();
    drop(running);
    let out = out.join().unwrap_or_default();
    let err = err.join().unwrap_or_default();
    let failure = match ended {
        Ok(Ended::Status(0)) => return Ok(out),
        Ok(Ended::Status(status)) => format!("ended with {status}"),
        Ok(Ended::Late) => format!("did not end within {} s", limit.as_secs()),
        Err(error) => format!("{error:#}"),
    };
    let log = artifact(name)?;
    fs::write(
        &log,
        format!("{out}\n--- stderr\n{err}\n--- messages of the host's kernel\n{messages}"),
    )?;
    bail!(
        "{failure}\n{}\nthe guest's serial log: {}",
        err.trim(),
        log.display()
    );
}

/// Where a failed check's log stays.
fn artifact(name: &str) -> Result<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("artifacts");
    fs::create_dir_all(&directory)?;
    Ok(directory.join(format!("{}.log", name.replace("::", "-"))))
}

/// On the KVM host: runs one check.
fn inside(name: &str) -> ExitCode {
    let result = (|| {
        let kit = serde_json::from_str(&env::var(KIT).context(KIT)?)?;
        if let Some(cache) = name.strip_prefix(durability::WRITER) {
            return durability::write_until_killed(&kit, cache);
        }
        if name == durability::READER {
            return durability::count_blocks();
        }
        let check = checks().into_iter().find(|check| check.name == name);
        let check = check.with_context(|| format!("no check {name}"))?;
        ensure!(
            host::kvm() == host::Kvm::Real,
            "no usable /dev/kvm on this host"
        );
        (check.run)(&kit)
    })();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            progress::say(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}
