//! Image locks against QEMU's own tools: each must keep the other's writers out, and let in whoever only looks.
//!
//! Where the tools are missing the tests are reported as ignored; with `SPINDLE_TEST_REQUIRE=all` they fail.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use block::{Attach, DriveConfig, ErrorKind, Graph};
use exec::{Config, Executor};
use libtest_mimic::{Arguments, Failed, Trial};

const TOOLS: [&str; 2] = ["qemu-img", "qemu-io"];

fn main() {
    let missing: Vec<_> = TOOLS
        .iter()
        .filter(|tool| Command::new(tool).arg("--version").output().is_err())
        .collect();
    let required = std::env::var("SPINDLE_TEST_REQUIRE").is_ok_and(|value| value == "all");
    let why = format!("{missing:?} not found: install qemu-utils");
    let test = |name: &str, test: fn() -> Result<(), Failed>| {
        let name = if missing.is_empty() {
            name.to_owned()
        } else {
            format!("{name} ({why})")
        };
        let (absent, why) = (!missing.is_empty(), why.clone());
        Trial::test(name, move || if absent { Err(why.into()) } else { test() })
            .with_ignored_flag(absent && !required)
    };
    let tests = vec![
        test("our_writer_keeps_qemu_out", our_writer_keeps_qemu_out),
        test("our_reader_lets_qemu_read", our_reader_lets_qemu_read),
        test(
            "qemus_writer_keeps_us_out_and_is_named",
            qemus_writer_keeps_us_out_and_is_named,
        ),
        test("locking_off_takes_no_lock", locking_off_takes_no_lock),
    ];
    libtest_mimic::run(&Arguments::from_args(), tests).exit();
}

fn image(dir: &Path) -> PathBuf {
    let path = dir.join("disk");
    std::fs::write(&path, vec![0; 1 << 20]).expect("a file in a temporary directory");
    path
}

/// Runs `act` while a guest's drive made of `options` over `path` is attached.
fn attached<T>(path: &Path, options: &str, act: impl FnOnce() -> T) -> Result<T, block::Error> {
    let executor = Executor::new(Config::default()).expect("an executor");
    executor.block_on(async {
        let graph = Graph::new();
        let config = DriveConfig::parse(&format!(
            "file={},format=raw,if=none,id=d0{options}",
            path.display()
        ))?;
        graph.add_drive(&config).await?;
        let drive = graph
            .attach(
                "d0",
                &Attach {
                    device: "vda".into(),
                    ..Attach::default()
                },
            )
            .await?;
        let result = act();
        graph.detach(&drive).await;
        assert!(graph.close().await.is_empty());
        Ok(result)
    })
}

/// Whether the tool could use the image, and what it said.
fn qemu(tool: &str, args: &[&str], path: &Path) -> (bool, String) {
    let output = Command::new(tool)
        .args(args)
        .arg(path)
        .output()
        .expect("the tool was there a moment ago");
    (
        output.status.success(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

const READ: [&str; 5] = ["-r", "-f", "raw", "-c", "read 0 512"];
const WRITE: [&str; 4] = ["-f", "raw", "-c", "write 0 512"];

fn our_writer_keeps_qemu_out() -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    let path = image(dir.path());
    attached(&path, "", || {
        let (ok, said) = qemu("qemu-io", &WRITE, &path);
        assert!(!ok && said.contains("lock"), "{said}");
        // Whoever only looks at a raw image minds no writer, in QEMU as here.
        let (ok, said) = qemu("qemu-img", &["info", "-f", "raw"], &path);
        assert!(ok, "{said}");
    })?;
    let (ok, said) = qemu("qemu-io", &WRITE, &path);
    assert!(ok, "the image is free after the close: {said}");
    Ok(())
}

fn our_reader_lets_qemu_read() -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    let path = image(dir.path());
    attached(&path, ",read-only=on", || {
        let (ok, said) = qemu("qemu-io", &READ, &path);
        assert!(ok, "{said}");
        let (ok, said) = qemu("qemu-io", &WRITE, &path);
        assert!(!ok && said.contains("lock"), "{said}");
    })?;
    Ok(())
}

/// A qemu-io that holds the image for writing until it is dropped.
struct Holder(Child);

impl Holder {
    fn new(path: &Path) -> Self {
        let mut child = Command::new("qemu-io")
            .args(["-f", "raw"])
            .arg(path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the tool was there a moment ago");
        // It answers once it has opened the image.
        child
            .stdin
            .as_mut()
            .expect("piped")
            .write_all(b"write 0 512\n")
            .expect("it reads");
        let mut lines = BufReader::new(child.stdout.as_mut().expect("piped")).lines();
        assert!(lines.any(|line| line.expect("text").contains("wrote 512")));
        Self(child)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

fn qemus_writer_keeps_us_out_and_is_named() -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    let path = image(dir.path());
    let holder = Holder::new(&path);
    let error = attached(&path, "", || ()).expect_err("qemu-io writes to it");
    assert_eq!(error.kind, ErrorKind::InUse);
    let (said, who) = (
        error.to_string(),
        format!("qemu-io (pid {}) uses it", holder.0.id()),
    );
    assert!(
        said.contains("failed to get \"write\" lock") || said.contains("lock on"),
        "{said}"
    );
    assert!(said.contains(&who), "{said}");
    drop(holder);
    attached(&path, "", || ())?;
    Ok(())
}

fn locking_off_takes_no_lock() -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    let path = image(dir.path());
    attached(&path, ",file.locking=off", || {
        let (ok, said) = qemu("qemu-io", &WRITE, &path);
        assert!(ok, "{said}");
    })?;
    Ok(())
}
