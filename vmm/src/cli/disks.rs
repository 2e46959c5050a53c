//! `-drive`, `-blockdev`, `-device`, `-object`: disks and what they hang on.
//!
//! `-drive` says two things at once: a block node (or two: format over file) and how a guest sees it.
//! Here it comes apart into the trees that `-blockdev` would have given, a [`Drive`], and for
//! `if=virtio` a [`Device`]. Keys that are neither the drive's nor the file's go to the format.

use std::path::Path;

use block::options::{Map, Options, Schema, Tree, from_tree, nearest};

use super::{
    args::{Args, Given},
    wrong,
};
use crate::config::{Device, Drive, IoThread};
use crate::error::Error;
use crate::models::{self, Model, VirtioBlkPci};

block::options! {
    /// The file of a disk and how the guest sees it. Keys that are not listed belong to the format.
    pub struct DriveOptions {
        /// The image, or the members of a block node (file.driver=, file.filename=).
        pub file: Option<Tree> = None,
        /// What is in the image: raw. Without it raw is assumed, with a warning.
        pub format as "format" | "driver": Option<String> = None,
        /// What the disk hangs on.
        pub interface as "if": Interface = Interface::Ide,
        /// Guests cannot write.
        pub readonly as "readonly" | "read-only": bool = false,
        /// How the host's cache is used, or its members cache.direct, cache.no-flush, cache.writeback.
        pub cache: Option<Tree> = None,
        /// How the host is asked: io_uring (native is the same) or threads.
        pub aio: Option<String> = None,
        /// What a guest's discard does to the image.
        pub discard: Option<String> = None,
        /// The disk's name, for -device.
        pub id: Option<String> = None,
        /// The serial number that the guest reads, at most 20 bytes.
        pub serial: Option<String> = None,
        /// disk.
        pub media: Media = Media::Disk,
        /// off: no temporary overlay.
        pub snapshot: bool = false,
        /// Which disk of its interface it is.
        pub index: Option<u32> = None,
    }
}

block::options! {
    /// What a disk hangs on.
    pub enum Interface {
        /// A virtio-blk-pci device of its own.
        Virtio = "virtio",
        /// Nothing: a -device names it.
        None = "none",
        /// Not in this build.
        Ide = "ide",
        /// Not in this build.
        Scsi = "scsi",
        /// Not in this build.
        Sd = "sd",
        /// Not in this build.
        Floppy = "floppy",
        /// Not in this build.
        Pflash = "pflash",
        /// Not in this build.
        Mtd = "mtd",
        /// Not in this build.
        Xen = "xen",
    }
}

block::options! {
    /// What kind of medium.
    pub enum Media {
        /// A disk.
        Disk = "disk",
        /// Not in this build.
        Cdrom = "cdrom",
    }
}

block::options! {
    /// The members of `cache`.
    struct CacheOptions {
        /// Around the host's page cache.
        direct: bool = false,
        /// Flushes do nothing.
        no_flush: bool = false,
        /// The device has a volatile cache that the guest flushes.
        writeback: bool = true,
    }
}

block::options! {
    /// A thread that moves disk data.
    pub struct IoThreadOptions {
        /// Its name, for -device virtio-blk-pci,iothread=.
        pub id: String,
        /// The longest busy wait before it sleeps, in ns; 0: it sleeps at once.
        pub poll_max_ns: Option<u64> = None,
    }
}

/// All that is asked for, in order.
#[derive(Debug, Default)]
pub(super) struct Disks {
    pub(super) iothreads: Vec<IoThread>,
    pub(super) blockdevs: Vec<Tree>,
    pub(super) drives: Vec<Drive>,
    pub(super) devices: Vec<Device>,
}

/// Reads the four options.
pub(super) fn read(args: &Args) -> Result<Disks, Error> {
    let mut disks = Disks::default();
    for given in args.all("object") {
        let iothread = iothread(&given)?;
        let ids = disks.iothreads.iter().map(|other| other.id.as_str());
        unique(&given.origin(), "id", &iothread.id, ids)?;
        disks.iothreads.push(iothread);
    }
    for given in args.in_order(&["blockdev", "drive", "device"]) {
        match given.option {
            "blockdev" => disks.blockdev(&given)?,
            "drive" => disks.drive(&given)?,
            _ => disks.device(&given)?,
        }
    }
    disks.check_references()?;
    Ok(disks)
}

impl Disks {
    fn blockdev(&mut self, given: &Given<'_>) -> Result<(), Error> {
        let origin = given.origin();
        let tree = Tree::parse(given.text()?, None).map_err(|error| wrong(&origin, error))?;
        for key in ["driver", "node-name"] {
            if text(&tree, key).is_none() {
                return Err(wrong(&origin, format!("'{key}': must be given")));
            }
        }
        self.add_node(&origin, tree)
    }

    fn drive(&mut self, given: &Given<'_>) -> Result<(), Error> {
        let origin = given.origin();
        let at = |error: block::options::Error| wrong(&origin, error);
        let tree = Tree::parse_keyval(given.text()?, Some("file")).map_err(at)?;
        let (ours, rest): (Map, Map) = split(tree.into_map().map_err(at)?, DriveOptions::SCHEMA);
        let options: DriveOptions = from_tree(Tree::Map(ours)).map_err(at)?;
        options
            .check(&rest)
            .map_err(|reason| wrong(&origin, reason))?;

        let id = match &options.id {
            Some(id) => id.clone(),
            // As QEMU numbers them: by interface.
            None => {
                let same = format!("{}", options.interface);
                let before = self
                    .drives
                    .iter()
                    .filter(|d| d.id.starts_with(&same))
                    .count();
                format!("{same}{before}")
            }
        };
        let cache = options.cache().map_err(|reason| wrong(&origin, reason))?;
        let node = text(&Tree::Map(rest.clone()), "node-name")
            .map_or_else(|| format!("#{id}"), str::to_owned);
        let tree = options.tree(&origin, rest, &node, &cache)?;
        unique(&origin, "id", &id, self.disk_names())?;
        self.add_node(&origin, tree)?;
        self.drives.push(Drive {
            id: id.clone(),
            node,
            read_only: options.readonly,
            write_cache: cache.writeback,
            serial: options.serial,
            origin: origin.clone(),
        });
        if options.interface == Interface::Virtio {
            let model = VirtioBlkPci::of(&id).map_err(at)?;
            self.devices.push(Device {
                model: Model::VirtioBlkPci(model),
                origin,
            });
        }
        Ok(())
    }

    fn device(&mut self, given: &Given<'_>) -> Result<(), Error> {
        let origin = given.origin();
        let at = |error: block::options::Error| wrong(&origin, error);
        let mut tree = Tree::parse(given.text()?, Some("driver")).map_err(at)?;
        let Some(driver) = tree.take_str("driver").map_err(at)? else {
            return Err(wrong(&origin, "'driver': must be given"));
        };
        let Some(model) = models::find(&driver) else {
            let known = models::MODELS.iter().flat_map(|model| model.names).copied();
            return Err(wrong(
                &origin,
                match nearest(&driver, known) {
                    Some(near) => {
                        format!("device '{driver}' is not in this build; did you mean '{near}'?")
                    }
                    None => format!(
                        "device '{driver}' is not in this build; -device help lists those there are"
                    ),
                },
            ));
        };
        let model = model.read(tree).map_err(at)?;
        if let Some(id) = model.id() {
            let ids = self.devices.iter().filter_map(|other| other.model.id());
            unique(&origin, "id", id, ids)?;
        }
        self.devices.push(Device { model, origin });
        Ok(())
    }

    /// The names of drives and nodes: they are one set, since a device may name either.
    fn disk_names(&self) -> impl Iterator<Item = &str> {
        let mut names: Vec<&str> = self.drives.iter().map(|drive| drive.id.as_str()).collect();
        for tree in &self.blockdevs {
            node_names(tree, &mut names);
        }
        names.into_iter()
    }

    /// Adds a tree of nodes, none of which may have a name that is there already.
    fn add_node(&mut self, origin: &str, tree: Tree) -> Result<(), Error> {
        let mut names = Vec::new();
        node_names(&tree, &mut names);
        let mut taken: Vec<&str> = self.disk_names().collect();
        for name in names {
            unique(origin, "node-name", name, taken.iter().copied())?;
            taken.push(name);
        }
        self.blockdevs.push(tree);
        Ok(())
    }

    /// Each device's disk and thread exist, and no disk is on two devices.
    fn check_references(&self) -> Result<(), Error> {
        let mut nodes = Vec::new();
        for tree in &self.blockdevs {
            nodes.extend(text(tree, "node-name"));
        }
        let disks = || {
            self.drives
                .iter()
                .map(|d| d.id.as_str())
                .chain(nodes.iter().copied())
        };
        let threads = || self.iothreads.iter().map(|thread| thread.id.as_str());
        let mut used: Vec<(&str, &str)> = Vec::new();
        for Device { model, origin } in &self.devices {
            let Model::VirtioBlkPci(device) = model else {
                continue;
            };
            let disk = device.drive.as_str();
            exists(
                origin,
                "drive",
                disk,
                disks,
                "-drive id= or -blockdev node-name=",
            )?;
            let drive = self.drives.iter().find(|d| d.id == disk);
            let node = drive.map_or(disk, |drive| drive.node.as_str());
            if let Some((_, by)) = used.iter().find(|(other, _)| *other == node) {
                return Err(wrong(
                    origin,
                    format!("'drive': '{disk}' is on {by} already; a disk is on one device"),
                ));
            }
            used.push((node, origin));
            let mapped = device.iothread_vq_mapping.iter().flatten();
            for thread in device.iothread.iter().chain(mapped.map(|m| &m.iothread)) {
                exists(origin, "iothread", thread, threads, "-object iothread,id=")?;
            }
        }
        Ok(())
    }
}

impl DriveOptions {
    /// Refuses what this build has nothing for.
    fn check(&self, rest: &Map) -> Result<(), String> {
        match self.interface {
            Interface::Virtio | Interface::None => {}
            Interface::Ide => {
                return Err("'if': no AHCI controller in this build; use if=virtio".into());
            }
            other => {
                return Err(format!(
                    "'if': '{other}' is not in this build; use if=virtio"
                ));
            }
        }
        if self.media == Media::Cdrom {
            return Err(
                "'media': no CD-ROM drive in this build; use media=disk,readonly=on".into(),
            );
        }
        if self.snapshot {
            return Err("'snapshot': no temporary overlays in this build; use readonly=on".into());
        }
        if self.serial.as_ref().is_some_and(|serial| serial.len() > 20) {
            return Err("'serial': is longer than 20 bytes".into());
        }
        for key in [
            "bus",
            "unit",
            "werror",
            "rerror",
            "copy-on-read",
            "throttling",
            "group",
            "addr",
        ] {
            if rest.get(key).is_some() {
                return Err(format!("'{key}': is not in this build; leave it out"));
            }
        }
        match &self.file {
            None if self
                .format
                .as_deref()
                .is_none_or(|format| !format.starts_with("null-")) =>
            {
                Err("'file': must be given".into())
            }
            Some(Tree::Text(name)) if name.is_empty() => Err("'file': names no file".into()),
            Some(Tree::Text(name)) => match protocol(name) {
                Some(protocol) => Err(format!(
                    "'file': protocol '{protocol}' is not in this build; use a file, or file.filename={name} if that is its name"
                )),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    fn cache(&self) -> Result<CacheOptions, String> {
        let (direct, no_flush, writeback) = match &self.cache {
            None => (false, false, true),
            Some(Tree::Map(members)) => {
                return from_tree(Tree::Map(members.clone()))
                    .map_err(|error| error.at("cache").to_string());
            }
            Some(tree) => match tree.clone().into_string().unwrap_or_default().as_str() {
                "writeback" => (false, false, true),
                "writethrough" => (false, false, false),
                "none" | "off" => (true, false, true),
                "directsync" => (true, false, false),
                "unsafe" => (false, true, true),
                other => {
                    const MODES: [&str; 5] =
                        ["writeback", "none", "writethrough", "directsync", "unsafe"];
                    let near = nearest(other, MODES);
                    let hint = near.map(|near| format!("; did you mean '{near}'?"));
                    return Err(format!(
                        "'cache': expected {}, got '{other}'{}",
                        MODES.join(", "),
                        hint.unwrap_or_default()
                    ));
                }
            },
        };
        Ok(CacheOptions {
            direct,
            no_flush,
            writeback,
        })
    }

    /// The block nodes: the format with the file below it.
    fn tree(
        &self,
        origin: &str,
        rest: Map,
        node: &str,
        cache: &CacheOptions,
    ) -> Result<Tree, Error> {
        let mut tree = Tree::Map(rest);
        let driver = match self.format.as_deref() {
            Some(format) => format,
            None => {
                tracing::warn!(
                    "{origin}: 'format': not given, taken as raw; write format=raw to say so"
                );
                "raw"
            }
        };
        tree.set("driver", driver.into());
        tree.set("node-name", node.into());
        self.common(&mut tree);
        let mut file = match &self.file {
            None => return Ok(tree),
            Some(Tree::Map(members)) => Tree::Map(members.clone()),
            Some(name) => {
                let mut file = Tree::default();
                file.set("filename", name.clone());
                file
            }
        };
        let device = text(&file, "filename").is_some_and(|name| is_block_device(Path::new(name)));
        file.set_default("driver", if device { "host_device" } else { "file" }.into());
        self.common(&mut file);
        file.set_default("cache.direct", cache.direct.into());
        file.set_default("cache.no-flush", cache.no_flush.into());
        if let Some(aio) = &self.aio {
            file.set_default("aio", Tree::Text(aio.clone()));
        }
        if matches!(driver, "file" | "host_device") {
            // The file itself, without a format over it.
            file.set("driver", driver.into());
            file.set("node-name", node.into());
            return Ok(file);
        }
        tree.set("file", file);
        Ok(tree)
    }

    /// What holds for the format and for the file.
    fn common(&self, tree: &mut Tree) {
        tree.set_default("read-only", self.readonly.into());
        if let Some(discard) = &self.discard {
            tree.set_default("discard", Tree::Text(discard.clone()));
        }
    }
}

fn iothread(given: &Given<'_>) -> Result<IoThread, Error> {
    let origin = given.origin();
    let at = |error: block::options::Error| wrong(&origin, error);
    let mut tree = Tree::parse(given.text()?, Some("qom-type")).map_err(at)?;
    match tree.take_str("qom-type").map_err(at)?.as_deref() {
        Some("iothread") => {}
        Some(other) => {
            return Err(wrong(
                &origin,
                format!("object '{other}' is not in this build; there is iothread"),
            ));
        }
        None => {
            return Err(wrong(
                &origin,
                "'qom-type': must be given; there is iothread",
            ));
        }
    }
    let options: IoThreadOptions = from_tree(tree).map_err(at)?;
    Ok(IoThread {
        id: options.id,
        poll_max_ns: options.poll_max_ns,
    })
}

/// Members that `schema` has, and the others.
fn split(map: Map, schema: &Schema) -> (Map, Map) {
    let (ours, rest): (Vec<_>, Vec<_>) = map
        .into_iter()
        .partition(|(key, _)| schema.field(key).is_some());
    (ours.into_iter().collect(), rest.into_iter().collect())
}

fn text<'a>(tree: &'a Tree, key: &str) -> Option<&'a str> {
    match tree.get(key) {
        Some(Tree::Text(text) | Tree::Str(text)) => Some(text),
        _ => None,
    }
}

fn node_names<'a>(tree: &'a Tree, names: &mut Vec<&'a str>) {
    let Some(members) = tree.as_map() else { return };
    for (key, value) in members.iter() {
        match value {
            Tree::Text(name) | Tree::Str(name) if key == "node-name" => names.push(name),
            value => node_names(value, names),
        }
    }
}

fn unique<'a>(
    origin: &str,
    key: &str,
    name: &str,
    mut taken: impl Iterator<Item = &'a str>,
) -> Result<(), Error> {
    match taken.any(|other| other == name) {
        true => Err(wrong(
            origin,
            format!("'{key}': '{name}' is taken; give another"),
        )),
        false => Ok(()),
    }
}

fn exists<'a, I: Iterator<Item = &'a str>>(
    origin: &str,
    key: &str,
    name: &str,
    known: impl Fn() -> I,
    made_by: &str,
) -> Result<(), Error> {
    if known().any(|known| known == name) {
        return Ok(());
    }
    Err(wrong(
        origin,
        match nearest(name, known()) {
            Some(near) => format!("'{key}': there is no '{name}'; did you mean '{near}'?"),
            None => format!("'{key}': there is no '{name}'; {made_by} makes one"),
        },
    ))
}

/// The protocol before the colon, where QEMU would see one (`nbd://host`).
fn protocol(name: &str) -> Option<&str> {
    let (protocol, _) = name.split_once(':')?;
    let known = [
        "json",
        "nbd",
        "nbd+unix",
        "nbd+tcp",
        "http",
        "https",
        "ftp",
        "ftps",
        "ssh",
        "iscsi",
        "nfs",
        "rbd",
        "gluster",
        "fat",
        "blkdebug",
        "blkverify",
        "null-co",
        "null-aio",
        "nvme",
        "vhdx",
        "host_device",
        "host_cdrom",
        "file",
    ];
    known.contains(&protocol).then_some(protocol)
}

fn is_block_device(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    std::fs::metadata(path).is_ok_and(|file| file.file_type().is_block_device())
}

/// `-blockdev help`: what every node has; the drivers have their own.
pub(super) fn blockdev_help() -> String {
    String::from(
        "a block node: driver=NAME,node-name=NAME,... (file, host_device, raw, null-co, null-aio)\n",
    )
}
