//! What a host's disk says about itself in sysfs (Documentation/ABI/stable/sysfs-block).

use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use crate::driver::Limits;

/// `limits` with what the device behind `fd` adds; unchanged where sysfs does not tell.
pub(super) fn limits(fd: BorrowedFd<'_>, limits: Limits) -> Limits {
    match rustix::fs::fstat(fd) {
        Ok(stat) => {
            let device = format!(
                "{}:{}",
                rustix::fs::major(stat.st_rdev),
                rustix::fs::minor(stat.st_rdev)
            );
            from_queue(&Path::new("/sys/dev/block").join(device), limits)
        }
        Err(_) => limits,
    }
}

fn from_queue(device: &Path, limits: Limits) -> Limits {
    // A partition has no queue of its own; its disk is the folder above.
    let queue = [device.join("queue"), device.join("../queue")]
        .into_iter()
        .find(|queue| queue.exists());
    let read = |name: &str| number(queue.as_ref()?.join(name));
    let block = |name: &str| read(name).and_then(|value| u32::try_from(value).ok());
    let power = |name: &str| block(name).filter(|value| value.is_power_of_two());
    let logical = power("logical_block_size")
        .unwrap_or(512)
        .max(limits.request_alignment);
    let most = |name: &str| read(name).filter(|bytes| *bytes > 0).unwrap_or(u64::MAX);
    Limits {
        logical_block: logical,
        physical_block: power("physical_block_size").unwrap_or(logical).max(logical),
        min_io: block("minimum_io_size").unwrap_or(0),
        opt_io: block("optimal_io_size").unwrap_or(0),
        // The kernel refuses discards and zeroing of parts of a block.
        discard_alignment: power("discard_granularity").unwrap_or(logical).max(logical),
        max_discard: most("discard_max_bytes"),
        write_zeroes_alignment: logical,
        ..limits
    }
}

fn number(path: PathBuf) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_has_its_disks_queue() {
        let sysfs = tempfile::tempdir().unwrap();
        let (queue, partition) = (
            sysfs.path().join("sda/queue"),
            sysfs.path().join("sda/sda1"),
        );
        std::fs::create_dir_all(&queue).unwrap();
        std::fs::create_dir_all(&partition).unwrap();
        let facts = [
            ("logical_block_size", "512"),
            ("physical_block_size", "4096"),
            ("minimum_io_size", "4096"),
            ("optimal_io_size", "0"),
            ("discard_granularity", "65536"),
            ("discard_max_bytes", "1073741824"),
        ];
        for (name, value) in facts {
            std::fs::write(queue.join(name), format!("{value}\n")).unwrap();
        }
        let limits = from_queue(&partition, Limits::default());
        assert_eq!(
            (limits.logical_block, limits.physical_block, limits.min_io),
            (512, 4096, 4096)
        );
        assert_eq!(
            (limits.discard_alignment, limits.max_discard),
            (65536, 1 << 30)
        );
        assert_eq!(
            limits.request_alignment, 1,
            "a buffered device takes any bytes"
        );
        let unknown = from_queue(Path::new("/nonexistent"), Limits::default());
        assert_eq!(
            (unknown.discard_alignment, unknown.max_discard),
            (512, u64::MAX)
        );
    }
}
