//! Any request on an edge equals the same on a plain byte array, whatever the node's limits; and the
//! driver below never sees a request that its limits exclude.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use exec::{Config, Executor, IoSlice, IoSliceMut, IoSlices, IoSlicesMut};
use proptest::prelude::*;

use crate::driver::{Driver, Extent, Limits};
use crate::edge::{Edge, Role};
use crate::error::errno;
use crate::node::{DetectZeroes, Discard, Node, NodeConfig};
use crate::options::Tree;
use crate::perm::Perms;
use crate::request::{Flags, Io, Op, OpKind, Request};

const SIZE: usize = 64 << 10;

/// A disk in memory that checks its callers.
struct Checked {
    bytes: Mutex<Vec<u8>>,
    limits: Limits,
    /// Zeroing and discarding are not understood.
    plain: bool,
    seen: Mutex<Vec<(OpKind, Range<u64>, Flags)>>,
}

impl Checked {
    fn check(&self, req: &Request<'_>) {
        let limits = &self.limits;
        let aligned = |align: u32| (req.offset | req.len).is_multiple_of(align.into());
        match &req.op {
            Op::Read(to) => {
                assert!(aligned(limits.request_alignment) && req.len <= limits.max_transfer);
                assert!(
                    to.is_aligned(limits.memory_alignment as usize) && to.len() as u64 == req.len
                );
            }
            Op::Write(from) => {
                assert!(aligned(limits.request_alignment) && req.len <= limits.max_transfer);
                assert!(
                    from.is_aligned(limits.memory_alignment as usize)
                        && from.len() as u64 == req.len
                );
            }
            Op::WriteZeroes => {
                assert!(aligned(
                    limits.write_zeroes_alignment.max(limits.request_alignment)
                ));
                assert!(req.len <= limits.max_write_zeroes && req.len > 0);
            }
            Op::Discard => {
                assert!(aligned(
                    limits.discard_alignment.max(limits.request_alignment)
                ));
                assert!(req.len <= limits.max_discard && req.len > 0);
            }
            Op::Flush => assert_eq!((req.offset, req.len), (0, 0)),
        }
        assert!(!req.flags.contains(Flags::FUA) || limits.fua);
    }
}

/// The driver, where the test can see it too.
struct Shared(Arc<Checked>);

impl Driver for Shared {
    fn submit<'a>(&'a self, req: Request<'a>) -> Io<'a> {
        let disk = &self.0;
        disk.check(&req);
        let range = req.offset..req.offset + req.len;
        disk.seen
            .lock()
            .unwrap()
            .push((req.kind(), range.clone(), req.flags));
        let at = range.start as usize..range.end as usize;
        Box::pin(async move {
            // Others run between the request and its effect.
            exec::yield_now().await;
            let mut bytes = disk.bytes.lock().unwrap();
            match req.op {
                Op::Read(mut to) => to.copy_from(&bytes[at]),
                Op::Write(from) => from.copy_to(&mut bytes[at]),
                Op::WriteZeroes | Op::Discard if disk.plain => return Err(errno(libc::ENOTSUP)),
                Op::WriteZeroes => bytes[at].fill(0),
                Op::Discard | Op::Flush => {}
            }
            Ok(())
        })
    }

    fn status(&self, range: Range<u64>) -> Io<'_, Extent> {
        let len = range.end - range.start;
        Box::pin(std::future::ready(Ok(Extent {
            len,
            allocated: true,
            zero: false,
            data: true,
            at: None,
        })))
    }

    fn len(&self) -> u64 {
        SIZE as u64
    }

    fn limits(&self) -> Limits {
        self.0.limits
    }

    fn perms(&self, _role: Role, above: Perms) -> Perms {
        above
    }
}

struct Policy {
    no_flush: bool,
    discard: Discard,
    detect_zeroes: DetectZeroes,
    read_only: bool,
}

const PLAIN: Policy = Policy {
    no_flush: false,
    discard: Discard::Unmap,
    detect_zeroes: DetectZeroes::Off,
    read_only: false,
};

fn edge(limits: Limits, plain: bool, policy: Policy) -> (Edge, Arc<Checked>) {
    let bytes = Mutex::new((0..SIZE).map(|at| (at * 7 + at / 251) as u8 | 1).collect());
    let disk = Arc::new(Checked {
        bytes,
        limits,
        plain,
        seen: Mutex::default(),
    });
    let config = NodeConfig {
        name: "n".into(),
        driver_name: "checked",
        read_only: policy.read_only,
        discard: policy.discard,
        detect_zeroes: policy.detect_zeroes,
        no_flush: policy.no_flush,
        force_share: false,
        inline: false,
        options: Tree::default(),
    };
    (
        Edge::new(
            Role::Image,
            "file",
            Arc::new(Node::new(config, Box::new(Shared(Arc::clone(&disk))))),
        ),
        disk,
    )
}

fn run<T>(test: impl Future<Output = T>) -> T {
    Executor::new(Config::default()).unwrap().block_on(test)
}

fn limits() -> impl Strategy<Value = Limits> {
    let power = |most: u32| (0..=most).prop_map(|shift| 1u32 << shift);
    let most = prop_oneof![Just(u64::MAX), (1u64..40_000)];
    (
        power(12),
        power(12),
        power(12),
        power(13),
        most.clone(),
        most.clone(),
        most,
        any::<bool>(),
    )
        .prop_map(
            |(request, memory, zeroes, discard, transfer, max_zeroes, max_discard, fua)| Limits {
                request_alignment: request,
                memory_alignment: memory,
                write_zeroes_alignment: zeroes,
                discard_alignment: discard,
                max_transfer: transfer.max(request.max(memory).into()),
                max_write_zeroes: max_zeroes,
                max_discard,
                fua,
                ..Limits::default()
            },
        )
}

#[derive(Debug, Clone)]
struct Step {
    kind: usize,
    offset: usize,
    len: usize,
    fill: u8,
    pieces: usize,
    flags: Flags,
}

fn step() -> impl Strategy<Value = Step> {
    // Many short ones, many that touch the end, some aligned.
    let place = prop_oneof![
        0..SIZE,
        SIZE - 600..SIZE,
        (0..SIZE / 512).prop_map(|sector| sector * 512)
    ];
    let length = prop_oneof![
        1..600usize,
        1..SIZE,
        (1..16usize).prop_map(|sectors| sectors * 512)
    ];
    (0..4usize, place, length, any::<u8>(), 1..4usize, 0..8u32).prop_map(
        |(kind, offset, len, fill, pieces, flags)| Step {
            kind,
            offset,
            len: len.min(SIZE - offset),
            fill: if fill < 40 { 0 } else { fill },
            pieces,
            flags: Flags::from_bits_truncate(flags),
        },
    )
}

async fn play(edge: &Edge, model: &mut [u8], step: &Step) {
    let range = step.offset..step.offset + step.len;
    let cut = (step.len / step.pieces).max(1);
    match step.kind {
        0 => {
            let mut back = vec![0xee; step.len];
            let mut pieces: Vec<IoSliceMut<'_>> =
                back.chunks_mut(cut).map(IoSliceMut::new).collect();
            edge.submit(Request::read(
                step.offset as u64,
                IoSlicesMut::new(&mut pieces),
            ))
            .await
            .unwrap();
            assert!(back == model[range]);
        }
        1 => {
            let data: Vec<u8> = (0..step.len)
                .map(|at| step.fill.wrapping_mul((at as u8) | 1))
                .collect();
            let pieces: Vec<IoSlice<'_>> = data.chunks(cut).map(IoSlice::new).collect();
            let flags = step.flags & Flags::FUA;
            edge.submit(Request::write(
                step.offset as u64,
                IoSlices::new(&pieces),
                flags,
            ))
            .await
            .unwrap();
            model[range].copy_from_slice(&data);
        }
        2 => {
            let zeroed = Request::write_zeroes(range.start as u64..range.end as u64, step.flags);
            match edge.submit(zeroed).await {
                Ok(()) => model[range].fill(0),
                Err(error) => {
                    assert_eq!(error.raw_os_error(), Some(libc::ENOTSUP));
                    assert!(step.flags.contains(Flags::NO_FALLBACK));
                    // Part of it may have been done.
                    let mut now = vec![0; step.len];
                    edge.submit(Request::read(step.offset as u64, now.as_mut_slice()))
                        .await
                        .unwrap();
                    let kept = now.iter().zip(&model[range.clone()]);
                    assert!(kept.clone().all(|(got, old)| *got == 0 || got == old));
                    model[range].copy_from_slice(&now);
                }
            }
        }
        _ => edge
            .submit(Request::discard(range.start as u64..range.end as u64))
            .await
            .unwrap(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 300 } else { 10_000 }))]

    #[test]
    fn any_sequence_equals_a_byte_array(
        limits in limits(),
        plain in any::<bool>(),
        detect in 0..3u8,
        steps in proptest::collection::vec(step(), 1..20),
    ) {
        let detect_zeroes = [DetectZeroes::Off, DetectZeroes::On, DetectZeroes::Unmap][usize::from(detect)];
        let (edge, disk) = edge(limits, plain, Policy { detect_zeroes, ..PLAIN });
        let mut model = disk.bytes.lock().unwrap().clone();
        run(async {
            for step in &steps {
                play(&edge, &mut model, step).await;
            }
        });
        prop_assert!(*disk.bytes.lock().unwrap() == model);
    }

    #[test]
    fn unaligned_writes_at_once_lose_nothing(
        limits in limits(),
        cuts in proptest::collection::btree_set(0..SIZE as u64, 2..24),
        zeroes in any::<u32>(),
    ) {
        let (edge, disk) = edge(limits, false, PLAIN);
        let cuts: Vec<u64> = cuts.into_iter().collect();
        let mut model = disk.bytes.lock().unwrap().clone();
        let data = vec![0xaa; SIZE];
        run(async {
            // Neighbours share blocks, so each is a read-modify-write of what another writes.
            let writes = cuts.windows(2).enumerate().map(|(number, pair)| {
                let (from, to) = (pair[0], pair[1]);
                let zero = zeroes >> (number % 32) & 1 == 1;
                model[from as usize..to as usize].fill(if zero { 0 } else { 0xaa });
                let data = &data[..(to - from) as usize];
                let request =
                    if zero { Request::write_zeroes(from..to, Flags::empty()) } else { Request::write(from, data, Flags::empty()) };
                edge.submit(request)
            });
            let writes: Vec<_> = writes.collect();
            for result in exec::all(writes).await {
                result.unwrap();
            }
        });
        prop_assert!(*disk.bytes.lock().unwrap() == model);
    }
}

fn seen(disk: &Checked) -> Vec<(OpKind, Range<u64>, Flags)> {
    std::mem::take(&mut disk.seen.lock().unwrap())
}

#[test]
fn what_fits_goes_as_it_is() {
    let (edge, disk) = edge(Limits::default(), false, PLAIN);
    run(async {
        edge.submit(Request::write(3, [1; 9].as_slice(), Flags::FUA))
            .await
            .unwrap();
        edge.submit(Request::read(5, [0; 2].as_mut_slice()))
            .await
            .unwrap();
    });
    assert_eq!(
        seen(&disk),
        [
            (OpKind::Write, 3..12, Flags::FUA),
            (OpKind::Read, 5..7, Flags::empty())
        ]
    );
}

#[test]
fn fua_becomes_a_flush_where_it_is_not_understood() {
    let (edge, disk) = edge(
        Limits {
            fua: false,
            ..Limits::default()
        },
        false,
        PLAIN,
    );
    run(async {
        edge.submit(Request::write(0, [1; 9].as_slice(), Flags::FUA))
            .await
            .unwrap();
        edge.submit(Request::write_zeroes(0..9, Flags::FUA))
            .await
            .unwrap();
    });
    let kinds: Vec<_> = seen(&disk).into_iter().map(|(kind, ..)| kind).collect();
    assert_eq!(
        kinds,
        [
            OpKind::Write,
            OpKind::Flush,
            OpKind::WriteZeroes,
            OpKind::Flush
        ]
    );
}

#[test]
fn no_flush_lets_neither_flush_nor_fua_through() {
    let (edge, disk) = edge(
        Limits::default(),
        false,
        Policy {
            no_flush: true,
            ..PLAIN
        },
    );
    run(async {
        edge.submit(Request::write(0, [1; 9].as_slice(), Flags::FUA))
            .await
            .unwrap();
        edge.submit(Request::write_zeroes(0..9, Flags::FUA))
            .await
            .unwrap();
        edge.submit(Request::flush()).await.unwrap();
    });
    let kinds: Vec<_> = seen(&disk)
        .into_iter()
        .map(|(kind, _, flags)| (kind, flags))
        .collect();
    assert_eq!(
        kinds,
        [
            (OpKind::Write, Flags::empty()),
            (OpKind::WriteZeroes, Flags::empty())
        ]
    );
}

#[test]
fn discard_ignore_keeps_everything() {
    let (edge, disk) = edge(
        Limits::default(),
        false,
        Policy {
            discard: Discard::Ignore,
            ..PLAIN
        },
    );
    run(async {
        edge.submit(Request::discard(0..4096)).await.unwrap();
        edge.submit(Request::write_zeroes(0..4096, Flags::MAY_UNMAP))
            .await
            .unwrap();
    });
    assert_eq!(
        seen(&disk),
        [(OpKind::WriteZeroes, 0..4096, Flags::empty())]
    );
}

#[test]
fn discards_lose_no_byte_that_was_not_named() {
    let (edge, disk) = edge(
        Limits {
            discard_alignment: 4096,
            ..Limits::default()
        },
        false,
        PLAIN,
    );
    run(async {
        edge.submit(Request::discard(1..8193)).await.unwrap();
        edge.submit(Request::discard(1..4095)).await.unwrap();
    });
    assert_eq!(seen(&disk), [(OpKind::Discard, 4096..8192, Flags::empty())]);
}

#[test]
fn writes_end_at_the_end() {
    let (edge, disk) = edge(Limits::default(), false, PLAIN);
    let code = |result: std::io::Result<()>| result.unwrap_err().raw_os_error();
    run(async {
        let end = SIZE as u64;
        let write = |at| Request::write(at, [1; 2].as_slice(), Flags::empty());
        assert_eq!(code(edge.submit(write(end - 1)).await), Some(libc::EIO));
        assert_eq!(code(edge.submit(write(u64::MAX)).await), Some(libc::EINVAL));
        assert_eq!(
            code(edge.submit(write(i64::MAX as u64)).await),
            Some(libc::EINVAL)
        );
        assert_eq!(
            code(edge.submit(Request::discard(0..end + 1)).await),
            Some(libc::EIO)
        );
        let mut beyond = [7; 4];
        edge.submit(Request::read(end - 2, beyond.as_mut_slice()))
            .await
            .unwrap();
        assert_eq!(beyond[2..], [0, 0], "what lies beyond reads as zeroes");
    });
    assert!(seen(&disk).iter().all(|(kind, ..)| *kind == OpKind::Read));
}

#[test]
fn a_read_only_node_is_not_written() {
    let (edge, disk) = edge(
        Limits::default(),
        false,
        Policy {
            read_only: true,
            ..PLAIN
        },
    );
    run(async {
        for request in [
            Request::write(0, [1; 2].as_slice(), Flags::empty()),
            Request::write_zeroes(0..2, Flags::empty()),
            Request::discard(0..2),
        ] {
            assert_eq!(
                edge.submit(request).await.unwrap_err().raw_os_error(),
                Some(libc::EPERM)
            );
        }
    });
    assert!(seen(&disk).is_empty());
}
