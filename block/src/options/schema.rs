//! What a declaration says about itself, for help, suggestions and introspection.

use super::Tree;

/// The keys of one options structure.
#[derive(Debug)]
pub struct Schema {
    /// Name of the Rust type.
    pub name: &'static str,
    /// Documentation, one line a paragraph.
    pub doc: &'static str,
    /// The keys in the order of declaration.
    pub fields: &'static [Field],
}

/// One key.
#[derive(Debug)]
pub struct Field {
    /// The key as the user types it.
    pub key: &'static str,
    /// Older spellings that are understood too.
    pub aliases: &'static [&'static str],
    /// Type of the value.
    pub kind: Kind,
    /// Documentation.
    pub doc: &'static str,
    /// The value when the key is absent; `None` when the key must be given.
    pub default: Option<fn() -> Tree>,
}

/// Type of a value.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// `on` or `off`.
    Bool,
    /// Any text.
    String,
    /// A whole number within bounds.
    Int {
        /// Smallest value.
        min: i128,
        /// Greatest value.
        max: i128,
    },
    /// Bytes, with a suffix K M G T P E.
    Size,
    /// One of a few words.
    Enum(&'static [Choice]),
    /// Another structure: its keys follow a dot.
    Object(&'static Schema),
    /// A list: its indices follow a dot.
    List(&'static Kind),
    /// Anything; looked at later.
    Any,
}

/// One word of an enumeration.
#[derive(Debug)]
pub struct Choice {
    /// The word, then its other spellings.
    pub names: &'static [&'static str],
    /// Documentation.
    pub doc: &'static str,
}

impl Field {
    /// Whether `key` is this field's name or one of its older spellings.
    pub fn answers_to(&self, key: &str) -> bool {
        self.key == key || self.aliases.contains(&key)
    }
}

impl Schema {
    /// The field that `key` (without dots) names.
    pub fn field(&self, key: &str) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.answers_to(key))
    }

    /// The keys without their older spellings.
    pub fn keys(&self) -> impl Iterator<Item = &'static str> {
        self.fields.iter().map(|field| field.key)
    }
}

impl Kind {
    /// A few words for help texts: `on|off`, `size`, `ignore|unmap`.
    pub fn describe(&self) -> String {
        match self {
            Kind::Bool => "on|off".into(),
            Kind::String => "text".into(),
            Kind::Int { .. } => "number".into(),
            Kind::Size => "size".into(),
            Kind::Enum(choices) => choices
                .iter()
                .filter_map(|c| c.names.first().copied())
                .collect::<Vec<_>>()
                .join("|"),
            Kind::Object(_) => "members".into(),
            Kind::List(of) => format!("list of {}", of.describe()),
            Kind::Any => "node or members".into(),
        }
    }
}
