//! The one schema behind every way in: `-blockdev`, `-drive`, `-device`, `-machine`, `-m`, JSON.
//!
//! Text ([`keyval`]) and JSON ([`json`]) become one [`Tree`]. A structure declared with
//! [`options!`](crate::options!) takes its fields out of a tree: text is coerced (`on`, `4k`, `0x10`),
//! JSON is typed already and is not; a key that no field has is an error. Errors carry the path in
//! the user's words (`cache.direct`), what was expected and the nearest valid name. The same
//! declaration is a `const` [`Schema`] that help, suggestions and introspection read.
//!
//! Order of work for a `driver=` style option: [`Tree::take_str`] takes the discriminator out, a table
//! gives the type, [`from_tree`] deserialises the rest into that type.

mod declare;
pub mod json;
pub mod keyval;
mod nearest;
mod schema;
mod tree;
mod values;

#[cfg(test)]
mod tests;

pub use declare::{Fields, check_keys, dashed};
pub use nearest::nearest;
pub use schema::{Choice, Field, Kind, Schema};
pub use tree::{Map, Tree};
pub use values::{OnOffAuto, Size, parse_size};

/// Why an option was refused. Prints as `'cache.direct': expected on or off, got 'maybe'`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// Dotted path of the option, in the words the user typed; empty for the whole text.
    pub path: String,
    /// What is wrong and what would be right.
    pub reason: String,
}

impl Error {
    /// An error about the value at hand; [`Error::at`] adds the path on the way out.
    pub fn new(reason: impl Into<String>) -> Self {
        Self {
            path: String::new(),
            reason: reason.into(),
        }
    }

    /// Puts `key` in front of the path.
    #[must_use]
    pub fn at(mut self, key: &str) -> Self {
        if self.path.is_empty() {
            self.path = key.to_owned();
        } else if !key.is_empty() {
            self.path = format!("{key}.{}", self.path);
        }
        self
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.path.is_empty() {
            f.write_str(&self.reason)
        } else {
            write!(f, "'{}': {}", self.path, self.reason)
        }
    }
}

impl std::error::Error for Error {}

/// A type that an option's value can have.
pub trait Value: Sized {
    /// What help and introspection say about the type.
    const KIND: Kind;

    /// Takes the value out of a tree; text is coerced, JSON must have the right type.
    fn from_tree(tree: Tree) -> Result<Self, Error>;

    /// The tree that [`Value::from_tree`] would take for this value; [`Tree::Null`] for none.
    fn to_tree(&self) -> Tree;
}

/// A structure declared with [`options!`](crate::options!).
pub trait Options: Value {
    /// Every key it takes.
    const SCHEMA: &'static Schema;
}

/// Deserialises a whole tree into an options structure.
pub fn from_tree<T: Options>(tree: Tree) -> Result<T, Error> {
    T::from_tree(tree)
}
