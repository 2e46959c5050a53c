//! The program before any guest runs: what it prints where, and how it ends.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use rustix::fs::{CWD, FlockOperation, Mode, flock, mkfifoat};

fn spindle(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_spindle"))
        .args(arguments)
        .stdin(Stdio::null())
        .env_remove("SPINDLE_LOG")
        .env_remove("RUST_LOG")
        .output()
        .unwrap()
}

/// The one line that a refused command line is told.
fn refusal(arguments: &[&str]) -> String {
    let output = spindle(arguments);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
    assert!(output.stdout.is_empty(), "{arguments:?}");
    assert!(
        said.starts_with("spindle: ") && said.ends_with('\n') && said.lines().count() == 1,
        "{arguments:?}: {said}"
    );
    said.trim_end().to_owned()
}

#[test]
fn help_and_version_go_to_stdout() {
    for (arguments, expected) in [
        (&["-help"][..], "usage: spindle -kernel FILE"),
        (&["--help"], "usage: spindle -kernel FILE"),
        (&["-version"], env!("CARGO_PKG_VERSION")),
        (&["-device", "help"], "virtio-blk-pci"),
        (&["-device", "virtio-blk-pci,help"], "num-queues"),
        (&["-drive", "help"], "format="),
        (&["-machine", "help"], "q35"),
        (&["-cpu", "help"], "host"),
    ] {
        let output = spindle(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert!(output.stderr.is_empty(), "{arguments:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains(expected), "{arguments:?}: {text}");
    }
}

#[test]
fn who_closes_the_pipe_has_read_enough() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_spindle"))
        .arg("-help")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stderr.is_empty());
}

/// A run lasts longer than whoever reads its messages.
#[test]
fn messages_that_nobody_reads_are_no_failure() {
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk");
    fs::write(&disk, "data").unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_spindle"))
        .args(["-display", "none", "-kernel", env!("CARGO_BIN_EXE_spindle")])
        // Without a format: a warning.
        .args(["-drive", &format!("file={},if=virtio", disk.display())])
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stderr.take());
    assert_eq!(child.wait().unwrap().code(), Some(1));
}

#[test]
fn a_mistake_is_one_line() {
    assert_eq!(
        refusal(&["-kernl", "x"]),
        "spindle: -kernl: unknown option; did you mean -kernel?"
    );
    // Whatever a file is called, and without the number of an error that has words.
    assert_eq!(
        refusal(&[
            "-kernel",
            "k",
            "-display",
            "none",
            "-serial",
            "file:/no\nsuch/log"
        ]),
        "spindle: -serial: cannot open '/no such/log': No such file or directory"
    );
}

/// However many there are before there are none: one line, and the host's failure.
#[test]
fn no_descriptors_left_is_a_failure_of_the_host() {
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk");
    fs::write(&disk, [0; 512]).unwrap();
    let line = format!(
        "exec {0} -kernel {0} -serial stdio -nographic -drive file={1},format=raw,if=virtio",
        env!("CARGO_BIN_EXE_spindle"),
        disk.display()
    );
    let mut ran_out = 0;
    for most in 4..80 {
        let output = Command::new("sh")
            .args(["-c", &format!("ulimit -n {most}; {line}")])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        let is_short = said.contains("Too many open files");
        ran_out += u32::from(is_short);
        let expected = if is_short { 2 } else { 1 };
        assert_eq!(output.status.code(), Some(expected), "{most}: {said}");
        assert_eq!(said.lines().count(), 1, "{most}: {said}");
    }
    assert!(ran_out > 10, "{ran_out}");
}

#[test]
fn a_pid_file_has_one_holder_and_stays_his() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pid");
    fs::write(&path, "4711\n").unwrap();
    let holder = File::open(&path).unwrap();
    flock(&holder, FlockOperation::LockExclusive).unwrap();
    let name = path.to_str().unwrap();
    let line = ["-kernel", "k", "-display", "none", "-pidfile", name];
    let expected = format!("-pidfile: '{name}' is held by a running process; give another path");
    assert_eq!(refusal(&line), format!("spindle: {expected}"));
    assert_eq!(fs::read(&path).unwrap(), b"4711\n");
}

#[test]
fn nobody_is_waited_for_at_the_other_end_of_a_pipe() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pipe");
    mkfifoat(CWD, &path, Mode::RWXU).unwrap();
    let pipe = path.to_str().unwrap();
    let file = env!("CARGO_BIN_EXE_spindle");
    let serial = format!("file:{pipe}");
    for (line, expected) in [
        (&["-kernel", pipe][..], "-kernel: cannot open"),
        (&["-kernel", file, "-initrd", pipe], "-initrd: cannot open"),
        (&["-kernel", file, "-pidfile", pipe], "-pidfile: "),
        (
            &["-kernel", file, "-serial", &serial],
            "-serial: nobody reads the pipe",
        ),
    ] {
        let said = refusal(&[&["-display", "none"], line].concat());
        assert!(said.starts_with(&format!("spindle: {expected}")), "{said}");
    }
    assert!(path.exists());
}

#[test]
fn what_the_machine_is_made_of_is_not_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    for name in ["kernel", "initrd", "disk", "node"] {
        fs::write(path(name), "").unwrap();
    }
    fs::hard_link(path("disk"), path("disk-too")).unwrap();
    symlink("node", path("node-too")).unwrap();
    let (kernel, initrd) = (path("kernel"), path("initrd"));
    let drive = format!("file={},format=raw,if=virtio", path("disk"));
    let missing = format!("file={},format=raw,if=virtio", path("missing"));
    let node = format!("driver=file,node-name=n,filename={}", path("node"));
    let machine = [
        "-display",
        "none",
        "-kernel",
        &kernel,
        "-initrd",
        &initrd,
        "-drive",
        &drive,
        "-drive",
        &missing,
        "-blockdev",
        &node,
    ];
    for (name, whose) in [
        ("kernel", "-kernel"),
        ("initrd", "-initrd"),
        ("disk-too", "-drive #1"),
        ("missing", "-drive #2"),
        ("node-too", "-blockdev #1"),
    ] {
        let (name, log) = (path(name), format!("file:{}", path(name)));
        for ours in [["-pidfile", &name], ["-serial", &log]] {
            let expected = format!(
                "spindle: {}: '{name}' is the file of {whose}, too, and would be overwritten; give another path",
                ours[0]
            );
            assert_eq!(refusal(&[&machine[..], &ours].concat()), expected);
        }
    }
    let (pid, log) = (path("pid"), format!("file:{}", path("pid")));
    let said = refusal(&[
        "-kernel", &kernel, "-display", "none", "-pidfile", &pid, "-serial", &log,
    ]);
    assert!(said.contains("is the file of -pidfile, too"), "{said}");
    for (name, is_there) in [("kernel", true), ("disk", true), ("missing", false)] {
        assert_eq!(Path::new(&path(name)).exists(), is_there, "{name}");
    }
}

#[test]
fn a_start_that_fails_leaves_no_traces() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    fs::write(path("log"), "of the last run").unwrap();
    fs::write(path("disk"), "data").unwrap();
    let line = [
        "-kernel".to_owned(),
        path("missing"),
        "-display".into(),
        "none".into(),
        "-pidfile".into(),
        path("pid"),
        "-drive".into(),
        format!("file={},format=raw,if=virtio", path("disk")),
    ];
    for serial in [
        format!("unix:{},server=on,wait=on", path("socket")),
        format!("file:{}", path("log")),
        format!("file:{}", path("new-log")),
    ] {
        let mut line: Vec<&str> = line.iter().map(String::as_str).collect();
        line.extend(["-serial", &serial]);
        let said = refusal(&line);
        assert!(said.starts_with("spindle: -kernel: "), "{said}");
        assert!(said.contains("No such file or directory"), "{said}");
    }
    assert!(!folder.path().join("pid").exists());
    assert!(!folder.path().join("socket").exists());
    assert!(!folder.path().join("new-log").exists());
    assert_eq!(fs::read(path("log")).unwrap(), b"of the last run");
    assert_eq!(fs::read(path("disk")).unwrap(), b"data");
}
