//! The devices that `-device` can plug in: for each, one declaration that is its property list, its
//! help and its validation. [`crate::machine`] makes the device.

use block::options::{Error, Options, Schema, Tree, from_tree};

block::options! {
    /// A virtio disk on PCI.
    pub struct VirtioBlkPci {
        /// The disk: a -drive's id or a -blockdev's node-name.
        pub drive: String,
        /// The device's name.
        pub id: Option<String> = None,
        /// The bus: pcie.0.
        pub bus: String = "pcie.0".into(),
        /// Its place on the bus: slot, or slot.function, in hexadecimal.
        pub addr: Option<String> = None,
        /// The thread that serves it.
        pub iothread: Option<String> = None,
        /// Several threads, and which queues each serves.
        pub iothread_vq_mapping: Option<Vec<IoThreadVqMapping>> = None,
        /// Request queues; without it one a processor.
        pub num_queues: Option<u16> = None,
        /// Requests that fit into a queue, a power of two.
        pub queue_size: u16 = 256,
        /// The serial number that the guest reads, at most 20 bytes.
        pub serial: Option<String> = None,
        /// Bytes in a block, a power of two from 512 to 4096; without it what the disk has.
        pub logical_block_size as "logical_block_size" | "logical-block-size": Option<u32> = None,
        /// Bytes in a block of the medium.
        pub physical_block_size as "physical_block_size" | "physical-block-size": Option<u32> = None,
        /// Whether the guest may discard.
        pub discard: bool = true,
        /// Whether the guest may write zeroes without sending them.
        pub write_zeroes: bool = true,
        /// Whether the guest may switch the write cache.
        pub config_wce: bool = true,
        /// Whether the disk begins with a volatile write cache; auto: as the drive's cache= says.
        pub write_cache: block::options::OnOffAuto = block::options::OnOffAuto::Auto,
        /// on: a modern device only.
        pub disable_legacy: block::options::OnOffAuto = block::options::OnOffAuto::Auto,
    }
}

block::options! {
    /// Queues of one thread.
    pub struct IoThreadVqMapping {
        /// The thread.
        pub iothread: String,
        /// Its queues; without it they are dealt out in turn.
        pub vqs: Option<Vec<u16>> = None,
    }
}

block::options! {
    /// A port that ends spindle: a store of V gives exit status V * 2 + 1.
    pub struct IsaDebugExit {
        /// The device's name.
        pub id: Option<String> = None,
        /// The first port.
        pub iobase: u16 = 0x501,
        /// How many ports: 1, 2 or 4.
        pub iosize: u16 = 2,
    }
}

block::options! {
    /// A port through which a guest tells that it crashed.
    pub struct Pvpanic {
        /// The device's name.
        pub id: Option<String> = None,
        /// The port.
        pub ioport: u16 = 0x505,
    }
}

/// A device with its properties.
#[derive(Clone, Debug, PartialEq)]
pub enum Model {
    /// `virtio-blk-pci`.
    VirtioBlkPci(VirtioBlkPci),
    /// `isa-debug-exit`.
    IsaDebugExit(IsaDebugExit),
    /// `pvpanic`.
    Pvpanic(Pvpanic),
}

/// What is known of a model before one is made.
pub struct Description {
    /// Its name, then others it goes by.
    pub names: &'static [&'static str],
    /// Its properties.
    pub schema: &'static Schema,
    read: fn(Tree) -> Result<Model, Error>,
}

/// Every model of this build.
pub const MODELS: &[Description] = &[
    Description {
        names: &[
            "virtio-blk-pci",
            "virtio-blk",
            "virtio-blk-pci-non-transitional",
        ],
        schema: VirtioBlkPci::SCHEMA,
        read: |tree| {
            from_tree(tree)
                .and_then(VirtioBlkPci::checked)
                .map(Model::VirtioBlkPci)
        },
    },
    Description {
        names: &["isa-debug-exit"],
        schema: IsaDebugExit::SCHEMA,
        read: |tree| {
            from_tree(tree)
                .and_then(IsaDebugExit::checked)
                .map(Model::IsaDebugExit)
        },
    },
    Description {
        names: &["pvpanic"],
        schema: Pvpanic::SCHEMA,
        read: |tree| from_tree(tree).map(Model::Pvpanic),
    },
];

/// The model that goes by `name`.
pub fn find(name: &str) -> Option<&'static Description> {
    MODELS.iter().find(|model| model.names.contains(&name))
}

impl Description {
    /// Its properties from a tree.
    ///
    /// # Errors
    /// A property that the model does not have, or a value it cannot have.
    pub fn read(&self, tree: Tree) -> Result<Model, Error> {
        (self.read)(tree)
    }
}

impl Model {
    /// `id=`.
    pub fn id(&self) -> Option<&str> {
        match self {
            Model::VirtioBlkPci(VirtioBlkPci { id, .. })
            | Model::IsaDebugExit(IsaDebugExit { id, .. })
            | Model::Pvpanic(Pvpanic { id, .. }) => id.as_deref(),
        }
    }
}

impl VirtioBlkPci {
    /// One with nothing but its disk said.
    ///
    /// # Errors
    /// None.
    pub fn of(drive: &str) -> Result<VirtioBlkPci, Error> {
        from_tree(Tree::Map(
            [("drive".to_owned(), drive.into())].into_iter().collect(),
        ))
    }

    /// Its place on the bus, when one was asked for.
    pub fn slot_and_function(&self) -> Option<(u8, u8)> {
        self.addr.as_deref().and_then(place)
    }

    fn checked(self) -> Result<Self, Error> {
        let wrong = |key: &str, reason: &str| Err(Error::new(reason).at(key));
        if self.bus != "pcie.0" {
            return wrong("bus", "there is one bus in this build: pcie.0");
        }
        if self.addr.is_some() && self.slot_and_function().is_none() {
            return wrong(
                "addr",
                "expected a slot from 1 to 1e, or slot.function, in hexadecimal",
            );
        }
        if self.num_queues == Some(0) {
            return wrong(
                "num-queues",
                "a disk without queues does nothing; use 1 or more",
            );
        }
        if !self.queue_size.is_power_of_two() || !(4..=1024).contains(&self.queue_size) {
            return wrong("queue-size", "expected a power of two from 4 to 1024");
        }
        if self.serial.as_ref().is_some_and(|serial| serial.len() > 20) {
            return wrong("serial", "is longer than 20 bytes");
        }
        for (key, size, most) in [
            ("logical_block_size", self.logical_block_size, 4096),
            ("physical_block_size", self.physical_block_size, 2 << 20),
        ] {
            if size.is_some_and(|size| !size.is_power_of_two() || !(512..=most).contains(&size)) {
                return wrong(key, &format!("expected a power of two from 512 to {most}"));
            }
        }
        if self.disable_legacy == block::options::OnOffAuto::Off {
            return wrong(
                "disable-legacy",
                "there are no legacy devices in this build; use disable-legacy=on",
            );
        }
        if self.iothread.is_some() && self.iothread_vq_mapping.is_some() {
            return wrong(
                "iothread",
                "and iothread-vq-mapping exclude each other; give one of them",
            );
        }
        if self.iothread_vq_mapping.as_ref().is_some_and(Vec::is_empty) {
            return wrong("iothread-vq-mapping", "names no thread");
        }
        Ok(self)
    }
}

impl IsaDebugExit {
    fn checked(self) -> Result<Self, Error> {
        match self.iosize {
            1 | 2 | 4 => Ok(self),
            _ => Err(Error::new("expected 1, 2 or 4").at("iosize")),
        }
    }
}

/// `slot[.function]` in hexadecimal. Slot 0 is the host bridge's and 1f the LPC bridge's.
fn place(text: &str) -> Option<(u8, u8)> {
    let (slot, function) = text.split_once('.').unwrap_or((text, "0"));
    let number = |text: &str| u8::from_str_radix(text.trim_start_matches("0x"), 16).ok();
    let (slot, function) = (number(slot)?, number(function)?);
    ((1..=0x1e).contains(&slot) && function < 8).then_some((slot, function))
}
