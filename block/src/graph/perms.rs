//! Who may do what: checked before a device gets a drive, handed down to the protocols' locks.

use std::sync::{Arc, PoisonError};

use super::Graph;
use crate::drive::{Attach, Drive};
use crate::error::{Error, ErrorKind};
use crate::node::Node;
use crate::perm::{Perm, Perms};

/// One user of a node.
pub(super) struct User {
    pub(super) name: String,
    perms: Perms,
}

impl Graph {
    /// Everybody who holds `node`: drives, and nodes above. A drive without a device holds it too.
    pub(super) fn users(&self, node: &Arc<Node>) -> Vec<User> {
        let state = self.state();
        let drives = state
            .drives
            .values()
            .filter(|drive| Arc::ptr_eq(drive.node(), node))
            .map(|drive| User {
                name: drive
                    .device()
                    .unwrap_or_else(|| format!("drive '{}'", drive.id())),
                perms: drive.perms(),
            });
        let above = state.nodes.values().flat_map(|parent| {
            let edges = parent
                .children()
                .iter()
                .filter(|edge| Arc::ptr_eq(edge.node(), node));
            edges.map(|edge| User {
                name: format!("node '{}'", parent.name()),
                perms: parent.driver.perms(edge.role(), parent.perms()),
            })
        });
        drives.chain(above).collect()
    }

    /// Lets `attach`'s device use the drive, if that fits with everybody else.
    pub(super) fn take_up(&self, drive: &Arc<Drive>, attach: &Attach) -> Result<(), Error> {
        let node = drive.node();
        let perms = Perms::guest(attach.read_only || node.read_only, attach.share_rw);
        let new = User {
            name: attach.device.clone(),
            perms,
        };
        let users: Vec<User> = self.users(node).into_iter().chain([new]).collect();
        let together = users
            .iter()
            .fold(Perms::NONE, |all, user| all.and(user.perms));
        if let Err(error) = check(node, &users).and_then(|()| self.hand_down(node, together)) {
            self.refresh(node);
            return Err(error);
        }
        drive.set_user(Some((attach, perms)));
        drive.root().allow(perms.used);
        Ok(())
    }

    /// Takes the device's permissions back.
    pub(super) fn give_up(&self, drive: &Arc<Drive>) {
        drive.set_user(None);
        drive.root().allow(Perm::empty());
        self.refresh(drive.node());
    }

    /// Computes what a node's users need now that one needs less: that cannot fail.
    pub(super) fn refresh(&self, node: &Arc<Node>) {
        let together = self
            .users(node)
            .iter()
            .fold(Perms::NONE, |all, user| all.and(user.perms));
        let _ = self.hand_down(node, together);
    }

    /// Makes `perms` the node's and derives its children's. On failure everything below is as before.
    fn hand_down(&self, node: &Arc<Node>, perms: Perms) -> Result<(), Error> {
        let perms = if node.force_share {
            Perms {
                used: Perm::empty(),
                shared: Perm::all(),
            }
        } else {
            perms
        };
        let before = node.perms();
        node.driver
            .acquire(perms)
            .map_err(|error| error.at(&format!("node '{}'", node.name())))?;
        set(node, perms);
        for (done, edge) in node.children().iter().enumerate() {
            edge.allow(node.driver.perms(edge.role(), perms).used);
            let child = edge.node();
            let users = self.users(child);
            let together = users
                .iter()
                .fold(Perms::NONE, |all, user| all.and(user.perms));
            if let Err(error) = check(child, &users).and_then(|()| self.hand_down(child, together))
            {
                // Back to what was granted once.
                set(node, before);
                for edge in node.children().iter().take(done.saturating_add(1)) {
                    edge.allow(node.driver.perms(edge.role(), before).used);
                    self.refresh(edge.node());
                }
                let _ = node.driver.acquire(before);
                return Err(error);
            }
        }
        Ok(())
    }
}

/// Whether all users of `node` fit with each other.
fn check(node: &Node, users: &[User]) -> Result<(), Error> {
    for (at, one) in users.iter().enumerate() {
        for (_, other) in users.iter().enumerate().filter(|(index, _)| *index != at) {
            let perm = one.perms.conflict(other.perms);
            if !perm.is_empty() {
                let (uses, keeps) = (&one.name, &other.name);
                let reason = format!(
                    "node '{}': {uses} needs '{perm}', which {keeps} does not share",
                    node.name()
                );
                return Err(Error::new(ErrorKind::InUse, reason));
            }
        }
    }
    Ok(())
}

fn set(node: &Node, perms: Perms) {
    *node.perms.lock().unwrap_or_else(PoisonError::into_inner) = perms;
}
