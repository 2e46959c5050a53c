//! Programs of the distribution that the harness runs or puts into guests: this machine's own, else fetched.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::apt;

/// A program and, if it was fetched, where its libraries are.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Program {
    /// The executable.
    pub path: PathBuf,
    root: Option<PathBuf>,
}

/// The program `name`: found on this machine, else fetched with `package` and what that needs.
pub fn find(name: &str, package: &str) -> Result<Program> {
    match installed(name).filter(|_| !always_fetch()) {
        Some(path) => Ok(Program { path, root: None }),
        None => fetched(name, package),
    }
}

/// Whether what this machine has is to be ignored, so that getting it from the distribution can be tried.
pub fn always_fetch() -> bool {
    env::var_os("SPINDLE_FETCH").is_some_and(|value| value == "always")
}

/// Where this machine has the program `name`, if it has. Administrators' directories count, whatever the user's path.
pub fn installed(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let directories = env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    directories
        .map(|directory| directory.join(name))
        .find(|path| path.is_file())
}

/// A busybox that needs no library.
pub fn busybox() -> Result<PathBuf> {
    if let Some(path) = installed("busybox").filter(|path| !always_fetch() && is_static(path)) {
        return Ok(path);
    }
    Ok(fetched("busybox", "busybox-static")?.path)
}

fn fetched(name: &str, package: &str) -> Result<Program> {
    let root = apt::with_dependencies(package)
        .with_context(|| format!("{name} is missing (package {package})"))?;
    let path = ["usr/bin", "usr/sbin", "bin", "sbin"]
        .iter()
        .map(|dir| root.join(dir).join(name));
    let path = path.into_iter().find(|path| path.is_file());
    Ok(Program {
        path: path.with_context(|| format!("package {package} has no {name}"))?,
        root: Some(root),
    })
}

fn is_static(path: &Path) -> bool {
    libraries(&Program {
        path: path.to_owned(),
        root: None,
    })
    .is_ok_and(|libraries| libraries.is_empty())
}

impl Program {
    /// A command that runs it.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        if let Some(path) = self.library_path() {
            command.env("LD_LIBRARY_PATH", path);
        }
        command
    }

    fn library_path(&self) -> Option<OsString> {
        let root = self.root.as_ref()?;
        let architecture = format!("{}-linux-gnu", env::consts::ARCH);
        let directories = ["usr/lib", "lib"].map(|lib| root.join(lib).join(&architecture));
        env::join_paths(directories).ok()
    }
}

/// The libraries and the loader that a program needs: where they must be for it, and where they are here.
pub fn libraries(program: &Program) -> Result<Vec<(PathBuf, PathBuf)>> {
    let mut ldd = Command::new("ldd");
    if let Some(path) = program.library_path() {
        ldd.env("LD_LIBRARY_PATH", path);
    }
    let out = ldd
        .env("LC_ALL", "C")
        .arg(&program.path)
        .output()
        .context("cannot run ldd (package libc-bin)")?;
    let text = String::from_utf8_lossy(&out.stdout);
    ensure!(
        !text.contains("not found"),
        "{}: a library is missing:\n{text}",
        program.path.display()
    );
    Ok(parse_ldd(&text, program.root.as_deref()))
}

/// Lines are `NAME => FILE (ADDRESS)`, `LOADER (ADDRESS)`, or `linux-vdso.so.1 (ADDRESS)`.
fn parse_ldd(text: &str, root: Option<&Path>) -> Vec<(PathBuf, PathBuf)> {
    let file = |line: &str| {
        let file = line.split(" => ").last()?.split(" (").next()?.trim();
        if !file.starts_with('/') {
            return None;
        }
        let here = Path::new(file);
        let inside = root
            .and_then(|root| here.strip_prefix(root).ok())
            .map(|path| Path::new("/").join(path));
        Some((
            inside.unwrap_or_else(|| here.to_owned()),
            fs::canonicalize(here).unwrap_or_else(|_| here.to_owned()),
        ))
    };
    text.lines().filter_map(file).collect()
}

#[cfg(test)]
mod tests;
