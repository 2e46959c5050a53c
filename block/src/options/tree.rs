//! The tree that text and JSON both become.

use super::{Error, Schema, json, keyval};

/// Members of a tree in the order they were given; keys are unique.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Map(Vec<(String, Tree)>);

/// One value, or a list or structure of values.
#[derive(Clone, Debug, PartialEq)]
pub enum Tree {
    /// A value typed as text: its type is the reader's to choose.
    Text(String),
    /// JSON null.
    Null,
    /// JSON true or false.
    Bool(bool),
    /// A whole JSON number.
    Int(i128),
    /// A JSON number with a fraction.
    Float(f64),
    /// A JSON string: text and nothing else.
    Str(String),
    /// A list.
    List(Vec<Tree>),
    /// Members by name.
    Map(Map),
}

impl Map {
    /// The member `key`.
    pub fn get(&self, key: &str) -> Option<&Tree> {
        self.0
            .iter()
            .find(|(name, _)| name == key)
            .map(|(_, tree)| tree)
    }

    /// The member `key`, to change it.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut Tree> {
        self.0
            .iter_mut()
            .find(|(name, _)| name == key)
            .map(|(_, tree)| tree)
    }

    /// Sets a member and returns what it was before.
    pub fn insert(&mut self, key: impl Into<String>, tree: Tree) -> Option<Tree> {
        let key = key.into();
        match self.get_mut(&key) {
            Some(old) => Some(std::mem::replace(old, tree)),
            None => {
                self.0.push((key, tree));
                None
            }
        }
    }

    /// Takes a member out.
    pub fn remove(&mut self, key: &str) -> Option<Tree> {
        let position = self.0.iter().position(|(name, _)| name == key)?;
        Some(self.0.remove(position).1)
    }

    /// The members in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tree)> {
        self.0.iter().map(|(key, tree)| (key.as_str(), tree))
    }

    /// Whether there is no member.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The number of members.
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl IntoIterator for Map {
    type Item = (String, Tree);
    type IntoIter = std::vec::IntoIter<(String, Tree)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl Extend<(String, Tree)> for Map {
    fn extend<I: IntoIterator<Item = (String, Tree)>>(&mut self, members: I) {
        for (key, tree) in members {
            self.insert(key, tree);
        }
    }
}

impl FromIterator<(String, Tree)> for Map {
    fn from_iter<I: IntoIterator<Item = (String, Tree)>>(members: I) -> Self {
        let mut map = Map::default();
        map.extend(members);
        map
    }
}

impl Default for Tree {
    fn default() -> Self {
        Tree::Map(Map::default())
    }
}

impl Tree {
    /// Reads `key=value,...`; a first value without a key belongs to `implied_key`. See [`keyval`].
    pub fn parse_keyval(text: &str, implied_key: Option<&str>) -> Result<Self, Error> {
        Self::from_pairs(keyval::split(text, implied_key)?)
    }

    /// Builds the tree of dotted keys: `a.b=1` is member `b` of member `a`; where all members of one
    /// are numbers they are a list. A key may be there once.
    pub fn from_pairs(pairs: impl IntoIterator<Item = (String, String)>) -> Result<Self, Error> {
        keyval::nest(pairs)
    }

    /// Reads a JSON object. See [`json`].
    pub fn parse_json(text: &str) -> Result<Self, Error> {
        json::parse(text)
    }

    /// JSON when the text starts with a brace, `key=value` otherwise.
    pub fn parse(text: &str, implied_key: Option<&str>) -> Result<Self, Error> {
        if text.trim_start().starts_with('{') {
            Self::parse_json(text)
        } else {
            Self::parse_keyval(text, implied_key)
        }
    }

    /// Prints the tree as `key=value` text: [`Tree::parse_keyval`] of it gives the same values.
    pub fn to_keyval(&self) -> String {
        keyval::print(self)
    }

    /// The members, or an error that says what was found in their place.
    pub fn into_map(self) -> Result<Map, Error> {
        match self {
            Tree::Map(map) => Ok(map),
            other => Err(Error::new(format!(
                "expected members (key=value), got {}",
                other.describe()
            ))),
        }
    }

    /// The members, if it has any.
    pub fn as_map(&self) -> Option<&Map> {
        if let Tree::Map(map) = self {
            Some(map)
        } else {
            None
        }
    }

    /// The members, to change them.
    pub fn as_map_mut(&mut self) -> Option<&mut Map> {
        if let Tree::Map(map) = self {
            Some(map)
        } else {
            None
        }
    }

    /// The value at a dotted path.
    pub fn get(&self, path: &str) -> Option<&Tree> {
        path.split('.')
            .try_fold(self, |tree, key| tree.as_map()?.get(key))
    }

    /// Takes the member `key` out.
    pub fn take(&mut self, key: &str) -> Option<Tree> {
        if let Tree::Map(map) = self {
            map.remove(key)
        } else {
            None
        }
    }

    /// Takes the members out that `schema` has, as a tree of their own.
    #[must_use]
    pub fn split_off(&mut self, schema: &Schema) -> Tree {
        let Tree::Map(map) = self else {
            return Tree::default();
        };
        let (theirs, rest) = std::mem::take(map)
            .into_iter()
            .partition(|(key, _)| schema.field(key).is_some());
        *map = rest;
        Tree::Map(theirs)
    }

    /// Takes the member `key` out; it must be a string.
    pub fn take_str(&mut self, key: &str) -> Result<Option<String>, Error> {
        self.take(key)
            .map(|tree| tree.into_string().map_err(|e| e.at(key)))
            .transpose()
    }

    /// Sets the member at a dotted path, making what is missing on the way; false when a value that
    /// has no members stands in the way.
    pub fn set(&mut self, path: &str, value: Tree) -> bool {
        let Tree::Map(map) = self else { return false };
        match path.split_once('.') {
            None => {
                map.insert(path, value);
                true
            }
            Some((key, rest)) => {
                if map.get(key).is_none() {
                    map.insert(key, Tree::default());
                }
                map.get_mut(key).is_some_and(|child| child.set(rest, value))
            }
        }
    }

    /// Sets the member at a dotted path unless it is there.
    pub fn set_default(&mut self, path: &str, value: Tree) {
        if self.get(path).is_none() {
            self.set(path, value);
        }
    }

    /// The string it is.
    pub fn into_string(self) -> Result<String, Error> {
        match self {
            Tree::Text(text) | Tree::Str(text) => Ok(text),
            other => Err(Error::new(format!(
                "expected text, got {}",
                other.describe()
            ))),
        }
    }

    /// The value as an error message shows it.
    pub fn describe(&self) -> String {
        const SHOWN: usize = 80;
        match self {
            Tree::Text(text) | Tree::Str(text) if text.chars().count() <= SHOWN => {
                format!("'{text}'")
            }
            Tree::Text(text) | Tree::Str(text) => {
                format!("'{}...'", text.chars().take(SHOWN).collect::<String>())
            }
            Tree::Null => "null".into(),
            Tree::Bool(value) => value.to_string(),
            Tree::Int(value) => value.to_string(),
            Tree::Float(value) => value.to_string(),
            Tree::List(_) => "a list".into(),
            Tree::Map(_) => "members".into(),
        }
    }
}

impl From<&str> for Tree {
    fn from(text: &str) -> Self {
        Tree::Str(text.to_owned())
    }
}

impl From<String> for Tree {
    fn from(text: String) -> Self {
        Tree::Str(text)
    }
}

impl From<bool> for Tree {
    fn from(value: bool) -> Self {
        Tree::Bool(value)
    }
}

impl From<u64> for Tree {
    fn from(value: u64) -> Self {
        Tree::Int(value.into())
    }
}
