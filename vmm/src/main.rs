//! The program `spindle`: the order of start, and what each end means to whoever started it.
//!
//! Command line, then the files it names, then KVM and the machine, then the sandbox's second wall, then
//! the guest. Whatever fails before the guest runs is one line on stderr and exit status 1.
//!
//! | status | the run ended because |
//! |---|---|
//! | 0 | the guest powered off, reset under `-no-reboot`, or the user ended it |
//! | 1 | the command line asks for what cannot be had |
//! | 2 | spindle or its host failed |
//! | 3 | the guest crashed |
//! | 4 | the guest reported a panic |
//! | 2v+1 | the guest wrote v to `isa-debug-exit` |

use std::fmt;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;
use vmm::cli::{self, Request};
use vmm::config::Config;
use vmm::console::{Console, terminal};
use vmm::error::{Error, Kind};
use vmm::machine::{self, Outcome};
use vmm::overwrite;
use vmm::pidfile::PidFile;
use vmm::sandbox::{Sandbox, fatal};

fn main() -> ExitCode {
    log();
    let ended = match cli::parse(std::env::args_os().skip(1)) {
        Ok(Request::Print(text)) => {
            // Who closed the pipe has read enough.
            let _ = std::io::stdout().write_all(text.as_bytes());
            return ExitCode::SUCCESS;
        }
        Ok(Request::Run(config)) => run(&config),
        Err(error) => Err(error),
    };
    terminal::restore();
    match ended {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "spindle: {}", line(&error.to_string()));
            match error.kind() {
                Kind::User => ExitCode::from(1),
                Kind::Host => ExitCode::from(2),
            }
        }
    }
}

/// Runs a machine to its end; the exit status is returned.
fn run(config: &Config) -> Result<u8, Error> {
    fatal::install().map_err(|error| Error::host("cannot handle signals").because(error))?;
    overwrite::check(config)?;
    let mut pidfile = config.pidfile.as_deref().map(PidFile::lock).transpose()?;
    let console = Console::open(&config.serial)?;
    // Before any other thread: they inherit it.
    let sandbox = Sandbox::new(config)?;
    let machine = machine::build(config, &sandbox, console)?;
    if let Some(pidfile) = &mut pidfile {
        pidfile.write()?;
    }
    Ok(match machine.run()? {
        Outcome::PowerOff | Outcome::Reset => 0,
        Outcome::Quit(how) => {
            tracing::info!("ended by {how}");
            0
        }
        Outcome::Crashed(reason) => {
            tracing::error!("the guest crashed: {reason}");
            3
        }
        Outcome::Panicked => {
            tracing::error!("the guest reported a panic");
            4
        }
        Outcome::Exit(status) => status,
    })
}

/// Messages go to stderr; `SPINDLE_LOG` or `RUST_LOG` says which, warnings and errors without them.
/// Those who ask for more get times and origins, too.
fn log() {
    let asked = ["SPINDLE_LOG", "RUST_LOG"]
        .iter()
        .find_map(|name| EnvFilter::try_from_env(name).ok());
    let plain = asked.is_none();
    let logger = tracing_subscriber::fmt()
        .with_env_filter(asked.unwrap_or_else(|| EnvFilter::new("warn")))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        // Told with eprintln, which panics: a run lasts longer than whoever reads its messages.
        .log_internal_errors(false);
    match plain {
        true => logger.event_format(Plain).init(),
        false => logger.init(),
    }
}

/// `spindle: warning: ...`: a message as errors look.
struct Plain;

impl<S, N> FormatEvent<S, N> for Plain
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        match *event.metadata().level() {
            Level::ERROR => writer.write_str("spindle: ")?,
            _ => writer.write_str("spindle: warning: ")?,
        }
        let mut fields = String::new();
        context.format_fields(Writer::new(&mut fields), event)?;
        writeln!(writer, "{}", line(&fields))
    }
}

/// A message as one line, whatever a file is called, with errors in words and without numbers for them.
fn line(text: &str) -> String {
    let text = match text.split_once(" (os error ") {
        Some((before, after)) => {
            let rest = after.split_once(')').map_or("", |(_, rest)| rest);
            format!("{before}{rest}")
        }
        None => text.to_owned(),
    };
    let printable = |character: char| match character.is_control() {
        true => ' ',
        false => character,
    };
    text.chars().map(printable).collect()
}
