//! Where a serial port's other end is.

use std::path::PathBuf;

use super::{options, wrong};
use crate::config::Serial;
use crate::error::Error;

/// The forms, as messages list them.
const FORMS: &str =
    "stdio, mon:stdio, file:PATH, unix:PATH,server=on[,wait=off], pty, null or none";

/// The longest name of a Unix socket in bytes (`sun_path` with its NUL, unix(7)).
const SOCKET_NAME_MAX: usize = 107;

block::options! {
    /// A socket to listen on.
    struct UnixOptions {
        /// Its name.
        path: String,
        /// on: spindle listens.
        server: bool = false,
        /// Whether the guest waits for the first peer.
        wait: Option<bool> = None,
        /// off, in an older spelling.
        nowait: bool = false,
    }
}

/// Reads what follows `-serial`.
///
/// # Errors
/// A form that there is not in this build.
pub fn parse(text: &str) -> Result<Serial, Error> {
    let (kind, rest) = match text.split_once(':') {
        Some((kind, rest)) => (kind, Some(rest)),
        None => (text, None),
    };
    match (kind, rest) {
        ("stdio", None) | ("mon", Some("stdio")) => Ok(Serial::Stdio),
        ("pty", None) => Ok(Serial::Pty),
        ("null", None) => Ok(Serial::Null),
        ("none", None) => Ok(Serial::None),
        ("file", Some(path)) if !path.is_empty() => Ok(Serial::File(PathBuf::from(path))),
        ("unix", Some(rest)) => unix(rest),
        ("mon", Some(_)) => Err(wrong(
            "-serial",
            "no monitor in this build; mon:stdio is the same as stdio",
        )),
        (
            "tcp" | "telnet" | "udp" | "chardev" | "vc" | "pipe" | "con" | "msmouse" | "websocket"
            | "braille",
            _,
        ) => Err(wrong(
            "-serial",
            format!("'{kind}' is not in this build; use {FORMS}"),
        )),
        _ => Err(wrong(
            "-serial",
            format!("'{text}' is no place for a serial port; use {FORMS}"),
        )),
    }
}

fn unix(text: &str) -> Result<Serial, Error> {
    let given: UnixOptions = options("-serial", text, Some("path"))?;
    if !given.server {
        return Err(wrong(
            "-serial",
            "'server': spindle listens and does not connect; add server=on",
        ));
    }
    if given.path.is_empty() || given.path.len() > SOCKET_NAME_MAX {
        return Err(wrong(
            "-serial",
            format!("'path': a socket's name has 1 to {SOCKET_NAME_MAX} bytes"),
        ));
    }
    Ok(Serial::Unix {
        path: PathBuf::from(given.path),
        wait: given.wait.unwrap_or(!given.nowait),
    })
}
