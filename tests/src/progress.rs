//! What the user sees while something takes its time: a spinner on a terminal, plain lines elsewhere.

use std::io::{IsTerminal, Write, stderr};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// Steps shorter than this leave no line where there is no terminal.
const WORTH_A_LINE: Duration = Duration::from_secs(1);

/// Steps may nest and run side by side: each has a line of its own.
static STEPS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// One line on stderr.
pub fn say(line: &str) {
    // Nobody is left to tell when stderr is closed.
    let _ = STEPS.suspend(|| writeln!(stderr(), "{line}"));
}

/// Runs `work`, shown as `what` while it runs.
pub fn step<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    if stderr().is_terminal() {
        let bar = STEPS.add(ProgressBar::new_spinner().with_message(what.to_owned()));
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(120));
        let result = work();
        bar.finish_and_clear();
        return result;
    }
    say(&format!("{what} ..."));
    let result = work();
    if start.elapsed() > WORTH_A_LINE {
        say(&format!("{what}: {:.1} s", start.elapsed().as_secs_f64()));
    }
    result
}
