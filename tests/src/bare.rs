//! A guest without an operating system, for measuring the VMM alone (`tests/guest`).

use std::env;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::Result;

use crate::spindle;

const PACKAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/guest/Cargo.toml");

/// What makes a program of this machine's target one that needs neither libraries nor a loader.
const FLAGS: [&str; 6] = [
    "-Crelocation-model=static",
    "-Clink-arg=-nostartfiles",
    "-Clink-arg=-nostdlib",
    "-Clink-arg=-static",
    "-Clink-arg=-Wl,--entry=start32",
    "-Clink-arg=-Wl,--build-id=none",
];

/// Names its ELF file where it cannot be built.
pub const BUILT: &str = "SPINDLE_BARE_GUEST";

/// Its ELF file, built if need be.
pub fn path() -> Result<&'static Path> {
    static PATH: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let path = PATH.get_or_init(|| match env::var_os(BUILT) {
        Some(path) => Ok(path.into()),
        None => build().map_err(|error| format!("{error:#}")),
    });
    path.as_deref()
        .map_err(|error| anyhow::anyhow!("cannot build the bare guest: {error}"))
}

fn build() -> Result<PathBuf> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let target =
        env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace.join("target"), PathBuf::from);
    let mut cargo = spindle::cargo();
    cargo.args([
        "rustc",
        "--manifest-path",
        PACKAGE,
        "--release",
        "--target-dir",
    ]);
    spindle::executable(cargo.arg(target.join("guest")), "guest", &FLAGS)
}
