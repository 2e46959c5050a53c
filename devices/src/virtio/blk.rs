//! The virtio block device (virtio 1.3 §5.2).
//!
//! | module | what it is |
//! |---|---|
//! | [`request`] | from a chain's bytes to a checked command |
//! | [`options`] | the properties of `virtio-blk-pci`, and the device made from them |
//!
//! Each queue is served on one I/O thread, its requests side by side there. The device adds no policy
//! of its own: what a [`Drive`] answers is the status.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use block::{Drive, DriveEvents, Flags, Request};
use virtio_bindings::virtio_blk as vb;

use self::request::{Command, Disk, ID_LEN, MAX_SEGMENTS, SECTOR, Segment, Status};
use super::queue::{Chain, Error};
use super::serve::Started;
use super::{Device, Transport};
use crate::memory::GuestBuffers;

pub mod options;
pub mod request;

const WRITEBACK: u64 = 32;

/// What a driver needs one of to live with a write cache.
const CACHE_CONTROL: u64 = mask(vb::VIRTIO_BLK_F_FLUSH) | mask(vb::VIRTIO_BLK_F_CONFIG_WCE);

/// What a device is made of beside its drive. Sizes are bytes.
#[derive(Clone, Debug)]
pub struct Parameters {
    /// At most 20 bytes of it reach the guest.
    pub serial: String,
    /// The most descriptors of a queue: a power of two from 4 to 1024.
    pub queue_size: u16,
    /// The unit of requests, a power of two from 512.
    pub logical_block: u32,
    /// A power of two multiple of `logical_block`.
    pub physical_block: u32,
    /// A multiple of `logical_block`; 0 for none.
    pub min_io: u32,
    /// A multiple of `logical_block`; 0 for none.
    pub opt_io: u32,
    /// Whether the guest may switch the write cache.
    pub config_wce: bool,
    /// The most sectors of a discard; 0 offers none.
    pub max_discard: u32,
    /// The best alignment of discards.
    pub discard_granularity: u32,
    /// The most sectors of a write zeroes; 0 offers none.
    pub max_write_zeroes: u32,
}

/// A block device over a drive.
pub struct Blk {
    drive: Arc<Drive>,
    parameters: Parameters,
    /// Where each queue is served; as many as there are queues.
    threads: Vec<exec::Handle>,
    /// Sectors, as the guest was told.
    capacity: AtomicU64,
    write_cache: bool,
    transport: OnceLock<Weak<dyn Transport>>,
}

impl Blk {
    /// A device with a queue for each of `threads`. It hears of the drive's events from now on.
    pub fn new(drive: Arc<Drive>, parameters: Parameters, threads: Vec<exec::Handle>) -> Arc<Blk> {
        let blk = Arc::new(Blk {
            capacity: AtomicU64::new(sectors(&drive)),
            write_cache: drive.write_cache(),
            drive,
            parameters,
            threads,
            transport: OnceLock::new(),
        });
        let events = Events(Arc::downgrade(&blk));
        blk.drive.set_events(Some(Arc::new(events)));
        blk
    }

    /// The disk as a request sees it now.
    fn disk(&self) -> Disk {
        Disk {
            capacity: sectors(&self.drive),
            block: in_sectors(self.parameters.logical_block),
            read_only: self.drive.is_read_only(),
            max_discard: self.parameters.max_discard,
            max_write_zeroes: self.parameters.max_write_zeroes,
        }
    }

    /// Carries out a request. Returns how many bytes it wrote to the guest.
    async fn execute(&self, features: u64, buffers: &mut GuestBuffers) -> Result<u32, Error> {
        let room = buffers.writable().len();
        let data = room.checked_sub(1).ok_or(Error::NoStatus)?;
        let (status, written) = match request::parse(buffers.readable(), data, &self.disk()) {
            Ok(command) => match self.perform(command, features, buffers).await {
                Ok(written) => (Status::Ok, written),
                Err(_) => (Status::IoError, 0),
            },
            Err(status) => (status, 0),
        };
        let mut last = buffers.writable().slice(data..room);
        last.copy_from(&[status as u8]);
        // The descriptors of a chain add up to less than 4 GiB.
        Ok(u32::try_from(written).unwrap_or(u32::MAX).saturating_add(1))
    }

    /// Does what was asked. Returns how many bytes of data it wrote to the guest.
    async fn perform(
        &self,
        command: Command,
        features: u64,
        buffers: &mut GuestBuffers,
    ) -> io::Result<usize> {
        let stable = stability(features);
        match command {
            Command::Read { len: 0, .. } | Command::Write { len: 0, .. } => Ok(0),
            Command::Read { offset, len } => {
                let to = buffers.writable().slice(0..len);
                self.drive.submit(Request::read(offset, to)).await?;
                Ok(len)
            }
            Command::Write { offset, .. } => {
                let from = request::payload(buffers.readable());
                let request = Request::write(offset, from, stable);
                self.drive.submit(request).await.map(|()| 0)
            }
            Command::Flush => self.drive.submit(Request::flush()).await.map(|()| 0),
            Command::GetId { len } => {
                let mut id = [0; ID_LEN];
                for (to, from) in id.iter_mut().zip(self.parameters.serial.bytes()) {
                    *to = from;
                }
                let id = id.get(..len).unwrap_or(&id);
                buffers.writable().copy_from(id);
                Ok(id.len())
            }
            Command::Discard(segments) => {
                for range in ranges(&segments) {
                    self.drive.submit(Request::discard(range.0)).await?;
                }
                Ok(0)
            }
            Command::WriteZeroes(segments) => {
                for (range, unmap) in ranges(&segments) {
                    let unmap = if unmap {
                        Flags::MAY_UNMAP
                    } else {
                        Flags::empty()
                    };
                    let request = Request::write_zeroes(range, stable | unmap);
                    self.drive.submit(request).await?;
                }
                Ok(0)
            }
        }
    }

    /// The configuration space (§5.2.4).
    fn configuration(&self) -> Vec<u8> {
        let p = &self.parameters;
        let sectors = |bytes: u32| in_sectors(bytes).max(1);
        let blocks = |bytes: u32| bytes.checked_div(p.logical_block).unwrap_or(0);
        let exponent = blocks(p.physical_block).max(1).trailing_zeros() as u8;
        let queues = self.queues();
        let mut bytes = Vec::with_capacity(64);
        bytes.extend(self.capacity.load(Ordering::Acquire).to_le_bytes());
        bytes.extend([0; 4]); // size_max: not offered
        bytes.extend(u32::from(p.queue_size).saturating_sub(2).to_le_bytes());
        bytes.extend([0; 4]); // geometry: not offered
        bytes.extend(p.logical_block.to_le_bytes());
        bytes.extend([exponent, 0]);
        bytes.extend(u16::try_from(blocks(p.min_io)).unwrap_or(0).to_le_bytes());
        bytes.extend(blocks(p.opt_io).to_le_bytes());
        bytes.extend([u8::from(self.drive.write_cache()), 0]);
        bytes.extend(queues.to_le_bytes());
        bytes.extend(p.max_discard.to_le_bytes());
        bytes.extend(MAX_SEGMENTS.to_le_bytes());
        bytes.extend(sectors(p.discard_granularity).to_le_bytes());
        bytes.extend(p.max_write_zeroes.to_le_bytes());
        bytes.extend(MAX_SEGMENTS.to_le_bytes());
        bytes.extend([1, 0, 0, 0]); // write_zeroes_may_unmap
        bytes
    }
}

impl Device for Blk {
    fn id(&self) -> u16 {
        2
    }

    fn class(&self) -> u32 {
        0x01_00_00
    }

    fn features(&self) -> u64 {
        let p = &self.parameters;
        let writable = !self.drive.is_read_only();
        let offered = [
            (vb::VIRTIO_BLK_F_SEG_MAX, true),
            (vb::VIRTIO_BLK_F_BLK_SIZE, true),
            (vb::VIRTIO_BLK_F_TOPOLOGY, true),
            (vb::VIRTIO_BLK_F_FLUSH, true),
            (vb::VIRTIO_BLK_F_RO, !writable),
            (vb::VIRTIO_BLK_F_CONFIG_WCE, p.config_wce),
            (vb::VIRTIO_BLK_F_MQ, self.threads.len() > 1),
            (vb::VIRTIO_BLK_F_DISCARD, writable && p.max_discard > 0),
            (
                vb::VIRTIO_BLK_F_WRITE_ZEROES,
                writable && p.max_write_zeroes > 0,
            ),
        ];
        let offered = offered.into_iter().filter(|(_, offer)| *offer);
        offered.fold(0, |features, (bit, _)| features | mask(bit))
    }

    fn queues(&self) -> u16 {
        u16::try_from(self.threads.len()).unwrap_or(u16::MAX)
    }

    fn queue_size(&self) -> u16 {
        self.parameters.queue_size
    }

    fn attach(&self, transport: Weak<dyn Transport>) {
        // Once: a second transport would be a mistake of the machine, and hears nothing.
        let _ = self.transport.set(transport);
    }

    fn read_config(&self, offset: u64, size: u8) -> u64 {
        super::load(&self.configuration(), offset, size)
    }

    fn write_config(&self, offset: u64, size: u8, value: u64, features: u64) {
        let agreed = features & mask(vb::VIRTIO_BLK_F_CONFIG_WCE) != 0;
        if agreed && (offset, size) == (WRITEBACK, 1) {
            self.drive.set_write_cache(value != 0);
            // What is still in the cache when it goes is the driver's to flush (§5.2.6.2).
        }
    }

    fn agreed(&self, features: u64) {
        // Who may switch the cache but cannot flush it begins without one (§5.2.5.2).
        if features & CACHE_CONTROL == mask(vb::VIRTIO_BLK_F_CONFIG_WCE) {
            self.drive.set_write_cache(false);
        }
    }

    fn start(self: Arc<Self>, features: u64, queue: Started) {
        let Some(thread) = self.threads.get(usize::from(queue.index())).cloned() else {
            return;
        };
        thread.spawn(move || {
            queue.serve(move |mut chain: Chain| {
                let blk = self.clone();
                async move {
                    let result = blk.execute(features, chain.buffers()).await;
                    (chain, result)
                }
            })
        });
    }

    fn let_go(&self) {
        self.drive.discard_parked();
    }

    fn reset(&self) {
        self.drive.set_write_cache(self.write_cache);
    }
}

/// What the drive has to say. The drive holds the device no longer than the machine does.
struct Events(Weak<Blk>);

impl DriveEvents for Events {
    fn media_changed(&self, _loaded: bool) {
        self.resized();
    }

    fn resized(&self) {
        let Some(blk) = self.0.upgrade() else { return };
        let mut change = || blk.capacity.store(sectors(&blk.drive), Ordering::Release);
        match blk.transport.get().and_then(Weak::upgrade) {
            Some(transport) => transport.change_config(&mut change),
            None => change(),
        }
    }
}

fn sectors(drive: &Drive) -> u64 {
    drive.len() / SECTOR
}

/// Bytes as whole sectors.
fn in_sectors(bytes: u32) -> u32 {
    const SECTOR_BYTES: u32 = SECTOR as u32;
    bytes / SECTOR_BYTES
}

const fn mask(bit: u32) -> u64 {
    1 << (bit & 63)
}

/// How writes are done for a driver that agreed on `features`. One that can neither flush nor choose
/// has a cache that it need not know of (§5.2.6.2).
fn stability(features: u64) -> Flags {
    match features & CACHE_CONTROL {
        0 => Flags::FUA,
        _ => Flags::empty(),
    }
}

/// The ranges of segments that are not empty, and whether they may be deallocated.
fn ranges(segments: &[Segment]) -> impl Iterator<Item = (std::ops::Range<u64>, bool)> {
    segments.iter().filter(|s| s.len > 0).map(|s| {
        let end = s.offset.saturating_add(s.len);
        (s.offset..end, s.unmap)
    })
}

#[cfg(test)]
mod tests;
