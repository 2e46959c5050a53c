use proptest::prelude::*;

use super::*;
use crate::{Config, Executor, IoSlices, IoSlicesMut, RingKind, Sync, all};

fn run<F: Future>(sim: &Sim, future: F) -> F::Output {
    Executor::new(Config {
        ring: RingKind::Sim(sim.clone()),
        ..Config::default()
    })
    .unwrap()
    .block_on(future)
}

async fn put(file: &File, at: u64, bytes: &[u8]) -> io::Result<()> {
    file.write_at(at, bytes.into(), false).await
}

#[test]
fn completion_order_is_the_seeds() {
    let order = |seed| {
        let sim = Sim::new(seed);
        let order = std::cell::RefCell::new(Vec::new());
        run(
            &sim,
            all((0..10).map(|n| {
                let order = &order;
                async move {
                    crate::nop().await;
                    order.borrow_mut().push(n);
                }
            })),
        );
        order.into_inner()
    };
    let orders: std::collections::BTreeSet<_> = (0..20).map(order).collect();
    // Results are looked at in the order of the futures, so few orders are possible; more than one must occur.
    assert!(orders.len() > 1);
    assert_eq!(order(5), order(5));
}

#[test]
fn short_transfers_are_continued() {
    let sim = Sim::new(1);
    sim.set_faults(Faults {
        short: 900,
        ..Faults::default()
    });
    let file = sim.file("a").unwrap();
    let data: Vec<u8> = (0..5000u32).map(|n| n as u8).collect();
    let back = run(&sim, async {
        put(&file, 77, &data).await.unwrap();
        let mut back = vec![1; 6000];
        file.read_at(77, IoSlicesMut::from(&mut back[..]))
            .await
            .unwrap();
        back
    });
    assert_eq!(back[..5000], data);
    assert_eq!(back[5000..], [0; 1000]);
    assert!(sim.steps() > 1);
}

#[test]
fn errors_are_told_as_they_are() {
    let sim = Sim::new(1);
    sim.fail(OpKind::Write, 1, libc::ENOSPC);
    sim.fail(OpKind::Sync, 0, libc::EIO);
    let file = sim.file("a").unwrap();
    run(&sim, async {
        put(&file, 0, b"one").await.unwrap();
        assert_eq!(
            put(&file, 3, b"two").await.unwrap_err().raw_os_error(),
            Some(libc::ENOSPC)
        );
        assert_eq!(
            file.sync(Sync::Data).await.unwrap_err().raw_os_error(),
            Some(libc::EIO)
        );
        put(&file, 3, b"two").await.unwrap();
        file.sync(Sync::Data).await.unwrap();
        assert_eq!(
            put(&file, 1 << 40, b"far")
                .await
                .unwrap_err()
                .raw_os_error(),
            Some(libc::EFBIG)
        );
    });
    assert_eq!(sim.contents("a"), b"onetwo");
}

#[test]
fn misaligned_requests_are_refused() {
    let sim = Sim::new(1);
    let file = sim
        .file_aligned(
            "a",
            Alignment {
                memory: 512,
                offset: 4096,
            },
        )
        .unwrap();
    assert_eq!(
        file.direct_alignment(),
        Alignment {
            memory: 512,
            offset: 4096
        }
    );
    let buf = crate::AlignedBuf::new(8192, 4096).unwrap();
    run(&sim, async {
        let all = IoSlices::from(buf.as_slice());
        file.write_at(4096, all, false).await.unwrap();
        for (at, part) in [(512, 0..4096), (0, 0..512), (0, 1..4097)] {
            let error = file.write_at(at, all.slice(part), false).await.unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
        }
    });
}

#[test]
fn files_of_another_world_are_refused() {
    let file = Sim::new(1).file("a").unwrap();
    let read = |executor: &Executor| {
        executor
            .block_on(file.read_at(0, IoSlicesMut::from(&mut [0; 8][..])))
            .unwrap_err()
            .raw_os_error()
    };
    crate::tests::each_ring(|executor| assert_eq!(read(executor), Some(libc::EBADF)));
    let other = Executor::new(Config {
        ring: RingKind::Sim(Sim::new(1)),
        ..Config::default()
    })
    .unwrap();
    assert_eq!(read(&other), Some(libc::EBADF));
}

/// A log that writes a record, flushes, and only then counts it in the header: the classic rule. Whatever the step at
/// which the power goes and whatever survives, counted records are whole.
async fn append(file: &File, n: u64, flush: bool) -> io::Result<()> {
    put(file, 4096 * (n + 1), &[n as u8 + 1; 4096]).await?;
    if flush {
        file.sync(Sync::Data).await?;
    }
    put(file, 0, &(n + 1).to_le_bytes()).await
}

fn counted_records_are_whole(sim: &Sim) -> bool {
    let bytes = sim.contents("log");
    let count = bytes
        .get(..8)
        .map_or(0, |count| u64::from_le_bytes(count.try_into().unwrap()));
    (0..count).all(|n| {
        bytes
            .get(4096 * (n as usize + 1)..4096 * (n as usize + 2))
            .is_some_and(|r| r.iter().all(|b| *b == n as u8 + 1))
    })
}

fn crash_everywhere(flush: bool) -> bool {
    (0..200).all(|seed| {
        let sim = Sim::new(seed);
        sim.crash_at(seed % 12);
        let file = sim.file("log").unwrap();
        let result = run(&sim, async {
            for n in 0..4 {
                append(&file, n, flush).await?;
            }
            io::Result::Ok(())
        });
        assert_eq!(result.is_err(), sim.crashed());
        counted_records_are_whole(&sim.survivors())
    })
}

#[test]
fn flushed_data_survives_every_crash() {
    assert!(crash_everywhere(true));
}

#[test]
fn a_missing_flush_is_found() {
    assert!(!crash_everywhere(false));
}

#[test]
fn durable_writes_survive_without_a_flush() {
    for seed in 0..50 {
        let sim = Sim::new(seed);
        let file = sim.file("a").unwrap();
        run(&sim, async {
            put(&file, 0, &[1; 2048]).await.unwrap();
            file.write_at(512, (&[2; 512][..]).into(), true)
                .await
                .unwrap();
            put(&file, 2048, &[3; 2048]).await.unwrap();
        });
        assert_eq!(sim.survivors().contents("a")[512..1024], [2; 512]);
    }
}

#[test]
fn holes_are_known() {
    let sim = Sim::new(3);
    let file = sim.file("a").unwrap();
    run(&sim, async {
        file.set_len(65536).await.unwrap();
        put(&file, 8192, &[1; 8192]).await.unwrap();
        assert_eq!(file.data_at(0..65536).await.unwrap(), (false, 8192));
        assert_eq!(file.data_at(8192..65536).await.unwrap(), (true, 16384));
        assert_eq!(file.data_at(9000..10000).await.unwrap(), (true, 10000));
        assert_eq!(file.data_at(16384..65536).await.unwrap(), (false, 65536));
        file.discard(8192..12288).await.unwrap();
        assert_eq!(file.data_at(0..65536).await.unwrap(), (false, 12288));
        assert_eq!(
            (file.allocated().unwrap(), file.len().unwrap()),
            (4096, 65536)
        );
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Sequential operations on a simulated file are those on a byte vector, however short the transfers.
    #[test]
    fn is_a_byte_vector(seed: u64, short in 0..900u32, ops in prop::collection::vec(
        (0..4u8, 0..20_000u64, 0..9000usize, any::<u8>()), 1..30)) {
        let sim = Sim::new(seed);
        sim.set_faults(Faults { short, ..Faults::default() });
        let file = sim.file("a").unwrap();
        let mut model: Vec<u8> = Vec::new();
        run(&sim, async {
            for (what, at, len, fill) in ops {
                let end = at as usize + len;
                match what {
                    0 => {
                        let mut got = vec![fill; len];
                        file.read_at(at, IoSlicesMut::from(&mut got[..])).await.unwrap();
                        let want: Vec<_> = (at as usize..end).map(|n| model.get(n).copied().unwrap_or(0)).collect();
                        assert!(got == want);
                    }
                    1 => {
                        put(&file, at, &vec![fill; len]).await.unwrap();
                        if len > 0 {
                            model.resize(model.len().max(end), 0);
                            model[at as usize..end].fill(fill);
                        }
                    }
                    2 if len > 0 => {
                        file.zero_out(at..end as u64).await.unwrap();
                        let end = end.min(model.len());
                        model[(at as usize).min(end)..end].fill(0);
                    }
                    _ => {
                        file.set_len(end as u64).await.unwrap();
                        model.resize(end, 0);
                    }
                }
            }
        });
        prop_assert!(sim.contents("a") == model);
    }
}
