//! `file=` of `-drive`: a path, or a protocol's name with a colon.

use std::os::unix::fs::FileTypeExt;

use crate::error::{Error, ErrorKind};
use crate::options::Tree;

/// Protocols that users of QEMU know and that this build does not have.
const UNBUILT: &[&str] = &[
    "nbd",
    "nbd+tcp",
    "nbd+unix",
    "ssh",
    "http",
    "https",
    "ftp",
    "ftps",
    "iscsi",
    "nfs",
    "rbd",
    "gluster",
    "fat",
    "blkdebug",
    "blkverify",
    "blklogwrites",
    "vvfat",
    "host_cdrom",
    "nvme",
    "curl",
];

/// The options of the protocol node that the text means.
pub(super) fn parse(text: &str) -> Result<Tree, Error> {
    if let Some(json) = text.strip_prefix("json:") {
        return Ok(Tree::parse_json(json)?);
    }
    let path = match text.split_once(':') {
        Some(("file", path)) => path,
        Some((protocol, rest)) if !protocol.contains('/') => {
            return of_protocol(protocol, rest, text);
        }
        _ => text,
    };
    if path.is_empty() {
        return Err(Error::new(
            ErrorKind::Invalid,
            "expected the path of an image",
        ));
    }
    Ok(node(&[("driver", of_path(path)), ("filename", path)]))
}

/// The protocol for a path: devices are not regular files. What cannot be looked at is left to `file`,
/// which says why when it opens it.
pub(super) fn of_path(path: &str) -> &'static str {
    match std::fs::metadata(path).map(|metadata| metadata.file_type()) {
        Ok(kind) if kind.is_block_device() || kind.is_char_device() => "host_device",
        _ => "file",
    }
}

fn of_protocol(protocol: &str, rest: &str, text: &str) -> Result<Tree, Error> {
    match protocol {
        "null-co" | "null-aio" if matches!(rest, "" | "//") => Ok(node(&[("driver", protocol)])),
        _ if UNBUILT.contains(&protocol) => Err(Error::new(
            ErrorKind::Unsupported,
            format!("protocol '{protocol}' is not in this build"),
        )),
        _ => Err(Error::new(
            ErrorKind::Invalid,
            format!(
                "unknown protocol '{protocol}'; a path with a colon in it is given as file.filename={}",
                text.replace(',', ",,")
            ),
        )),
    }
}

fn node(members: &[(&str, &str)]) -> Tree {
    Tree::Map(
        members
            .iter()
            .map(|(key, value)| ((*key).to_owned(), Tree::from(*value)))
            .collect(),
    )
}
