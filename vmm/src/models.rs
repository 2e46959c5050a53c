//! The devices that `-device` can plug in: for each, one declaration that is its property list, its
//! help and its validation. [`crate::machine`] makes the device.

use block::options::{Error, Options, Schema, Tree, from_tree};
pub use devices::virtio::blk::options::VirtioBlkPci;

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
    VirtioBlkPci(Box<VirtioBlkPci>),
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
    read: fn(Tree, u16) -> Result<Model, Error>,
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
        read: |tree, cpus| {
            let options: VirtioBlkPci = from_tree(tree)?;
            options.check(cpus)?;
            Ok(Model::VirtioBlkPci(Box::new(options)))
        },
    },
    Description {
        names: &["isa-debug-exit"],
        schema: IsaDebugExit::SCHEMA,
        read: |tree, _| {
            from_tree(tree)
                .and_then(IsaDebugExit::checked)
                .map(Model::IsaDebugExit)
        },
    },
    Description {
        names: &["pvpanic"],
        schema: Pvpanic::SCHEMA,
        read: |tree, _| from_tree(tree).map(Model::Pvpanic),
    },
];

/// The model that goes by `name`.
pub fn find(name: &str) -> Option<&'static Description> {
    MODELS.iter().find(|model| model.names.contains(&name))
}

impl Description {
    /// Its properties from a tree, for a machine of `cpus` processors.
    ///
    /// # Errors
    /// A property that the model does not have, or a value it cannot have.
    pub fn read(&self, tree: Tree, cpus: u16) -> Result<Model, Error> {
        (self.read)(tree, cpus)
    }
}

impl Model {
    /// `id=`.
    pub fn id(&self) -> Option<&str> {
        match self {
            Model::VirtioBlkPci(disk) => disk.id.as_deref(),
            Model::IsaDebugExit(IsaDebugExit { id, .. }) | Model::Pvpanic(Pvpanic { id, .. }) => {
                id.as_deref()
            }
        }
    }
}

impl IsaDebugExit {
    fn checked(self) -> Result<Self, Error> {
        match self.iosize {
            1 | 2 | 4 if self.iobase.checked_add(self.iosize - 1).is_some() => Ok(self),
            1 | 2 | 4 => Err(Error::new("its ports reach beyond 0xffff").at("iobase")),
            _ => Err(Error::new("expected 1, 2 or 4").at("iosize")),
        }
    }
}
