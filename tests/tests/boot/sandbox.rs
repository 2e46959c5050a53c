//! The sandbox is on for every guest of this suite; here is that it really is.

use std::fs;

use anyhow::{Context, Result, ensure};
use tests::guest::Kit;

use super::Check;
use super::scratch::{MIB, directory, image};

pub(crate) const CHECKS: fn() -> Vec<Check> = || {
    vec![
        Check::new("sandbox::every_thread_is_filtered", every_thread),
        Check::new("sandbox::off_turns_it_off", off),
    ]
};

fn every_thread(kit: &Kit) -> Result<()> {
    let directory = directory()?;
    let disk = image(directory.path(), "disk", MIB)?;
    let mut guest = kit.guest().disk(&disk, "").boot()?;
    // So that threads that are started by need are there.
    guest.run("dd if=/dev/zero of=/dev/vda bs=4096 count=1 conv=fsync 2>&1")?;
    let threads = threads(guest.id())?;
    ensure!(
        threads.len() >= 3,
        "main, a processor and an I/O thread: {threads:?}"
    );
    for thread in &threads {
        ensure!(
            thread.seccomp == 2,
            "no filter on thread {}: {threads:?}",
            thread.name
        );
        ensure!(
            thread.no_new_privileges,
            "thread {} could gain privileges",
            thread.name
        );
    }
    guest.power_off()
}

fn off(kit: &Kit) -> Result<()> {
    let guest = kit.guest().with("-sandbox off").boot()?;
    let threads = threads(guest.id())?;
    ensure!(
        threads.iter().all(|thread| thread.seccomp == 0),
        "{threads:?}"
    );
    guest.power_off()
}

#[derive(Debug)]
struct Thread {
    name: String,
    seccomp: u32,
    no_new_privileges: bool,
}

fn threads(process: u32) -> Result<Vec<Thread>> {
    let mut threads = Vec::new();
    for task in fs::read_dir(format!("/proc/{process}/task"))? {
        let status = fs::read_to_string(task?.path().join("status"))?;
        let field = |name: &str| {
            let value = status
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            value.map(str::trim).with_context(|| format!("no {name}"))
        };
        threads.push(Thread {
            name: field("Name")?.into(),
            seccomp: field("Seccomp")?.parse()?,
            no_new_privileges: field("NoNewPrivs")? == "1",
        });
    }
    Ok(threads)
}
