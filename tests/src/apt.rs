//! Packages of the distribution, without root: downloaded by `apt-get`, unpacked by `dpkg -x` into the user's cache.
//!
//! Where the system's package lists are empty (containers) or too old to download by, lists of our own are kept
//! beside the packages. A package stays in the cache until it is unused for two weeks.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context, Result, bail, ensure};

use crate::{cache, progress};

/// The directory into which `package` and the packages it needs that this machine lacks are unpacked.
pub fn with_dependencies(package: &str) -> Result<PathBuf> {
    let action = [
        "install",
        "--yes",
        "--download-only",
        "--reinstall",
        "--no-install-recommends",
        package,
    ];
    fetch(&[package.to_owned()], &action)
}

/// The directory into which exactly these packages are unpacked.
pub fn exactly(packages: &[String]) -> Result<PathBuf> {
    let names = packages.iter().map(String::as_str);
    let action: Vec<_> = ["download"].into_iter().chain(names).collect();
    fetch(packages, &action)
}

/// The packages that `package` depends on, by name.
pub fn depends(package: &str) -> Result<Vec<String>> {
    let found = Lists::each(|lists| {
        let out = lists.run("apt-cache", &["depends", package], Path::new("/"))?;
        let names: Vec<_> = out
            .lines()
            .filter_map(|line| line.trim().strip_prefix("Depends: "))
            .collect();
        ensure!(!names.is_empty(), "package {package} is not known to apt");
        Ok(names.into_iter().map(str::to_owned).collect())
    });
    found.with_context(|| format!("cannot resolve package {package}"))
}

/// Installs packages on this machine, as root, saying so first.
pub fn install(packages: &[&str]) -> Result<()> {
    progress::say(&format!(
        "installing {} (apt-get install, as root)",
        packages.join(" ")
    ));
    let install = |options: &[&str]| {
        let mut command = Command::new("apt-get");
        command
            .args(["install", "--yes", "--quiet", "--no-install-recommends"])
            .args(options)
            .args(packages);
        succeed(command.env("DEBIAN_FRONTEND", "noninteractive"))
    };
    let what = format!("apt-get install {}", packages.join(" "));
    progress::step(&what, || {
        install(&[]).or_else(|_| {
            succeed(Command::new("apt-get").args(["update", "--quiet"]))?;
            install(&[])
        })
    })?;
    Ok(())
}

/// The version of an installed package, if it is installed.
pub fn installed_version(package: &str) -> Option<String> {
    dpkg_query("${Version}", package).pop()
}

/// The names of the installed packages that match a pattern.
pub fn installed(pattern: &str) -> Vec<String> {
    dpkg_query("${Package}", pattern)
}

fn dpkg_query(field: &str, pattern: &str) -> Vec<String> {
    let format = format!("--showformat=${{db:Status-Status}} {field}\\n");
    let out = Command::new("dpkg-query")
        .args(["--show", &format, pattern])
        .output();
    let out = out.map(|out| out.stdout).unwrap_or_default();
    let lines = String::from_utf8_lossy(&out).into_owned();
    lines
        .lines()
        .filter_map(|line| line.strip_prefix("installed "))
        .map(str::to_owned)
        .collect()
}

/// The distribution's own suite, by name.
pub fn suite() -> String {
    let name = distribution()
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    name.unwrap_or("stable").trim_matches('"').to_owned()
}

/// The suite of backports that apt is set up to use, if any.
pub fn backports() -> Option<String> {
    let policy = Lists::System
        .run("apt-cache", &["policy"], Path::new("/"))
        .ok()?;
    let names = policy
        .split([',', ' ', '\n'])
        .filter_map(|word| word.strip_prefix("n="));
    names
        .filter(|name| name.ends_with("-backports"))
        .map(str::to_owned)
        .next()
}

fn fetch(packages: &[String], action: &[&str]) -> Result<PathBuf> {
    let name = packages.first().map_or("", String::as_str);
    let key = cache::key(&(distribution(), action));
    cache::entry("packages", &format!("{name}-{key}"), |dir| {
        progress::step(&format!("getting {name} from the distribution"), || {
            let debs = dir.join("debs");
            Lists::each(|lists| lists.get(&debs, action, packages))
                .with_context(|| format!("cannot download {}", packages.join(" ")))?;
            unpack(&debs, dir)?;
            Ok(fs::remove_dir_all(debs)?)
        })
    })
}

fn unpack(debs: &Path, into: &Path) -> Result<()> {
    for deb in fs::read_dir(debs)? {
        let deb = deb?.path();
        if deb.extension().is_some_and(|extension| extension == "deb") {
            succeed(Command::new("dpkg").arg("-x").arg(&deb).arg(into))?;
        }
    }
    Ok(())
}

/// Whether this is Ubuntu, or made from it, and not another Debian.
pub fn is_ubuntu() -> bool {
    let id = |line: &&str| line.starts_with("ID=") || line.starts_with("ID_LIKE=");
    distribution()
        .lines()
        .filter(id)
        .any(|line| line.contains("ubuntu"))
}

fn distribution() -> &'static str {
    static ID: OnceLock<String> = OnceLock::new();
    ID.get_or_init(|| fs::read_to_string("/etc/os-release").unwrap_or_default())
}

/// Where apt finds the index of packages.
enum Lists {
    System,
    Own(PathBuf),
}

impl Lists {
    /// Tries the system's lists, then our own as they are, then our own brought up to date.
    fn each<T>(attempt: impl Fn(&Lists) -> Result<T>) -> Result<T> {
        if let Ok(done) = attempt(&Lists::System) {
            return Ok(done);
        }
        let own = Lists::Own(cache::dir()?.join("apt"));
        if let Ok(done) = attempt(&own) {
            return Ok(done);
        }
        own.update()?;
        attempt(&own)
    }

    fn update(&self) -> Result<()> {
        let Lists::Own(dir) = self else {
            bail!("the system's package lists are root's to update")
        };
        fs::create_dir_all(dir.join("lists/partial"))?;
        progress::step("getting the distribution's package lists", || {
            self.run("apt-get", &["update"], dir)
        })?;
        Ok(())
    }

    /// Downloads packages into `into`; apt-get may succeed without, so what came is looked at.
    fn get(&self, into: &Path, action: &[&str], packages: &[String]) -> Result<()> {
        fs::create_dir_all(into.join("partial"))?;
        self.run("apt-get", action, into)?;
        let files = fs::read_dir(into)?.flatten().map(|entry| entry.file_name());
        let names: Vec<_> = files.filter_map(|name| name.into_string().ok()).collect();
        for package in packages {
            let came = names
                .iter()
                .any(|name| name.starts_with(&format!("{package}_")));
            ensure!(came, "package {package} is not offered");
        }
        Ok(())
    }

    fn run(&self, program: &str, action: &[&str], dir: &Path) -> Result<String> {
        let mut command = Command::new(program);
        command
            .current_dir(dir)
            .args(["-o", "Debug::NoLocking=1", "-o", "APT::Sandbox::User="]);
        command.args([
            "-o",
            "Dir::Cache::pkgcache=",
            "-o",
            "Dir::Cache::srcpkgcache=",
        ]);
        command
            .arg("-o")
            .arg(format!("Dir::Cache::archives={}", dir.display()));
        if let Lists::Own(own) = self {
            command
                .arg("-o")
                .arg(format!("Dir::State::Lists={}", own.join("lists").display()));
        }
        succeed(command.args(action))
    }
}

/// Runs a command to its end, quietly; what it wrote to stdout, or its last words.
fn succeed(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let out = command
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {name}"))?;
    let errors = String::from_utf8_lossy(&out.stderr);
    ensure!(
        out.status.success(),
        "{name}: {}",
        errors
            .lines()
            .rfind(|line| !line.is_empty())
            .unwrap_or("failed")
    );
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}
