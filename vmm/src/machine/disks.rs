//! The disks' back ends: the block graph, and the I/O threads that serve devices.
//!
//! Devices without a thread of their own share one, which exists only where there is such a device;
//! no disk is served by the main thread.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use block::{Added, Attach, Drive, Graph};
use devices::bus::Ticket;
use exec::{Handle, IoThread, RingStatus};

use super::life::redeemed;
use crate::config::{self, Config};
use crate::error::Error;
use crate::models::Model;
use crate::sandbox::Sandbox;

/// The block graph and its threads.
pub struct Disks {
    graph: Rc<Graph>,
    /// What devices share that name none.
    shared: Option<IoThread>,
    named: Vec<(String, IoThread)>,
}

impl Disks {
    /// Opens every image and starts the threads, as a task of the main executor.
    ///
    /// # Errors
    /// What cannot be had, by its option.
    pub async fn open(config: &Config, sandbox: &Sandbox) -> Result<Disks, Error> {
        let graph = Rc::new(Graph::new());
        for blockdev in &config.blockdevs {
            let added = graph.add(blockdev.options.clone()).await;
            shown(&blockdev.origin, added)?;
        }
        for drive in &config.drives {
            shown(&drive.origin, graph.add_drive(&drive.config).await)?;
        }
        let shares = config.devices.iter().any(|device| match &device.model {
            Model::VirtioBlkPci(disk) => {
                disk.iothread.is_none() && disk.iothread_vq_mapping.is_empty()
            }
            _ => false,
        });
        let shared = match shares {
            true => Some(start("io", None, sandbox, "-device")?),
            false => None,
        };
        let named = config
            .iothreads
            .iter()
            .map(|config::IoThread { id, poll_max_ns }| {
                let poll_max = poll_max_ns.map(Duration::from_nanos);
                let thread = start(id, poll_max, sandbox, &format!("-object {id}"))?;
                Ok((id.clone(), thread))
            })
            .collect::<Result<Vec<_>, Error>>()?;
        Ok(Disks {
            graph,
            shared,
            named,
        })
    }

    /// The executor of a thread; without a name, the one that devices share.
    pub fn thread(&self, name: Option<&str>) -> Option<Handle> {
        let thread = match name {
            None => self.shared.as_ref(),
            Some(name) => {
                let named = self.named.iter().find(|(id, _)| id == name);
                named.map(|(_, thread)| thread)
            }
        };
        thread.map(IoThread::handle)
    }

    /// Gives the drive or node called `name` to a device.
    ///
    /// # Errors
    /// As [`Graph::attach`].
    pub async fn attach(&self, name: &str, attach: &Attach) -> Result<Arc<Drive>, block::Error> {
        self.graph.attach(name, attach).await
    }

    /// Flushes and closes every image by `deadline`, as a task of the main executor. The threads are left to be
    /// stopped.
    ///
    /// # Errors
    /// The first image that could not be brought to rest; others are logged.
    pub async fn close(&self, deadline: Instant) -> Result<(), Error> {
        let names: Vec<String> = self.graph.drives().iter().map(|d| d.id().into()).collect();
        let errors = Rc::new(RefCell::new(Vec::new()));
        let (closed, redeem) = Ticket::new();
        // A task of its own, since no future is dropped in flight: what does not end goes on until the
        // process does.
        let (graph, found) = (self.graph.clone(), errors.clone());
        exec::spawn(async move {
            let errors = graph.close().await;
            found.replace(errors);
            drop(redeem);
        });
        if !redeemed(closed, || Instant::now() < deadline).await {
            let what = format!(
                "not at rest after 10 s: flushing and closing {}",
                names.join(", ")
            );
            return Err(Error::host(what));
        }
        let mut errors = errors.take().into_iter();
        let first = errors.next();
        errors.for_each(|error| tracing::error!("{error}"));
        match first {
            None => Ok(()),
            Some(error) => Err(Error::host("cannot close a disk").because(error)),
        }
    }

    /// Ends the threads by `deadline`. Not on an executor: a message from one leaves with its next turn,
    /// and here it would wait instead.
    ///
    /// # Errors
    /// What is stuck.
    pub fn stop(self, deadline: Instant) -> Result<(), Error> {
        let named = self.named.into_iter().map(|(_, thread)| thread);
        for thread in self.shared.into_iter().chain(named) {
            let left = deadline.saturating_duration_since(Instant::now());
            thread
                .stop(left)
                .map_err(|stuck| Error::host("not at rest after 10 s").because(stuck))?;
        }
        Ok(())
    }
}

/// Shows the warnings, and names the option in an error.
fn shown<T>(origin: &str, added: Result<Added<T>, block::Error>) -> Result<T, Error> {
    let added = added.map_err(|error| Error::user(origin).because(error))?;
    for warning in &added.warnings {
        tracing::warn!("{origin}: {warning}");
    }
    Ok(added.item)
}

fn start(
    name: &str,
    poll_max: Option<Duration>,
    sandbox: &Sandbox,
    origin: &str,
) -> Result<IoThread, Error> {
    let default = exec::Config::default();
    let thread = IoThread::spawn(exec::Config {
        name: name.into(),
        poll_max: poll_max.unwrap_or(default.poll_max),
        on_start: Some(sandbox.on_start()),
        ..default
    })
    .map_err(|error| Error::user(format!("{origin}: cannot start an I/O thread")).because(error))?;
    if let RingStatus::Refused(reason) = thread.handle().ring_kind() {
        tracing::warn!(
            "I/O thread {name}: io_uring is refused ({reason}): threads do its work, slower"
        );
    }
    Ok(thread)
}

#[cfg(test)]
mod tests;
