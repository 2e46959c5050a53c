//! The machine: processors, memory, ways to boot and ways to end.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, ensure};
use tests::guest::{Config, Guest, Kit};

use super::Check;
use super::scratch::directory;

pub(crate) const CHECKS: fn() -> Vec<Check> = || {
    vec![
        Check::new("machine::one_cpu_and_256_mib", one_cpu),
        Check::new("machine::two_cpus", two_cpus),
        Check::new("machine::five_gib", five_gib).memory(6144),
        Check::new("machine::bzimage", bzimage),
        Check::new("machine::truncated_bzimage_is_refused", truncated),
        Check::new("machine::reboot_restarts", reboot_restarts),
        Check::new("machine::no_reboot_ends", no_reboot_ends),
        Check::new("machine::panic_is_reported", panic_is_reported),
        Check::new("machine::acpi_tables_are_well_formed", acpi_tables)
            .program("iasl", "acpica-tools"),
    ]
};

fn one_cpu(kit: &Kit) -> Result<()> {
    let mut guest = kit.guest().boot()?;
    expect_size(&mut guest, 1, 256)?;
    guest.power_off()
}

fn two_cpus(kit: &Kit) -> Result<()> {
    const UUID: &str = "12345678-9abc-def0-0102-030405060708";
    let mut guest = Config {
        cpus: 2,
        ..kit.guest()
    }
    .with(&format!("-uuid {UUID}"))
    .boot()?;
    expect_size(&mut guest, 2, 256)?;
    let found = guest.run("cd /sys/class/dmi/id; cat sys_vendor product_uuid; cd /")?;
    ensure!(found == format!("spindle\n{UUID}"), "the system is {found}");
    // Both do work, and interrupts reach each.
    for cpu in ["1", "2"] {
        guest.run(&format!(
            "taskset {cpu} sh -c 'i=0; while [ $i -lt 1000 ]; do i=$((i+1)); done; sleep 0.1'"
        ))?;
    }
    guest.power_off()
}

fn five_gib(kit: &Kit) -> Result<()> {
    let mut guest = Config {
        memory: "5G".into(),
        ..kit.guest()
    }
    .boot()?;
    expect_size(&mut guest, 1, 5 << 10)?;
    // What does not fit below the hole is behind 4 GiB.
    let map = guest.run("grep -i 'System RAM' /proc/iomem")?;
    ensure!(
        map.lines().any(|line| line.starts_with("100000000-")),
        "no memory at 4 GiB:\n{map}"
    );
    // Memory on both sides holds what is written.
    guest.run("mount -o remount,size=100% /dev/shm; dd if=/dev/zero of=/dev/shm/f bs=1M count=4000 && rm /dev/shm/f")?;
    guest.power_off()
}

fn bzimage(kit: &Kit) -> Result<()> {
    let mut guest = Config {
        kernel: kit.kernel.bzimage.clone(),
        ..kit.guest()
    }
    .boot()?;
    expect_size(&mut guest, 1, 256)?;
    guest.power_off()
}

fn truncated(kit: &Kit) -> Result<()> {
    let directory = directory()?;
    let bzimage = fs::read(&kit.kernel.bzimage)?;
    // Cut in its header, in its set-up code, in what is unpacked.
    for length in [0x230, 0x1000, bzimage.len() / 2] {
        let kernel = directory.path().join(format!("cut-at-{length}"));
        fs::write(&kernel, &bzimage[..length])?;
        let mut refused = Command::new(&kit.spindle);
        let out = refused
            .args(["-nographic", "-kernel"])
            .arg(&kernel)
            .stdin(Stdio::null())
            .output()?;
        let said = String::from_utf8_lossy(&out.stderr);
        ensure!(
            out.status.code() == Some(1),
            "cut at {length}: {}, {said}",
            out.status
        );
        ensure!(
            said.lines().count() == 1 && said.contains("-kernel"),
            "cut at {length}: {said}"
        );
    }
    Ok(())
}

fn reboot_restarts(kit: &Kit) -> Result<()> {
    let mut guest = kit.guest().boot()?;
    guest.run("touch /run/before")?;
    guest.send("reboot -f")?;
    guest.ready()?;
    guest.run("[ ! -e /run/before ]")?;
    guest.power_off()
}

fn no_reboot_ends(kit: &Kit) -> Result<()> {
    // The orderly way through ACPI's reset register, and a bare reset.
    for way in ["reboot -f", "echo b > /proc/sysrq-trigger"] {
        let mut guest = kit.guest().with("-no-reboot").boot()?;
        guest.send(way)?;
        let status = guest.wait()?;
        ensure!(status == 0, "{way}: spindle ended with {status}");
    }
    Ok(())
}

fn panic_is_reported(kit: &Kit) -> Result<()> {
    let mut guest = kit.guest().with("-device pvpanic").boot()?;
    guest.send("echo c > /proc/sysrq-trigger")?;
    let status = guest.wait()?;
    ensure!(
        status == 4,
        "spindle ended with {status} after the guest's panic"
    );
    Ok(())
}

fn acpi_tables(kit: &Kit) -> Result<()> {
    let directory = directory()?;
    let mut guest = Config {
        cpus: 2,
        ..kit.guest()
    }
    .with("-device pvpanic")
    .boot()?;
    let names = guest.run("cd /sys/firmware/acpi/tables && ls -p | grep -v /; cd /")?;
    for name in names.split_whitespace() {
        let text = guest.run(&format!("base64 < /sys/firmware/acpi/tables/{name}"))?;
        fs::write(directory.path().join(name).with_extension("text"), text)?;
    }
    guest.power_off()?;
    ensure!(
        names.contains("DSDT") && names.contains("FACP") && names.contains("APIC"),
        "tables: {names}"
    );
    for name in names.split_whitespace() {
        let table = directory.path().join(name);
        let mut decode = Command::new("base64");
        decode
            .arg("-d")
            .arg(table.with_extension("text"))
            .stdout(fs::File::create(&table)?);
        ensure!(decode.status()?.success(), "{name} is no base64");
        let said = iasl(&["-d"], &table)?;
        ensure!(
            !said.contains("Warning") && !said.contains("Error"),
            "{name}: {said}"
        );
        if name == "DSDT" {
            // What comes out is source that goes in again, without a remark.
            let said = iasl(
                &["-p", &table.with_extension("again").display().to_string()],
                &table.with_extension("dsl"),
            )?;
            ensure!(
                said.contains("0 Errors, 0 Warnings, 0 Remarks"),
                "{name}: {said}"
            );
        }
    }
    Ok(())
}

fn iasl(options: &[&str], file: &Path) -> Result<String> {
    let out = Command::new("iasl").args(options).arg(file).output()?;
    let said = [out.stdout, out.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    ensure!(out.status.success(), "iasl {}: {said}", file.display());
    Ok(said)
}

fn expect_size(guest: &mut Guest, cpus: u32, mebibytes: u64) -> Result<()> {
    let found = guest.run("nproc")?;
    ensure!(
        found == cpus.to_string(),
        "{found} processors instead of {cpus}"
    );
    let total = guest.run("awk '/MemTotal/ { print $2 }' /proc/meminfo")?;
    let total: u64 = total.parse::<u64>()? >> 10;
    // The kernel keeps some for itself before it counts.
    ensure!(
        total > mebibytes * 3 / 4 && total <= mebibytes,
        "{total} MiB instead of {mebibytes}"
    );
    Ok(())
}
