use std::fmt::{self, Write};
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use exec::{Config, Executor};

use super::*;
use crate::{DriveConfig, Graph};

/// Keeps what is logged on this thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<String>>);

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event()
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        event.record(&mut Line(&mut self.0.lock().unwrap()));
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

struct Line<'a>(&'a mut String);

impl Visit for Line<'_> {
    fn record_debug(&mut self, _: &Field, value: &dyn fmt::Debug) {
        writeln!(self.0, "{value:?}").unwrap();
    }
}

#[test]
fn the_hosts_first_failure_of_a_kind_is_logged_and_a_guests_mistake_is_not() {
    let log = Log::default();
    tracing::subscriber::with_default(log.clone(), || {
        Executor::new(Config::default()).unwrap().block_on(async {
            let file =
                memfd_create("disk", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
            ftruncate(&file, 8192).unwrap();
            let text = format!(
                "file=/proc/self/fd/{},format=raw,if=virtio,id=d0",
                file.as_raw_fd()
            );
            let graph = Graph::new();
            graph
                .add_drive(&DriveConfig::parse(&text).unwrap())
                .await
                .unwrap();
            let disk = graph.attach("d0", &Attach::default()).await.unwrap();
            let write =
                |offset| disk.submit(Request::write(offset, [7; 512].as_slice(), Flags::empty()));
            write(0).await.unwrap();
            write(8192).await.unwrap_err();
            assert_eq!(*log.0.lock().unwrap(), "");
            fcntl_add_seals(&file, SealFlags::WRITE).unwrap();
            for _ in 0..3 {
                write(0).await.unwrap_err();
            }
            graph.close().await;
        });
    });
    let said = log.0.lock().unwrap();
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.starts_with("disk 'd0': Write failed: "), "{said}");
}
