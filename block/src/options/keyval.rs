//! `key=value,key=value`: the grammar people type.
//!
//! - A comma inside a value is doubled (`,,`).
//! - Dots in keys nest (`file.filename=x`); members that are all numbers, from 0 without a gap, are a list.
//! - The first element may be a bare value when the option has an implied key (`-device virtio-blk-pci,...`).
//! - Any other bare word is a switch: `readonly` is `readonly=on`.
//! - A key is given once, as in JSON: in QEMU the last of several wins, and a slip of the pen with it.

use super::{Error, Map, Tree};

/// Longest key, dots included; it bounds the depth of the tree, too.
pub const LONGEST_KEY: usize = 127;

/// The pairs in order, values unescaped, keys as typed.
pub fn split(text: &str, implied_key: Option<&str>) -> Result<Vec<(String, String)>, Error> {
    let mut pairs = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (element, after) = element(rest);
        rest = after;
        let first = pairs.is_empty();
        // A key has no comma, so an equals sign after an escaped comma belongs to a value.
        let equals = element.find('=').filter(|at| !element[..*at].contains(','));
        let (key, value) = match (equals, implied_key) {
            (Some(at), _) => (&element[..at], &element[at + 1..]),
            (None, Some(implied)) if first => (implied, element.as_str()),
            (None, _) => (element.as_str(), "on"),
        };
        check_key(key)?;
        pairs.push((key.to_owned(), value.to_owned()));
    }
    Ok(pairs)
}

/// Cuts the first element off, with its doubled commas made single.
fn element(text: &str) -> (String, &str) {
    let mut element = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(',') {
        element.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        match rest.strip_prefix(',') {
            Some(after) => {
                element.push(',');
                rest = after;
            }
            None => return (element, rest),
        }
    }
    element.push_str(rest);
    (element, "")
}

fn check_key(key: &str) -> Result<(), Error> {
    let shown = || Tree::Text(key.to_owned()).describe();
    if key.len() > LONGEST_KEY {
        return Err(Error::new(format!(
            "the name {} is longer than {LONGEST_KEY} characters",
            shown()
        )));
    }
    let valid = |part: &str| {
        !part.is_empty()
            && part
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
    };
    if !key.split('.').all(valid) {
        let reason = if key.is_empty() {
            "an option's name is missing"
        } else {
            "is not the name of an option"
        };
        return Err(Error {
            path: key.to_owned(),
            reason: reason.into(),
        });
    }
    Ok(())
}

/// Makes the tree of dotted keys.
pub(super) fn nest(pairs: impl IntoIterator<Item = (String, String)>) -> Result<Tree, Error> {
    let mut root = Map::default();
    for (key, value) in pairs {
        insert(&mut root, &key, value).map_err(|reason| Error {
            path: key.clone(),
            reason,
        })?;
    }
    lists(Tree::Map(root))
}

fn insert(map: &mut Map, key: &str, value: String) -> Result<(), String> {
    let conflict = |name: &str| format!("'{name}' cannot have both a value and members");
    match key.split_once('.') {
        None => match map.get(key) {
            Some(Tree::Map(_)) => Err(conflict(key)),
            Some(_) => Err("is given twice; give it once".into()),
            None => {
                map.insert(key, Tree::Text(value));
                Ok(())
            }
        },
        Some((name, rest)) => {
            if map.get(name).is_none() {
                map.insert(name, Tree::default());
            }
            match map.get_mut(name) {
                Some(Tree::Map(members)) => insert(members, rest, value),
                _ => Err(conflict(name)),
            }
        }
    }
}

/// Turns members that are all numbers into lists, from the leaves up.
fn lists(tree: Tree) -> Result<Tree, Error> {
    let Tree::Map(map) = tree else {
        return Ok(tree);
    };
    let is_index = |key: &str| key.bytes().all(|b| b.is_ascii_digit());
    let numbers = map.iter().filter(|(key, _)| is_index(key)).count();
    if numbers == 0 {
        let members = map.into_iter().map(|(key, value)| match lists(value) {
            Ok(value) => Ok((key, value)),
            Err(error) => Err(error.at(&key)),
        });
        return Ok(Tree::Map(members.collect::<Result<_, _>>()?));
    }
    if numbers != map.len() {
        return Err(Error::new("mixes list indices and names"));
    }
    let mut map = map;
    let mut list = Vec::new();
    for index in 0..numbers {
        let key = index.to_string();
        let value = map
            .remove(&key)
            .ok_or_else(|| Error::new(format!("index {index} of the list is missing")))?;
        list.push(lists(value).map_err(|error| error.at(&key))?);
    }
    Ok(Tree::List(list))
}

pub(super) fn print(tree: &Tree) -> String {
    let mut pairs = Vec::new();
    flatten("", tree, &mut pairs);
    pairs
        .iter()
        .map(|(key, value)| format!("{key}={}", value.replace(',', ",,")))
        .collect::<Vec<_>>()
        .join(",")
}

fn flatten(path: &str, tree: &Tree, pairs: &mut Vec<(String, String)>) {
    let below = |key: &str| {
        if path.is_empty() {
            key.to_owned()
        } else {
            format!("{path}.{key}")
        }
    };
    match tree {
        Tree::Map(map) => map
            .iter()
            .for_each(|(key, value)| flatten(&below(key), value, pairs)),
        Tree::List(list) => {
            list.iter()
                .enumerate()
                .for_each(|(index, value)| flatten(&below(&index.to_string()), value, pairs));
        }
        Tree::Null => {}
        Tree::Text(text) | Tree::Str(text) => pairs.push((path.to_owned(), text.clone())),
        Tree::Bool(value) => pairs.push((
            path.to_owned(),
            if *value { "on" } else { "off" }.to_owned(),
        )),
        Tree::Int(value) => pairs.push((path.to_owned(), value.to_string())),
        Tree::Float(value) => pairs.push((path.to_owned(), value.to_string())),
    }
}
