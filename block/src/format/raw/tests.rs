use std::sync::{Arc, Mutex};

use exec::{Config, Executor};

use super::*;
use crate::node::{DetectZeroes, Discard, Node, NodeConfig};
use crate::request::Flags;

/// A node that notes where the pieces of write data lie.
struct Pieces(Arc<Mutex<Vec<(usize, usize)>>>);

impl Driver for Pieces {
    fn submit<'a>(&'a self, req: Request<'a>) -> Io<'a> {
        if let Op::Write(from) = &req.op {
            let pieces = from.pieces().map(|p| (p.as_ptr().addr(), p.len()));
            self.0.lock().unwrap().extend(pieces);
        }
        Box::pin(std::future::ready(Ok(())))
    }

    fn status(&self, range: Range<u64>) -> Io<'_, Extent> {
        let extent = Extent {
            len: range.end - range.start,
            allocated: true,
            zero: false,
            data: true,
            at: None,
        };
        Box::pin(std::future::ready(Ok(extent)))
    }

    fn len(&self) -> u64 {
        1 << 40
    }

    fn limits(&self) -> Limits {
        Limits::default()
    }

    fn perms(&self, _role: Role, above: Perms) -> Perms {
        above
    }
}

fn node(driver: Opened) -> Arc<Node> {
    let config = NodeConfig {
        name: "n".into(),
        driver_name: "raw",
        read_only: false,
        discard: Discard::Unmap,
        detect_zeroes: DetectZeroes::Off,
        no_flush: false,
        force_share: false,
        inline: false,
        options: Tree::default(),
    };
    Arc::new(Node::new(config, driver))
}

/// A guest may write much at once, naming the same memory again and again.
#[test]
fn a_guarded_write_copies_no_more_than_it_looks_at() {
    let seen = Arc::default();
    let below = node(Box::new(Pieces(Arc::clone(&seen))));
    let raw = Raw {
        children: [Edge::new(Role::Image, "file", below)],
        offset: 0,
        size: None,
        guarded: true,
    };
    let edge = Edge::new(Role::Root, "", node(Box::new(raw)));
    let page = vec![1; 4096];
    let pieces = vec![IoSlice::new(&page); 3];
    let write = Request::write(0, IoSlices::new(&pieces), Flags::empty());
    Executor::new(Config::default())
        .unwrap()
        .block_on(edge.submit(write))
        .unwrap();
    let own = page.as_ptr().addr();
    let seen = seen.lock().unwrap();
    assert!(seen[0].0 != own, "the first sector could change under us");
    assert_eq!(
        seen[1..],
        [(own + 512, 4096 - 512), (own, 4096), (own, 4096)]
    );
    assert_eq!(seen[0].1, 512);
}
