//! `-cpu host,+feature,-feature,feature=on|off,phys-bits=N,...`

use super::features::{self, Feature};
use crate::{Error, Kind};

/// A CPU model and what was said about it.
///
/// There are two models, `host` and `max`, and under KVM they mean the same: all that KVM supports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// Features named, in order, with `true` for wanted; the last word on a feature is the only one left.
    pub features: Vec<(Feature, bool)>,
    /// Physical address bits; `None` for the host's.
    pub phys_bits: Option<u8>,
    /// Whether the guest is told that it runs on KVM (clock and other paravirtual features).
    pub kvm: bool,
    /// Whether the guest sees performance counters.
    pub pmu: bool,
}

impl Default for Model {
    /// `host`.
    fn default() -> Self {
        Self {
            features: Vec::new(),
            phys_bits: None,
            kvm: true,
            pmu: true,
        }
    }
}

/// Names beside the features'.
const PROPERTIES: [&str; 6] = [
    "enforce",
    "host-phys-bits",
    "kvm",
    "migratable",
    "phys-bits",
    "pmu",
];

impl Model {
    /// Reads `-cpu`'s value.
    ///
    /// # Errors
    /// [`Kind::Cpu`]: an unknown model, feature or property, or a value that it cannot have.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut words = text.split(',');
        match words.next().unwrap_or_default() {
            "host" | "max" => {}
            other => {
                return wrong(format!(
                    "the CPU model '{other}' is not in this build; use host or max"
                ));
            }
        }
        let mut model = Self::default();
        for word in words {
            if let Some(name) = word.strip_prefix('+') {
                model.feature(name, true)?;
            } else if let Some(name) = word.strip_prefix('-') {
                model.feature(name, false)?;
            } else {
                let (name, value) = word.split_once('=').unwrap_or((word, "on"));
                model.property(name, value)?;
            }
        }
        Ok(model)
    }

    fn property(&mut self, name: &str, value: &str) -> Result<(), Error> {
        if name == "phys-bits" {
            return match value.parse() {
                // As many as a page table can hold, and what 32-bit PAE has.
                Ok(bits @ 32..=52) => {
                    self.phys_bits = Some(bits);
                    Ok(())
                }
                _ => wrong(format!("phys-bits: expected 32 to 52, got '{value}'")),
            };
        }
        if !PROPERTIES.contains(&name) {
            named(name)?;
        }
        let on = match value {
            "on" | "true" | "yes" => true,
            "off" | "false" | "no" => false,
            _ => return wrong(format!("{name}: expected on or off, got '{value}'")),
        };
        match (name, on) {
            ("kvm", _) => self.kvm = on,
            ("pmu", _) => self.pmu = on,
            // Migration is what makes a constant TSC rate unsafe to promise.
            ("migratable", true) => self.feature("invtsc", false)?,
            ("migratable", false) | ("enforce", true) | ("host-phys-bits", true) => {}
            ("enforce", false) => {
                return wrong("enforce: a feature that is missing is always an error".into());
            }
            ("host-phys-bits", false) => {
                return wrong("host-phys-bits: use phys-bits=N for a width of your own".into());
            }
            _ => self.feature(name, on)?,
        }
        Ok(())
    }

    fn feature(&mut self, name: &str, on: bool) -> Result<(), Error> {
        let found = named(name)?;
        self.features
            .retain(|(feature, _)| !found.contains(feature));
        self.features
            .extend(found.into_iter().map(|feature| (feature, on)));
        Ok(())
    }
}

/// The bits of a feature, which must be known.
fn named(name: &str) -> Result<Vec<Feature>, Error> {
    let found = Feature::named(name);
    if found.is_empty() {
        let hint = nearest(name, features::names().chain(PROPERTIES))
            .map(|near| format!("; did you mean '{near}'?"))
            .unwrap_or_default();
        return wrong(format!("unknown feature '{name}'{hint}"));
    }
    Ok(found)
}

fn wrong<T>(reason: String) -> Result<T, Error> {
    Err(Error::new(Kind::Cpu, reason))
}

/// The candidate fewest edits away, if it is near enough to be meant.
fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .map(|candidate| (distance(name, candidate), candidate))
        .min_by_key(|&(edits, _)| edits)
        .filter(|&(edits, _)| edits <= (name.len() / 3).max(1))
        .map(|(_, candidate)| candidate)
}

/// Insertions, deletions and replacements from `a` to `b`.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut left = i + 1;
        let mut diagonal = i;
        for (cell, y) in row.iter_mut().skip(1).zip(b.bytes()) {
            let here = (diagonal + usize::from(x != y))
                .min(*cell + 1)
                .min(left + 1);
            diagonal = std::mem::replace(cell, here);
            left = here;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}
