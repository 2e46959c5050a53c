//! Consoles of each kind, with a guest that echoes, one that does not read, and readers that do not.

use std::cell::{Cell, RefCell};
use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::Instant;

use rustix::pty;
use rustix::termios::{LocalModes, tcgetattr};

use super::*;

/// Runs a console whose guest is `input`, for as long as `body` takes.
fn with_guest<T>(
    console: &Console,
    input: impl Fn(&[u8]) -> usize + 'static,
    body: impl Future<Output = T>,
) -> T {
    let executor = exec::Executor::new(exec::Config::default()).unwrap();
    let console = console.clone();
    executor.block_on(async {
        exec::spawn(async move { console.run(input, || ()).await });
        body.await
    })
}

fn deaf(_: &[u8]) -> usize {
    0
}

/// What a blocking reader or writer outside does, while the console runs.
async fn outside<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, result) = std::sync::mpsc::channel();
    std::thread::spawn(move || done.send(act()));
    loop {
        match result.try_recv() {
            Ok(result) => return result,
            Err(_) => exec::sleep(Duration::from_millis(1)).await,
        }
    }
}

fn socket(path: &Path, wait: bool) -> Serial {
    Serial::Unix {
        path: path.to_owned(),
        wait,
    }
}

fn open_error(serial: &Serial) -> String {
    match Console::open(serial) {
        Err(error) => error.to_string(),
        Ok(_) => panic!("{serial:?} was opened"),
    }
}

#[test]
fn a_file_gets_all_output_and_is_truncated_only_when_the_guest_starts() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    fs::write(&path, "of the last run").unwrap();
    let console = Console::open(&Serial::File(path.clone())).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"of the last run");
    let text = b"0123456789abcdef".repeat(8192);
    console.output().write_all(&text).unwrap();
    with_guest(&console, deaf, console.flush());
    assert!(fs::read(&path).unwrap() == text);
}

#[test]
fn a_start_that_fails_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let console = Console::open(&Serial::File(path.clone())).unwrap();
    assert!(path.exists());
    drop(console);
    assert!(!path.exists());
}

#[test]
fn a_pipe_needs_its_reader_and_is_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RWXU).unwrap();
    let serial = Serial::File(path.clone());
    let error = open_error(&serial);
    assert!(error.contains("nobody reads the pipe"), "{error}");
    let reader = fs::OpenOptions::new().read(true).write(true).open(&path);
    let console = Console::open(&serial).unwrap();
    console.output().write_all(b"boot").unwrap();
    with_guest(&console, deaf, console.flush());
    let mut buffer = [0; 4];
    reader.unwrap().read_exact(&mut buffer).unwrap();
    assert_eq!(&buffer, b"boot");
    // Its reader is gone: the end of the run does not wait for what nobody can read.
    let before = std::time::Instant::now();
    with_guest(&console, deaf, async {
        for _ in 0..2 {
            console.output().write_all(b"more").unwrap();
            console.flush().await;
        }
    });
    assert!(before.elapsed() < PATIENCE / 2, "{:?}", before.elapsed());
    drop(console);
    assert!(path.exists());
}

#[test]
fn a_file_that_cannot_be_had_is_named() {
    let error = open_error(&Serial::File("/none/log".into()));
    assert!(
        error.starts_with("-serial: cannot open '/none/log': No such file"),
        "{error}"
    );
    let error = open_error(&socket(Path::new("/none/socket"), false));
    assert!(
        error.starts_with("-serial: cannot listen on '/none/socket': "),
        "{error}"
    );
}

#[test]
fn a_port_without_a_cable_keeps_nothing() {
    for serial in [Serial::Null, Serial::None] {
        let console = Console::open(&serial).unwrap();
        console.output().write_all(&[b'x'; 100]).unwrap();
        assert!(lock(&console.0.queue).is_idle());
        with_guest(&console, deaf, async {
            console.connected().await;
            console.flush().await;
        });
    }
}

#[test]
fn a_socket_serves_one_after_the_other() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("serial");
    let console = Console::open(&socket(&path, true)).unwrap();
    let echo = console.output();
    let guest = move |bytes: &[u8]| echo.clone().write(&bytes.to_ascii_uppercase()).unwrap();
    // What was said before anyone came.
    console.output().write_all(b"boot\n").unwrap();
    let place = path.clone();
    with_guest(&console, guest, async {
        for (n, before) in ["boot\n", ""].into_iter().enumerate() {
            let place = place.clone();
            let client = outside(move || {
                let mut stream = UnixStream::connect(place).unwrap();
                stream.write_all(b"hello\n").unwrap();
                let mut buffer = vec![0; before.len() + 6];
                stream.read_exact(&mut buffer).unwrap();
                String::from_utf8(buffer).unwrap()
            })
            .await;
            console.connected().await;
            assert_eq!(client, format!("{before}HELLO\n"), "client {n}");
        }
    });
    drop(console);
    // The guest's own clone of the output is gone with its task, and the socket with the console.
    assert!(!path.exists());
}

#[test]
fn the_guest_waits_for_the_first_peer_if_it_shall() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("serial");
    let console = Console::open(&socket(&path, true)).unwrap();
    with_guest(&console, deaf, async {
        let started = Rc::new(Cell::new(false));
        exec::spawn({
            let (console, started) = (console.clone(), started.clone());
            async move {
                console.connected().await;
                started.set(true);
            }
        });
        exec::sleep(Duration::from_millis(20)).await;
        assert!(!started.get());
        let _client = UnixStream::connect(&path).unwrap();
        while !started.get() {
            exec::sleep(Duration::from_millis(1)).await;
        }
    });
    let other = Console::open(&socket(&folder.path().join("other"), false)).unwrap();
    with_guest(&other, deaf, other.connected());
}

#[test]
fn a_socket_in_use_is_refused_and_a_stale_one_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("serial");
    let first = Console::open(&socket(&path, false)).unwrap();
    let error = open_error(&socket(&path, false));
    assert!(
        error.ends_with("is in use by another process; give another path"),
        "{error}"
    );
    drop(first);
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    drop(Console::open(&socket(&path, false)).unwrap());
    fs::write(&path, "precious").unwrap();
    let error = open_error(&socket(&path, false));
    assert!(
        error.ends_with("exists and is no socket; give another path"),
        "{error}"
    );
    assert_eq!(fs::read(&path).unwrap(), b"precious");
}

#[test]
fn a_reader_that_does_not_read_holds_nobody_up() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("serial");
    let console = Console::open(&socket(&path, false)).unwrap();
    let client = UnixStream::connect(&path).unwrap();
    let mut output = console.output();
    with_guest(&console, deaf, async {
        for n in 0..10_000u32 {
            let line = format!("{n:07} {}\n", "x".repeat(991));
            output.write_all(line.as_bytes()).unwrap();
            if n % 1000 == 0 {
                exec::sleep(Duration::from_millis(1)).await;
            }
        }
        let started = Instant::now();
        console.flush().await;
        let took = started.elapsed();
        assert!(took >= PATIENCE && took < PATIENCE * 3, "{took:?}");
        // Who begins to read at last gets the newest.
        let text = outside(move || {
            let mut client = client;
            let mut text = Vec::new();
            while !text.ends_with(b"x\n") || !text.windows(8).any(|w| w == b"0009999 ") {
                let mut buffer = [0; 4096];
                let read = client.read(&mut buffer).unwrap();
                text.extend_from_slice(&buffer[..read]);
            }
            text
        })
        .await;
        assert!(text.len() < 1 << 20, "{}", text.len());
    });
}

#[test]
fn a_guest_that_does_not_read_holds_its_peer_up_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("serial");
    let console = Console::open(&socket(&path, false)).unwrap();
    let sent: Vec<u8> = (0..1_000_000u32).map(|n| (n % 251) as u8).collect();
    let got = Rc::new(RefCell::new(Vec::new()));
    let room = Rc::new(Cell::new(0));
    let guest = {
        let (got, room) = (got.clone(), room.clone());
        move |bytes: &[u8]| {
            let taken = bytes.len().min(room.get());
            got.borrow_mut().extend_from_slice(&bytes[..taken]);
            room.set(room.get() - taken);
            taken
        }
    };
    with_guest(&console, guest, async {
        let mut client = UnixStream::connect(&path).unwrap();
        let bytes = sent.clone();
        let writer = std::thread::spawn(move || client.write_all(&bytes).unwrap());
        exec::sleep(Duration::from_millis(50)).await;
        assert!(got.borrow().is_empty());
        assert!(lock(&console.0.pending).len() <= PENDING_MAX + CHUNK);
        assert!(!writer.is_finished());
        let mut steps = 0u32;
        while got.borrow().len() < sent.len() {
            room.set(64 << (steps % 10));
            console.input_ready().signal();
            exec::sleep(Duration::from_micros(10)).await;
            steps += 1;
        }
        writer.join().unwrap();
    });
    assert!(*got.borrow() == sent);
}

#[test]
fn who_leaves_a_guest_that_does_not_read_makes_room_for_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("serial");
    let console = Console::open(&socket(&path, false)).unwrap();
    with_guest(&console, deaf, async {
        let mut first = UnixStream::connect(&path).unwrap();
        first.set_nonblocking(true).unwrap();
        while lock(&console.0.pending).len() < PENDING_MAX {
            let _ = first.write(&[b'x'; CHUNK]);
            exec::sleep(Duration::from_millis(1)).await;
        }
        drop(first);
        let second = UnixStream::connect(&path).unwrap();
        second.set_read_timeout(Some(PATIENCE * 5)).unwrap();
        for line in [b"one\n", b"two\n"] {
            console.output().write_all(line).unwrap();
            exec::sleep(Duration::from_millis(20)).await;
        }
        let heard = outside(move || {
            let mut buffer = [0; 4];
            (&second).read_exact(&mut buffer).map(|()| buffer)
        });
        assert_eq!(heard.await.unwrap(), *b"two\n");
    });
}

#[test]
fn a_pty_carries_both_ways() {
    let console = Console::open(&Serial::Pty).unwrap();
    let Backend::Pty { ours, .. } = &console.0.backend else {
        panic!("no pty")
    };
    let name = pty::ptsname(ours, Vec::new()).unwrap();
    let echo = console.output();
    let guest = move |bytes: &[u8]| echo.clone().write(&bytes.to_ascii_uppercase()).unwrap();
    console.output().write_all(b"boot\n").unwrap();
    with_guest(&console, guest, async {
        let heard = outside(move || {
            let mut terminal = fs::OpenOptions::new()
                .read(true)
                .write(true)
                .open(name.to_str().unwrap())
                .unwrap();
            terminal.write_all(b"\x01\x03hi\n").unwrap();
            let mut buffer = [0; 10];
            terminal.read_exact(&mut buffer).unwrap();
            buffer
        })
        .await;
        // No escapes, no echo, no translation.
        assert_eq!(&heard, b"boot\n\x01\x03HI\n");
    });
}

// A terminal, played by a process of its own: the test program again.

const CASE: &str = "SPINDLE_CONSOLE_CASE";

struct Terminal {
    ours: OwnedFd,
    child: Child,
}

fn on_terminal(case: &str) -> Terminal {
    let ours = pty::openpt(pty::OpenptFlags::RDWR | pty::OpenptFlags::NOCTTY).unwrap();
    pty::grantpt(&ours).unwrap();
    pty::unlockpt(&ours).unwrap();
    let name = pty::ptsname(&ours, Vec::new()).unwrap();
    let open = || {
        let mut options = fs::OpenOptions::new();
        options.read(true).write(true);
        Stdio::from(options.open(name.to_str().unwrap()).unwrap())
    };
    let child = Command::new(std::env::current_exe().unwrap())
        .args([
            "console::tests::a_terminal_is_raw_while_the_guest_runs",
            "--exact",
            "--nocapture",
        ])
        .env(CASE, case)
        .env_remove("RUST_BACKTRACE")
        .stdin(open())
        .stdout(open())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    Terminal { ours, child }
}

impl Terminal {
    fn wait_for(&mut self, text: &str) -> String {
        let mut heard = Vec::new();
        let started = Instant::now();
        loop {
            let mut fds = [rustix::event::PollFd::new(
                &self.ours,
                rustix::event::PollFlags::IN,
            )];
            let tick = rustix::event::Timespec {
                tv_sec: 0,
                tv_nsec: 10_000_000,
            };
            if rustix::event::poll(&mut fds, Some(&tick)).unwrap() > 0 {
                let mut buffer = [0; 1024];
                let read = rustix::io::read(&self.ours, &mut buffer).unwrap_or(0);
                heard.extend_from_slice(&buffer[..read]);
            }
            let all = String::from_utf8_lossy(&heard);
            if all.contains(text) {
                return all.into_owned();
            }
            assert!(started.elapsed() < Duration::from_secs(20), "{text}: {all}");
        }
    }

    fn kind(&mut self, keys: &[u8]) {
        rustix::io::write(&self.ours, keys).unwrap();
    }

    fn is_raw(&self) -> bool {
        let modes = tcgetattr(self.ours.as_fd()).unwrap().local_modes;
        !modes.intersects(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG)
    }
}

fn play(case: &str) {
    crate::sandbox::fatal::install().unwrap();
    let console = Console::open(&Serial::Stdio).unwrap();
    let echo = console.output();
    let guest = move |bytes: &[u8]| echo.clone().write(&bytes.to_ascii_uppercase()).unwrap();
    let ended = Rc::new(Cell::new(false));
    let executor = exec::Executor::new(exec::Config::default()).unwrap();
    executor.block_on(async {
        let (running, quit) = (console.clone(), ended.clone());
        exec::spawn(async move { running.run(guest, move || quit.set(true)).await });
        console.output().write_all(b"login:").unwrap();
        while !ended.get() {
            exec::sleep(Duration::from_millis(1)).await;
        }
        console.output().write_all(b"bye").unwrap();
        console.flush().await;
    });
    match case {
        "quit" => terminal::restore(),
        "panic" => panic!("on purpose"),
        "abort" => std::process::abort(),
        "refused" => {
            let filters = crate::sandbox::calls::Filters::new().unwrap();
            filters.apply(crate::sandbox::Thread::Vcpu).unwrap();
            drop(fs::File::open("/etc/passwd"));
        }
        other => panic!("{other}"),
    }
    std::process::exit(0);
}

#[test]
fn a_terminal_is_raw_while_the_guest_runs() {
    if let Ok(case) = std::env::var(CASE) {
        play(&case);
    }
    for case in ["quit", "panic", "abort", "refused"] {
        let mut terminal = on_terminal(case);
        terminal.wait_for("login:");
        assert!(terminal.is_raw(), "{case}");
        terminal.kind(b"hi\x03");
        terminal.wait_for("HI\x03");
        terminal.kind(b"\x01h");
        terminal.wait_for("send Ctrl-A to the guest");
        terminal.kind(b"\x01\x01");
        terminal.wait_for("\x01");
        terminal.kind(b"\x01x");
        terminal.wait_for("bye");
        let status = terminal.child.wait().unwrap();
        match case {
            "quit" => assert_eq!(status.code(), Some(0)),
            "refused" => assert_eq!(status.code(), Some(2)),
            _ => assert!(!status.success()),
        }
        assert!(!terminal.is_raw(), "{case}");
    }
}
