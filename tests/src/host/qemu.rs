//! Finding and installing QEMU, the emulator of the emulated host. 7.2 (Debian 12) and later will do.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result};

use crate::{apt, programs};

/// What a user without root asks an administrator for.
pub(super) const PACKAGES: &str = "qemu-system-x86";

pub(super) fn find() -> Option<PathBuf> {
    programs::installed("qemu-system-x86_64")
}

/// Installs it, keeping qemu-img: where qemu-utils came from backports, plain `apt-get install` would take the older
/// QEMU and remove those tools. So the same suite is named again, or, where apt knows it no more, the tools come from
/// the older suite too.
pub(super) fn install() -> Result<()> {
    match apt::installed_version("qemu-utils") {
        Some(version) if version.contains("~bpo") => match apt::backports() {
            Some(suite) => apt::install(&["--target-release", &suite, PACKAGES, "qemu-utils"]),
            None => {
                let mut packages = apt::installed("qemu-*");
                packages.push(PACKAGES.to_owned());
                let suite = apt::suite();
                let words: Vec<_> = packages
                    .iter()
                    .map(|name| format!("{name}/{suite}"))
                    .collect();
                let words = ["--allow-downgrades"]
                    .into_iter()
                    .chain(words.iter().map(String::as_str));
                apt::install(&words.collect::<Vec<_>>())
            }
        },
        _ => apt::install(&[PACKAGES]),
    }
}

/// Its version line.
pub(super) fn version() -> Result<&'static str> {
    static VERSION: OnceLock<Option<String>> = OnceLock::new();
    let version = VERSION.get_or_init(|| {
        let out = Command::new(find()?).arg("--version").output().ok()?;
        Some(
            String::from_utf8_lossy(&out.stdout)
                .lines()
                .next()?
                .to_owned(),
        )
    });
    version
        .as_deref()
        .context("qemu-system-x86_64 does not tell its version")
}
