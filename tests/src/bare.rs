//! A guest without an operating system, for measuring the VMM alone (`tests/guest`).

use std::env;
use std::path::PathBuf;

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

/// Its ELF file, built if need be.
pub fn build() -> Result<PathBuf> {
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(
        || concat!(env!("CARGO_MANIFEST_DIR"), "/../target").into(),
        PathBuf::from,
    );
    let mut cargo = spindle::cargo();
    cargo
        .args([
            "rustc",
            "--manifest-path",
            PACKAGE,
            "--release",
            "--target-dir",
        ])
        .arg(target.join("guest"));
    spindle::executable(&mut cargo, "guest", &FLAGS)
}
