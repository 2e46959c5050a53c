use super::*;
use proptest::prelude::*;

const DISK: Disk = Disk {
    capacity: 1000,
    block: 1,
    read_only: false,
    max_discard: 100,
    max_write_zeroes: 200,
};

fn header(kind: u32, sector: u64) -> Vec<u8> {
    let mut bytes = kind.to_le_bytes().to_vec();
    bytes.extend([0; 4]);
    bytes.extend(sector.to_le_bytes());
    bytes
}

fn segment(sector: u64, count: u32, flags: u32) -> Vec<u8> {
    let mut bytes = sector.to_le_bytes().to_vec();
    bytes.extend(count.to_le_bytes());
    bytes.extend(flags.to_le_bytes());
    bytes
}

fn ask(
    kind: u32,
    sector: u64,
    data: &[u8],
    writable: usize,
    disk: &Disk,
) -> Result<Command, Status> {
    let mut bytes = header(kind, sector);
    bytes.extend(data);
    parse(bytes.as_slice().into(), writable, disk)
}

#[test]
fn reads_and_writes_are_in_bytes() {
    assert_eq!(
        ask(0, 3, &[], 1024, &DISK),
        Ok(Command::Read {
            offset: 1536,
            len: 1024
        })
    );
    assert_eq!(
        ask(1, 999, &[0; 512], 0, &DISK),
        Ok(Command::Write {
            offset: 999 * 512,
            len: 512
        })
    );
    assert_eq!(ask(4, 7, &[], 0, &DISK), Ok(Command::Flush));
    assert_eq!(ask(8, 0, &[], 20, &DISK), Ok(Command::GetId { len: 20 }));
    assert_eq!(ask(8, 0, &[], 500, &DISK), Ok(Command::GetId { len: 20 }));
    assert_eq!(ask(8, 0, &[], 3, &DISK), Ok(Command::GetId { len: 3 }));
}

#[test]
fn ch_8401_a_short_header_is_an_error() {
    for len in 0..HEADER {
        assert_eq!(
            parse(header(4, 0)[..len].into(), 512, &DISK),
            Err(Status::IoError)
        );
    }
}

#[test]
fn cve_2011_1750_a_length_that_is_no_multiple_of_the_sector_is_an_error() {
    for len in [1, 511, 513, 1023] {
        assert_eq!(ask(0, 0, &[], len, &DISK), Err(Status::IoError));
        assert_eq!(ask(1, 0, &vec![0; len], 0, &DISK), Err(Status::IoError));
    }
}

#[test]
fn openvmm_4047_a_sector_that_wraps_is_an_error() {
    for sector in [
        u64::MAX,
        u64::MAX / 512,
        u64::MAX / 512 + 1,
        1 << 55,
        1000,
        999 + (1 << 55),
    ] {
        assert_eq!(
            ask(0, sector, &[], 512, &DISK),
            Err(Status::IoError),
            "{sector:#x}"
        );
        assert_eq!(
            ask(1, sector, &[0; 512], 0, &DISK),
            Err(Status::IoError),
            "{sector:#x}"
        );
        for kind in [11, 13] {
            let data = segment(sector, 1, 0);
            assert_eq!(
                ask(kind, 0, &data, 0, &DISK),
                Err(Status::IoError),
                "{sector:#x}"
            );
        }
    }
    assert_eq!(
        ask(0, 999, &[], 1024, &DISK),
        Err(Status::IoError),
        "over the end"
    );
}

#[test]
fn requests_are_whole_blocks() {
    let disk = Disk { block: 8, ..DISK };
    assert_eq!(
        ask(0, 8, &[], 4096, &disk),
        Ok(Command::Read {
            offset: 4096,
            len: 4096
        })
    );
    assert_eq!(ask(0, 1, &[], 4096, &disk), Err(Status::IoError));
    assert_eq!(ask(0, 8, &[], 512, &disk), Err(Status::IoError));
}

#[test]
fn a_read_only_disk_refuses_every_change() {
    let disk = Disk {
        read_only: true,
        ..DISK
    };
    assert_eq!(ask(1, 0, &[0; 512], 0, &disk), Err(Status::IoError));
    assert_eq!(
        ask(11, 0, &segment(0, 1, 0), 0, &disk),
        Err(Status::IoError)
    );
    assert_eq!(
        ask(13, 0, &segment(0, 1, 0), 0, &disk),
        Err(Status::IoError)
    );
    assert!(ask(0, 0, &[], 512, &disk).is_ok());
    assert!(ask(4, 0, &[], 0, &disk).is_ok());
}

#[test]
fn discard_and_write_zeroes_take_segments() {
    let data = [segment(1, 100, 0), segment(999, 1, 0)].concat();
    let ranges = vec![
        Segment {
            offset: 512,
            len: 51200,
            unmap: false,
        },
        Segment {
            offset: 999 * 512,
            len: 512,
            unmap: false,
        },
    ];
    assert_eq!(ask(11, 0, &data, 0, &DISK), Ok(Command::Discard(ranges)));
    let zeroes = Command::WriteZeroes(vec![Segment {
        offset: 0,
        len: 512,
        unmap: true,
    }]);
    assert_eq!(ask(13, 0, &segment(0, 1, 1), 0, &DISK), Ok(zeroes));
}

#[test]
fn segments_keep_to_what_was_said() {
    for kind in [11, 13] {
        let bad = |data: &[u8]| ask(kind, 0, data, 0, &DISK);
        assert_eq!(bad(&[]), Err(Status::IoError), "none");
        assert_eq!(bad(&[0; 15]), Err(Status::IoError), "a part of one");
        assert_eq!(bad(&segment(0, 201, 0)), Err(Status::IoError), "too long");
        assert_eq!(
            bad(&segment(999, 2, 0)),
            Err(Status::IoError),
            "over the end"
        );
        assert_eq!(
            bad(&segment(0, 1, 2)),
            Err(Status::Unsupported),
            "an unknown flag"
        );
        assert_eq!(
            bad(&segment(0, 1, 0).repeat(65)),
            Err(Status::IoError),
            "too many"
        );
        assert!(bad(&segment(0, 1, 0).repeat(64)).is_ok());
    }
    assert_eq!(
        ask(11, 0, &segment(0, 1, 1), 0, &DISK),
        Err(Status::Unsupported),
        "unmap is not discard's"
    );
}

#[test]
fn cve_2026_48914_scsi_and_what_is_not_offered_is_unsupported() {
    for kind in [2, 3, 5, 6, 7, 9, 10, 12, 14, 15, 16, 1 << 31, u32::MAX] {
        assert_eq!(
            ask(kind, 0, &[], 512, &DISK),
            Err(Status::Unsupported),
            "{kind}"
        );
    }
    let disk = Disk {
        max_discard: 0,
        max_write_zeroes: 0,
        ..DISK
    };
    assert_eq!(
        ask(11, 0, &segment(0, 1, 0), 0, &disk),
        Err(Status::Unsupported)
    );
    assert_eq!(
        ask(13, 0, &segment(0, 1, 0), 0, &disk),
        Err(Status::Unsupported)
    );
}

proptest! {
    /// No request reaches outside the disk, whatever it says.
    #[test]
    fn random_requests_stay_inside(
        kind in prop_oneof![0u32..16, any::<u32>()],
        sector in prop_oneof![0u64..1100, any::<u64>()],
        data in prop::collection::vec(any::<u8>(), 0..2048),
        writable in prop_oneof![0usize..2048, any::<usize>()],
        block in 1u32..16,
    ) {
        let disk = Disk { block, ..DISK };
        let end = disk.capacity * SECTOR;
        match ask(kind, sector, &data, writable, &disk) {
            Ok(Command::Read { offset, len } | Command::Write { offset, len }) => {
                prop_assert!(offset + len as u64 <= end);
            }
            Ok(Command::Discard(list) | Command::WriteZeroes(list)) => {
                prop_assert!(list.iter().all(|s| s.offset + s.len <= end));
            }
            _ => {}
        }
    }
}
