//! `kvm-host [--mem MIB] [--smp N] [--disk IMAGE]... [--timeout SECONDS] [--] COMMAND...`
//!
//! Runs a command on a host with a working KVM: here if there is one, else in an emulated machine, with the same
//! files (those below the current directory writable), output, input and exit status. Failures of its own: 125; the
//! deadline: 124.

use std::env;
use std::path::PathBuf;
use std::process::exit;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tests::host::{Ended, Job};
use tests::{host, progress};

fn main() {
    match run() {
        Ok(status) => exit(status),
        Err(error) => {
            progress::say(&format!("kvm-host: {error:#}"));
            exit(125);
        }
    }
}

fn run() -> Result<i32> {
    let mut args = env::args().skip(1);
    let mut job = Job::new(Vec::new());
    job.work = Some(env::current_dir()?);
    let mut deadline = None;
    while let Some(arg) = args.next() {
        let mut value = || args.next().with_context(|| format!("{arg} needs a value"));
        match arg.as_str() {
            "--mem" => job.memory = value()?.parse().context("--mem")?,
            "--smp" => job.cpus = value()?.parse().context("--smp")?,
            "--disk" => job.disks.push(PathBuf::from(value()?)),
            "--timeout" => {
                deadline = Some(
                    Instant::now() + Duration::from_secs(value()?.parse().context("--timeout")?),
                )
            }
            "--" => {
                job.command = args.by_ref().collect();
                break;
            }
            _ if arg.starts_with('-') => bail!("unknown option {arg}"),
            _ => {
                job.command = [arg].into_iter().chain(args.by_ref()).collect();
                break;
            }
        }
    }
    if job.command.is_empty() {
        bail!(
            "usage: kvm-host [--mem MIB] [--smp N] [--disk IMAGE]... [--timeout SECONDS] [--] COMMAND..."
        );
    }
    host::prepare()?;
    let ended = host::run_attached(&job, deadline)?;
    Ok(match ended {
        Ended::Status(status) => status,
        Ended::Late => {
            progress::say("kvm-host: stopped at its deadline");
            124
        }
    })
}
