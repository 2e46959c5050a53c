//! The `options!` macro: one declaration gives the structure, its reading and its schema.

use super::{Error, Field, Kind, Map, Schema, Tree, Value, nearest};

/// Declares the structure (or the words) of an option.
///
/// ```
/// block::options! {
///     /// A node that delays.
///     pub struct DelayOptions {
///         /// Delay of each request in nanoseconds.
///         pub latency_ns: u64 = 0,
///         /// Refuses writes; older command lines say `readonly`.
///         pub read_only as "read-only" | "readonly": bool = false,
///         /// A node's name or its members; without a default the key must be given.
///         pub file: block::options::Tree,
///     }
/// }
/// use block::options::{Options, Tree, from_tree};
/// let tree = Tree::parse_keyval("latency-ns=0x10,readonly,file=node0", None).unwrap();
/// let options: DelayOptions = from_tree(tree).unwrap();
/// assert_eq!((options.latency_ns, options.read_only), (16, true));
/// assert_eq!(DelayOptions::SCHEMA.fields[0].key, "latency-ns");
/// ```
///
/// A key is the field's name with dashes for underscores unless `as` says otherwise. Field types
/// implement [`Value`]; `Option<T> = None` is a key that may be absent. Reading refuses keys that no
/// field has. The form `enum Name { Variant = "word" | "other spelling", .. }` declares words.
#[macro_export]
macro_rules! options {
    (
        $(#[doc = $doc:literal])*
        $vis:vis struct $name:ident {
            $(
                $(#[doc = $fdoc:literal])*
                $fvis:vis $field:ident $(as $key:literal $(| $alias:literal)*)? : $type:ty $(= $default:expr)?
            ),* $(,)?
        }
    ) => {
        $(#[doc = $doc])*
        #[derive(Clone, Debug, PartialEq)]
        $vis struct $name {
            $( $(#[doc = $fdoc])* $fvis $field: $type, )*
        }

        impl $crate::options::Options for $name {
            const SCHEMA: &'static $crate::options::Schema = &$crate::options::Schema {
                name: stringify!($name),
                doc: concat!($($doc, "\n"),*),
                fields: &[ $( $crate::options::Field {
                    key: $crate::options!(@key $field $(, $key)?),
                    aliases: &[ $( $($alias),* )? ],
                    kind: <$type as $crate::options::Value>::KIND,
                    doc: concat!($($fdoc, "\n"),*),
                    default: $crate::options!(@tree $type $(, $default)?),
                } ),* ],
            };
        }

        impl $crate::options::Value for $name {
            const KIND: $crate::options::Kind =
                $crate::options::Kind::Object(<Self as $crate::options::Options>::SCHEMA);

            fn from_tree(tree: $crate::options::Tree) -> Result<Self, $crate::options::Error> {
                let mut fields = $crate::options::Fields::new(tree, <Self as $crate::options::Options>::SCHEMA)?;
                Ok(Self { $( $field: fields.next($crate::options!(@value $type $(, $default)?))? ),* })
            }

            fn to_tree(&self) -> $crate::options::Tree {
                $crate::options::Fields::print(
                    <Self as $crate::options::Options>::SCHEMA,
                    [ $( $crate::options::Value::to_tree(&self.$field) ),* ],
                )
            }
        }
    };

    (
        $(#[doc = $doc:literal])*
        $vis:vis enum $name:ident {
            $( $(#[doc = $vdoc:literal])* $variant:ident = $word:literal $(| $other:literal)* ),* $(,)?
        }
    ) => {
        $(#[doc = $doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        $vis enum $name {
            $( $(#[doc = $vdoc])* $variant, )*
        }

        impl $name {
            /// The word that names this value.
            #[must_use]
            $vis const fn as_str(self) -> &'static str {
                match self { $( Self::$variant => $word ),* }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl $crate::options::Value for $name {
            const KIND: $crate::options::Kind = $crate::options::Kind::Enum(&[ $(
                $crate::options::Choice { names: &[$word $(, $other)*], doc: concat!($($vdoc, "\n"),*) }
            ),* ]);

            fn from_tree(tree: $crate::options::Tree) -> Result<Self, $crate::options::Error> {
                match tree {
                    $crate::options::Tree::Text(ref text) | $crate::options::Tree::Str(ref text) => match text.as_str() {
                        $( $word $(| $other)* => Ok(Self::$variant), )*
                        _ => Err(<Self as $crate::options::Value>::KIND.refuse(&tree)),
                    },
                    other => Err(<Self as $crate::options::Value>::KIND.refuse(&other)),
                }
            }

            fn to_tree(&self) -> $crate::options::Tree {
                $crate::options::Tree::Str(self.as_str().to_owned())
            }
        }
    };

    (@key $field:ident, $key:literal) => { $key };
    (@key $field:ident) => {{
        const NAME: &str = stringify!($field);
        const BYTES: [u8; NAME.len()] = $crate::options::dashed(NAME);
        match std::str::from_utf8(&BYTES) {
            Ok(key) => key,
            Err(_) => NAME,
        }
    }};
    (@tree $type:ty) => { None };
    (@tree $type:ty, $default:expr) => {
        Some(|| <$type as $crate::options::Value>::to_tree(&$default))
    };
    (@value $type:ty) => { None::<fn() -> $type> };
    (@value $type:ty, $default:expr) => { Some((|| $default) as fn() -> $type) };
}

/// A Rust name as a key: dashes for underscores.
#[must_use]
#[expect(
    clippy::indexing_slicing,
    reason = "evaluated by the compiler, where `get` is not const"
)]
pub const fn dashed<const N: usize>(name: &str) -> [u8; N] {
    let mut key = [0; N];
    let mut at = 0;
    while at < N {
        key[at] = match name.as_bytes()[at] {
            b'_' => b'-',
            byte => byte,
        };
        at += 1;
    }
    key
}

/// The members of a tree on their way into a structure, in the schema's order.
pub struct Fields {
    map: Map,
    fields: std::slice::Iter<'static, Field>,
}

impl Fields {
    /// Refuses what is no tree of members, unknown keys, and a key given under two spellings.
    pub fn new(tree: Tree, schema: &'static Schema) -> Result<Self, Error> {
        check_keys(&tree, &[schema])?;
        Ok(Self {
            map: tree.into_map()?,
            fields: schema.fields.iter(),
        })
    }

    /// The value of the schema's next field.
    pub fn next<T: Value>(&mut self, default: Option<fn() -> T>) -> Result<T, Error> {
        let Some(field) = self.fields.next() else {
            return Err(Error::new("the schema has no further field"));
        };
        let given = std::iter::once(&field.key)
            .chain(field.aliases)
            .find_map(|key| Some((*key, self.map.remove(key)?)));
        match (given, default) {
            (Some((key, tree)), _) => T::from_tree(tree).map_err(|error| error.at(key)),
            (None, Some(default)) => Ok(default()),
            (None, None) => Err(Error::new("must be given").at(field.key)),
        }
    }

    /// The inverse: members from the values in the schema's order, absent ones left out.
    pub fn print<const N: usize>(schema: &'static Schema, values: [Tree; N]) -> Tree {
        let members = schema
            .fields
            .iter()
            .zip(values)
            .filter(|(_, value)| *value != Tree::Null);
        Tree::Map(
            members
                .map(|(field, value)| (field.key.to_owned(), value))
                .collect(),
        )
    }
}

/// Refuses the first key of `tree` that none of `schemas` has: for options whose keys are read by
/// several structures.
///
/// # Errors
/// Names the nearest key of all, and a tree that has no keys.
pub fn check_keys(tree: &Tree, schemas: &[&'static Schema]) -> Result<(), Error> {
    let map = tree.as_map().ok_or_else(|| {
        Error::new(format!(
            "expected members (key=value), got {}",
            tree.describe()
        ))
    })?;
    let fields = || schemas.iter().flat_map(|schema| schema.fields);
    for (key, _) in map.iter() {
        let Some(field) = fields().find(|field| field.answers_to(key)) else {
            let names = fields()
                .flat_map(|field| std::iter::once(field.key).chain(field.aliases.iter().copied()));
            let reason = match nearest(key, names) {
                Some(near) => format!("unknown option; did you mean '{near}'?"),
                None if fields().next().is_none() => "unknown option; none is taken here".into(),
                None => {
                    let mut keys: Vec<&str> = Vec::new();
                    for key in fields().map(|field| field.key) {
                        // What several schemas share is named once.
                        if !keys.contains(&key) {
                            keys.push(key);
                        }
                    }
                    format!("unknown option; there are {}", keys.join(", "))
                }
            };
            return Err(Error::new(reason).at(key));
        };
        if let Some((other, _)) = map
            .iter()
            .find(|(other, _)| *other != key && field.answers_to(other))
        {
            return Err(
                Error::new(format!("means the same as '{other}': give one of them")).at(key),
            );
        }
    }
    Ok(())
}

impl Kind {
    /// The error for a word that is none of an enumeration's.
    pub fn refuse(&self, tree: &Tree) -> Error {
        let mut reason = format!(
            "expected {}, got {}",
            self.describe().replace('|', ", "),
            tree.describe()
        );
        if let (Kind::Enum(choices), Tree::Text(text) | Tree::Str(text)) = (self, tree)
            && let Some(near) = nearest(
                text,
                choices
                    .iter()
                    .flat_map(|choice| choice.names.iter().copied()),
            )
        {
            reason.push_str(&format!("; did you mean '{near}'?"));
        }
        Error::new(reason)
    }
}
