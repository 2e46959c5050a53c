//! The properties of `virtio-blk-pci`, in the words of QEMU, and the device made from them.

use std::sync::Arc;

use block::Drive;
use block::options::{Error, OnOffAuto, Size};

use super::request::SECTOR;
use super::{Blk, Parameters};
use crate::pci::Address;
use crate::virtio::feature;
use crate::virtio::pci::{MAX_QUEUES, Seams, Setup, VirtioPci};

/// The most sectors of a discard or write zeroes unless said otherwise: just under 2 GiB.
const MAX_SECTORS: u32 = (i32::MAX as u32) >> 9;

block::options! {
    /// A virtio block device on PCI.
    pub struct VirtioBlkPci {
        /// The drive, or the node, that is the disk.
        pub drive: String,
        /// Name of the device.
        pub id: Option<String> = None,
        /// Bus to plug into: pcie.0.
        pub bus: Option<String> = None,
        /// Place on the bus: slot.function in hexadecimal.
        pub addr: Option<String> = None,
        /// The slot may hold other functions.
        pub multifunction: bool = false,
        /// Serial number, of which a guest sees 20 bytes; otherwise the drive's.
        pub serial: Option<String> = None,
        /// Number of queues, one a processor unless given.
        pub num_queues: Option<u16> = None,
        /// Descriptors of a queue.
        pub queue_size: u16 = 256,
        /// As many segments in a request as the queue has room for.
        pub seg_max_adjust: bool = true,
        /// I/O thread that serves all queues.
        pub iothread: Option<String> = None,
        /// I/O threads and the queues that they serve.
        pub iothread_vq_mapping: Vec<VqMapping> = Vec::new(),
        /// Unit of transfers in bytes.
        pub logical_block_size as "logical_block_size": Size = Size(512),
        /// Unit of the medium in bytes; otherwise what the drive says.
        pub physical_block_size as "physical_block_size": Option<Size> = None,
        /// Smallest transfer that is efficient; otherwise what the drive says.
        pub min_io_size as "min_io_size": Option<Size> = None,
        /// Best transfer; otherwise what the drive says.
        pub opt_io_size as "opt_io_size": Option<Size> = None,
        /// Alignment of discards; otherwise what the drive says.
        pub discard_granularity as "discard_granularity": Option<Size> = None,
        /// Offers discard.
        pub discard: bool = true,
        /// Tells the guest how discards should be aligned.
        pub report_discard_granularity: bool = true,
        /// Most sectors of a discard.
        pub max_discard_sectors: u32 = MAX_SECTORS,
        /// Offers write zeroes.
        pub write_zeroes: bool = true,
        /// Most sectors of a write zeroes.
        pub max_write_zeroes_sectors: u32 = MAX_SECTORS,
        /// Lets the guest switch the write cache.
        pub config_wce: bool = true,
        /// Volatile write cache: auto is the drive's.
        pub write_cache: OnOffAuto = OnOffAuto::Auto,
        /// Other devices may write the same disk; for who attaches the drive.
        pub share_rw: bool = false,
        /// Interrupt vectors, one a queue and one more unless given; 0 is INTx only.
        pub vectors: Option<u16> = None,
        /// Notifications without exits.
        pub ioeventfd: bool = true,
        /// Offers indirect descriptors.
        pub indirect_desc as "indirect_desc": bool = true,
        /// Offers event indices.
        pub event_idx as "event_idx": bool = true,
        /// Offers to reset single queues.
        pub queue_reset as "queue_reset": bool = true,
        /// Packed rings.
        pub packed: bool = false,
        /// Not a legacy device.
        pub disable_legacy: OnOffAuto = OnOffAuto::Auto,
        /// Not a modern device.
        pub disable_modern: bool = false,
        /// Place in the order of boot.
        pub bootindex: Option<i32> = None,
        /// What a failed read does.
        pub rerror: Option<String> = None,
        /// What a failed write does.
        pub werror: Option<String> = None,
    }
}

block::options! {
    /// One I/O thread of `iothread-vq-mapping`.
    pub struct VqMapping {
        /// The I/O thread.
        pub iothread: String,
        /// The queues that it serves; either all threads name theirs, or queues go round.
        pub vqs: Option<Vec<u16>> = None,
    }
}

/// Finds an I/O thread's executor by name; without a name, the one that devices share.
pub type Threads<'a> = &'a dyn Fn(Option<&str>) -> Option<exec::Handle>;

impl VirtioBlkPci {
    /// Looks at everything that can be judged without a drive, for a machine of `cpus` processors.
    ///
    /// # Errors
    /// The first property that is wrong, or asks for what is not built.
    pub fn check(&self, cpus: u16) -> Result<(), Error> {
        self.check_built()?;
        let queues = self.queues(cpus);
        if queues == 0 || queues > MAX_QUEUES {
            return refuse(
                "num-queues",
                format!("expected 1 to {MAX_QUEUES}, got {queues}"),
            );
        }
        if !self.queue_size.is_power_of_two() || !(4..=1024).contains(&self.queue_size) {
            let reason = format!(
                "expected a power of two from 4 to 1024, got {}",
                self.queue_size
            );
            return refuse("queue-size", reason);
        }
        if self.vectors.is_some_and(|vectors| vectors > 2048) {
            return refuse("vectors", "expected at most 2048");
        }
        for (name, max, offered) in [
            (
                "max-discard-sectors",
                self.max_discard_sectors,
                self.discard,
            ),
            (
                "max-write-zeroes-sectors",
                self.max_write_zeroes_sectors,
                self.write_zeroes,
            ),
        ] {
            if offered && max == 0 {
                return refuse(name, "expected at least 1");
            }
        }
        let logical = block_size("logical_block_size", self.logical_block_size)?;
        if let Some(size) = self.physical_block_size
            && block_size("physical_block_size", size)? < logical
        {
            return refuse(
                "physical_block_size",
                format!("expected at least {logical}"),
            );
        }
        for (name, size, most) in [
            ("min_io_size", self.min_io_size, u64::from(u16::MAX)),
            ("opt_io_size", self.opt_io_size, u64::from(u32::MAX)),
        ] {
            let Some(Size(size)) = size else { continue };
            if !size.is_multiple_of(logical.into()) {
                return refuse(
                    name,
                    format!("expected a multiple of {logical}, got {size}"),
                );
            }
            let blocks = size.checked_div(logical.into());
            if blocks > Some(most) || u32::try_from(size).is_err() {
                return refuse(name, format!("{size} is more than the device can say"));
            }
        }
        if let Some(Size(size)) = self.discard_granularity
            && (!size.is_multiple_of(logical.into()) || size == 0 || u32::try_from(size).is_err())
        {
            return refuse(
                "discard_granularity",
                format!("expected a multiple of {logical}, got {size}"),
            );
        }
        self.address()?;
        self.mapping(queues).map(drop)
    }

    /// What QEMU has and this device has not, by name.
    fn check_built(&self) -> Result<(), Error> {
        let policy = |policy: &Option<String>| !matches!(policy.as_deref(), None | Some("report"));
        for (name, asked, reason) in [
            ("packed", self.packed, "packed rings are not built"),
            (
                "disable-legacy",
                self.disable_legacy == OnOffAuto::Off,
                "legacy virtio is not built",
            ),
            (
                "disable-modern",
                self.disable_modern,
                "legacy virtio is not built",
            ),
            (
                "bootindex",
                self.bootindex.is_some(),
                "there is no firmware that would boot from a disk",
            ),
            ("seg-max-adjust", !self.seg_max_adjust, "only on is built"),
            ("rerror", policy(&self.rerror), "only report is built"),
            ("werror", policy(&self.werror), "only report is built"),
            (
                "bus",
                !matches!(self.bus.as_deref(), None | Some("pcie.0")),
                "there is no such bus; the only one is pcie.0",
            ),
        ] {
            if asked {
                return refuse(name, reason);
            }
        }
        Ok(())
    }

    /// Where the device wants to be plugged in.
    ///
    /// # Errors
    /// An address that is none.
    pub fn address(&self) -> Result<Option<Address>, Error> {
        let parse = |text: &String| text.parse::<Address>();
        let address = self.addr.as_ref().map(parse).transpose();
        address.map_err(|why| Error::new(why.to_string()).at("addr"))
    }

    fn queues(&self, cpus: u16) -> u16 {
        self.num_queues.unwrap_or(cpus.clamp(1, MAX_QUEUES))
    }

    /// The name of the I/O thread of each queue.
    fn mapping(&self, queues: u16) -> Result<Vec<Option<&str>>, Error> {
        const NAME: &str = "iothread-vq-mapping";
        let list = &self.iothread_vq_mapping;
        let count = usize::from(queues);
        let Some(first) = list.first() else {
            return Ok(vec![self.iothread.as_deref(); count]);
        };
        if self.iothread.is_some() {
            return refuse(NAME, "cannot be given together with iothread");
        }
        for (index, entry) in list.iter().enumerate() {
            if list
                .iter()
                .take(index)
                .any(|other| other.iothread == entry.iothread)
            {
                return refuse(
                    NAME,
                    format!("iothread '{}' is named twice", entry.iothread),
                );
            }
            if entry.vqs.is_some() != first.vqs.is_some() {
                return refuse(NAME, "either all entries name their queues or none does");
            }
        }
        if first.vqs.is_none() {
            let names = list.iter().cycle().take(count);
            return Ok(names.map(|entry| Some(entry.iothread.as_str())).collect());
        }
        let mut names = vec![None; count];
        for entry in list {
            for queue in entry.vqs.iter().flatten() {
                match names.get_mut(usize::from(*queue)) {
                    None => return refuse(NAME, format!("there is no queue {queue} of {queues}")),
                    Some(Some(_)) => return refuse(NAME, format!("queue {queue} is named twice")),
                    Some(name) => *name = Some(entry.iothread.as_str()),
                }
            }
        }
        match names.iter().position(Option::is_none) {
            Some(queue) => refuse(NAME, format!("no iothread is named for queue {queue}")),
            None => Ok(names),
        }
    }

    /// Makes the device over `drive`.
    ///
    /// # Errors
    /// Those of [`VirtioBlkPci::check`], an I/O thread that does not exist, or no descriptors left.
    pub fn build(
        &self,
        drive: Arc<Drive>,
        cpus: u16,
        threads: Threads<'_>,
        seams: Seams,
    ) -> Result<Arc<VirtioPci>, Error> {
        self.parts(drive, cpus, threads, seams)
            .map(|(_, function)| function)
    }

    /// The device and its PCI function.
    pub(super) fn parts(
        &self,
        drive: Arc<Drive>,
        cpus: u16,
        threads: Threads<'_>,
        seams: Seams,
    ) -> Result<(Arc<Blk>, Arc<VirtioPci>), Error> {
        self.check(cpus)?;
        let queues = self.queues(cpus);
        let names = self.mapping(queues)?;
        let handle = |name: &Option<&str>| {
            threads(*name).ok_or_else(|| {
                let option = match self.iothread {
                    Some(_) => "iothread",
                    None => "iothread-vq-mapping",
                };
                Error::new(format!(
                    "there is no iothread '{}'",
                    name.unwrap_or_default()
                ))
                .at(option)
            })
        };
        let handles = names.iter().map(handle).collect::<Result<_, _>>()?;
        let name = self
            .id
            .clone()
            .unwrap_or_else(|| format!("virtio-blk-pci over {}", drive.id()));
        let parameters = self.parameters(&drive)?;
        match self.write_cache {
            OnOffAuto::Auto => {}
            OnOffAuto::On => drive.set_write_cache(true),
            OnOffAuto::Off => drive.set_write_cache(false),
        }
        let blk = Blk::new(drive, parameters, handles);
        let ring = [
            (self.indirect_desc, feature::INDIRECT_DESC),
            (self.event_idx, feature::EVENT_IDX),
            (self.queue_reset, feature::RING_RESET),
        ];
        let setup = Setup {
            features: ring
                .iter()
                .filter(|(on, _)| *on)
                .fold(0, |all, (_, bit)| all | bit),
            vectors: self.vectors.unwrap_or(queues.saturating_add(1)),
            doorbells: self.ioeventfd,
            multifunction: self.multifunction,
        };
        let function = VirtioPci::new(name, blk.clone(), &setup, seams)
            .map_err(|why| Error::new(format!("cannot make the device's eventfds: {why}")))?;
        Ok((blk, function))
    }

    fn parameters(&self, drive: &Drive) -> Result<Parameters, Error> {
        let limits = drive.limits();
        let logical = block_size("logical_block_size", self.logical_block_size)?;
        let bytes = |size: Option<Size>| size.and_then(|Size(bytes)| u32::try_from(bytes).ok());
        // What the host says is of use to a guest only in its blocks.
        let whole = |bytes: u32| bytes.saturating_sub(bytes.checked_rem(logical).unwrap_or(0));
        let sectors = |bytes: u64, most: u32, offered: bool| match offered {
            true => u32::try_from(bytes / SECTOR).unwrap_or(u32::MAX).min(most),
            false => 0,
        };
        let granularity = bytes(self.discard_granularity)
            .unwrap_or(limits.discard_alignment)
            .max(logical);
        Ok(Parameters {
            serial: self
                .serial
                .clone()
                .or_else(|| drive.serial().map(str::to_owned))
                .unwrap_or_default(),
            queue_size: self.queue_size,
            logical_block: logical,
            physical_block: bytes(self.physical_block_size)
                .unwrap_or(limits.physical_block)
                .max(logical),
            min_io: bytes(self.min_io_size).unwrap_or(whole(limits.min_io)),
            opt_io: bytes(self.opt_io_size).unwrap_or(whole(limits.opt_io)),
            config_wce: self.config_wce,
            max_discard: sectors(limits.max_discard, self.max_discard_sectors, self.discard),
            discard_granularity: if self.report_discard_granularity {
                granularity
            } else {
                logical
            },
            max_write_zeroes: sectors(
                limits.max_write_zeroes,
                self.max_write_zeroes_sectors,
                self.write_zeroes,
            ),
        })
    }
}

/// A block size in bytes: a power of two from 512 to 2 MiB.
fn block_size(name: &str, Size(size): Size) -> Result<u32, Error> {
    match u32::try_from(size) {
        Ok(size) if size.is_power_of_two() && (512..=1 << 21).contains(&size) => Ok(size),
        _ => refuse(
            name,
            format!("expected a power of two from 512 to 2M, got {size}"),
        ),
    }
}

fn refuse<T>(name: &str, reason: impl Into<String>) -> Result<T, Error> {
    Err(Error::new(reason).at(name))
}

#[cfg(test)]
mod tests;
