//! The graph: every node and drive by name; the only place where its shape changes.
//!
//! Changes are made one at a time, as tasks of the main executor; a change either happens as a whole or
//! leaves nothing behind. Requests never come here: they go from a drive's root downwards.
//!
//! Lock order: `control` (across awaits, one change at a time), then `state` (a look, never across an
//! await), then a node's or drive's own small locks.

mod drivers;
mod open;
mod perms;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use drivers::{is_protocol, schema};
pub use open::NodeOptions;
pub(crate) use open::{Opened, Opening};

use crate::drive::options::DriveConfig;
use crate::drive::{Attach, Drive};
use crate::error::{Error, ErrorKind};
use crate::node::Node;
use crate::options::{Tree, nearest};
use crate::perm::Perms;
use crate::request::Request;

/// Longest name of a node or drive.
pub const LONGEST_NAME: usize = 31;

/// All nodes and drives.
#[derive(Default)]
pub struct Graph {
    control: exec::sync::Mutex<()>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    nodes: BTreeMap<String, Arc<Node>>,
    drives: BTreeMap<String, Arc<Drive>>,
    /// Numbers for generated names.
    next: u64,
}

/// What was made, and what its user should hear about it.
#[derive(Debug)]
pub struct Added<T> {
    /// It.
    pub item: T,
    /// One line each, for the caller to show.
    pub warnings: Vec<String>,
}

/// No request is in flight below the drives it was taken for, and none starts while it lives.
#[must_use = "requests start again when it is dropped"]
pub struct Drained {
    drives: Vec<Arc<Drive>>,
    /// Dropped first when this is dropped, which opens the gates.
    token: Option<exec::Drained>,
}

impl Drained {
    /// The proof that [`exec::DrainCell::replace`] asks for.
    pub fn token(&self) -> Option<&exec::Drained> {
        self.token.as_ref()
    }
}

impl Drop for Drained {
    fn drop(&mut self) {
        drop(self.token.take());
        self.drives
            .iter()
            .filter_map(|drive| drive.events())
            .for_each(|events| events.resumed());
    }
}

impl Graph {
    /// An empty graph.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes the node that `-blockdev` describes, with the nodes described inside it.
    ///
    /// # Errors
    /// Names the option by its path; nothing has been made then, and no image touched that could not be opened.
    pub async fn add(&self, options: Tree) -> Result<Added<Arc<Node>>, Error> {
        let _control = self.control.lock().await;
        if options.get("node-name").is_none() {
            return Err(Error::new(ErrorKind::Invalid, "must be given").at("node-name"));
        }
        let mut build = open::Build::new(self, false);
        let node = build.top(options).await?;
        let (nodes, warnings) = build.finish();
        self.state()
            .nodes
            .extend(nodes.into_iter().map(|node| (node.name.clone(), node)));
        Ok(Added {
            item: node,
            warnings,
        })
    }

    /// Makes the tree and the drive that `-drive` describes. No device holds it yet ([`Graph::attach`]).
    ///
    /// # Errors
    /// As for [`Graph::add`], and when the id is taken.
    pub async fn add_drive(&self, config: &DriveConfig) -> Result<Added<Arc<Drive>>, Error> {
        let _control = self.control.lock().await;
        let id = match &config.id {
            Some(id) => {
                self.check_name(id).map_err(|error| error.at("id"))?;
                id.clone()
            }
            None => self.generate("drive"),
        };
        let mut build = open::Build::new(self, config.probed);
        build.reserve(id.clone());
        let node = build.top(config.node.clone()).await?;
        let (nodes, warnings) = build.finish();
        let drive = Arc::new(Drive::new(id.clone(), node, config, false));
        let mut state = self.state();
        state
            .nodes
            .extend(nodes.into_iter().map(|node| (node.name.clone(), node)));
        state.drives.insert(id, Arc::clone(&drive));
        Ok(Added {
            item: drive,
            warnings,
        })
    }

    /// Gives a device the drive called `name`, or one of its own over the node of that name.
    ///
    /// # Errors
    /// No such drive or node; a device holds it already; what the device would do does not fit with the
    /// node's other users, or another process holds the image.
    pub async fn attach(&self, name: &str, attach: &Attach) -> Result<Arc<Drive>, Error> {
        let _control = self.control.lock().await;
        let known = self.drive(name).filter(|drive| !drive.anonymous);
        let drive = match (&known, self.node(name)) {
            (Some(drive), _) => Arc::clone(drive),
            (None, Some(node)) if !node.inline => Arc::new(Drive::new(
                name.to_owned(),
                node,
                &DriveConfig::default(),
                true,
            )),
            _ => return Err(self.unknown(name)),
        };
        if let Some(device) = drive.device() {
            return Err(Error::new(
                ErrorKind::InUse,
                format!("drive '{name}' is used by {device}"),
            ));
        }
        // Requests go through the attached drive's gate; a second drive over one node has its own.
        self.take_up(&drive, attach)?;
        if known.is_none() {
            // A node may serve several devices, each with a drive of its own.
            let key = self.generate("drive");
            self.state().drives.insert(key, Arc::clone(&drive));
        }
        Ok(drive)
    }

    /// Takes a drive back from its device: drains it, gives up its permissions, and forgets a drive that
    /// was made for the device.
    pub async fn detach(&self, drive: &Arc<Drive>) {
        let _control = self.control.lock().await;
        drive.discard_parked();
        let drained = self.drain_drives(vec![Arc::clone(drive)]).await;
        drive.set_events(None);
        self.give_up(drive);
        if drive.anonymous {
            self.state()
                .drives
                .retain(|_, other| !Arc::ptr_eq(other, drive));
        }
        drop(drained);
    }

    /// Removes a node that `add` made, or a drive with its tree. Its close may fail; it is gone all the same.
    ///
    /// # Errors
    /// No such thing; somebody uses it; an error of the close.
    pub async fn remove(&self, name: &str) -> Result<(), Error> {
        let _control = self.control.lock().await;
        let top = match (self.drive(name), self.node(name)) {
            (Some(drive), _) => {
                if let Some(device) = drive.device() {
                    return Err(Error::new(
                        ErrorKind::InUse,
                        format!("drive '{name}' is used by {device}"),
                    ));
                }
                let node = Arc::clone(drive.node());
                self.state().drives.remove(name);
                if let Some(user) = self.users(&node).into_iter().next() {
                    self.state().drives.insert(name.to_owned(), drive);
                    let reason = format!(
                        "drive '{name}': its node '{}' is used by {}",
                        node.name(),
                        user.name
                    );
                    return Err(Error::new(ErrorKind::InUse, reason));
                }
                node
            }
            (None, Some(node)) => {
                if node.inline {
                    let reason = format!("node '{name}' belongs to the node it was described in");
                    return Err(Error::new(ErrorKind::InUse, reason));
                }
                if let Some(user) = self.users(&node).into_iter().next() {
                    return Err(Error::new(
                        ErrorKind::InUse,
                        format!("node '{name}' is used by {}", user.name),
                    ));
                }
                node
            }
            (None, None) => return Err(self.unknown(name)),
        };
        self.close_unused(top, name).await
    }

    /// Closes everything, from the top down, draining and flushing each drive first. What fails is reported and the
    /// rest goes on.
    pub async fn close(&self) -> Vec<Error> {
        let _control = self.control.lock().await;
        let mut errors = Vec::new();
        let drives: Vec<_> = std::mem::take(&mut self.state().drives)
            .into_values()
            .collect();
        for drive in &drives {
            drive.discard_parked();
        }
        let _drained = self.drain_drives(drives.clone()).await;
        for drive in &drives {
            if !drive.is_read_only()
                && let Err(error) = drive.root().submit(Request::flush()).await
            {
                errors.push(Error::io(
                    format!("cannot flush drive '{}'", drive.id()),
                    error,
                ));
            }
            drive.set_user(None);
        }
        loop {
            let next = {
                let state = self.state();
                let below = |node: &Arc<Node>| {
                    state
                        .nodes
                        .values()
                        .flat_map(|parent| parent.children())
                        .any(|edge| Arc::ptr_eq(edge.node(), node))
                };
                state.nodes.values().find(|node| !below(node)).cloned()
            };
            let Some(node) = next else { return errors };
            self.state().nodes.remove(node.name());
            errors.extend(close_node(&node).await.err());
        }
    }

    /// Waits until no request is in flight below any drive that reaches `node`, and keeps it so. Not
    /// from inside a request.
    pub async fn drain(&self, node: &Arc<Node>) -> Drained {
        let drives = self
            .state()
            .drives
            .values()
            .filter(|drive| reaches(drive.node(), node))
            .cloned()
            .collect();
        self.drain_drives(drives).await
    }

    async fn drain_drives(&self, drives: Vec<Arc<Drive>>) -> Drained {
        let token = exec::Drained::all(drives.iter().map(|drive| drive.gate().clone())).await;
        drives
            .iter()
            .filter_map(|drive| drive.events())
            .for_each(|events| events.drained());
        Drained {
            drives,
            token: Some(token),
        }
    }

    /// The node called `name`.
    pub fn node(&self, name: &str) -> Option<Arc<Node>> {
        self.state().nodes.get(name).cloned()
    }

    /// The drive called `name`.
    pub fn drive(&self, name: &str) -> Option<Arc<Drive>> {
        self.state().drives.get(name).cloned()
    }

    /// Every node, by name.
    pub fn nodes(&self) -> Vec<Arc<Node>> {
        self.state().nodes.values().cloned().collect()
    }

    /// Every drive, by name.
    pub fn drives(&self) -> Vec<Arc<Drive>> {
        self.state().drives.values().cloned().collect()
    }

    /// Closes `node`, which nobody uses, and after it the nodes that only it used and that were described in it.
    async fn close_unused(&self, node: Arc<Node>, name: &str) -> Result<(), Error> {
        let mut result = Ok(());
        let mut queue = vec![node];
        while let Some(node) = queue.pop() {
            self.state().nodes.remove(node.name());
            let closed = close_node(&node).await;
            if result.is_ok() {
                result = closed.map_err(|error| error.at(name));
            }
            for edge in node.children() {
                self.refresh(edge.node());
                if edge.node().inline {
                    queue.push(Arc::clone(edge.node()));
                }
            }
        }
        result
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A name that no user can have chosen.
    fn generate(&self, kind: &str) -> String {
        let mut state = self.state();
        state.next = state.next.wrapping_add(1);
        format!("#{kind}{:03}", state.next)
    }

    /// Whether a user may give this name to a node or drive: a letter first, then letters, digits, `-._`.
    fn check_name(&self, name: &str) -> Result<(), Error> {
        let good = name.len() <= LONGEST_NAME
            && name.starts_with(|first: char| first.is_ascii_alphabetic())
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
        if !good {
            let rule = format!(
                "a letter, then letters, digits, '-', '.', '_', at most {LONGEST_NAME} in all"
            );
            let shown = Tree::from(name).describe();
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("{shown} is not a name: {rule}"),
            ));
        }
        let state = self.state();
        let kind = match (
            state.nodes.contains_key(name),
            state.drives.contains_key(name),
        ) {
            (false, false) => return Ok(()),
            (true, _) => "node",
            _ => "drive",
        };
        Err(Error::new(
            ErrorKind::Exists,
            format!("there is a {kind} called '{name}' already"),
        ))
    }

    fn unknown(&self, name: &str) -> Error {
        let state = self.state();
        let names = state
            .nodes
            .keys()
            .chain(state.drives.keys())
            .map(String::as_str);
        let hint = match nearest(name, names.filter(|name| !name.starts_with('#'))) {
            Some(near) => format!("; did you mean '{near}'?"),
            None => String::new(),
        };
        Error::new(
            ErrorKind::NotFound,
            format!("there is no drive or node called '{name}'{hint}"),
        )
    }
}

fn reaches(from: &Arc<Node>, node: &Arc<Node>) -> bool {
    Arc::ptr_eq(from, node)
        || from
            .children()
            .iter()
            .any(|edge| reaches(edge.node(), node))
}

async fn close_node(node: &Node) -> Result<(), Error> {
    let closed = node.driver.close().await;
    // Others may have the image now, even if a device keeps its hold on the drive a little longer.
    let _ = node.driver.acquire(Perms::NONE);
    closed.map_err(|error| Error::io(format!("cannot close node '{}'", node.name()), error))
}
