//! raw over file on storage that reorders, shortens, fails and loses its power: what was acknowledged as
//! flushed survives, whatever else does.

use exec::sim::{Faults, OpKind, Sim};
use exec::{Alignment, Config, Executor, RingKind};
use proptest::prelude::*;

use super::*;
use crate::edge::Edge;
use crate::node::{DetectZeroes, Discard, Node, NodeConfig};

const SIZE: usize = 16 << 10;

/// An edge to a `file` node over a simulated file.
fn edge(sim: &Sim, align: u32) -> Edge {
    let file = match align {
        1 => sim.file("disk"),
        offset => sim.file_aligned(
            "disk",
            Alignment {
                memory: 512,
                offset,
            },
        ),
    };
    let file = file.unwrap();
    let driver = HostFile {
        limits: limits(&file),
        len: AtomicU64::new(SIZE as u64),
        path: "disk".into(),
        locking: false,
        held: Mutex::new(Perms::NONE),
        lost: AtomicI32::new(0),
        no_zero_range: AtomicBool::new(false),
        file,
    };
    let config = NodeConfig {
        name: "n".into(),
        driver_name: "file",
        read_only: false,
        discard: Discard::Unmap,
        detect_zeroes: DetectZeroes::Off,
        no_flush: false,
        force_share: false,
        inline: false,
        options: Tree::default(),
    };
    Edge::new(
        Role::Image,
        "file",
        std::sync::Arc::new(Node::new(config, Box::new(driver))),
    )
}

fn run<T>(sim: &Sim, test: impl Future<Output = T>) -> T {
    let config = Config {
        ring: RingKind::Sim(sim.clone()),
        ..Config::default()
    };
    Executor::new(config).unwrap().block_on(test)
}

fn storage(seed: u64) -> Sim {
    let sim = Sim::new(seed);
    sim.set_contents("disk", vec![0; SIZE]);
    sim
}

#[derive(Clone, Debug)]
enum Step {
    Write { at: usize, len: usize, fua: bool },
    Zero { at: usize, len: usize, unmap: bool },
    Flush,
}

fn step() -> impl Strategy<Value = Step> {
    let range = (0..SIZE, 1..3000usize).prop_map(|(at, len)| (at, len.min(SIZE - at)));
    prop_oneof![
        4 => (range.clone(), any::<bool>()).prop_map(|((at, len), fua)| Step::Write { at, len, fua }),
        2 => (range, any::<bool>()).prop_map(|((at, len), unmap)| Step::Zero { at, len, unmap }),
        2 => Just(Step::Flush),
    ]
}

/// What each byte may be after a crash: the values written since it was last made durable.
struct Model {
    possible: Vec<Vec<u8>>,
}

impl Model {
    fn write(&mut self, range: Range<usize>, value: u8) {
        self.possible[range]
            .iter_mut()
            .for_each(|values| values.push(value));
    }

    fn durable(&mut self, range: Range<usize>) {
        self.possible[range]
            .iter_mut()
            .for_each(|values| *values = vec![values[values.len() - 1]]);
    }
}

proptest! {
    #[test]
    fn what_was_flushed_survives_a_crash_at_any_step(
        seed in any::<u64>(),
        align in prop_oneof![Just(1u32), Just(512), Just(4096)],
        steps in proptest::collection::vec(step(), 1..14),
        crash in 0..60u64,
        short in prop_oneof![Just(0), Just(300)],
    ) {
        let sim = storage(seed);
        sim.set_faults(Faults { short, ..Faults::default() });
        sim.crash_at(crash);
        let mut model = Model { possible: vec![vec![0]; SIZE] };
        run(&sim, async {
            let edge = edge(&sim, align);
            for (number, step) in steps.iter().enumerate() {
                let value = number as u8 + 1;
                let done = match *step {
                    Step::Write { at, len, fua } => {
                        model.write(at..at + len, value);
                        let flags = if fua { Flags::FUA } else { Flags::empty() };
                        let data = vec![value; len];
                        let done = edge.submit(Request::write(at as u64, data.as_slice(), flags)).await;
                        if fua && done.is_ok() {
                            model.durable(at..at + len);
                        }
                        done
                    }
                    Step::Zero { at, len, unmap } => {
                        model.write(at..at + len, 0);
                        let flags = if unmap { Flags::MAY_UNMAP } else { Flags::empty() };
                        edge.submit(Request::write_zeroes(at as u64..(at + len) as u64, flags)).await
                    }
                    Step::Flush => {
                        let done = edge.submit(Request::flush()).await;
                        if done.is_ok() {
                            model.durable(0..SIZE);
                        }
                        done
                    }
                };
                if done.is_err() {
                    assert!(sim.crashed());
                    break;
                }
            }
        });
        let left = sim.survivors().contents("disk");
        for (at, (byte, values)) in left.iter().zip(&model.possible).enumerate() {
            prop_assert!(values.contains(byte), "byte {at} is {byte}, not one of {values:?}");
        }
    }
}

#[test]
fn a_flush_that_lost_data_never_succeeds_again() {
    for (align, expected) in [(1, Some(libc::EIO)), (512, None)] {
        let sim = storage(1);
        sim.fail(OpKind::Sync, 0, libc::EIO);
        run(&sim, async {
            let edge = edge(&sim, align);
            let flush = || async {
                edge.submit(Request::flush())
                    .await
                    .err()
                    .and_then(|e| e.raw_os_error())
            };
            assert_eq!(flush().await, Some(libc::EIO));
            assert_eq!(
                flush().await,
                expected,
                "the page cache forgets, a direct write was reported"
            );
        });
    }
}

/// A write that is synced as it is written reports the data that earlier writes lost, and the kernel then
/// forgets it: so such a write is a write and a flush, which remembers.
#[test]
fn a_durable_write_that_lost_data_fails_every_later_flush() {
    let sim = storage(1);
    sim.fail(OpKind::Sync, 0, libc::EIO);
    run(&sim, async {
        let edge = edge(&sim, 1);
        let errno = |done: io::Result<()>| done.err().and_then(|error| error.raw_os_error());
        let write = edge.submit(Request::write(0, [1; 512].as_slice(), Flags::FUA));
        assert_eq!(errno(write.await), Some(libc::EIO));
        assert_eq!(errno(edge.submit(Request::flush()).await), Some(libc::EIO));
    });
}

#[test]
fn what_the_host_says_reaches_the_guest() {
    let sim = storage(1);
    sim.fail(OpKind::Write, 0, libc::ENOSPC);
    run(&sim, async {
        let edge = edge(&sim, 1);
        let write = || edge.submit(Request::write(0, [1; 512].as_slice(), Flags::empty()));
        assert_eq!(
            write().await.unwrap_err().raw_os_error(),
            Some(libc::ENOSPC)
        );
        write().await.unwrap();
    });
    assert_eq!(sim.contents("disk")[..512], [1; 512]);
}
