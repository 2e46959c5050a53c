//! What the engine adds to a request, against a hand-written io_uring loop in the same run.
//!
//! NOP operations and 4 KiB reads from the page cache, at depth 1 and 32, both sides on registered files. The last
//! lines are the comparison: nanoseconds a request on both sides (the best of all samples, which is the one least
//! disturbed), the difference, and our rate as a part of the bare loop's.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use exec::{Config, Executor, File, IoSlicesMut, RingKind};
use io_uring::{IoUring, opcode, squeue, types};

const FILE: u64 = 16 << 20;
const BLOCK: u64 = 4096;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Kind {
    Nop,
    Read,
}

/// A walk over the file's blocks that no prefetcher guesses.
struct Walk(u64);

impl Walk {
    fn next(&mut self) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % (FILE / BLOCK) * BLOCK
    }
}

fn bare(kind: Kind, depth: usize, count: u64, file: &OwnedFd) -> Duration {
    let mut ring: IoUring = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_submit_all()
        .build(256)
        .expect("the comparison needs io_uring");
    ring.submitter()
        .register_files(&[file.as_raw_fd()])
        .unwrap();
    let mut buffers = vec![vec![0u8; BLOCK as usize]; depth];
    let mut walk = Walk(1);
    let mut entry = |slot: usize| -> squeue::Entry {
        match kind {
            Kind::Nop => opcode::Nop::new().build(),
            Kind::Read => {
                opcode::Read::new(types::Fixed(0), buffers[slot].as_mut_ptr(), BLOCK as u32)
                    .offset(walk.next())
                    .build()
            }
        }
        .user_data(slot as u64)
    };
    let begin = Instant::now();
    let (mut started, mut done) = (0, 0);
    while started < count.min(depth as u64) {
        // SAFETY: the buffers outlive the ring's use of them: all completions are taken below.
        unsafe { ring.submission().push(&entry(started as usize)).unwrap() };
        started += 1;
    }
    let mut slots = Vec::with_capacity(depth);
    while done < count {
        ring.submit_and_wait(1).unwrap();
        slots.extend(ring.completion().map(|entry| {
            assert!(entry.result() >= 0);
            entry.user_data()
        }));
        done += slots.len() as u64;
        for slot in slots.drain(..) {
            if started < count {
                // SAFETY: as above.
                unsafe { ring.submission().push(&entry(slot as usize)).unwrap() };
                started += 1;
            }
        }
    }
    begin.elapsed()
}

fn engine(executor: &Executor, kind: Kind, depth: usize, count: u64, file: &Rc<File>) -> Duration {
    executor.block_on(async {
        let begin = Instant::now();
        let (walk, left) = (
            Rc::new(std::cell::Cell::new(1)),
            Rc::new(std::cell::Cell::new(count)),
        );
        let running = Rc::new(std::cell::Cell::new(depth));
        let done = Rc::new(exec::sync::Notify::new());
        let finished = done.notified();
        for _ in 0..depth {
            let (file, walk, left) = (Rc::clone(file), Rc::clone(&walk), Rc::clone(&left));
            let (running, done) = (Rc::clone(&running), Rc::clone(&done));
            exec::spawn(async move {
                let mut buffer = vec![0u8; BLOCK as usize];
                while left.get() > 0 {
                    left.set(left.get() - 1);
                    match kind {
                        Kind::Nop => exec::nop().await,
                        Kind::Read => {
                            let mut at = Walk(walk.get());
                            let offset = at.next();
                            walk.set(at.0);
                            file.read_at(offset, IoSlicesMut::from(&mut buffer[..]))
                                .await
                                .unwrap();
                            black_box(&buffer);
                        }
                    }
                }
                running.set(running.get() - 1);
                if running.get() == 0 {
                    done.notify_all();
                }
            });
        }
        finished.await;
        begin.elapsed()
    })
}

fn main() {
    let mut criterion = Criterion::default()
        .configure_from_args()
        .sample_size(40)
        .measurement_time(Duration::from_secs(3));
    let mut image = tempfile::tempfile().unwrap();
    image.write_all(&vec![7; FILE as usize]).unwrap();
    let bare_file = OwnedFd::from(image);
    let file = Rc::new(File::new(bare_file.try_clone().unwrap()).unwrap());
    let executor = Executor::new(Config {
        ring: RingKind::Uring,
        ..Config::default()
    })
    .unwrap();
    let best = std::cell::RefCell::new(BTreeMap::new());
    let note = |name: &'static str, kind, depth, count: u64, time: Duration| {
        let each = time.as_secs_f64() * 1e9 / count as f64;
        let mut best = best.borrow_mut();
        let known = best.entry((kind, depth, name)).or_insert(each);
        *known = each.min(*known);
        time
    };
    for kind in [Kind::Nop, Kind::Read] {
        for depth in [1, 32] {
            let mut group = criterion.benchmark_group(format!("{kind:?} depth {depth}"));
            group.throughput(Throughput::Elements(1));
            // At least some thousands at a time: the set-up of a sample is part of it.
            let scaled = |count: u64, time: Duration| {
                time.div_f64((count.max(20_000) as f64) / count as f64)
            };
            group.bench_function("bare", |bencher| {
                bencher.iter_custom(|count| {
                    let many = count.max(20_000);
                    scaled(
                        count,
                        note(
                            "bare",
                            kind,
                            depth,
                            many,
                            bare(kind, depth, many, &bare_file),
                        ),
                    )
                });
            });
            group.bench_function("engine", |bencher| {
                bencher.iter_custom(|count| {
                    let many = count.max(20_000);
                    scaled(
                        count,
                        note(
                            "engine",
                            kind,
                            depth,
                            many,
                            engine(&executor, kind, depth, many, &file),
                        ),
                    )
                });
            });
            group.finish();
        }
    }
    criterion.final_summary();
    let mut out = std::io::stdout().lock();
    for ((kind, depth, name), bare) in best
        .borrow()
        .iter()
        .filter(|((_, _, name), _)| *name == "bare")
    {
        debug_assert_eq!(*name, "bare");
        if let Some(engine) = best.borrow().get(&(*kind, *depth, "engine")) {
            let line = format!(
                "{kind:?} depth {depth}: bare {bare:.0} ns, engine {engine:.0} ns, overhead {:.0} ns, rate {:.2} of bare",
                engine - bare,
                bare / engine
            );
            writeln!(out, "{line}").unwrap();
        }
    }
}
