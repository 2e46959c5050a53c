//! `-drive`: a tree of nodes and a front end in one option.
//!
//! Keys that are not the drive's own belong to the tree: `cache.direct=on`, `file.locking=off`,
//! `offset=512`. `file=` may be given beside `file.x=`, so the keys are sorted before they nest.

#[cfg(test)]
#[path = "options_test.rs"]
mod tests;

use super::filename;
use crate::error::{Error, ErrorKind};
use crate::node::{DetectZeroes, Discard};
use crate::options::{Options, Tree, from_tree, keyval};
use crate::protocol::file::Aio;

crate::options! {
    /// Where a drive is plugged in.
    pub enum Interface {
        /// IDE or SATA, as the machine has it.
        Ide = "ide",
        /// A SCSI disk.
        Scsi = "scsi",
        /// An SD card.
        Sd = "sd",
        /// Raw flash.
        Mtd = "mtd",
        /// A floppy disk.
        Floppy = "floppy",
        /// Firmware flash.
        Pflash = "pflash",
        /// virtio-blk.
        Virtio = "virtio",
        /// Nowhere: a `-device` names it.
        None = "none",
    }
}

crate::options! {
    /// What the guest sees.
    pub enum Media {
        /// A hard disk.
        Disk = "disk",
        /// A CD-ROM.
        Cdrom = "cdrom",
    }
}

crate::options! {
    /// How writes are cached.
    pub enum CacheMode {
        /// No page cache; the guest flushes.
        None = "none" | "off",
        /// Page cache; the guest flushes.
        Writeback = "writeback",
        /// Page cache; each write is durable before it is acknowledged.
        Writethrough = "writethrough",
        /// No page cache; each write is durable before it is acknowledged.
        Directsync = "directsync",
        /// Page cache; flushes are ignored.
        Unsafe = "unsafe",
    }
}

crate::options! {
    /// What happens when the host fails a request.
    pub enum ErrorAction {
        /// The guest gets the error.
        Report = "report",
        /// The guest is told that all is well.
        Ignore = "ignore",
        /// The machine pauses when space runs out.
        Enospc = "enospc",
        /// The machine pauses.
        Stop = "stop",
        /// The default of the operation.
        Auto = "auto",
    }
}

crate::options! {
    /// The keys of `-drive`; all others belong to the node.
    pub struct DriveOptions {
        /// Path of the image.
        pub file: Option<String> = None,
        /// Format of the image: `raw`. Without it the image is raw, with a warning.
        pub format: Option<String> = None,
        /// Where it is plugged in.
        pub interface as "if": Option<Interface> = None,
        /// Position among the drives of its interface.
        pub index: Option<u32> = None,
        /// Number of the bus it sits on.
        pub bus: Option<u32> = None,
        /// Number on its bus.
        pub unit: Option<u32> = None,
        /// Disk or CD-ROM.
        pub media: Media = Media::Disk,
        /// Name by which `-device drive=` finds it.
        pub id: Option<String> = None,
        /// Serial number the guest sees.
        pub serial: Option<String> = None,
        /// How writes are cached: writeback unless said.
        pub cache: Option<CacheMode> = None,
        /// How the host does I/O.
        pub aio: Option<Aio> = None,
        /// Whether discards give space back.
        pub discard: Option<Discard> = None,
        /// Whether zeroes are looked for in written data.
        pub detect_zeroes: Option<DetectZeroes> = None,
        /// Refuses writes.
        pub read_only as "read-only" | "readonly": Option<bool> = None,
        /// Opens for reading only when the image cannot be written.
        pub auto_read_only: Option<bool> = None,
        /// Copies what is read from a backing image.
        pub copy_on_read: bool = false,
        /// Writes to a temporary overlay.
        pub snapshot: bool = false,
        /// What happens when a read fails.
        pub rerror: ErrorAction = ErrorAction::Report,
        /// What happens when a write fails.
        pub werror: ErrorAction = ErrorAction::Report,
    }
}

/// What a `-drive` asks for, checked as far as it can be without opening anything.
#[derive(Clone, Debug, PartialEq)]
pub struct DriveConfig {
    /// Its name, if it was given one.
    pub id: Option<String>,
    /// Where it is plugged in; the machine's default when `None`.
    pub interface: Option<Interface>,
    /// Position among the drives of its interface.
    pub index: Option<u32>,
    /// Number of the bus.
    pub bus: Option<u32>,
    /// Number on the bus.
    pub unit: Option<u32>,
    /// What the guest sees.
    pub media: Media,
    /// Serial number.
    pub serial: Option<String>,
    /// Whether the disk starts with its write cache on.
    pub write_cache: bool,
    /// No format was given: the image is raw, and a guest must not make it look like something else.
    pub probed: bool,
    /// The options of the top node.
    pub node: Tree,
}

impl Default for DriveConfig {
    /// A disk without options, as `-device` makes it of a node's name.
    fn default() -> Self {
        Self {
            id: None,
            interface: None,
            index: None,
            bus: None,
            unit: None,
            media: Media::Disk,
            serial: None,
            write_cache: true,
            probed: false,
            node: Tree::default(),
        }
    }
}

impl DriveConfig {
    /// Reads the argument of `-drive`.
    ///
    /// # Errors
    /// Unknown keys of the drive's own, bad values, and what this build cannot do; the node's keys are
    /// checked when it is made.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let (own, of_node): (Vec<_>, Vec<_>) = keyval::split(text, None)?
            .into_iter()
            .partition(|(key, _)| DriveOptions::SCHEMA.field(key).is_some());
        if let Some((key, _)) = of_node.iter().find(|(key, _)| throttles(key)) {
            let error = Error::new(ErrorKind::Unsupported, "throttling is not in this build");
            return Err(error.at(key));
        }
        Self::new(
            from_tree(Tree::from_pairs(own)?)?,
            Tree::from_pairs(of_node)?,
        )
    }

    /// Puts the drive's own options and those of its node together.
    pub fn new(options: DriveOptions, mut node: Tree) -> Result<Self, Error> {
        refuse_unbuilt(&options)?;
        if let Some(format) = &options.format {
            if node.get("driver").is_some() {
                return Err(Error::new(
                    ErrorKind::Invalid,
                    "means the same as 'driver': give one of them",
                )
                .at("format"));
            }
            node.set("driver", Tree::from(format.as_str()));
        }
        let probed = node.get("driver").is_none();
        node.set_default("driver", Tree::from("raw"));
        // The options of the protocol: the node's own if it is one, else those of its file.
        let driver = node
            .get("driver")
            .cloned()
            .unwrap_or_default()
            .into_string()?;
        let below = if crate::graph::is_protocol(&driver) {
            ""
        } else {
            "file."
        };
        let name = format!("{below}filename");
        if let Some(file) = &options.file {
            if node.get(&name).is_some() {
                let reason = format!("means the same as '{name}': give one of them");
                return Err(Error::new(ErrorKind::Invalid, reason).at("file"));
            }
            let members = filename::parse(file)
                .map_err(|error| error.at("file"))?
                .into_map()?;
            for (key, value) in members {
                if below.is_empty() && key == "driver" {
                    continue;
                }
                node.set_default(&format!("{below}{key}"), value);
            }
            if node.get(&format!("{below}driver")).is_none() {
                let reason =
                    r#"its 'driver' must be given: json:{"driver":"file","filename":"disk.img"}"#;
                return Err(Error::new(ErrorKind::Invalid, reason).at("file"));
            }
        } else if node.get("file").is_none() && below == "file." {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "must be given: empty drives are not in this build",
            )
            .at("file"));
        }
        if let Some(Tree::Text(path)) = node.get(&name) {
            // A name that is given as such is a path, whatever is in it.
            let driver = Tree::from(filename::of_path(path));
            node.set_default(&format!("{below}driver"), driver);
        }
        if let Some(aio) = options.aio {
            node.set_default(&format!("{below}aio"), Tree::from(aio.as_str()));
        }
        let mut write_cache = true;
        if let Some(mode) = options.cache {
            use CacheMode::{Directsync, None, Unsafe, Writethrough};
            node.set_default("cache.direct", (matches!(mode, None | Directsync)).into());
            node.set_default("cache.no-flush", (mode == Unsafe).into());
            write_cache = !matches!(mode, Writethrough | Directsync);
        }
        if let Some(Tree::Map(cache)) = node.as_map_mut().and_then(|map| map.get_mut("cache"))
            && let Some(writeback) = cache.remove("writeback")
        {
            write_cache = crate::options::Value::from_tree(writeback)
                .map_err(|error: crate::options::Error| error.at("cache.writeback"))?;
        }
        let common = [
            (
                "discard",
                options.discard.map(|value| Tree::from(value.as_str())),
            ),
            (
                "detect-zeroes",
                options
                    .detect_zeroes
                    .map(|value| Tree::from(value.as_str())),
            ),
            (
                "read-only",
                options
                    .read_only
                    .or((options.media == Media::Cdrom).then_some(true))
                    .map(Tree::from),
            ),
            ("auto-read-only", options.auto_read_only.map(Tree::from)),
        ];
        for (key, value) in common {
            if let Some(value) = value {
                node.set_default(key, value);
            }
        }
        Ok(Self {
            id: options.id,
            interface: options.interface,
            index: options.index,
            bus: options.bus,
            unit: options.unit,
            media: options.media,
            serial: options.serial,
            write_cache,
            probed,
            node,
        })
    }
}

fn throttles(key: &str) -> bool {
    let first = key.split('.').next().unwrap_or(key);
    let first = first.split(['-', '_']).next().unwrap_or(first);
    matches!(first, "bps" | "iops" | "throttling" | "group")
}

fn refuse_unbuilt(options: &DriveOptions) -> Result<(), Error> {
    let refuse = |key: &str, reason: &str| Err(Error::new(ErrorKind::Unsupported, reason).at(key));
    if options.copy_on_read {
        return refuse("copy-on-read", "is not in this build");
    }
    if options.snapshot {
        return refuse("snapshot", "temporary overlays are not in this build");
    }
    for (key, action) in [("rerror", options.rerror), ("werror", options.werror)] {
        if action != ErrorAction::Report {
            return refuse(
                key,
                &format!("'{action}' needs a monitor, which is not in this build; use report"),
            );
        }
    }
    Ok(())
}
