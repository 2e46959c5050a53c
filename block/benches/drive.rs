//! What a drive adds to a request: Drive → raw → file against a hand-written io_uring loop in the same run.
//!
//! 4 KiB reads from the page cache on registered files at depth 1 and 32; flushes of Drive → raw → null-co
//! for the graph alone. The last lines are the comparison, from the best of all samples, which is the
//! least disturbed one: nanoseconds a request, and our rate as a part of the bare loop's.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::hint::black_box;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use block::{Attach, Drive, DriveConfig, Graph, Request};
use criterion::{Criterion, Throughput};
use exec::{Config, Executor, RingKind};
use io_uring::{IoUring, opcode, types};

const FILE: u64 = 16 << 20;
const BLOCK: u64 = 4096;
/// The set-up of a sample is part of it, so a sample is never smaller.
const AT_LEAST: u64 = 20_000;

/// The next place of a walk over the file's blocks that no prefetcher guesses.
fn walk(at: &Cell<u64>) -> u64 {
    at.set(
        at.get()
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407),
    );
    (at.get() >> 33) % (FILE / BLOCK) * BLOCK
}

fn bare(path: &Path, depth: usize, count: u64) -> Duration {
    let file = std::fs::File::open(path).unwrap();
    let mut ring: IoUring = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .build(256)
        .expect("the comparison needs io_uring");
    ring.submitter()
        .register_files(&[file.as_raw_fd()])
        .unwrap();
    let mut buffers = vec![vec![0u8; BLOCK as usize]; depth];
    let at = Cell::new(1);
    let mut push = |ring: &mut IoUring, slot: usize| {
        let entry = opcode::Read::new(types::Fixed(0), buffers[slot].as_mut_ptr(), BLOCK as u32)
            .offset(walk(&at))
            .build();
        // SAFETY: the buffers live until all completions are taken, below.
        unsafe {
            ring.submission()
                .push(&entry.user_data(slot as u64))
                .unwrap()
        };
    };
    let begin = Instant::now();
    let (mut started, mut done) = (0, 0);
    while started < count.min(depth as u64) {
        push(&mut ring, started as usize);
        started += 1;
    }
    let mut slots = Vec::with_capacity(depth);
    while done < count {
        ring.submit_and_wait(1).unwrap();
        slots.extend(ring.completion().map(|entry| {
            assert_eq!(entry.result(), BLOCK as i32);
            entry.user_data()
        }));
        done += slots.len() as u64;
        for slot in slots.drain(..) {
            if started < count {
                push(&mut ring, slot as usize);
                started += 1;
            }
        }
    }
    begin.elapsed()
}

/// `depth` tasks that make `count` requests together.
fn through(
    executor: &Executor,
    drive: &Arc<Drive>,
    read: bool,
    depth: usize,
    count: u64,
) -> Duration {
    executor.block_on(async {
        let begin = Instant::now();
        let (at, left) = (Rc::new(Cell::new(1)), Rc::new(Cell::new(count)));
        let tasks = (0..depth).map(|_| {
            let (drive, at, left) = (Arc::clone(drive), Rc::clone(&at), Rc::clone(&left));
            async move {
                let mut buffer = vec![0u8; BLOCK as usize];
                while left.get() > 0 {
                    left.set(left.get() - 1);
                    let request = if read {
                        Request::read(walk(&at), buffer.as_mut_slice())
                    } else {
                        Request::flush()
                    };
                    drive.submit(request).await.unwrap();
                    black_box(&buffer);
                }
            }
        });
        let done = Rc::new(exec::sync::Notify::new());
        let (finished, running) = (done.notified(), Rc::new(Cell::new(depth)));
        for task in tasks {
            let (done, running) = (Rc::clone(&done), Rc::clone(&running));
            exec::spawn(async move {
                task.await;
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
        .sample_size(30)
        .measurement_time(Duration::from_secs(3));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    std::fs::write(&path, vec![7; FILE as usize]).unwrap();
    let executor = Executor::new(Config {
        ring: RingKind::Uring,
        ..Config::default()
    })
    .unwrap();
    let graph = Graph::new();
    let open = |options: &str, id: &str| {
        executor.block_on(async {
            let config =
                DriveConfig::parse(&format!("{options},format=raw,if=none,id={id}")).unwrap();
            graph.add_drive(&config).await.unwrap();
            graph
                .attach(
                    id,
                    &Attach {
                        device: id.to_owned(),
                        ..Attach::default()
                    },
                )
                .await
                .unwrap()
        })
    };
    let file = open(&format!("file={}", path.display()), "file");
    let null = open("file=null-co://", "null");
    let best = RefCell::new(BTreeMap::new());
    let mut measure = |name: &'static str, depth: usize, sample: &dyn Fn(u64) -> Duration| {
        let mut group = criterion.benchmark_group(format!("depth {depth}"));
        group.throughput(Throughput::Elements(1));
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|count| {
                let many = count.max(AT_LEAST);
                let time = sample(many);
                let each = time.as_secs_f64() * 1e9 / many as f64;
                best.borrow_mut()
                    .entry((depth, name))
                    .and_modify(|best: &mut f64| *best = best.min(each))
                    .or_insert(each);
                time.div_f64(many as f64 / count as f64)
            });
        });
        group.finish();
    };
    for depth in [1, 32] {
        measure("bare read", depth, &|count| bare(&path, depth, count));
        measure("drive read", depth, &|count| {
            through(&executor, &file, true, depth, count)
        });
        measure("null drive", depth, &|count| {
            through(&executor, &null, false, depth, count)
        });
    }
    criterion.final_summary();
    let best = best.borrow();
    let mut out = std::io::stdout().lock();
    for depth in [1, 32] {
        let of = |name| best.get(&(depth, name)).copied();
        if let (Some(bare), Some(drive), Some(null)) =
            (of("bare read"), of("drive read"), of("null drive"))
        {
            let (over, rate) = (drive - bare, bare / drive);
            writeln!(
                out,
                "depth {depth}: bare {bare:.0} ns, drive {drive:.0} ns, overhead {over:.0} ns, rate {rate:.2} of bare; \
                 graph alone {null:.0} ns"
            )
            .unwrap();
        }
    }
}
