//! The user's end of the serial port, with a guest that says one byte and waits for ever.
//!
//! Any `/dev/kvm` will do; where there is none, the whole program runs on an emulated host.
#![allow(missing_docs, reason = "a program, not a library")]

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use libtest_mimic::{Arguments, Failed, Trial};
use rustix::fs::{Mode, OFlags, open};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};
use tests::host::{elsewhere, plain_status};
use tests::{bare, spindle};

const DEADLINE: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    let args = Arguments::from_args();
    let moved = if args.list { Ok(None) } else { moved() };
    if let Ok(Some(status)) = moved {
        return ExitCode::from(u8::from(status != 0));
    }
    let lacking = moved.map_err(|error| format!("{error:#}")).err();
    let required = std::env::var_os("SPINDLE_TEST_REQUIRE").is_some_and(|value| value == "all");
    let test = |name: &str, run: fn() -> Result<()>| {
        let failed = |error| Failed::from(format!("{error:#}"));
        let trial = Trial::test(name, move || run().map_err(failed));
        let trial = trial.with_ignored_flag(lacking.is_some() && !required);
        trial.with_kind(lacking.clone().unwrap_or_default())
    };
    let trials = vec![
        test("ctrl_a_x_ends_and_the_terminal_is_as_before", ctrl_a_x),
        test("ctrl_a_h_helps", ctrl_a_h),
        test("a_signal_leaves_the_terminal_as_before", signal),
        test("what_nohup_ignores_stays_ignored", ignored),
        test("ctrl_a_x_ends_when_nobody_reads_any_more", no_reader),
        test("a_reader_that_does_not_read_is_not_waited_for", slow_reader),
        test("output_goes_to_a_file", file),
        test("a_reset_that_fails_is_the_hosts_failure", reset),
        test("a_socket_is_served", socket),
    ];
    libtest_mimic::run(&args, trials).exit_code()
}

fn moved() -> Result<Option<i32>> {
    elsewhere(&[("SPINDLE", spindle::path()?), (bare::BUILT, bare::path()?)])
}

fn ctrl_a_x() -> Result<()> {
    let mut session = Session::start()?;
    session.hear("!")?;
    ensure!(
        !session.is_cooked()?,
        "the terminal is not raw while the guest has it"
    );
    session.keys(b"\x01x")?;
    let status = session.end()?;
    ensure!(status == 0, "ended with {status}");
    ensure!(session.is_cooked()?, "the terminal is still raw");
    Ok(())
}

fn ctrl_a_h() -> Result<()> {
    let mut session = Session::start()?;
    session.hear("!")?;
    session.keys(b"\x01h")?;
    session.hear("Ctrl-A x")?;
    session.keys(b"\x01x")?;
    session.end().map(drop)
}

fn signal() -> Result<()> {
    let status = fs::read_to_string("/proc/self/status")?;
    let inherited = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let inherited = u64::from_str_radix(inherited.context("no SigIgn")?.trim(), 16)?;
    for signal in [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT] {
        // Who runs the tests in the background has spindle ignore some, too.
        if signal != Signal::TERM && inherited & 1 << (signal.as_raw() - 1) != 0 {
            continue;
        }
        let mut session = Session::start()?;
        session.hear("!")?;
        kill_process(Pid::from_child(&session.process), signal)?;
        session.end()?;
        ensure!(
            session.is_cooked()?,
            "the terminal is still raw after {signal:?}"
        );
    }
    Ok(())
}

fn ignored() -> Result<()> {
    let started = guest("w", &["-nographic"])?;
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' HUP INT QUIT TERM; exec \"$0\" \"$@\""]);
    shell.arg(started.get_program()).args(started.get_args());
    shell.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut guest = Quiet(shell.spawn()?);
    let mut boot = [0];
    let mut serial = guest.0.stdout.take().context("no stdout")?;
    serial.read_exact(&mut boot)?;
    for signal in [Signal::HUP, Signal::INT, Signal::QUIT] {
        kill_process(Pid::from_child(&guest.0), signal)?;
        thread::sleep(Duration::from_millis(100));
        let ended = guest.0.try_wait()?;
        ensure!(ended.is_none(), "{signal:?} has ended it: {ended:?}");
    }
    // This one is for spindle and nobody else.
    kill_process(Pid::from_child(&guest.0), Signal::TERM)?;
    within(|| Ok(guest.0.try_wait()?)).context("spindle does not end")?;
    Ok(())
}

fn no_reader() -> Result<()> {
    let (reader, writer) = rustix::pipe::pipe()?;
    drop(reader);
    let mut session = Session::with_output(Some(writer))?;
    session.hear("output is lost")?;
    for keys in [b"\x01h", b"\x01h", b"\x01x"] {
        thread::sleep(Duration::from_millis(50));
        session.keys(keys)?;
    }
    let status = session.end()?;
    ensure!(status == 0, "ended with {status}");
    Ok(())
}

fn slow_reader() -> Result<()> {
    let (reader, writer) = UnixStream::pair()?;
    let mut command = guest("f", &["-nographic"])?;
    let mut process = Quiet(command.stdout(OwnedFd::from(writer)).spawn()?);
    drop(command);
    // Until the guest is ahead of what fits in between.
    let mut before = 0;
    within(|| {
        thread::sleep(Duration::from_millis(500));
        let now = rustix::io::ioctl_fionread(&reader)?;
        let full = now > 0 && now == before;
        before = now;
        Ok(full.then_some(()))
    })?;
    kill_process(Pid::from_child(&process.0), Signal::TERM)?;
    within(|| Ok(process.0.try_wait()?)).context("spindle does not end")?;
    Ok(())
}

fn file() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let log = directory.path().join("log");
    let mut guest = Quiet(
        guest(
            "w",
            &[
                "-display",
                "none",
                "-serial",
                &format!("file:{}", log.display()),
            ],
        )?
        .spawn()?,
    );
    within(|| Ok(fs::read(&log).is_ok_and(|said| said == b"!").then_some(())))?;
    guest.0.kill()?;
    Ok(())
}

fn reset() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let kernel = directory.path().join("kernel");
    fs::copy(bare::path()?, &kernel)?;
    let mut command = Command::new(spindle::path()?);
    command.args(["-append", "r", "-m", "64M", "-nographic", "-kernel"]);
    command.arg(&kernel).stdin(Stdio::null());
    let piped = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut guest = Quiet(piped.spawn()?);
    let mut boots = [0; 3];
    let mut serial = guest.0.stdout.take().context("no stdout")?;
    serial.read_exact(&mut boots)?;
    ensure!(boots == *b"!!!", "the guest said {boots:?}");
    File::options().write(true).open(&kernel)?.set_len(100)?;
    let status = within(|| Ok(guest.0.try_wait()?)).map(plain_status)?;
    let mut said = String::new();
    let mut messages = guest.0.stderr.take().context("no stderr")?;
    messages.read_to_string(&mut said)?;
    let named = said.contains("spindle: -kernel: '");
    ensure!(status == 2 && named, "spindle ended with {status}: {said}");
    Ok(())
}

fn socket() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("socket");
    let serial = format!("unix:{},server=on", path.display());
    let mut guest = Quiet(guest("w", &["-display", "none", "-serial", &serial])?.spawn()?);
    // The guest waits for whoever connects first, so its byte is not lost.
    let mut stream = within(|| Ok(UnixStream::connect(&path).ok()))?;
    stream.set_read_timeout(Some(DEADLINE))?;
    let mut byte = [0];
    stream
        .read_exact(&mut byte)
        .context("nothing came through the socket")?;
    ensure!(byte == *b"!", "{byte:?} came through the socket");
    kill_process(Pid::from_child(&guest.0), Signal::TERM)?;
    within(|| Ok(guest.0.try_wait()?)).context("spindle does not end")?;
    ensure!(!path.exists(), "the socket is still there");
    Ok(())
}

/// spindle with the guest without an operating system, which does `what`.
fn guest(what: &str, args: &[&str]) -> Result<Command> {
    let mut command = Command::new(spindle::path()?);
    command
        .arg("-kernel")
        .arg(bare::path()?)
        .args(["-append", what, "-m", "64M"])
        .args(args);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    Ok(command)
}

/// A process that ends with its test.
struct Quiet(Child);

impl Drop for Quiet {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// spindle on a terminal of its own.
struct Session {
    process: Child,
    master: File,
    terminal: OwnedFd,
    screen: Receiver<Vec<u8>>,
    shown: Vec<u8>,
}

impl Session {
    fn start() -> Result<Self> {
        Self::with_output(None)
    }

    /// With its output elsewhere, if there is an elsewhere.
    fn with_output(output: Option<OwnedFd>) -> Result<Self> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let terminal = open(
            ptsname(&master, Vec::new())?,
            OFlags::RDWR | OFlags::NOCTTY,
            Mode::empty(),
        )?;
        let mut command = guest("w", &["-nographic"])?;
        command
            .stdin(terminal.try_clone()?)
            .stdout(output.map_or_else(|| terminal.try_clone(), Ok)?)
            .stderr(terminal.try_clone()?);
        let process = command.spawn()?;
        let master = File::from(master);
        let (send, screen) = channel();
        let mut reader = master.try_clone()?;
        thread::spawn(move || {
            let mut buffer = [0; 1024];
            while let Ok(count) = reader.read(&mut buffer) {
                if send.send(buffer[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Ok(Self {
            process,
            master,
            terminal,
            screen,
            shown: Vec::new(),
        })
    }

    fn keys(&mut self, keys: &[u8]) -> Result<()> {
        Ok(self.master.write_all(keys)?)
    }

    /// Waits until this is on the screen.
    fn hear(&mut self, what: &str) -> Result<()> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let shown = String::from_utf8_lossy(&self.shown);
            if shown.contains(what) {
                return Ok(());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let piece = self.screen.recv_timeout(left);
            let piece =
                piece.with_context(|| format!("{what:?} did not come; the screen: {shown}"))?;
            self.shown.extend(piece);
        }
    }

    /// Whether the terminal edits lines and echoes, as a shell leaves it.
    fn is_cooked(&self) -> Result<bool> {
        let modes = tcgetattr(&self.terminal)?.local_modes;
        Ok(modes.contains(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG))
    }

    fn end(&mut self) -> Result<i32> {
        let status = within(|| Ok(self.process.try_wait()?));
        status.map(plain_status).context("spindle does not end")
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Tries until there is something.
fn within<T>(mut attempt: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(done) = attempt()? {
            return Ok(done);
        }
        ensure!(
            Instant::now() < deadline,
            "nothing within {} s",
            DEADLINE.as_secs()
        );
        thread::sleep(Duration::from_millis(10));
    }
}
