use super::*;
use vm_memory::Bytes;

const SPLIT: u64 = 0x4000;

/// Two regions that touch, and nothing behind them.
fn ram() -> Arc<GuestRam> {
    let regions = [
        (GuestAddress(0), SPLIT as usize),
        (GuestAddress(SPLIT), 0x1000),
    ];
    Arc::new(GuestRam::from_ranges(&regions).unwrap())
}

#[test]
fn a_range_may_cross_regions() {
    let ram = ram();
    let mut buffers = GuestBuffers::new(ram.clone());
    buffers.push_writable(GuestAddress(SPLIT - 2), 4).unwrap();
    buffers.push_readable(GuestAddress(SPLIT - 2), 4).unwrap();
    buffers.writable().copy_from(b"abcd");
    let mut seen = [0; 4];
    ram.read_slice(&mut seen, GuestAddress(SPLIT - 2)).unwrap();
    assert_eq!(&seen, b"abcd");
    buffers.readable().copy_to(&mut seen);
    assert_eq!(&seen, b"abcd");
    assert_eq!(buffers.readable().len(), 4);
}

#[test]
fn no_byte_outside_ram_is_named() {
    let mut buffers = GuestBuffers::new(ram());
    let end = SPLIT + 0x1000;
    for (at, len) in [
        (end, 1),
        (end - 1, 2),
        (0, end as usize + 1),
        (u64::MAX, 1),
        (u64::MAX, 2),
        (u64::MAX - 0xfff, 0x2000),
        (1 << 63, 16),
        (0, usize::MAX),
    ] {
        assert_eq!(buffers.push_readable(GuestAddress(at), len), Err(OutOfRam));
        assert_eq!(buffers.push_writable(GuestAddress(at), len), Err(OutOfRam));
    }
    buffers.push_readable(GuestAddress(end - 1), 1).unwrap();
}

#[test]
fn no_bytes_are_no_piece() {
    let mut buffers = GuestBuffers::new(ram());
    buffers.push_readable(GuestAddress(u64::MAX), 0).unwrap();
    buffers.push_writable(GuestAddress(u64::MAX), 0).unwrap();
    assert!(buffers.readable().is_empty() && buffers.writable().is_empty());
}

#[test]
fn cve_2026_45782_memory_outlives_the_machine_that_dropped_it() {
    let ram = ram();
    let mut buffers = GuestBuffers::new(ram.clone());
    buffers.push_writable(GuestAddress(0), 0x1000).unwrap();
    drop(ram);
    buffers.writable().copy_from(&[7; 0x1000]);
}
