//! Getting programs from the distribution, as a user without root and with nothing in the cache.
//!
//! The work is done by this program started again, as another user if we are root, with a cache directory of its own.
#![allow(missing_docs, reason = "a program, not a library")]

use std::env;
use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use libtest_mimic::{Arguments, Trial};
use tests::programs;

/// Says that this is the program started again.
const AGAIN: &str = "SPINDLE_PACKAGES";
const NOBODY: u32 = 65534;

fn main() -> ExitCode {
    if env::var_os(AGAIN).is_some() {
        fetch().unwrap();
        return ExitCode::SUCCESS;
    }
    let missing = missing();
    let required = env::var_os("SPINDLE_TEST_REQUIRE").is_some_and(|value| value == "all");
    let test = |name: &str, run: fn() -> Result<()>| {
        let trial = Trial::test(name, move || {
            run().map_err(|error| format!("{error:#}").into())
        });
        let trial = trial.with_ignored_flag(missing.is_some() && !required);
        trial.with_kind(missing.unwrap_or_default())
    };
    let trials = vec![
        test("come_without_root", || again(&[])),
        test("come_without_the_systems_lists", || {
            again(&["Dir::State::Lists \"/dev/null\";"])
        }),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// Why nothing can be downloaded.
fn missing() -> Option<&'static str> {
    let routes = fs::read_to_string("/proc/net/route").unwrap_or_default();
    let default = routes
        .lines()
        .any(|line| line.split_whitespace().nth(1) == Some("00000000"));
    match (default, programs::installed("apt-get")) {
        (false, _) => Some("no network: connect it"),
        (true, None) => Some("no apt-get: run this on Debian or Ubuntu"),
        (true, Some(_)) => None,
    }
}

fn again(config: &[&str]) -> Result<()> {
    let home = tempfile::tempdir()?;
    let this = home.path().join("program");
    fs::copy(env::current_exe()?, &this)?;
    let apt = home.path().join("apt.conf");
    fs::write(&apt, config.join("\n"))?;
    let mut command = Command::new(&this);
    if rustix::process::geteuid().is_root() {
        chown(home.path(), Some(NOBODY), Some(NOBODY))?;
        command = Command::new("setpriv");
        let user = [format!("--reuid={NOBODY}"), format!("--regid={NOBODY}")];
        command.args(user).arg("--clear-groups").arg(&this);
    }
    command.envs([
        (AGAIN, Path::new("yes")),
        ("SPINDLE_FETCH", Path::new("always")),
    ]);
    command.envs([
        ("XDG_CACHE_HOME", home.path()),
        ("HOME", home.path()),
        ("APT_CONFIG", &apt),
    ]);
    let out = command.current_dir(home.path()).output()?;
    ensure!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    Ok(())
}

fn fetch() -> Result<()> {
    let cache = tests::cache::dir()?;
    let busybox = programs::busybox()?;
    ensure!(
        busybox.starts_with(&cache),
        "{} was not fetched",
        busybox.display()
    );
    ensure!(
        Command::new(&busybox).arg("true").status()?.success(),
        "busybox does not run"
    );
    let lsblk = programs::find("lsblk", "util-linux")?;
    ensure!(
        lsblk.path.starts_with(&cache),
        "{} was not fetched",
        lsblk.path.display()
    );
    ensure!(
        lsblk.command().arg("--version").output()?.status.success(),
        "lsblk does not run"
    );
    let libraries = programs::libraries(&lsblk)?;
    let libc = libraries
        .iter()
        .any(|(inside, _)| inside.ends_with("libc.so.6"));
    ensure!(
        libc && libraries.len() > 2,
        "libraries of lsblk: {libraries:?}"
    );
    // What was fetched once is there without asking again.
    let again = programs::busybox().context("a second time")?;
    ensure!(again == busybox, "fetched twice");
    Ok(())
}
