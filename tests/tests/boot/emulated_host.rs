//! The emulated host itself: a command in it cannot be told from one outside.

use std::io::{Read, Write};
use std::time::{Duration, Instant};
use std::{env, fs};

use anyhow::{Context, Result, ensure};
use tests::host::{Ended, Job, Running};

pub(crate) type Trial = (&'static str, fn() -> Result<()>);

pub(crate) const TRIALS: [Trial; 4] = [
    ("emulated_host::passes_input_output_and_status", streams),
    (
        "emulated_host::shares_the_directory_and_the_environment",
        place,
    ),
    ("emulated_host::drops_what_is_written_elsewhere", elsewhere),
    ("emulated_host::ends_at_the_deadline", deadline),
];

fn start(script: &str, work: Option<&std::path::Path>) -> Result<Running> {
    let mut job = Job::new(["sh", "-c", script].map(str::to_owned).into());
    (job.emulate, job.work) = (true, work.map(Into::into));
    job.start()
}

fn read(from: &mut Option<Box<dyn Read + Send>>) -> Result<String> {
    let mut text = String::new();
    from.take().context("taken")?.read_to_string(&mut text)?;
    Ok(text)
}

fn status(mut running: Running) -> Result<i32> {
    match running.wait(Some(Instant::now() + Duration::from_secs(60)))? {
        Ended::Status(status) => Ok(status),
        Ended::Late => anyhow::bail!("it does not end"),
    }
}

fn streams() -> Result<()> {
    let mut running = start("wc -c; echo error >&2; [ -w /dev/kvm ] && exit 7", None)?;
    let mut input = running.stdin.take().context("no input")?;
    // More than fits into any buffer on the way.
    input.write_all(&vec![b'x'; 1_000_000])?;
    drop(input);
    let (out, err) = (read(&mut running.stdout)?, read(&mut running.stderr)?);
    ensure!(
        (out.as_str(), err.as_str()) == ("1000000\n", "error\n"),
        "{out:?}, {err:?}"
    );
    let status = status(running)?;
    ensure!(status == 7, "{status} instead of 7");
    Ok(())
}

fn place() -> Result<()> {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let here = env::current_dir()?.display().to_string();
    let file = directory.path().join("it's here");
    let script = format!("pwd; printf %s \"$PATH\" > \"{}\"", file.display());
    let mut running = start(&script, Some(directory.path()))?;
    let out = read(&mut running.stdout)?;
    ensure!(out.trim() == here, "it ran in {out}");
    ensure!(status(running)? == 0);
    let (path, expected) = (fs::read_to_string(&file)?, env::var("PATH")?);
    ensure!(path == expected, "PATH was {path}");
    Ok(())
}

fn elsewhere() -> Result<()> {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let file = directory.path().join("file");
    let running = start(&format!("echo gone > {0} && cat {0}", file.display()), None)?;
    ensure!(status(running)? == 0);
    ensure!(!file.exists(), "it is on the real machine");
    Ok(())
}

fn deadline() -> Result<()> {
    let mut running = start("sleep 1000", None)?;
    let ended = running.wait(Some(Instant::now() + Duration::from_secs(2)))?;
    ensure!(matches!(ended, Ended::Late), "{ended:?}");
    Ok(())
}
