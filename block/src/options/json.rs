//! JSON as a way in: an object whose values keep their types, keys unique (serde_json alone would let
//! the last of two win silently), depth bounded by serde_json.

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use super::{Error, Map, Tree};

/// Reads one JSON object.
pub fn parse(text: &str) -> Result<Tree, Error> {
    let tree: Tree = serde_json::from_str(text)
        .map_err(|error| Error::new(format!("not valid JSON: {error}")))?;
    if tree.as_map().is_none() {
        return Err(Error::new(format!(
            "expected a JSON object, got {}",
            tree.describe()
        )));
    }
    Ok(tree)
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Int(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::Int(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Tree, E> {
        Ok(Tree::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::Str(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Tree, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Tree::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Tree, A::Error> {
        let mut map = Map::default();
        while let Some((key, value)) = members.next_entry::<String, Tree>()? {
            if map.insert(key.clone(), value).is_some() {
                return Err(A::Error::custom(format!("the key '{key}' is given twice")));
            }
        }
        Ok(Tree::Map(map))
    }
}
