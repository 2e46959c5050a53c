use std::fs::OpenOptions;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::sim::{Faults, Sim};
use crate::tests::each_ring;
use crate::{AlignedBuf, Config, Executor, IoSlice, IoSliceMut, IoThread, RingKind, all, spawn};

/// The test on every way an operation can take: each ring, the pool beside it, and a simulation; on this directory's
/// file system and on tmpfs.
fn each_way(test: impl Fn(&Executor, File)) {
    let directories = [Path::new("."), Path::new("/dev/shm")];
    for engine in [Engine::Ring, Engine::Threads] {
        for directory in directories
            .into_iter()
            .filter(|directory| directory.is_dir())
        {
            each_ring(|executor| {
                let file = tempfile::tempfile_in(directory).unwrap();
                test(
                    executor,
                    File::new(file.into()).unwrap().with_engine(engine).unwrap(),
                );
            });
        }
    }
    let sim = Sim::new(11);
    sim.set_faults(Faults {
        short: 300,
        ..Faults::default()
    });
    let executor = Executor::new(Config {
        ring: RingKind::Sim(sim.clone()),
        ..Config::default()
    })
    .unwrap();
    test(&executor, sim.file("file").unwrap());
}

async fn read(file: &File, at: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0xee; len];
    file.read_at(at, IoSlicesMut::from(&mut bytes[..]))
        .await
        .unwrap();
    bytes
}

async fn write(file: &File, at: u64, bytes: &[u8]) {
    file.write_at(at, bytes.into(), false).await.unwrap();
}

#[test]
fn what_is_written_is_read_and_beyond_it_zeroes() {
    each_way(|executor, file| {
        executor.block_on(async {
            assert_eq!(read(&file, 0, 100).await, [0; 100]);
            write(&file, 1000, &[5; 3000]).await;
            let back = read(&file, 500, 5000).await;
            assert!(back[..500].iter().all(|b| *b == 0) && back[500..3500].iter().all(|b| *b == 5));
            assert!(back[3500..].iter().all(|b| *b == 0));
            assert_eq!(read(&file, 1 << 40, 100).await, [0; 100]);
            file.read_at(7, IoSlicesMut::empty()).await.unwrap();
            file.write_at(7, IoSlices::empty(), false).await.unwrap();
            file.write_at(0, (&[9; 10][..]).into(), true).await.unwrap();
            file.sync(Sync::Data).await.unwrap();
            file.sync(Sync::All).await.unwrap();
            assert_eq!(file.len().unwrap(), 4000);
            assert!(!file.is_empty().unwrap());
            assert_eq!(read(&file, 0, 10).await, [9; 10]);
        });
    });
}

#[test]
fn many_pieces_are_one_transfer() {
    each_way(|executor, file| {
        // More than the kernel takes at once (UIO_MAXIOV).
        let parts: Vec<Vec<u8>> = (0..3000usize).map(|n| vec![n as u8; n % 7]).collect();
        let pieces: Vec<_> = parts.iter().map(|part| IoSlice::new(part)).collect();
        let whole = parts.concat();
        executor.block_on(async {
            let window = IoSlices::new(&pieces).slice(5..whole.len() - 5);
            file.write_at(1, window, false).await.unwrap();
            let mut back: Vec<Vec<u8>> = (0..2500usize).map(|n| vec![0; n % 9]).collect();
            let mut pieces: Vec<_> = back.iter_mut().map(|part| IoSliceMut::new(part)).collect();
            let window = IoSlicesMut::new(&mut pieces);
            let len = window.len().min(whole.len() - 10);
            file.read_at(1, window.slice(0..len)).await.unwrap();
            assert!(back.concat()[..len] == whole[5..5 + len]);
        });
    });
}

/// Direct I/O asks for whole blocks, and the kernel takes 1024 pieces at once: those need not be whole blocks together.
#[test]
fn many_small_pieces_are_whole_blocks() {
    let sim = crate::sim::Sim::new(1);
    let alignment = Alignment {
        memory: 4,
        offset: 512,
    };
    let executor = Executor::new(Config {
        ring: RingKind::Sim(sim.clone()),
        ..Config::default()
    })
    .unwrap();
    // 1536 pieces of 12 bytes are 36 blocks; here the first 1024 are 8 bytes short of 24.
    let lens: Vec<usize> = [4].into_iter().chain([12; 1534]).chain([20]).collect();
    let whole: Vec<u32> = (0..36 * 128).map(|n| n * 7 + 1).collect();
    let mut back = whole.iter().map(|_| 0).collect::<Vec<u32>>();
    executor.block_on(async {
        let file = sim.file_aligned("disk", alignment).unwrap();
        let mut words = whole.as_slice();
        let pieces: Vec<_> = lens
            .iter()
            .map(|len| {
                let (now, rest) = words.split_at(len / 4);
                words = rest;
                // SAFETY: these are bytes of `whole`.
                unsafe { IoSlice::from_raw_parts(now.as_ptr().cast(), *len) }
            })
            .collect();
        file.write_at(0, IoSlices::new(&pieces), false)
            .await
            .unwrap();
        let mut words = back.as_mut_slice();
        let mut pieces: Vec<_> = lens
            .iter()
            .map(|len| {
                let (now, rest) = std::mem::take(&mut words).split_at_mut(len / 4);
                words = rest;
                // SAFETY: these are bytes of `back`, which is not looked at meanwhile.
                unsafe { IoSliceMut::from_raw_parts(now.as_mut_ptr().cast(), *len) }
            })
            .collect();
        file.read_at(0, IoSlicesMut::new(&mut pieces))
            .await
            .unwrap();
    });
    assert_eq!(back, whole);
}

#[test]
fn many_operations_at_once() {
    each_way(|executor, file| {
        let file = &file;
        executor.block_on(async {
            all((0..300u64).map(|n| async move { write(file, n * 512, &[n as u8; 512]).await }))
                .await;
            let blocks = all((0..300u64).map(|n| read(file, n * 512, 512))).await;
            assert!(
                blocks
                    .iter()
                    .enumerate()
                    .all(|(n, block)| block.iter().all(|b| *b == n as u8))
            );
        });
    });
}

#[test]
fn space_comes_and_goes() {
    each_way(|executor, file| {
        executor.block_on(async {
            write(&file, 0, &[7; 65536]).await;
            file.sync(Sync::All).await.unwrap();
            file.allocate(Allocate::PunchHole, 8192..16384)
                .await
                .unwrap();
            assert_eq!(file.data_at(8192..65536).await.unwrap(), (false, 16384));
            assert_eq!(file.data_at(0..65536).await.unwrap(), (true, 8192));
            assert_eq!(read(&file, 8000, 400).await[192..], [0; 208]);
            match file
                .allocate(Allocate::ZeroRange { keep_size: true }, 60000..70000)
                .await
            {
                Ok(()) => assert_eq!(read(&file, 59999, 100).await[..2], [7, 0]),
                // tmpfs
                Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EOPNOTSUPP)),
            }
            assert_eq!(file.len().unwrap(), 65536);
            file.allocate(Allocate::Reserve { keep_size: false }, 0..131_072)
                .await
                .unwrap();
            assert_eq!(file.len().unwrap(), 131_072);
            file.set_len(100).await.unwrap();
            assert_eq!(file.len().unwrap(), 100);
            assert_eq!(file.seek_data(200).await.unwrap(), None);
            assert_eq!(file.data_at(200..300).await.unwrap(), (false, 300));
            let error = file.allocate(Allocate::PunchHole, 5..5).await.unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
        });
    });
}

#[test]
fn ranges_that_no_file_has_are_refused() {
    each_way(|executor, file| {
        executor.block_on(async {
            for at in [u64::MAX, u64::MAX - 5, 1 << 63, (1 << 63) - 5] {
                let error = file
                    .write_at(at, (&[0; 10][..]).into(), false)
                    .await
                    .unwrap_err();
                assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
                let error = file
                    .read_at(at, (&mut [0; 10][..]).into())
                    .await
                    .unwrap_err();
                assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
                let error = file.discard(at..at.wrapping_add(10)).await.unwrap_err();
                assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
            }
        });
    });
}

#[test]
fn the_kernels_errors_come_through() {
    each_ring(|executor| {
        let path = tempfile::NamedTempFile::new().unwrap();
        let file = File::new(std::fs::File::open(path.path()).unwrap().into()).unwrap();
        assert!(file.is_read_only() && file.kind() == FileKind::Regular);
        executor.block_on(async {
            let error = file
                .write_at(0, (&[0; 10][..]).into(), false)
                .await
                .unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EBADF));
            // As root sees it and as a user does.
            let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
            let full = File::new(full.into()).unwrap();
            let error = full
                .write_at(0, (&[0; 10][..]).into(), false)
                .await
                .unwrap_err();
            assert_eq!(
                (error.raw_os_error(), full.kind()),
                (Some(libc::ENOSPC), FileKind::CharDevice)
            );
        });
    });
}

#[test]
fn direct_io_ends_at_the_end_of_the_file() {
    each_ring(|executor| {
        let path = tempfile::NamedTempFile::new_in(".").unwrap();
        path.as_file().write_all_at(&[3; 5000], 0).unwrap();
        let direct = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_DIRECT)
            .open(path.path());
        let Ok(direct) = direct else { return };
        let file = File::new(direct.into()).unwrap();
        let alignment = file.direct_alignment();
        assert!(
            alignment.offset >= 512 && alignment.memory >= 4,
            "{alignment:?}"
        );
        let mut buf = AlignedBuf::new(16384, 4096).unwrap();
        buf.as_mut_slice().fill(0xee);
        executor.block_on(async {
            file.read_at(0, buf.as_mut_slice().into()).await.unwrap();
            assert!(buf.as_slice()[..5000].iter().all(|b| *b == 3));
            assert!(buf.as_slice()[5000..].iter().all(|b| *b == 0));
            file.write_at(8192, (&buf.as_slice()[..4096]).into(), false)
                .await
                .unwrap();
            assert_eq!(file.len().unwrap(), 12288);
        });
    });
}

/// Whether any descriptor, registered or not, holds the file open: an exclusive lease can be had on no such file.
fn is_held(path: &Path) -> bool {
    let probe = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    // SAFETY: plain numbers.
    unsafe { libc::fcntl(probe.as_raw_fd(), libc::F_SETLEASE, libc::F_WRLCK) != 0 }
}

#[test]
fn a_dropped_file_is_not_kept_open_by_rings() {
    let threads: Vec<_> = (0..2)
        .map(|_| IoThread::spawn(Config::default()).unwrap())
        .collect();
    for by_close in [true, false] {
        let path = tempfile::NamedTempFile::new_in(".")
            .unwrap()
            .into_temp_path();
        let opened = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .unwrap();
        let file = Arc::new(File::new(opened.into()).unwrap());
        for thread in &threads {
            let file = Arc::clone(&file);
            thread
                .handle()
                .call_blocking(move || async move { write(&file, 0, &[1; 512]).await });
        }
        assert!(is_held(&path));
        let file = Arc::into_inner(file).unwrap();
        if by_close {
            threads[0].handle().call_blocking(move || file.close());
        } else {
            drop(file);
        }
        // The kernel lets go of a slot's file a moment after the slot is emptied.
        let limit = std::time::Instant::now() + Duration::from_secs(10);
        while is_held(&path) {
            assert!(std::time::Instant::now() < limit, "still open somewhere");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    threads
        .into_iter()
        .for_each(|thread| thread.stop(Duration::from_secs(10)).unwrap());
}

#[test]
fn a_slot_is_used_again() {
    each_ring(|executor| {
        executor.block_on(async {
            for n in 0..50u8 {
                let file = File::new(tempfile::tempfile().unwrap().into()).unwrap();
                write(&file, 0, &[n; 64]).await;
                assert_eq!(read(&file, 0, 64).await, [n; 64]);
                let other = File::new(tempfile::tempfile().unwrap().into()).unwrap();
                assert_eq!(read(&other, 0, 64).await, [0; 64]);
            }
        });
    });
}

#[test]
fn one_task_does_not_starve_others_from_the_cache() {
    each_ring(|executor| {
        let file = File::new(tempfile::tempfile_in("/dev/shm").unwrap().into()).unwrap();
        executor.block_on(async {
            write(&file, 0, &[1; 4096]).await;
            let other = std::rc::Rc::new(std::cell::Cell::new(false));
            let ran = std::rc::Rc::clone(&other);
            spawn(async move { ran.set(true) });
            for _ in 0..200 {
                read(&file, 0, 512).await;
            }
            assert!(other.get());
        });
    });
}

#[test]
fn one_file_on_many_threads() {
    let file = Arc::new(File::new(tempfile::tempfile().unwrap().into()).unwrap());
    let threads: Vec<_> = [RingKind::Auto, RingKind::Threads, RingKind::Auto]
        .map(|ring| {
            IoThread::spawn(Config {
                ring,
                ..Config::default()
            })
            .unwrap()
        })
        .into();
    for (n, thread) in threads.iter().enumerate() {
        for task in 0..8u64 {
            let (file, place) = (Arc::clone(&file), n as u64 * 8 + task);
            thread.handle().spawn(move || async move {
                for round in 0..50u8 {
                    write(&file, place * 4096, &[round; 4096]).await;
                    assert_eq!(read(&file, place * 4096, 4096).await, [round; 4096]);
                }
            });
        }
    }
    threads
        .into_iter()
        .for_each(|thread| thread.stop(Duration::from_secs(30)).unwrap());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Operations in sequence on a real file are those on a byte vector.
    #[test]
    fn a_file_is_a_byte_vector(ops in prop::collection::vec(
        (0..3u8, 0..70_000u64, 1..9000usize, any::<u8>()), 1..20)) {
        each_way(|executor, file| {
            let mut model: Vec<u8> = Vec::new();
            executor.block_on(async {
                for (what, at, len, fill) in &ops {
                    let (start, end) = (*at as usize, *at as usize + len);
                    match what {
                        0 => {
                            let got = read(&file, *at, *len).await;
                            let want: Vec<_> = (start..end).map(|n| model.get(n).copied().unwrap_or(0)).collect();
                            assert!(got == want);
                        }
                        1 => {
                            write(&file, *at, &vec![*fill; *len]).await;
                            model.resize(model.len().max(end), 0);
                            model[start..end].fill(*fill);
                        }
                        _ => {
                            file.discard(*at..end as u64).await.unwrap();
                            let end = end.min(model.len());
                            model[start.min(end)..end].fill(0);
                        }
                    }
                }
            });
        });
    }
}

/// The list of pieces is the kernel's until the read has ended: it reads it when the ring is entered, which the drop does.
#[test]
fn a_list_of_pieces_outlives_what_is_dropped_in_flight() {
    let Ok(executor) = Executor::new(Config {
        ring: RingKind::Uring,
        ..Config::default()
    }) else {
        return;
    };
    // Whose data is there: the read is done as soon as it is asked for, before it could be cancelled.
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    rustix::io::write(&writer, &[7; 64]).unwrap();
    let file = File::new(reader).unwrap();
    let (mut first, mut second) = ([0; 32], [0; 32]);
    let mut pieces = [IoSliceMut::new(&mut first), IoSliceMut::new(&mut second)];
    let read = crate::tests::poll_once(file.read_at(0, IoSlicesMut::new(&mut pieces)));
    let dropping = std::panic::AssertUnwindSafe(|| executor.block_on(read));
    assert!(std::panic::catch_unwind(dropping).is_err());
    assert_eq!([first, second], [[7; 32]; 2]);
}
