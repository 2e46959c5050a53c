//! The simple types of options and how text becomes them.

use super::{Error, Kind, Tree, Value};

/// A number of bytes: `4096`, `0x1000`, `4k`, `1.5G`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

crate::options! {
    /// A switch that can also be left to the program.
    pub enum OnOffAuto {
        /// The program decides.
        Auto = "auto",
        /// Yes, or an error.
        On = "on",
        /// No.
        Off = "off",
    }
}

/// Reads a size; a number without a suffix counts units of `unit` bytes (`-m 512` counts MiB).
pub fn parse_size(text: &str, unit: u64) -> Result<u64, Error> {
    let wrong = || {
        Error::new(format!(
            "expected a size such as 4096, 64k or 1.5G, got {}",
            Tree::from(text).describe()
        ))
    };
    if let Some(hex) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        let number = u64::from_str_radix(hex, 16)
            .ok()
            .filter(|_| !hex.starts_with('+'))
            .ok_or_else(wrong)?;
        return number.checked_mul(unit).ok_or_else(wrong);
    }
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let scale: u64 = match suffix {
        "" => unit,
        "b" | "B" => 1,
        "k" | "K" => 1 << 10,
        "m" | "M" => 1 << 20,
        "g" | "G" => 1 << 30,
        "t" | "T" => 1 << 40,
        "p" | "P" => 1 << 50,
        "e" | "E" => 1 << 60,
        _ => return Err(wrong()),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty()
        || fraction.len() > 18
        || (number.contains('.') && (fraction.is_empty() || scale == 1))
    {
        return Err(wrong());
    }
    let whole: u64 = whole.parse().map_err(|_| wrong())?;
    // At most 18 digits: the numerator fits, and 2^60 times it fits into 128 bits.
    let part: u128 = match fraction {
        "" => 0,
        digits => {
            let numerator: u128 = digits.parse().map_err(|_| wrong())?;
            numerator * u128::from(scale) / 10u128.pow(digits.len() as u32)
        }
    };
    whole
        .checked_mul(scale)
        .and_then(|bytes| bytes.checked_add(u64::try_from(part).ok()?))
        .ok_or_else(|| {
            Error::new(format!(
                "{} is more than 64 bits of bytes",
                Tree::from(text).describe()
            ))
        })
}

impl Value for Size {
    const KIND: Kind = Kind::Size;

    fn from_tree(tree: Tree) -> Result<Self, Error> {
        match tree {
            Tree::Text(text) => parse_size(&text, 1).map(Size),
            Tree::Int(number) => u64::try_from(number)
                .map(Size)
                .map_err(|_| Error::new(format!("expected a size, got {number}"))),
            other => Err(Error::new(format!(
                "expected a size, got {}",
                other.describe()
            ))),
        }
    }

    fn to_tree(&self) -> Tree {
        Tree::Int(self.0.into())
    }
}

impl Value for bool {
    const KIND: Kind = Kind::Bool;

    fn from_tree(tree: Tree) -> Result<Self, Error> {
        match &tree {
            Tree::Bool(value) => return Ok(*value),
            Tree::Text(text) => match text.as_str() {
                "on" | "yes" | "true" | "y" => return Ok(true),
                "off" | "no" | "false" | "n" => return Ok(false),
                _ => {}
            },
            _ => {}
        }
        let words = if matches!(tree, Tree::Text(_)) {
            "on or off"
        } else {
            "true or false"
        };
        Err(Error::new(format!(
            "expected {words}, got {}",
            tree.describe()
        )))
    }

    fn to_tree(&self) -> Tree {
        Tree::Bool(*self)
    }
}

impl Value for String {
    const KIND: Kind = Kind::String;

    fn from_tree(tree: Tree) -> Result<Self, Error> {
        tree.into_string()
    }

    fn to_tree(&self) -> Tree {
        Tree::Str(self.clone())
    }
}

impl Value for Tree {
    const KIND: Kind = Kind::Any;

    fn from_tree(tree: Tree) -> Result<Self, Error> {
        Ok(tree)
    }

    fn to_tree(&self) -> Tree {
        self.clone()
    }
}

impl<T: Value> Value for Option<T> {
    const KIND: Kind = T::KIND;

    fn from_tree(tree: Tree) -> Result<Self, Error> {
        if tree == Tree::Null {
            Ok(None)
        } else {
            T::from_tree(tree).map(Some)
        }
    }

    fn to_tree(&self) -> Tree {
        self.as_ref().map_or(Tree::Null, Value::to_tree)
    }
}

impl<T: Value> Value for Vec<T> {
    const KIND: Kind = Kind::List(&T::KIND);

    fn from_tree(tree: Tree) -> Result<Self, Error> {
        let Tree::List(list) = tree else {
            return Err(Error::new(format!(
                "expected a list, got {}",
                tree.describe()
            )));
        };
        let items = list.into_iter().enumerate();
        items
            .map(|(index, item)| T::from_tree(item).map_err(|error| error.at(&index.to_string())))
            .collect()
    }

    fn to_tree(&self) -> Tree {
        Tree::List(self.iter().map(Value::to_tree).collect())
    }
}

macro_rules! integers {
    ($($type:ty),*) => { $(
        impl Value for $type {
            const KIND: Kind = Kind::Int { min: <$type>::MIN as i128, max: <$type>::MAX as i128 };

            fn from_tree(tree: Tree) -> Result<Self, Error> {
                let number = match &tree {
                    Tree::Int(number) => Some(*number),
                    Tree::Text(text) => parse_int(text),
                    _ => None,
                };
                let number = number.ok_or_else(|| Error::new(format!("expected a number, got {}", tree.describe())))?;
                Self::try_from(number).map_err(|_| {
                    Error::new(format!("expected a number from {} to {}, got {}", Self::MIN, Self::MAX, tree.describe()))
                })
            }

            fn to_tree(&self) -> Tree {
                Tree::Int((*self).into())
            }
        }
    )* };
}

integers!(u8, u16, u32, u64, i32, i64);

/// A whole number, decimal or with `0x` in front.
fn parse_int(text: &str) -> Option<i128> {
    let (negative, digits) = text
        .strip_prefix('-')
        .map_or((false, text), |digits| (true, digits));
    if digits.starts_with(['+', '-']) {
        return None;
    }
    let number = match digits
        .strip_prefix("0x")
        .or_else(|| digits.strip_prefix("0X"))
    {
        Some(hex) if !hex.starts_with(['+', '-']) => i128::from_str_radix(hex, 16).ok()?,
        Some(_) => return None,
        None => digits.parse().ok()?,
    };
    Some(if negative { -number } else { number })
}
