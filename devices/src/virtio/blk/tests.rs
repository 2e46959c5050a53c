use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;

use block::{Attach, DriveConfig, Graph, OpKind};
use vm_memory::{Bytes, GuestAddress};

use super::options::VirtioBlkPci;
use super::*;
use crate::virtio::testing::rig::{Rig, until};
use crate::virtio::testing::{Driver, INDIRECT, NEXT, WRITE, image};

const HEADER: u64 = 0x10_0000;
const DATA: u64 = 0x11_0000;
const STATUS: u64 = 0x12_0000;
const CONFIG: u64 = 0x2000;

fn flag(bit: u32) -> u64 {
    1 << bit
}

/// A device over a drive made from `-drive` text, on a rig.
struct Disk {
    rig: Rig,
    drive: Arc<Drive>,
    blk: Arc<Blk>,
    graph: Arc<Graph>,
    drivers: Vec<Driver>,
}

impl Disk {
    /// `properties` are those of the device beside `drive`; a thread a queue.
    fn new(drive: &str, properties: &str, queues: u16) -> Disk {
        let (mut made, mut device) = (None, None);
        let rig = Rig::new(usize::from(queues), |seams, threads| {
            let config = DriveConfig::parse(&format!("{drive},if=none,id=d0")).unwrap();
            let (graph, drive) = threads[0].call_blocking(move || async move {
                let graph = Arc::new(Graph::new());
                graph.add_drive(&config).await.unwrap();
                let attach = Attach {
                    device: "disk0".into(),
                    ..Attach::default()
                };
                let drive = graph.attach("d0", &attach).await.unwrap();
                (graph, drive)
            });
            made = Some((graph, drive.clone()));
            let text = format!("drive=d0,id=disk0,{properties}");
            let tree = block::options::Tree::parse_keyval(&text, None).unwrap();
            let options: VirtioBlkPci = block::options::from_tree(tree).unwrap();
            let find = |name: Option<&str>| match name {
                None => threads.first().cloned(),
                Some(name) => threads
                    .get(name.strip_prefix("io")?.parse::<usize>().ok()?)
                    .cloned(),
            };
            let (blk, function) = options.parts(drive, queues, &find, seams).unwrap();
            device = Some(blk);
            function
        });
        let ((graph, drive), blk) = (made.unwrap(), device.unwrap());
        Disk {
            blk,
            rig,
            drive,
            graph,
            drivers: Vec::new(),
        }
    }

    /// Brings every queue up with all the features that are offered.
    fn start(mut self) -> Disk {
        let features = self.rig.device_features();
        let queues = self.rig.read(18, 2) as u16;
        self.drivers = self.rig.start(queues, features);
        self
    }

    fn header(&self, kind: u32, sector: u64) {
        self.rig
            .ram
            .write_obj(u64::from(kind), GuestAddress(HEADER))
            .unwrap();
        self.rig
            .ram
            .write_obj(sector, GuestAddress(HEADER + 8))
            .unwrap();
        self.rig
            .ram
            .write_obj(0xaau8, GuestAddress(STATUS))
            .unwrap();
    }

    fn status(&self) -> u8 {
        self.rig.ram.read_obj(GuestAddress(STATUS)).unwrap()
    }

    /// Sends a chain on queue 0 and waits for it; returns the used length.
    fn send(&mut self, pieces: &[(u64, u32, bool)]) -> u32 {
        self.drivers[0].offer(0, pieces);
        self.wait()
    }

    fn wait(&mut self) -> u32 {
        self.rig.kick(0);
        let driver = &mut self.drivers[0];
        let mut used = None;
        until("the request is used", || {
            used = driver.take_used();
            used.is_some()
        });
        used.unwrap().1
    }

    /// Status and used length of a request with data to write (`len` bytes) or to read.
    fn request(&mut self, kind: u32, sector: u64, len: u32, writable: bool) -> (u8, u32) {
        self.header(kind, sector);
        let data = (DATA, len, writable);
        let used = self.send(&[(HEADER, 16, false), data, (STATUS, 1, true)]);
        (self.status(), used)
    }

    fn put(&self, bytes: &[u8]) {
        self.rig.ram.write_slice(bytes, GuestAddress(DATA)).unwrap();
    }

    fn get(&self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.rig
            .ram
            .read_slice(&mut bytes, GuestAddress(DATA))
            .unwrap();
        bytes
    }

    fn end(self) {
        let (graph, drive, thread) = (self.graph, self.drive, self.rig.thread());
        drop(self.blk);
        self.rig
            .host
            .reset()
            .iter()
            .for_each(|(_, ticket)| ticket.wait());
        thread.call_blocking(move || async move {
            graph.detach(&drive).await;
            drop(drive);
            assert!(graph.close().await.is_empty());
        });
        self.rig.end();
    }
}

struct Image {
    file: tempfile::NamedTempFile,
}

impl Image {
    fn new(sectors: u64) -> Image {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(sectors * 512).unwrap();
        Image { file }
    }

    fn drive(&self) -> String {
        format!("file={},format=raw", self.file.path().display())
    }

    fn read(&mut self, sector: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let file = self.file.as_file_mut();
        file.seek(SeekFrom::Start(sector * 512)).unwrap();
        file.read_exact(&mut bytes).unwrap();
        bytes
    }

    fn write(&mut self, sector: u64, bytes: &[u8]) {
        let file = self.file.as_file_mut();
        file.seek(SeekFrom::Start(sector * 512)).unwrap();
        file.write_all(bytes).unwrap();
    }
}

#[test]
fn a_sector_is_written_and_read_back() {
    let mut image = Image::new(64);
    let mut disk = Disk::new(&image.drive(), "", 1).start();
    disk.put(&[0x5a; 1024]);
    assert_eq!(disk.request(1, 3, 1024, false), (0, 1));
    assert_eq!(image.read(3, 1024), [0x5a; 1024]);
    disk.put(&[0; 1024]);
    assert_eq!(disk.request(0, 3, 1024, true), (0, 1025));
    assert_eq!(disk.get(1024), [0x5a; 1024]);
    disk.header(4, 0);
    assert_eq!(disk.send(&[(HEADER, 16, false), (STATUS, 1, true)]), 1);
    assert_eq!(disk.status(), 0);
    assert_eq!(disk.drive.stats()[OpKind::Flush].count, 1);
    disk.end();
}

#[test]
fn any_layout_of_descriptors_will_do() {
    let mut image = Image::new(64);
    image.write(1, &[7; 512]);
    let mut disk = Disk::new(&image.drive(), "", 1).start();
    disk.header(0, 1);
    // The header in three pieces, an empty one among them; data and status in one.
    let used = disk.send(&[
        (HEADER, 1, false),
        (HEADER + 1, 0, false),
        (HEADER + 1, 15, false),
        (DATA, 100, true),
        (DATA + 100, 413, true),
    ]);
    assert_eq!(used, 513);
    assert_eq!(disk.get(513), [vec![7; 512], vec![0]].concat());
    disk.end();
}

#[test]
fn an_indirect_request_is_served() {
    let mut image = Image::new(64);
    image.write(2, &[9; 512]);
    let mut disk = Disk::new(&image.drive(), "", 1).start();
    disk.header(0, 2);
    let table = 0x13_0000;
    let driver = &mut disk.drivers[0];
    driver.descriptor_at(table, 0, (HEADER, 16, NEXT, 1));
    driver.descriptor_at(table, 1, (DATA, 512, NEXT | WRITE, 2));
    driver.descriptor_at(table, 2, (STATUS, 1, WRITE, 0));
    driver.descriptor(5, (table, 48, INDIRECT, 0));
    driver.make_available(5);
    assert_eq!(disk.wait(), 513);
    assert_eq!((disk.status(), disk.get(512)), (0, vec![9; 512]));
    disk.end();
}

#[test]
fn the_serial_number_is_20_bytes() {
    let drive = "driver=null-co,size=1M,serial=drives";
    let mut disk = Disk::new(drive, "serial=0123456789012345678901234", 1).start();
    assert_eq!(disk.request(8, 0, 20, true), (0, 21));
    assert_eq!(disk.get(20), b"01234567890123456789");
    disk.end();
    let mut disk = Disk::new(drive, "", 1).start();
    disk.put(&[0xff; 30]);
    assert_eq!(disk.request(8, 0, 30, true), (0, 21));
    assert_eq!(
        disk.get(30),
        [&b"drives"[..], &[0; 14], &[0xff; 10]].concat()
    );
    assert_eq!(disk.request(8, 0, 3, true), (0, 4));
    disk.end();
}

#[test]
fn cve_2024_8612_used_length_is_what_was_written() {
    let image_file = Image::new(8);
    let mut disk = Disk::new(&image_file.drive(), "", 1).start();
    disk.put(&[0xcc; 4096]);
    for (kind, sector, len) in [
        (0, 8, 512),
        (0, 7, 1024),
        (0, 0, 511),
        (99, 0, 512),
        (2, 0, 512),
    ] {
        let (status, used) = disk.request(kind, sector, len, true);
        assert_ne!(status, 0, "{kind} {sector} {len}");
        assert_eq!(used, 1, "only the status was written");
        assert_eq!(disk.get(4096), [0xcc; 4096]);
    }
    disk.end();
}

#[test]
fn cve_2011_1750_a_part_of_a_sector_is_an_error() {
    let mut image = Image::new(8);
    let mut disk = Disk::new(&image.drive(), "", 1).start();
    disk.put(&[1; 1024]);
    for len in [1, 511, 513] {
        assert_eq!(disk.request(1, 0, len, false).0, 1);
    }
    assert_eq!(image.read(0, 1024), [0; 1024]);
    disk.end();
}

#[test]
fn ch_8401_a_chain_of_a_header_only_needs_a_reset() {
    let mut disk = Disk::new("driver=null-co,size=1M", "", 1).start();
    disk.header(1, 0);
    disk.drivers[0].offer(0, &[(HEADER, 16, false)]);
    disk.rig.kick(0);
    until("the device needs a reset", || disk.rig.status() & 64 != 0);
    assert_eq!(disk.drivers[0].used_index(), 0);
    disk.end();
}

#[test]
fn a_short_header_with_a_status_is_answered() {
    let mut disk = Disk::new("driver=null-co,size=1M", "", 1).start();
    for len in [0, 1, 15] {
        disk.header(4, 0);
        assert_eq!(disk.send(&[(HEADER, len, false), (STATUS, 1, true)]), 1);
        assert_eq!(disk.status(), 1);
    }
    disk.end();
}

#[test]
fn ch_4458_a_status_outside_ram_is_not_written() {
    for at in [u64::MAX, 1 << 40] {
        let mut disk = Disk::new("driver=null-co,size=1M", "", 1).start();
        disk.header(4, 0);
        let before = image(&disk.rig.ram);
        disk.drivers[0].offer(0, &[(HEADER, 16, false), (at, 1, true)]);
        disk.rig.kick(0);
        until("the device needs a reset", || disk.rig.status() & 64 != 0);
        let after = image(&disk.rig.ram);
        assert!(before[HEADER as usize..] == after[HEADER as usize..]);
        disk.end();
    }
}

#[test]
fn ch_8388_a_sector_beyond_the_end_is_an_error() {
    let mut disk = Disk::new("driver=null-co,size=1M", "", 1).start();
    for sector in [2048, u64::MAX, u64::MAX / 512, 1 << 55] {
        assert_eq!(disk.request(0, sector, 512, true).0, 1, "{sector:#x}");
        assert_eq!(disk.request(1, sector, 512, false).0, 1, "{sector:#x}");
    }
    assert_eq!(disk.request(0, 2047, 512, true).0, 0);
    disk.end();
}

#[test]
fn a_read_only_disk_refuses_changes() {
    let mut image = Image::new(8);
    let mut disk = Disk::new(&format!("{},readonly=on", image.drive()), "", 1).start();
    let features = disk.rig.device_features();
    assert_ne!(features & flag(5), 0);
    assert_eq!(features & (flag(13) | flag(14)), 0);
    disk.put(&[1; 512]);
    for kind in [1, 11, 13] {
        assert_eq!(disk.request(kind, 0, 512, false).0, 1);
    }
    assert_eq!(disk.request(0, 0, 512, true).0, 0);
    assert_eq!(image.read(0, 512), [0; 512]);
    disk.end();
}

#[test]
fn discard_gives_space_back_and_write_zeroes_writes_zeroes() {
    let mut image = Image::new(8192);
    image.write(0, &vec![3; 4 << 20]);
    let blocks = image.file.as_file().metadata().unwrap().blocks();
    let drive = format!("{},discard=unmap", image.drive());
    let mut disk = Disk::new(&drive, "", 1).start();
    let segment = |sector: u64, count: u64, flags: u64| {
        [sector.to_le_bytes(), (count | flags << 32).to_le_bytes()].concat()
    };
    disk.put(&[segment(0, 2048, 0), segment(4096, 2048, 0)].concat());
    assert_eq!(disk.request(11, 0, 32, false), (0, 1));
    assert!(image.file.as_file().metadata().unwrap().blocks() < blocks);
    assert_eq!(image.read(2048, 512), [3; 512]);
    disk.put(&segment(2048, 3, 0));
    assert_eq!(disk.request(13, 0, 16, false), (0, 1));
    assert_eq!(
        image.read(2048, 2048),
        [vec![0; 1536], vec![3; 512]].concat()
    );
    disk.end();
}

#[test]
fn the_configuration_says_what_the_properties_say() {
    let properties = "num-queues=2,queue-size=64,logical_block_size=4096,physical_block_size=16k,\
        min_io_size=8k,opt_io_size=64k,max-discard-sectors=1000,max-write-zeroes-sectors=2000,\
        discard_granularity=16k";
    let disk = Disk::new("driver=null-co,size=1G", properties, 2);
    let read = |offset: u64, size| disk.rig.read(CONFIG + offset, size);
    assert_eq!(read(0, 8), 1 << 21);
    assert_eq!((read(0, 4), read(4, 4)), (1 << 21, 0));
    assert_eq!(read(12, 4), 62, "seg_max");
    assert_eq!(read(20, 4), 4096, "blk_size");
    assert_eq!(
        (read(24, 1), read(25, 1), read(26, 2), read(28, 4)),
        (2, 0, 2, 16),
        "topology"
    );
    assert_eq!(read(32, 1), 1, "writeback");
    assert_eq!(read(34, 2), 2, "num_queues");
    assert_eq!(
        (read(36, 4), read(40, 4), read(44, 4)),
        (1000, 64, 32),
        "discard"
    );
    assert_eq!(
        (read(48, 4), read(52, 4), read(56, 1)),
        (2000, 64, 1),
        "write zeroes"
    );
    assert_eq!(read(60, 4), 0);
    assert_eq!(disk.rig.read(18, 2), 2);
    let offered = disk.rig.device_features();
    for bit in [2, 6, 9, 10, 11, 12, 13, 14, 28, 29, 32, 40] {
        assert_ne!(offered & flag(bit), 0, "feature {bit}");
    }
    assert_eq!(offered.count_ones(), 12, "{offered:#x}");
    disk.end();
}

#[test]
fn what_is_switched_off_is_not_offered() {
    let properties = "discard=off,write-zeroes=off,config-wce=off,event_idx=off,indirect_desc=off,queue_reset=off";
    let disk = Disk::new("driver=null-co,size=1M", properties, 1);
    assert_eq!(
        disk.rig.device_features(),
        flag(2) | flag(6) | flag(9) | flag(10) | flag(32)
    );
    disk.end();
}

#[test]
fn discard_limits_are_never_zero() {
    let disk = Disk::new("driver=null-co,size=1M", "", 1);
    for offset in [36, 40, 44, 48, 52] {
        assert_ne!(disk.rig.read(CONFIG + offset, 4), 0, "{offset}");
    }
    disk.end();
}

#[test]
fn the_write_cache_is_the_driver_s_until_the_reset() {
    let disk = Disk::new("driver=null-co,size=1M", "", 1);
    disk.rig.write(12, 4, flag(11));
    disk.rig.write(CONFIG + 32, 1, 0);
    assert!(disk.drive.write_cache(), "nothing was agreed on yet");
    let disk = disk.start();
    disk.rig.write(CONFIG + 32, 1, 0);
    assert!(!disk.drive.write_cache());
    assert_eq!(disk.rig.read(CONFIG + 32, 1), 0);
    disk.rig.write(CONFIG + 32, 1, 1);
    assert!(disk.drive.write_cache());
    disk.rig.write(CONFIG + 32, 1, 0);
    disk.rig.write(20, 1, 0);
    until("it was reset", || disk.rig.status() == 0);
    assert!(disk.drive.write_cache());
    disk.end();
}

#[test]
fn the_write_cache_is_off_for_a_driver_that_can_switch_it_but_not_flush() {
    let disk = Disk::new("driver=null-co,size=1M", "", 1);
    let writeback = || disk.rig.read(CONFIG + 32, 1);
    disk.rig.negotiate(flag(11));
    assert_eq!((writeback(), disk.drive.write_cache()), (0, false));
    disk.rig.write(20, 1, 0);
    disk.rig.negotiate(flag(9) | flag(11));
    assert_eq!((writeback(), disk.drive.write_cache()), (1, true));
    disk.end();
}

#[test]
fn a_driver_that_cannot_flush_has_stable_writes() {
    assert_eq!(stability(0), Flags::FUA);
    assert_eq!(stability(flag(9)), Flags::empty());
    assert_eq!(stability(flag(11)), Flags::empty());
}

#[test]
fn a_new_length_is_a_new_generation_and_an_interrupt() {
    let disk = Disk::new("driver=null-co,size=1M", "", 1);
    disk.rig.enable_msix(2);
    let disk = disk.start();
    disk.rig.write(16, 2, 0);
    // As if the guest had been told another length before.
    disk.blk.capacity.store(8, Ordering::Release);
    assert_eq!(disk.rig.read(CONFIG, 8), 8);
    let generation = disk.rig.read(21, 1);
    Events(Arc::downgrade(&disk.blk)).resized();
    assert_eq!(disk.rig.read(CONFIG, 8), 2048);
    assert_ne!(disk.rig.read(21, 1), generation);
    assert_eq!(disk.rig.messages(), [100]);
    disk.end();
}

#[test]
fn cve_2026_45782_reset_with_slow_requests_in_flight() {
    let mut disk = Disk::new(
        "driver=null-co,size=1M,latency-ns=1000000000,read-zeroes=on",
        "",
        2,
    )
    .start();
    disk.header(0, 0);
    disk.put(&[0xdd; 512]);
    for queue in 0..2 {
        disk.drivers[queue].offer(
            0,
            &[(HEADER, 16, false), (DATA, 512, true), (STATUS, 1, true)],
        );
        disk.rig.kick(queue as u16);
    }
    disk.rig.settle();
    disk.rig.write(20, 1, 0);
    assert_ne!(disk.rig.status(), 0);
    until("the reset is over", || disk.rig.status() == 0);
    assert_eq!(disk.drivers.iter().map(Driver::used_index).sum::<u16>(), 0);
    // And again, on new rings.
    disk.rig
        .ram
        .write_slice(&[0; 0x4000], GuestAddress(0x1000))
        .unwrap();
    let mut disk = disk.start();
    assert_eq!(disk.request(0, 0, 512, true), (0, 513));
    assert_eq!(disk.get(512), [0; 512]);
    disk.end();
}

#[test]
fn queues_on_two_threads_serve_one_disk() {
    let mut image = Image::new(4096);
    let mapping =
        "num-queues=4,iothread-vq-mapping.0.iothread=io0,iothread-vq-mapping.1.iothread=io1";
    let mut disk = Disk::new(&image.drive(), mapping, 2).start();
    assert_eq!(disk.drivers.len(), 4);
    let ram = disk.rig.ram.clone();
    for round in 0..50u64 {
        for (queue, driver) in (0u64..).zip(&mut disk.drivers) {
            let base = 0x10_0000 + queue * 0x1_0000;
            ram.write_obj(1u64, GuestAddress(base)).unwrap();
            ram.write_obj(round * 4 + queue, GuestAddress(base + 8))
                .unwrap();
            ram.write_slice(
                &[(round * 4 + queue) as u8; 512],
                GuestAddress(base + 0x1000),
            )
            .unwrap();
            driver.offer(
                0,
                &[
                    (base, 16, false),
                    (base + 0x1000, 512, false),
                    (base + 0x2000, 1, true),
                ],
            );
            disk.rig.kick(queue as u16);
        }
        until("all are used", || {
            disk.drivers
                .iter_mut()
                .all(|d| d.used_index() == round as u16 + 1)
        });
    }
    for sector in 0..200 {
        assert_eq!(image.read(sector, 512), [sector as u8; 512]);
    }
    disk.end();
}

#[test]
fn a_full_queue_of_requests_runs_side_by_side() {
    let mut disk = Disk::new("driver=null-co,size=1M,latency-ns=400000000", "", 1).start();
    disk.header(4, 0);
    let begin = std::time::Instant::now();
    for head in (0..16).step_by(2) {
        disk.drivers[0].offer(head, &[(HEADER, 16, false), (STATUS, 1, true)]);
    }
    disk.rig.kick(0);
    until("all are used", || disk.drivers[0].used_index() == 8);
    assert!(begin.elapsed() < std::time::Duration::from_millis(2500));
    disk.end();
}
