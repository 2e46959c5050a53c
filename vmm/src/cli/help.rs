//! `-help` and `-OPTION help`.

use std::fmt::Write as _;

use block::options::{Field, Kind, Options, Schema};

use super::{args, args::Args, disks, machine};
use crate::error::Error;
use crate::models;

/// The text asked for, if any was: `-help`, `-version`, `-device help`, `-device MODEL,help`, ...
pub(super) fn asked(args: &Args) -> Result<Option<String>, Error> {
    if args.flag("help") || args.flag("h") {
        return Ok(Some(all()));
    }
    if args.flag("version") {
        return Ok(Some(format!("spindle {}\n", env!("CARGO_PKG_VERSION"))));
    }
    for option in [
        "machine", "M", "accel", "cpu", "m", "smp", "device", "drive", "blockdev", "object",
    ] {
        for given in args.all(option) {
            let text = given.text()?;
            let mut words = text.split(',');
            let first = words.next().unwrap_or_default();
            let asks = |word: &str| matches!(word, "help" | "?");
            if asks(first) {
                return Ok(Some(of_option(option)));
            }
            if option == "device" && words.any(asks) {
                let name = first.strip_prefix("driver=").unwrap_or(first);
                // An unknown model is told of where all are.
                return Ok(models::find(name).map(|model| {
                    let mut text = format!(
                        "{}: {}\n",
                        model.names.join(", "),
                        first_line(model.schema.doc)
                    );
                    schema(&mut text, model.schema);
                    text
                }));
            }
        }
    }
    Ok(None)
}

fn all() -> String {
    let mut text = String::from(
        "spindle boots a Linux guest on KVM\n\n\
         usage: spindle -kernel FILE [OPTION...]\n\n",
    );
    table(&mut text, &args::rows());
    text.push_str(
        "\nexit status:\n  \
         0  the guest powered off, reset under -no-reboot, or was ended by Ctrl-A x or a signal\n  \
         1  the command line asks for what cannot be had; no guest ran\n  \
         2  spindle or its host failed, whether a guest ran or not\n  \
         3  the guest crashed (triple fault, an instruction that KVM cannot run)\n  \
         4  the guest reported a panic (pvpanic)\n  \
         other odd numbers: what the guest wrote to isa-debug-exit, times 2 plus 1\n\n\
         environment:\n  \
         SPINDLE_LOG, RUST_LOG  what is logged to stderr: error, warn (default), info, debug, trace\n",
    );
    text
}

fn of_option(option: &str) -> String {
    let mut text = String::new();
    match option {
        "device" => {
            text.push_str("devices (-device MODEL,help lists the properties of one):\n");
            let rows: Vec<_> = models::MODELS
                .iter()
                .map(|model| {
                    (
                        model.names.join(", "),
                        first_line(model.schema.doc).to_owned(),
                    )
                })
                .collect();
            table(&mut text, &rows);
        }
        "cpu" => {
            text.push_str("models (features follow: host,-cx16):\n");
            let row = |(name, help): &(&str, &str)| (String::from(*name), String::from(*help));
            table(
                &mut text,
                &machine::CPU_MODELS.iter().map(row).collect::<Vec<_>>(),
            );
        }
        "machine" | "M" => {
            text.push_str("machines:\n");
            table(
                &mut text,
                &[("q35".into(), "PC with PCI Express (default)".into())],
            );
            text.push_str("properties:\n");
            schema(&mut text, machine::MachineOptions::SCHEMA);
        }
        "object" => {
            text.push_str("iothread: a thread that moves disk data\n");
            schema(&mut text, disks::IoThreadOptions::SCHEMA);
        }
        "blockdev" => text.push_str(&disks::blockdev_help()),
        "drive" => text.push_str(&disks::drive_help()),
        _ => {
            if let Some(keys) = machine::schema(option) {
                schema(&mut text, keys);
            }
        }
    }
    text
}

/// A line a key: what it takes, what it means, what it is when it is left out.
pub(super) fn schema(text: &mut String, schema: &Schema) {
    let row = |field: &Field| {
        let mut help = first_line(field.doc).to_owned();
        let default = field.default.map(|default| default());
        match default {
            None => help.push_str(" (must be given)"),
            Some(tree) if !matches!(tree, block::options::Tree::Null) => {
                let _ = write!(help, " (default {})", plain(&tree));
            }
            Some(_) => {}
        }
        let kind = match field.kind {
            Kind::Any => "...".into(),
            kind => kind.describe(),
        };
        (format!("{}={kind}", field.key), help)
    };
    table(text, &schema.fields.iter().map(row).collect::<Vec<_>>());
}

fn plain(tree: &block::options::Tree) -> String {
    match tree {
        block::options::Tree::Bool(true) => "on".into(),
        block::options::Tree::Bool(false) => "off".into(),
        block::options::Tree::Text(text) | block::options::Tree::Str(text) => text.clone(),
        other => other.describe(),
    }
}

fn first_line(doc: &str) -> &str {
    doc.lines().next().unwrap_or_default().trim()
}

/// Two columns.
pub(super) fn table(text: &mut String, rows: &[(String, String)]) {
    const WIDEST: usize = 30;
    let width = rows
        .iter()
        .map(|(left, _)| left.len())
        .filter(|len| *len <= WIDEST)
        .max();
    let width = width.unwrap_or(WIDEST);
    for (left, right) in rows {
        let _ = writeln!(text, "  {left:width$}  {right}");
    }
}
