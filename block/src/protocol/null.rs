//! `null-co`, `null-aio`: a disk that forgets everything, for measuring what is above it.

use std::ops::Range;
use std::time::Duration;

use crate::driver::{Driver, Extent, Limits};
use crate::edge::Role;
use crate::error::{Error, ErrorKind};
use crate::graph::{Opened, Opening};
use crate::io::MAX_LEN;
use crate::options::{Size, Tree, from_tree};
use crate::perm::Perms;
use crate::request::{Io, Op, Request};

crate::options! {
    /// Options of `driver=null-co` and `driver=null-aio`.
    pub struct NullOptions {
        /// Bytes of the disk.
        pub size: Size = Size(1 << 30),
        /// Time that each request takes, in nanoseconds.
        pub latency_ns: u64 = 0,
        /// Reads give zeroes; otherwise they leave the buffer as it is.
        pub read_zeroes: bool = false,
    }
}

struct Null {
    size: u64,
    latency: Duration,
    read_zeroes: bool,
}

pub(crate) async fn open(_opening: &mut Opening<'_>, options: Tree) -> Result<Opened, Error> {
    let options: NullOptions = from_tree(options)?;
    if options.size.0 > MAX_LEN {
        return Err(
            Error::new(ErrorKind::Invalid, format!("must be at most {MAX_LEN}")).at("size"),
        );
    }
    Ok(Box::new(Null {
        size: options.size.0,
        latency: Duration::from_nanos(options.latency_ns),
        read_zeroes: options.read_zeroes,
    }))
}

impl Driver for Null {
    fn submit<'a>(&'a self, req: Request<'a>) -> Io<'a> {
        if let Op::Read(mut to) = req.op
            && self.read_zeroes
        {
            to.fill_zero();
        }
        if self.latency.is_zero() {
            return Box::pin(std::future::ready(Ok(())));
        }
        Box::pin(async {
            exec::sleep(self.latency).await;
            Ok(())
        })
    }

    fn status(&self, range: Range<u64>) -> Io<'_, Extent> {
        let len = range.end.saturating_sub(range.start);
        let extent = Extent {
            len,
            allocated: true,
            zero: self.read_zeroes,
            data: !self.read_zeroes,
            at: Some(range.start),
        };
        Box::pin(std::future::ready(Ok(extent)))
    }

    fn len(&self) -> u64 {
        self.size
    }

    fn limits(&self) -> Limits {
        Limits::default()
    }

    fn perms(&self, _role: Role, above: Perms) -> Perms {
        above
    }
}
