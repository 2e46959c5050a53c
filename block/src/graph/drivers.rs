//! The drivers there are, by name; and the names of those that there are not yet.

use std::future::Future;
use std::pin::Pin;

use super::open::{Opened, Opening};
use crate::error::{Error, ErrorKind};
use crate::format::raw;
use crate::options::{Options, Schema, Tree, nearest};
use crate::protocol::{file, null};

type Open = for<'a, 'b> fn(
    &'a mut Opening<'b>,
    Tree,
) -> Pin<Box<dyn Future<Output = Result<Opened, Error>> + 'a>>;

/// One driver.
pub(super) struct DriverType {
    pub(super) name: &'static str,
    pub(super) schema: &'static Schema,
    /// It is where bytes are, rather than a view of other nodes.
    pub(super) protocol: bool,
    pub(super) open: Open,
}

static DRIVERS: &[DriverType] = &[
    DriverType {
        name: "file",
        schema: file::FileOptions::SCHEMA,
        protocol: true,
        open: |opening, options| Box::pin(file::open_file(opening, options)),
    },
    DriverType {
        name: "host_device",
        schema: file::FileOptions::SCHEMA,
        protocol: true,
        open: |opening, options| Box::pin(file::open_host_device(opening, options)),
    },
    DriverType {
        name: "null-aio",
        schema: null::NullOptions::SCHEMA,
        protocol: true,
        open: |opening, options| Box::pin(null::open(opening, options)),
    },
    DriverType {
        name: "null-co",
        schema: null::NullOptions::SCHEMA,
        protocol: true,
        open: |opening, options| Box::pin(null::open(opening, options)),
    },
    DriverType {
        name: "raw",
        schema: raw::RawOptions::SCHEMA,
        protocol: false,
        open: |opening, options| Box::pin(raw::open(opening, options)),
    },
];

/// Drivers that users of QEMU name and that this build does not have.
const UNBUILT: &[&str] = &[
    "blkdebug",
    "blklogwrites",
    "blkreplay",
    "blkverify",
    "bochs",
    "cloop",
    "compress",
    "copy-before-write",
    "copy-on-read",
    "dmg",
    "ftp",
    "ftps",
    "gluster",
    "host_cdrom",
    "http",
    "https",
    "io_uring",
    "iscsi",
    "luks",
    "nbd",
    "nfs",
    "nvme",
    "nvme-io_uring",
    "parallels",
    "preallocate",
    "qcow",
    "qcow2",
    "qed",
    "quorum",
    "rbd",
    "replication",
    "snapshot-access",
    "ssh",
    "throttle",
    "vdi",
    "vhdx",
    "virtio-blk-vfio-pci",
    "virtio-blk-vhost-user",
    "virtio-blk-vhost-vdpa",
    "vmdk",
    "vpc",
    "vvfat",
];

pub(super) fn find(name: &str) -> Result<&'static DriverType, Error> {
    if let Some(driver) = DRIVERS.iter().find(|driver| driver.name == name) {
        return Ok(driver);
    }
    let names = || DRIVERS.iter().map(|driver| driver.name);
    let error = match nearest(name, names().chain(UNBUILT.iter().copied())) {
        _ if UNBUILT.contains(&name) => Error::new(
            ErrorKind::Unsupported,
            format!("driver '{name}' is not in this build"),
        ),
        Some(near) => Error::new(
            ErrorKind::Invalid,
            format!("unknown driver '{name}'; did you mean '{near}'?"),
        ),
        None => {
            let all = names().collect::<Vec<_>>().join(", ");
            Error::new(
                ErrorKind::Invalid,
                format!("unknown driver '{name}'; there are {all}"),
            )
        }
    };
    Err(error.at("driver"))
}

/// Whether the driver is one without children: `file=` of a `-drive` then belongs to it, not to a child.
pub fn is_protocol(name: &str) -> bool {
    DRIVERS
        .iter()
        .any(|driver| driver.name == name && driver.protocol)
}

/// The keys of a driver's own.
pub fn schema(name: &str) -> Option<&'static Schema> {
    DRIVERS
        .iter()
        .find(|driver| driver.name == name)
        .map(|driver| driver.schema)
}
