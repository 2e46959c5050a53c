//! What a subverted thread finds: each case runs in a process of its own, which ends as the sandbox
//! says. The process is this test program again, told by its environment to play one case.
#![allow(unsafe_code)] // system calls as an attacker would make them

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use super::*;
use crate::config;

const CASE: &str = "SPINDLE_SANDBOX_CASE";
const FOLDER: &str = "SPINDLE_SANDBOX_FOLDER";
const ALL: [Thread; 5] = [
    Thread::Main,
    Thread::Vcpu,
    Thread::Io,
    Thread::Pool,
    Thread::Opener,
];

/// Runs `test` again in a new process that plays `case`.
fn play(test: &str, case: &str, folder: &Path) -> Output {
    Command::new(std::env::current_exe().unwrap())
        .args([
            &format!("sandbox::tests::{test}"),
            "--exact",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(CASE, case)
        .env(FOLDER, folder)
        .env_remove("RUST_BACKTRACE")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn case() -> Option<String> {
    std::env::var(CASE).ok()
}

/// Ends the process without the test program's own last acts, which no list allows for.
fn end(status: i32) -> ! {
    // SAFETY: ends the process.
    unsafe { libc::_exit(status) }
}

fn confined(thread: Thread) {
    fatal::install().unwrap();
    calls::Filters::new().unwrap().apply(thread).unwrap();
}

type Deed = (&'static str, libc::c_long, fn());

/// What no thread may do, and the call that gives it away.
const DEEDS: &[Deed] = &[
    ("open another file", libc::SYS_openat, || {
        drop(File::open("/etc/passwd"))
    }),
    ("start a program", libc::SYS_execve, || {
        let arguments = [c"/bin/true".as_ptr(), std::ptr::null()];
        // SAFETY: both lists end with a null pointer.
        unsafe { libc::execve(c"/bin/true".as_ptr(), arguments.as_ptr(), &arguments[1]) };
    }),
    ("start a process", libc::SYS_clone, || {
        // SAFETY: fork(2) without the C library; never reached twice.
        unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) };
    }),
    ("fork", libc::SYS_fork, || {
        // SAFETY: as above.
        unsafe { libc::syscall(libc::SYS_fork) };
    }),
    ("open a socket", libc::SYS_socket, || {
        drop(UnixStream::connect("/none"))
    }),
    ("map executable memory", libc::SYS_mmap, || {
        // SAFETY: a new private mapping.
        unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                4096,
                libc::PROT_READ | libc::PROT_EXEC,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
    }),
    ("make memory executable", libc::SYS_mprotect, || {
        // SAFETY: nothing is mapped at page 0; the call is refused before it looks.
        unsafe { libc::mprotect(std::ptr::null_mut(), 4096, libc::PROT_EXEC) };
    }),
    ("signal another process", libc::SYS_kill, || {
        // SAFETY: signal 0 has no effect.
        unsafe { libc::kill(1, 0) };
    }),
    ("signal another process's thread", libc::SYS_tgkill, || {
        // SAFETY: as above.
        unsafe { libc::syscall(libc::SYS_tgkill, 1, 1, 0) };
    }),
    ("type into the terminal", libc::SYS_ioctl, || {
        // SAFETY: the call is refused before it looks at its argument.
        unsafe { libc::ioctl(0, libc::TIOCSTI, b"x".as_ptr()) };
    }),
    ("make a ring", libc::SYS_io_uring_setup, || {
        // SAFETY: the call is refused before it looks at its argument.
        unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, std::ptr::null::<u8>()) };
    }),
    ("trace", libc::SYS_ptrace, || {
        // SAFETY: no effect on memory.
        unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) };
    }),
    ("read another process", libc::SYS_process_vm_readv, || {
        // SAFETY: names no memory.
        unsafe { libc::process_vm_readv(1, std::ptr::null(), 0, std::ptr::null(), 0, 0) };
    }),
    ("change its handlers", libc::SYS_rt_sigaction, || {
        // SAFETY: the default action is no code.
        unsafe { libc::signal(libc::SIGSYS, libc::SIG_DFL) };
    }),
];

/// What further threads may not do, though the main thread may.
const DEEDS_BEYOND_MAIN: &[Deed] = &[
    ("remove a file", libc::SYS_unlink, || {
        drop(fs::remove_file("/none"))
    }),
    ("accept a connection", libc::SYS_accept4, || {
        // SAFETY: no descriptor, no memory.
        unsafe { libc::accept4(-1, std::ptr::null_mut(), std::ptr::null_mut(), 0) };
    }),
];

#[test]
fn a_thread_cannot_leave_its_list() {
    let deeds = |thread| {
        let beyond: &[Deed] = match thread {
            Thread::Main => &[],
            _ => DEEDS_BEYOND_MAIN,
        };
        // Who opens files is held by Landlock: `only_named_files_can_be_opened`.
        let opens = move |deed: &&Deed| thread == Thread::Opener && deed.1 == libc::SYS_openat;
        DEEDS.iter().chain(beyond).filter(move |deed| !opens(deed))
    };
    if let Some(case) = case() {
        let thread = ALL
            .into_iter()
            .find(|t| case.starts_with(&format!("{t:?} ")))
            .unwrap();
        let (_, _, deed) = deeds(thread)
            .find(|(name, ..)| case.ends_with(name))
            .unwrap();
        confined(thread);
        deed();
        end(0);
    }
    for thread in ALL {
        for (name, call, _) in deeds(thread) {
            let case = format!("{thread:?} {name}");
            let output = play("a_thread_cannot_leave_its_list", &case, Path::new("/"));
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{case}: {said}");
            let line = said.lines().last().unwrap_or_default();
            let expected = format!("made system call {call}, which its filter refuses");
            assert!(
                line.starts_with("spindle: -sandbox: thread '") && line.contains(&expected),
                "{case}: {said}"
            );
        }
    }
}

#[test]
fn a_thread_can_do_its_work() {
    const TEST: &str = "a_thread_can_do_its_work";
    if let Some(case) = case() {
        let thread = ALL.into_iter().find(|t| case == format!("{t:?}")).unwrap();
        let path = std::env::var(FOLDER).unwrap() + "/file";
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .unwrap();
        confined(thread);
        file.write_all(b"written").unwrap();
        file.sync_all().unwrap();
        let made = std::thread::Builder::new().name("helper".into()).spawn(|| {
            let mut map = std::collections::HashMap::new();
            map.insert(1, vec![0u8; 1 << 22]);
            std::thread::sleep(std::time::Duration::from_millis(1));
            map.len()
        });
        assert_eq!(made.unwrap().join().unwrap(), 1);
        eprintln!("done");
        end(0);
    }
    let folder = tempfile::tempdir().unwrap();
    for thread in ALL {
        fs::write(folder.path().join("file"), "").unwrap();
        let output = play(TEST, &format!("{thread:?}"), folder.path());
        assert!(
            output.status.success(),
            "{thread:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert_eq!(fs::read(folder.path().join("file")).unwrap(), b"written");
    }
}

#[test]
fn a_helper_is_confined_like_its_maker() {
    if case().is_some() {
        confined(Thread::Io);
        let _ = std::thread::spawn(|| {
            calls::Filters::new().unwrap().apply(Thread::Pool).unwrap();
            drop(File::open("/etc/passwd"));
        })
        .join();
        end(0);
    }
    let output = play("a_helper_is_confined_like_its_maker", "1", Path::new("/"));
    assert_eq!(
        output.status.code(),
        Some(2),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A machine with a kernel, a disk of each kind and a folder, all in `folder`.
fn machine(folder: &str) -> Config {
    let line = format!(
        "-kernel {folder}/kernel -nographic -allow-path {folder}/allowed -pidfile {folder}/run/pid \
         -drive file={folder}/disk,format=raw,if=virtio -drive file={folder}/cd,format=raw,if=virtio,readonly=on"
    );
    match crate::cli::parse(line.split_whitespace().map(Into::into)) {
        Ok(crate::cli::Request::Run(config)) => *config,
        other => panic!("{other:?}"),
    }
}

#[test]
fn only_named_files_can_be_opened() {
    if case().is_some() {
        let folder = std::env::var(FOLDER).unwrap();
        let at = |name: &str| format!("{folder}/{name}");
        let write = |name: &str| OpenOptions::new().write(true).open(at(name)).map(drop);
        let read = |name: &str| File::open(at(name)).map(drop);
        files::restrict(&files::of(&machine(&folder))).unwrap();
        let denied = |result: io::Result<()>, what: &str| {
            let error = result.expect_err(what);
            assert_eq!(error.raw_os_error(), Some(libc::EACCES), "{what}: {error}");
        };
        // Landlock holds for root, too, and for threads made later.
        std::thread::scope(|scope| {
            scope.spawn(|| {
                read("kernel").unwrap();
                read("disk").unwrap();
                write("disk").unwrap();
                read("cd").unwrap();
                denied(write("kernel"), "writing the kernel");
                denied(write("cd"), "writing a read-only disk");
                denied(read("other"), "another file of the same folder");
                denied(read("link"), "another file by a link that was made before");
                denied(File::open("/etc/passwd").map(drop), "a file of the host");
                denied(File::create(at("new")).map(drop), "a new file");
                denied(fs::remove_file(at("disk")), "removing a disk");
                denied(fs::rename(at("other"), at("disk2")), "renaming");
                denied(Err(Command::new("/bin/true").exec()), "a program");
                // What may be opened later, and what goes in the end.
                fs::write(at("allowed/new"), "x").unwrap();
                let mut text = String::new();
                File::open(at("allowed/new"))
                    .unwrap()
                    .read_to_string(&mut text)
                    .unwrap();
                assert_eq!(text, "x");
                fs::remove_file(at("run/pid")).unwrap();
                denied(
                    File::create(at("run/new")).map(drop),
                    "a new file beside the pid file",
                );
            });
        });
        end(0);
    }
    if !landlock_is_here() {
        // Then files are not restricted, as the warning says; nothing can be shown.
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for name in ["kernel", "disk", "cd", "other"] {
        fs::write(folder.path().join(name), name).unwrap();
    }
    for name in ["allowed", "run"] {
        fs::create_dir(folder.path().join(name)).unwrap();
    }
    fs::write(folder.path().join("run/pid"), "").unwrap();
    std::os::unix::fs::symlink("other", folder.path().join("link")).unwrap();
    let output = play("only_named_files_can_be_opened", "1", folder.path());
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn landlock_is_here() -> bool {
    // SAFETY: asks for the version: no attributes, LANDLOCK_CREATE_RULESET_VERSION.
    unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, 0, 0, 1) > 0 }
}

#[test]
fn a_folder_to_allow_must_be_there() {
    let mut config = machine("/none");
    config.sandbox = config::Sandbox {
        on: true,
        allow: vec!["/none/such".into()],
    };
    let error = Sandbox::new(&config).unwrap_err().to_string();
    assert!(
        error.starts_with("-allow-path: cannot open '/none/such': No such file"),
        "{error}"
    );
}

/// By default they would end the process and leave the terminal as it is.
#[test]
fn no_signal_but_kill_ends_without_last_words() {
    const TEST: &str = "no_signal_but_kill_ends_without_last_words";
    if case().is_some() {
        fatal::install().unwrap();
        crate::machine::signals::block().unwrap();
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let mask = |name: &str| {
            let mut lines = status.lines();
            let value = lines.find_map(|line| line.strip_prefix(name)).unwrap();
            u64::from_str_radix(value.trim(), 16).unwrap()
        };
        let handled = mask("SigCgt:") | mask("SigIgn:");
        let harmless = [
            libc::SIGKILL,
            libc::SIGSTOP,
            libc::SIGTSTP,
            libc::SIGTTIN,
            libc::SIGTTOU,
            libc::SIGCHLD,
            libc::SIGCONT,
            libc::SIGURG,
            libc::SIGWINCH,
        ];
        for signal in (1..32).filter(|signal| !harmless.contains(signal)) {
            assert!(handled & 1 << (signal - 1) != 0, "signal {signal}");
        }
        return;
    }
    let output = play(TEST, "1", Path::new("/"));
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
}

#[test]
fn a_fault_ends_with_one_line() {
    if case().is_some() {
        fatal::install().unwrap();
        std::process::abort();
    }
    use std::os::unix::process::ExitStatusExt;
    let output = play("a_fault_ends_with_one_line", "1", Path::new("/"));
    assert_eq!(output.status.signal(), Some(libc::SIGABRT));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("spindle: ended by signal 6 in thread '"),
        "{said}"
    );
}

#[test]
fn a_write_past_the_file_size_limit_is_only_an_error() {
    if case().is_some() {
        fatal::install().unwrap();
        // SAFETY: the signal that the kernel sends with EFBIG.
        unsafe { libc::raise(libc::SIGXFSZ) };
        return;
    }
    let name = "a_write_past_the_file_size_limit_is_only_an_error";
    let output = play(name, "1", Path::new("/"));
    assert!(output.status.success(), "{:?}", output.status);
}
