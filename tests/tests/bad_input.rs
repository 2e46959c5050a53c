//! What a user can get wrong on the command line: one line on stderr that names the option and the reason, status 1,
//! no guest run and no image touched.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;
use tests::{bare, spindle};

/// Files to name on command lines.
struct Files {
    directory: TempDir,
    kernel: String,
}

const IMAGE: &[u8] = &[0x5a; 1 << 16];

impl Files {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(directory.path().join("disk"), IMAGE).unwrap();
        fs::copy(bare::path().unwrap(), directory.path().join("kernel")).unwrap();
        let kernel = directory.path().join("kernel").display().to_string();
        Self { directory, kernel }
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    fn write(&self, name: &str, content: &[u8]) -> String {
        fs::write(self.path(name), content).unwrap();
        self.path(name)
    }
}

/// Starts spindle with a small kernel and these arguments, split at blanks; `DISK` is an image.
fn refuses(files: &Files, args: &str, names: &[&str]) {
    let args = format!("-kernel {} {args}", files.kernel);
    refuses_exactly(files, Command::new(spindle::path().unwrap()), &args, names);
}

fn refuses_exactly(files: &Files, mut command: Command, args: &str, names: &[&str]) {
    let args = args.replace("DISK", &files.path("disk"));
    command
        .args(args.split_whitespace())
        .args(["-display", "none", "-serial", "none"]);
    let Output {
        status,
        stdout,
        stderr,
    } = command.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(1), "spindle {args}: {said}");
    assert_eq!(
        said.lines().count(),
        1,
        "spindle {args}: more or less than a line:\n{said}"
    );
    assert!(stdout.is_empty(), "spindle {args}: something on stdout");
    for name in names {
        assert!(
            said.contains(name),
            "spindle {args}: {name:?} is not named: {said}"
        );
    }
    assert!(!said.contains("panicked"), "spindle {args}: {said}");
    assert_eq!(
        fs::read(files.path("disk")).unwrap(),
        IMAGE,
        "spindle {args}: the image has changed"
    );
}

#[test]
fn missing_files() {
    let files = Files::new();
    let spindle = || Command::new(spindle::path().unwrap());
    let missing = "No such file or directory";
    refuses_exactly(
        &files,
        spindle(),
        "-kernel /no/kernel",
        &["-kernel", "/no/kernel", missing],
    );
    refuses(
        &files,
        "-initrd /no/initrd",
        &["-initrd", "/no/initrd", missing],
    );
    refuses(
        &files,
        "-drive file=/no/disk,format=raw,if=virtio",
        &["-drive", "/no/disk", missing],
    );
    refuses(
        &files,
        "-blockdev driver=file,filename=/no/disk,node-name=n",
        &["-blockdev", "/no/disk", missing],
    );
}

/// Root reads everything: as root this runs spindle as another user.
#[test]
fn unreadable_files() {
    let files = Files::new();
    for name in ["kernel", "disk", "initrd"] {
        let secret = files.write(
            &format!("secret-{name}"),
            &fs::read(files.path("kernel")).unwrap(),
        );
        fs::set_permissions(secret, fs::Permissions::from_mode(0o000)).unwrap();
    }
    let binary = files.path("spindle");
    // By another process: what a test beside this one starts would inherit the descriptor that writes, and
    // a file that is open for writing does not run.
    let copied = Command::new("cp")
        .arg(spindle::path().unwrap())
        .arg(&binary)
        .status();
    assert!(copied.unwrap().success());
    let other_user = || {
        if !rustix::process::geteuid().is_root() {
            return Command::new(&binary);
        }
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(&binary);
        command
    };
    let kernel = &files.kernel;
    let (secret, denied) = (
        |name| files.path(&format!("secret-{name}")),
        "Permission denied",
    );
    let args = format!("-kernel {}", secret("kernel"));
    refuses_exactly(&files, other_user(), &args, &["-kernel", denied]);
    let args = format!("-kernel {kernel} -initrd {}", secret("initrd"));
    refuses_exactly(&files, other_user(), &args, &["-initrd", denied]);
    let args = format!(
        "-kernel {kernel} -drive file={},format=raw,if=virtio",
        secret("disk")
    );
    refuses_exactly(&files, other_user(), &args, &["-drive", denied]);
}

#[test]
fn kernels_that_are_none() {
    let files = Files::new();
    let text = files.write(
        "text",
        "#!/bin/sh\necho no kernel\n".repeat(1000).as_bytes(),
    );
    let mut elf = fs::read(&files.kernel).unwrap();
    elf[4] = 1;
    let elf32 = files.write("elf32", &elf);
    let names = [text, elf32, files.write("empty", b"")];
    for name in &names {
        let spindle = Command::new(spindle::path().unwrap());
        refuses_exactly(
            &files,
            spindle,
            &format!("-kernel {name}"),
            &["-kernel", name],
        );
    }
}

#[test]
fn sizes_that_cannot_be() {
    let files = Files::new();
    fs::File::create(files.path("large"))
        .unwrap()
        .set_len(300 << 20)
        .unwrap();
    refuses(
        &files,
        &format!("-m 256M -initrd {}", files.path("large")),
        &["-initrd"],
    );
    refuses(&files, "-m 1", &["-m"]);
    refuses(&files, "-m 0", &["-m"]);
    refuses(&files, "-m 1X", &["-m"]);
    // More than this machine has; more than a processor can address.
    refuses(&files, "-m 200T", &["-m"]);
    refuses(&files, "-m 9000000T", &["-m"]);
    refuses(&files, "-smp 0", &["-smp"]);
    refuses(&files, "-smp 100000", &["-smp"]);
    refuses(&files, "-smp cpus=3,cores=2", &["-smp"]);
}

#[test]
fn unknown_names_get_the_nearest_suggested() {
    let files = Files::new();
    refuses(&files, "-drvie file=DISK", &["-drvie", "-drive"]);
    refuses(
        &files,
        "-drive file=DISK,fromat=raw",
        &["-drive", "fromat", "format"],
    );
    refuses(
        &files,
        "-drive file=DISK,format=raw,if=virtoi",
        &["-drive", "virtoi", "virtio"],
    );
    refuses(
        &files,
        "-drive file=DISK,format=raw,if=virtio,cache=writebcak",
        &["writebcak", "writeback"],
    );
    refuses(
        &files,
        "-device virtio-blk-pic",
        &["-device", "virtio-blk-pic", "virtio-blk-pci"],
    );
    refuses(
        &files,
        "-drive file=DISK,format=raw,if=none,id=d -device virtio-blk-pci,drvie=d",
        &["-device", "drvie", "drive"],
    );
    refuses(
        &files,
        "-device virtio-blk-pci,drive=nobody",
        &["-device", "nobody"],
    );
    refuses(
        &files,
        "-blockdev driver=flie,filename=DISK,node-name=n",
        &["-blockdev", "flie", "file"],
    );
    refuses(
        &files,
        "-object iothraed,id=a",
        &["-object", "iothraed", "iothread"],
    );
    refuses(&files, "-cpu hots", &["-cpu", "hots"]);
    refuses(&files, "-machine q53", &["-machine", "q53"]);
}

#[test]
fn the_same_id_twice() {
    let files = Files::new();
    let drive = "-drive file=DISK,format=raw,if=none,id=twice";
    refuses(&files, &format!("{drive} {drive}"), &["-drive", "twice"]);
    refuses(
        &files,
        "-object iothread,id=twice -object iothread,id=twice",
        &["-object", "twice"],
    );
    let node = "-blockdev driver=null-co,node-name=twice";
    refuses(&files, &format!("{node} {node}"), &["-blockdev", "twice"]);
    let device = "-device virtio-blk-pci,id=twice,drive=";
    let nodes = "-blockdev driver=null-co,node-name=a -blockdev driver=null-co,node-name=b";
    refuses(
        &files,
        &format!("{nodes} {device}a {device}b"),
        &["-device", "twice"],
    );
}

#[test]
fn what_is_not_built_is_refused_by_name() {
    let files = Files::new();
    for option in [
        "-netdev user,id=n",
        "-vga std",
        "-S",
        "-no-shutdown",
        "-M pc",
    ] {
        let name = option.split(' ').next().unwrap();
        let name = if name == "-M" {
            "machine pc is not in this build"
        } else {
            name
        };
        refuses(&files, option, &[name]);
    }
}

#[test]
fn values_that_are_none() {
    let files = Files::new();
    refuses(
        &files,
        "-drive file=DISK,format=raw,if=virtio,readonly=maybe",
        &["-drive", "readonly", "maybe"],
    );
    refuses(&files, "-drive format=raw,if=virtio", &["-drive", "file"]);
    refuses(
        &files,
        "-serial file:/no/directory/log",
        &["-serial", "/no/directory/log"],
    );
    refuses(
        &files,
        "-pidfile /no/directory/pid",
        &["-pidfile", "/no/directory/pid"],
    );
    assert!(!Path::new("/no").exists());
}
