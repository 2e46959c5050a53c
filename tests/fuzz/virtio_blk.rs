//! Fuzzes what a guest writes for its disk: the ring, the chains in it, the requests in those.
//!
//! The input says where the rings are and what lies in guest memory: bytes 0 to 7 are flags, the
//! logarithm of the queue size and the places of the three parts of the ring; then come pieces of
//! memory: offset (2 bytes), length (1 byte), content. Whatever it says, every buffer lies in guest
//! RAM, every command on the disk, and no chain is lost.
//!
//! Needs sanitizer coverage, which stable Rust has for an explicit target and in a target directory
//! of its own (so that build scripts are not instrumented):
//!
//! ```text
//! RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
//!   -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
//!   -Cdebug-assertions -Coverflow-checks" \
//! cargo build --release -p fuzz --target x86_64-unknown-linux-gnu --target-dir target/fuzz
//! target/fuzz/x86_64-unknown-linux-gnu/release/virtio_blk -max_total_time=30 -max_len=4096 \
//!   -dict=tests/fuzz/virtio_blk.dict CORPUS tests/fuzz/seeds/virtio_blk
//! ```
//!
//! `CORPUS` is a directory for what it finds interesting; an input that fails is left in the current
//! directory, and is run again by giving its name instead.
#![no_main]

use std::ops::Range;
use std::sync::{Arc, LazyLock};

use devices::memory::{GuestBuffers, GuestRam};
use devices::virtio::blk::request::{Command, Disk, parse, payload};
use devices::virtio::queue::{Layout, Ring, SplitRing};
use libfuzzer_sys::fuzz_target;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

/// Two regions that touch, so that buffers can cross from one to the other.
const REGION: usize = 0x8000;
const MAX: u16 = 64;
const DISK: Disk = Disk {
    capacity: 1 << 20,
    block: 1,
    read_only: false,
    max_discard: 1 << 16,
    max_write_zeroes: 1 << 16,
};

static RAM: LazyLock<Arc<GuestRam>> = LazyLock::new(|| {
    let regions = [
        (GuestAddress(0), REGION),
        (GuestAddress(REGION as u64), REGION),
    ];
    Arc::new(GuestRam::from_ranges(&regions).expect("64 KiB of memory"))
});

/// Where guest RAM is in the host.
static HOST: LazyLock<Vec<Range<usize>>> = LazyLock::new(|| {
    let start = |at| {
        let host = RAM.get_host_address(GuestAddress(at));
        host.expect("guest RAM is mapped").addr()
    };
    let starts = [start(0), start(REGION as u64)];
    starts.map(|start| start..start + REGION).to_vec()
});

fuzz_target!(|input: &[u8]| {
    if let Some((head, memory)) = input.split_first_chunk::<8>() {
        run(head, memory);
    }
});

fn run(head: &[u8; 8], mut memory: &[u8]) {
    let [flags, size, places @ ..] = *head;
    let place = |index: usize| u64::from(u16::from_le_bytes([places[index], places[index + 1]]));
    let layout = Layout {
        size: 1u16.checked_shl(size.into()).unwrap_or(size.into()),
        descriptors: place(0) << 4,
        available: place(2) << 1,
        used: place(4) << 2,
    };
    let ram = &*RAM;
    let write = |bytes: &[u8], at: usize| {
        let len = bytes.len().min((2 * REGION).saturating_sub(at));
        ram.write_slice(&bytes[..len], GuestAddress(at as u64))
            .expect("inside RAM");
    };
    write(&[0; 2 * REGION], 0);
    while let Some(([low, high, len], rest)) = memory.split_first_chunk() {
        let (bytes, rest) = rest.split_at(rest.len().min((*len).into()));
        write(bytes, u16::from_le_bytes([*low, *high]).into());
        memory = rest;
    }
    let Ok(mut ring) = SplitRing::new(ram.clone(), MAX, &layout, flags & 1 != 0) else {
        return;
    };
    let disk = Disk {
        block: if flags & 2 != 0 { 8 } else { 1 },
        read_only: flags & 4 != 0,
        ..DISK
    };
    let mut answers = Vec::new();
    // Answers change memory, rings among it, so this may go round for long.
    for _ in 0..256 {
        match ring.pop() {
            Ok(Some(mut chain)) => {
                let written = request(chain.buffers(), &disk);
                answers.push(chain.complete(written));
            }
            Ok(None) if answers.is_empty() => break,
            Ok(None) => {
                if ring.publish(&answers).is_err() || ring.enable_notification().is_err() {
                    break;
                }
                answers.clear();
            }
            Err(_) => break,
        }
    }
}

/// Carries a request out as far as that needs no disk. Returns how much was written to the guest.
fn request(buffers: &mut GuestBuffers, disk: &Disk) -> u32 {
    for piece in buffers.readable().pieces() {
        inside(piece.as_ptr().addr(), piece.len());
    }
    for piece in buffers.writable().as_slices().pieces() {
        inside(piece.as_ptr().addr(), piece.len());
    }
    let room = buffers.writable().len();
    let Some(data) = room.checked_sub(1) else {
        return 0;
    };
    let end = disk.capacity * 512;
    let parsed = parse(buffers.readable(), data, disk);
    match &parsed {
        Ok(Command::Read { offset, len }) => {
            assert!(offset + *len as u64 <= end && *len <= data);
            buffers.writable().slice(0..*len).fill_zero();
        }
        Ok(Command::Write { offset, len }) => {
            assert!(!disk.read_only && offset + *len as u64 <= end);
            assert_eq!(payload(buffers.readable()).len(), *len);
            payload(buffers.readable()).is_zero();
        }
        Ok(Command::GetId { len }) => buffers.writable().copy_from(&[0x20; 20][..*len]),
        Ok(Command::Discard(segments) | Command::WriteZeroes(segments)) => {
            assert!(!disk.read_only);
            assert!(segments.iter().all(|s| s.offset + s.len <= end));
        }
        Ok(Command::Flush) | Err(_) => {}
    }
    buffers
        .writable()
        .slice(data..room)
        .copy_from(&[u8::from(parsed.is_err())]);
    room as u32
}

/// Checks that a piece of host memory is guest RAM.
fn inside(start: usize, len: usize) {
    let end = start.checked_add(len).expect("a piece wraps");
    let found = HOST
        .iter()
        .any(|region| region.start <= start && end <= region.end);
    assert!(found, "a buffer is outside guest RAM");
}
