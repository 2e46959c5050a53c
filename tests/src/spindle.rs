//! The spindle binary under test. `cargo test` does not build another package's binary, and a stale one would be
//! worse than none: it is built once by each process that asks.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// The profile that guests are booted with: optimised, with the checks of a debug build.
pub const BOOT: &str = "boot";

/// spindle, built from this source tree; `SPINDLE=FILE` names another one to try.
pub fn path() -> Result<&'static Path> {
    static PATH: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let path = PATH.get_or_init(|| match env::var_os("SPINDLE") {
        Some(path) => Ok(path.into()),
        None => build(BOOT).map_err(|error| format!("{error:#}")),
    });
    path.as_deref()
        .map_err(|error| anyhow::anyhow!("cannot build spindle: {error}"))
}

/// Builds spindle with a profile.
pub fn build(profile: &str) -> Result<PathBuf> {
    executable(
        cargo().args([
            "build",
            "--package",
            "vmm",
            "--bin",
            "spindle",
            "--profile",
            profile,
        ]),
        "spindle",
        &[],
    )
}

/// The cargo that runs us, in the workspace.
pub fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    command
}

/// Runs a `cargo build` (or `cargo rustc` with flags for the compiler) and finds the executable that it made.
pub fn executable(build: &mut Command, name: &str, flags: &[&str]) -> Result<PathBuf> {
    build.args(["--message-format", "json-render-diagnostics"]);
    if !flags.is_empty() {
        build.arg("--").args(flags);
    }
    let out = build
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo")?;
    ensure!(out.status.success(), "cargo build failed");
    let messages = String::from_utf8_lossy(&out.stdout).into_owned();
    for line in messages.lines() {
        let Ok(message) = serde_json::from_str::<Value>(line) else {
            continue;
        };
        if message["target"]["name"] == name
            && let Some(path) = message["executable"].as_str()
        {
            return Ok(path.into());
        }
    }
    bail!("cargo names no executable {name}")
}
