//! Kernel modules in the order in which they can be loaded.
//!
//! A package that was unpacked but not installed has no `modules.dep`; each module names what it needs itself, in its
//! `.modinfo` section (`depends=`, `softdep=pre:`), so that is what we go by.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::elf;
use crate::kernel::read_module;

/// The modules of one kernel, by name.
pub struct Modules {
    files: HashMap<String, PathBuf>,
    builtin: HashSet<String>,
}

/// A module's name and content.
pub type Module = (String, Vec<u8>);

impl Modules {
    /// Indexes `/lib/modules/RELEASE`.
    pub fn index(directory: &Path) -> Result<Self> {
        let mut files = HashMap::new();
        walk(&directory.join("kernel"), &mut files)
            .with_context(|| directory.display().to_string())?;
        let builtin = fs::read_to_string(directory.join("modules.builtin")).unwrap_or_default();
        let builtin = builtin
            .lines()
            .filter_map(|line| name_of(Path::new(line)))
            .collect();
        Ok(Self { files, builtin })
    }

    /// These modules and all they need, each behind what it needs. What is built into the kernel is left out.
    pub fn in_order(&self, names: &[&str]) -> Result<Vec<Module>> {
        let mut order = Order {
            modules: self,
            seen: HashSet::new(),
            out: Vec::new(),
        };
        for name in names {
            order.add(name)?;
        }
        Ok(order.out)
    }
}

struct Order<'a> {
    modules: &'a Modules,
    seen: HashSet<String>,
    out: Vec<Module>,
}

impl Order<'_> {
    fn add(&mut self, name: &str) -> Result<()> {
        let name = name.replace('-', "_");
        if self.modules.builtin.contains(&name) || !self.seen.insert(name.clone()) {
            return Ok(());
        }
        let path = self
            .modules
            .files
            .get(&name)
            .with_context(|| format!("the kernel has no module {name}"))?;
        let module = read_module(path)?;
        let info = elf::section(&module, ".modinfo")
            .with_context(|| format!("{} is no module", path.display()))?;
        for need in needs(info) {
            match need {
                Need::Hard(need) => self.add(&need)?,
                Need::Soft(need) => {
                    // `crypto-NAME` is an alias of the algorithm's portable implementation.
                    let plain = need.trim_start_matches("crypto-").to_owned() + "_generic";
                    for candidate in [need, plain] {
                        if self
                            .modules
                            .files
                            .contains_key(&candidate.replace('-', "_"))
                        {
                            self.add(&candidate)?;
                        }
                    }
                }
            }
        }
        self.out.push((name, module));
        Ok(())
    }
}

#[derive(Debug, PartialEq)]
enum Need {
    Hard(String),
    Soft(String),
}

/// What a `.modinfo` section asks to be loaded first.
fn needs(info: &[u8]) -> Vec<Need> {
    let mut needs = Vec::new();
    for line in info
        .split(|byte| *byte == 0)
        .filter_map(|line| str::from_utf8(line).ok())
    {
        if let Some(list) = line.strip_prefix("depends=") {
            needs.extend(
                list.split(',')
                    .filter(|name| !name.is_empty())
                    .map(|name| Need::Hard(name.into())),
            );
        } else if let Some(list) = line.strip_prefix("softdep=pre:") {
            let before_post = list.split(" post:").next().unwrap_or_default();
            needs.extend(
                before_post
                    .split_whitespace()
                    .map(|name| Need::Soft(name.into())),
            );
        }
    }
    needs
}

fn walk(directory: &Path, files: &mut HashMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            walk(&entry.path(), files)?;
        } else if let Some(name) = name_of(&entry.path()) {
            files.insert(name, entry.path());
        }
    }
    Ok(())
}

/// `virtio-blk.ko.xz` is module `virtio_blk`.
fn name_of(path: &Path) -> Option<String> {
    let (name, rest) = path.file_name()?.to_str()?.split_once('.')?;
    (rest == "ko" || rest.starts_with("ko.")).then(|| name.replace('-', "_"))
}

#[cfg(test)]
mod tests;
