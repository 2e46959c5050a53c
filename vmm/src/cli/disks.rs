//! `-drive`, `-blockdev`, `-device`, `-object`: disks and what they hang on.
//!
//! `-drive` says two things at once: a tree of block nodes and how a guest sees it. The block graph's own
//! reader takes it apart; here it gets its name, and for `if=virtio` the [`Device`] it asks for.

use block::DriveConfig;
use block::drive::options::{DriveOptions, Interface, Media};
use block::graph::NodeOptions;
use block::options::{Options, Schema, Tree, check_keys, from_tree, nearest};

use super::{
    args::{Args, Given},
    help, wrong,
};
use crate::config::{Blockdev, Device, Drive, IoThread};
use crate::error::Error;
use crate::models::{self, Model};

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
    pub(super) blockdevs: Vec<Blockdev>,
    pub(super) drives: Vec<Drive>,
    pub(super) devices: Vec<Device>,
}

/// Reads the four options, for a machine of `cpus` processors.
pub(super) fn read(args: &Args, cpus: u16) -> Result<Disks, Error> {
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
            "drive" => disks.drive(&given, cpus)?,
            _ => disks.device(&given, cpus)?,
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
        check_node(&tree, &[]).map_err(|error| wrong(&origin, error))?;
        self.check_names(&origin, &tree)?;
        self.blockdevs.push(Blockdev {
            options: tree,
            origin,
        });
        Ok(())
    }

    fn drive(&mut self, given: &Given<'_>, cpus: u16) -> Result<(), Error> {
        let origin = given.origin();
        let mut config =
            DriveConfig::parse(given.text()?).map_err(|error| wrong(&origin, error))?;
        check_node(&config.node, &[DriveOptions::SCHEMA]).map_err(|error| wrong(&origin, error))?;
        let interface = plugged(&config).map_err(|reason| wrong(&origin, reason))?;
        let index = match config.index {
            None => (0..)
                .find(|index| !self.has_index(interface, *index))
                .unwrap_or_default(),
            Some(index) if self.has_index(interface, index) => {
                let what = format!("'index': {index} of if={interface} is taken; give another");
                return Err(wrong(&origin, what));
            }
            Some(index) => index,
        };
        config.index = Some(index);
        let id = match &config.id {
            Some(id) => id.clone(),
            // As QEMU numbers them.
            None => format!("{interface}{index}"),
        };
        unique(&origin, "id", &id, self.disk_names())?;
        config.id = Some(id.clone());
        self.check_names(&origin, &config.node)?;
        if interface == Interface::Virtio {
            let drive = Tree::Map([("drive".to_owned(), id.into())].into_iter().collect());
            self.plug("virtio-blk-pci", drive, cpus, origin.clone())?;
        }
        self.drives.push(Drive { config, origin });
        Ok(())
    }

    fn has_index(&self, interface: Interface, index: u32) -> bool {
        let config = |drive: &Drive| (drive.config.interface, drive.config.index);
        let wanted = (Some(interface), Some(index));
        self.drives.iter().any(|drive| config(drive) == wanted)
    }

    fn device(&mut self, given: &Given<'_>, cpus: u16) -> Result<(), Error> {
        let origin = given.origin();
        let at = |error: block::options::Error| wrong(&origin, error);
        let mut tree = Tree::parse(given.text()?, Some("driver")).map_err(at)?;
        let Some(driver) = tree.take_str("driver").map_err(at)? else {
            return Err(wrong(&origin, "'driver': must be given"));
        };
        self.plug(&driver, tree, cpus, origin)
    }

    fn plug(&mut self, driver: &str, tree: Tree, cpus: u16, origin: String) -> Result<(), Error> {
        let Some(model) = models::find(driver) else {
            let known = models::MODELS.iter().flat_map(|model| model.names).copied();
            let hint = match nearest(driver, known) {
                Some(near) => format!("did you mean '{near}'?"),
                None => "-device help lists those there are".into(),
            };
            let what = format!("device '{driver}' is not in this build; {hint}");
            return Err(wrong(&origin, what));
        };
        let model = model
            .read(tree, cpus)
            .map_err(|error| wrong(&origin, error))?;
        if let Some(id) = model.id() {
            let ids = self.devices.iter().filter_map(|other| other.model.id());
            unique(&origin, "id", id, ids)?;
        }
        self.devices.push(Device { model, origin });
        Ok(())
    }

    /// The names of drives and nodes: they are one set, since a device may name either.
    fn disk_names(&self) -> impl Iterator<Item = &str> {
        let mut names: Vec<&str> = self.drives.iter().filter_map(Drive::id).collect();
        let drives = self.drives.iter().map(|drive| &drive.config.node);
        for tree in self.blockdevs.iter().map(|b| &b.options).chain(drives) {
            node_names(tree, &mut names);
        }
        names.into_iter()
    }

    /// No node of `tree` has a name that is there already.
    fn check_names(&self, origin: &str, tree: &Tree) -> Result<(), Error> {
        let mut taken: Vec<&str> = self.disk_names().collect();
        let mut names = Vec::new();
        node_names(tree, &mut names);
        for name in names {
            unique(origin, "node-name", name, taken.iter().copied())?;
            taken.push(name);
        }
        Ok(())
    }

    /// Each device's disk and thread exist, and no disk is on two devices.
    fn check_references(&self) -> Result<(), Error> {
        let nodes = || {
            self.blockdevs
                .iter()
                .filter_map(|b| text(&b.options, "node-name"))
        };
        let disks = || self.drives.iter().filter_map(Drive::id).chain(nodes());
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
            if let Some((_, by)) = used.iter().find(|(other, _)| *other == disk) {
                let what = format!("'drive': '{disk}' is on {by} already; a disk is on one device");
                return Err(wrong(origin, what));
            }
            used.push((disk, origin));
            let mapped = device.iothread_vq_mapping.iter();
            for thread in device.iothread.iter().chain(mapped.map(|m| &m.iothread)) {
                exists(origin, "iothread", thread, threads, "-object iothread,id=")?;
            }
        }
        Ok(())
    }
}

/// What the disk hangs on, if this build has it.
fn plugged(config: &DriveConfig) -> Result<Interface, String> {
    if config.media == Media::Cdrom {
        return Err("'media': no CD-ROM drive in this build; use media=disk,readonly=on".into());
    }
    for (key, number) in [("bus", config.bus), ("unit", config.unit)] {
        if number.is_some() {
            return Err(format!("'{key}': is not in this build; use index"));
        }
    }
    match config.interface {
        Some(interface @ (Interface::Virtio | Interface::None)) => Ok(interface),
        None | Some(Interface::Ide) => {
            Err("'if': no AHCI controller in this build; use if=virtio".into())
        }
        Some(other) => Err(format!(
            "'if': '{other}' is not in this build; use if=virtio"
        )),
    }
}

/// Refuses keys that neither `further` nor the node's driver has, before anything is opened. The nodes
/// below are the graph's to check.
fn check_node(node: &Tree, further: &[&'static Schema]) -> Result<(), block::options::Error> {
    let Some(driver) = text(node, "driver").and_then(block::graph::schema) else {
        // The graph knows what to say of a driver that there is not.
        return Ok(());
    };
    let schemas = [&[driver, NodeOptions::SCHEMA], further].concat();
    check_keys(node, &schemas)?;
    from_tree::<NodeOptions>(node.clone().split_off(NodeOptions::SCHEMA)).map(drop)
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
    // As QEMU's names; drives and nodes have a limit beside, which the graph knows.
    let is_name = name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
    if !is_name {
        let rule = "a letter, then letters, digits, '-', '.', '_'";
        return Err(wrong(
            origin,
            format!("'{key}': '{name}' is not a name: {rule}"),
        ));
    }
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

/// `-drive help`: the drive's own keys; those of its nodes are in `-blockdev help`.
pub(super) fn drive_help() -> String {
    let mut text = String::from("a disk (further keys are the node's: see -blockdev help):\n");
    help::schema(&mut text, DriveOptions::SCHEMA);
    text
}

/// `-blockdev help`: what every node takes, and each driver.
pub(super) fn blockdev_help() -> String {
    let mut text = String::from("a block node:\n");
    help::schema(&mut text, NodeOptions::SCHEMA);
    for name in ["file", "host_device", "raw", "null-co", "null-aio"] {
        if let Some(schema) = block::graph::schema(name) {
            text.push_str(&format!("driver={name}:\n"));
            help::schema(&mut text, schema);
        }
    }
    text
}
