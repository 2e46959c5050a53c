use std::sync::atomic::{AtomicU64, AtomicUsize};

use exec::sync::Semaphore;
use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::pci::PciDevice;
use crate::virtio::queue::{Chain, Error};
use crate::virtio::testing::rig::{BAR as BASE, Rig, until};
use crate::virtio::testing::{Driver, NEXT, image};

const EVENT_IDX: u64 = feature::EVENT_IDX;
const DATA: u64 = 0x10_0000;

/// A device whose requests wait for a permit, then write all they may.
struct Slow {
    permits: Semaphore,
    begun: AtomicUsize,
    resets: AtomicUsize,
    config: AtomicU64,
    threads: Vec<exec::Handle>,
    transport: Mutex<Option<Weak<dyn Transport>>>,
    /// What another processor does before the next queue is served, which it then is not.
    meanwhile: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Device for Slow {
    fn id(&self) -> u16 {
        2
    }
    fn class(&self) -> u32 {
        0x01_00_00
    }
    fn features(&self) -> u64 {
        1 << 5
    }
    fn queues(&self) -> u16 {
        u16::try_from(self.threads.len()).unwrap()
    }
    fn queue_size(&self) -> u16 {
        16
    }
    fn attach(&self, transport: Weak<dyn Transport>) {
        *self.transport.lock().unwrap() = Some(transport);
    }
    fn read_config(&self, offset: u64, _size: u8) -> u64 {
        self.config
            .load(Ordering::Relaxed)
            .checked_shr(8 * offset as u32)
            .unwrap_or(0)
    }
    fn write_config(&self, _offset: u64, _size: u8, value: u64, _features: u64) {
        self.config.store(value, Ordering::Relaxed);
    }
    fn start(self: Arc<Self>, _features: u64, queue: Started) {
        if let Some(act) = self.meanwhile.lock().unwrap().take() {
            return act();
        }
        let thread = self.threads[usize::from(queue.index())].clone();
        thread.spawn(move || {
            queue.serve(move |mut chain: Chain| {
                let slow = self.clone();
                async move {
                    slow.begun.fetch_add(1, Ordering::SeqCst);
                    slow.permits.acquire(1).await.forget();
                    let room = chain.buffers().writable().len();
                    let result = match room {
                        0 => Err(Error::NoStatus),
                        _ => Ok(room as u32),
                    };
                    chain.buffers().writable().copy_from(&vec![0xee; room]);
                    (chain, result)
                }
            })
        });
    }
    fn let_go(&self) {}
    fn reset(&self) {
        self.resets.fetch_add(1, Ordering::SeqCst);
    }
}

impl Slow {
    fn begun(&self) -> usize {
        self.begun.load(Ordering::SeqCst)
    }
}

fn rig_with(queues: usize, doorbells: bool) -> (Rig, Arc<Slow>) {
    let mut made = None;
    let rig = Rig::new(queues, |seams, threads| {
        let slow = Arc::new(Slow {
            permits: Semaphore::new(0),
            begun: AtomicUsize::new(0),
            resets: AtomicUsize::new(0),
            config: AtomicU64::new(0x1122_3344_5566_7788),
            threads,
            transport: Mutex::new(None),
            meanwhile: Mutex::new(None),
        });
        made = Some(slow.clone());
        let setup = Setup {
            features: feature::INDIRECT_DESC | feature::EVENT_IDX | feature::RING_RESET,
            vectors: queues as u16 + 1,
            doorbells,
            multifunction: false,
        };
        VirtioPci::new("disk0".into(), slow, &setup, seams).unwrap()
    });
    (rig, made.unwrap())
}

fn rig(queues: usize) -> (Rig, Arc<Slow>) {
    rig_with(queues, true)
}

fn offer(driver: &mut Driver, head: u16) {
    driver.offer(
        head,
        &[
            (DATA, 16, false),
            (DATA + 0x100 * u64::from(head), 64, true),
        ],
    );
}

#[test]
fn the_function_looks_like_a_modern_disk() {
    let (rig, _) = rig(1);
    assert_eq!(rig.configuration(0x00, 4), 0x1042_1af4);
    assert_eq!(rig.configuration(0x08, 4), 0x0100_0001);
    assert_eq!(rig.configuration(0x2c, 4), 0x1100_1af4);
    assert_eq!(rig.configuration(0x3d, 1), 1);
    for (kind, offset) in [(1, 0), (2, 0x3000), (3, 0x1000), (4, 0x2000)] {
        let at = rig.capability(9, Some(kind));
        assert_eq!(rig.configuration(at + 4, 1), 4, "BAR");
        assert_eq!(rig.configuration(at + 8, 4), offset);
        assert_eq!(rig.configuration(at + 12, 4), 0x1000);
    }
    assert_eq!(rig.configuration(rig.capability(9, Some(2)) + 16, 4), 4);
    assert_eq!(
        rig.device_features(),
        1 << 5 | 1 << 28 | 1 << 29 | 1 << 32 | 1 << 40
    );
    assert_eq!(rig.read(18, 2), 1);
    rig.end();
}

#[test]
fn a_request_runs_and_interrupts_by_message() {
    let (rig, slow) = rig(1);
    rig.enable_msix(2);
    let mut driver = rig.start(1, EVENT_IDX).remove(0);
    slow.permits.release(1);
    offer(&mut driver, 0);
    rig.kick(0);
    until("the chain is used", || driver.used_index() == 1);
    assert_eq!(driver.take_used(), Some((0, 64)));
    until("the interrupt comes", || rig.messages() == [101]);
    assert!(!rig.pin());
    rig.end();
}

#[test]
fn without_msix_the_pin_is_asserted_until_isr_is_read() {
    let (rig, slow) = rig(1);
    let mut driver = rig.start(1, 0).remove(0);
    slow.permits.release(1);
    offer(&mut driver, 0);
    rig.kick(0);
    until("the pin is asserted", || rig.pin());
    assert_eq!(rig.read(0x1000, 1), 1);
    assert!(!rig.pin());
    assert_eq!(rig.read(0x1000, 1), 0);
    rig.end();
}

#[test]
fn requests_that_end_together_are_one_interrupt() {
    let (rig, slow) = rig(1);
    rig.enable_msix(2);
    let mut driver = rig.start(1, 0).remove(0);
    for head in [0, 2, 4, 6] {
        offer(&mut driver, head);
    }
    rig.kick(0);
    until("all have begun", || slow.begun() == 4);
    rig.messages();
    // Four permits at once, from a task of the thread that serves the queue.
    let shared = slow.clone();
    rig.thread()
        .call_blocking(move || async move { shared.permits.release(4) });
    until("all are used", || driver.used_index() == 4);
    rig.settle();
    assert_eq!(rig.messages(), [101]);
    rig.end();
}

#[test]
fn features_must_be_offered_and_modern() {
    let (rig, _) = rig(1);
    for features in [
        0u64,
        1 << 5,
        1 << 32 | 1,
        1 << 32 | 1 << 34,
        1 << 32 | 1 << 63,
    ] {
        rig.write(20, 1, 0);
        rig.write(20, 1, 3);
        for half in [0, 1] {
            rig.write(8, 4, half);
            rig.write(12, 4, features >> (32 * half) & 0xffff_ffff);
        }
        rig.write(20, 1, 11);
        assert_eq!(rig.status(), 3, "{features:#x}");
        rig.write(20, 1, 15);
        assert_eq!(rig.status(), 3, "no DRIVER_OK without FEATURES_OK");
    }
    rig.write(20, 1, 0);
    rig.negotiate(0);
    rig.write(8, 4, 0);
    rig.write(12, 4, 1 << 5);
    assert_eq!(rig.read(12, 4), 0, "features are fixed by FEATURES_OK");
    rig.write(20, 1, 1);
    assert_eq!(rig.status(), 11, "bits are not cleared but by a reset");
    rig.end();
}

#[test]
fn a_reset_in_flight_reads_back_busy_until_the_last_request_ends() {
    let (rig, slow) = rig(2);
    let mut drivers = rig.start(2, 0);
    for (queue, driver) in (0..).zip(&mut drivers) {
        offer(driver, 0);
        offer(driver, 2);
        rig.kick(queue);
    }
    until("all have begun", || slow.begun() == 4);
    rig.write(20, 1, 0);
    rig.settle();
    assert_ne!(rig.status(), 0, "requests are in flight");
    rig.write(20, 1, 1);
    rig.write(22, 2, 1);
    slow.permits.release(3);
    rig.settle();
    assert_ne!(rig.status(), 0, "one request is in flight");
    slow.permits.release(1);
    until("the reset is over", || rig.status() == 0);
    assert_eq!(slow.resets.load(Ordering::SeqCst), 1);
    assert!(
        drivers.iter().all(|d| d.used_index() == 0),
        "nothing was used after the reset"
    );
    assert!(rig.messages().is_empty() && !rig.pin());
    assert_eq!(rig.read(28, 2), 0, "no queue is enabled");

    // A new driver, whose rings are elsewhere.
    let at = |queue| Driver::new(&rig.ram, 0x4_0000 + 0x1000 * u64::from(queue), 16);
    let mut again = [at(0u8), at(1)];
    slow.permits.release(1);
    rig.negotiate(0);
    (0..)
        .zip(&again)
        .for_each(|(queue, driver)| rig.set_up(queue, driver));
    rig.write(20, 1, 15);
    offer(&mut again[1], 4);
    rig.kick(1);
    until("the new driver is served", || again[1].used_index() == 1);
    rig.end();
}

#[test]
fn cve_2026_45782_a_machine_reset_waits_for_memory_in_flight() {
    let (rig, slow) = rig(1);
    let mut driver = rig.start(1, 0).remove(0);
    offer(&mut driver, 0);
    rig.kick(0);
    until("it has begun", || slow.begun() == 1);
    let tickets = rig.host.reset();
    rig.settle();
    assert!(!tickets.iter().all(|(_, ticket)| ticket.is_redeemed()));
    let before = image(&rig.ram);
    slow.permits.release(1);
    tickets.iter().for_each(|(_, ticket)| ticket.wait());
    let after = image(&rig.ram);
    assert!(
        before != after,
        "the request wrote before the ticket was redeemed"
    );
    rig.settle();
    assert!(image(&rig.ram) == after, "and nothing after it");
    rig.end();
}

#[test]
fn no_bus_master_no_access_to_memory() {
    let (rig, slow) = rig(1);
    let mut driver = rig.start(1, 0).remove(0);
    offer(&mut driver, 0);
    rig.kick(0);
    until("it has begun", || slow.begun() == 1);
    let Action::Wait(ticket) = rig.configure(4, 2, 2) else {
        panic!("a request is in flight");
    };
    offer(&mut driver, 2);
    rig.kick(0);
    rig.settle();
    assert_eq!(slow.begun(), 1, "nothing begins");
    assert!(!ticket.is_redeemed());
    slow.permits.release(2);
    ticket.wait();
    assert_eq!(driver.used_index(), 1, "what had begun is complete");
    rig.settle();
    assert_eq!(slow.begun(), 1);
    let _ = rig.configure(4, 2, 6);
    until("the next one is served", || driver.used_index() == 2);
    rig.end();
}

#[test]
fn a_function_that_is_unplugged_ends_its_queues() {
    let (rig, slow) = rig(1);
    let mut driver = rig.start(1, 0).remove(0);
    offer(&mut driver, 0);
    rig.kick(0);
    until("it has begun", || slow.begun() == 1);
    let (function, action) = rig.host.remove(rig.at).unwrap();
    let Action::Wait(ticket) = action else {
        panic!("a request is in flight");
    };
    drop(function);
    assert_eq!(rig.doorbells(), []);
    slow.permits.release(1);
    ticket.wait();
    until("it is reset", || slow.resets.load(Ordering::SeqCst) == 1);
    assert_eq!(driver.used_index(), 0);
    rig.end();
}

#[test]
fn cve_2021_3750_a_buffer_in_a_register_is_refused() {
    let (rig, slow) = rig(1);
    let mut driver = rig.start(1, 0).remove(0);
    slow.permits.release(1);
    driver.offer(0, &[(DATA, 16, false), (BASE + 20, 1, true)]);
    rig.kick(0);
    until("the device needs a reset", || rig.status() == 15 | 64);
    assert_eq!(slow.begun(), 0);
    rig.end();
}

#[test]
fn cve_2026_5747_a_running_queue_cannot_be_changed() {
    let (rig, slow) = rig(2);
    let mut drivers = rig.start(2, 0);
    for (offset, size, value) in [
        (24u64, 2u8, 2u64),
        (32, 4, 0xf000),
        (40, 4, 0xf000),
        (48, 4, 0xf000),
        (28, 2, 0),
    ] {
        rig.write(22, 2, 0);
        let before = rig.read(offset, size);
        rig.write(offset, size, value);
        assert_eq!(rig.read(offset, size), before, "register {offset}");
    }
    rig.write(22, 2, 0xffff);
    slow.permits.release(1);
    offer(&mut drivers[0], 0);
    rig.kick(0);
    until("the queue is served", || drivers[0].used_index() == 1);
    rig.end();
}

#[test]
fn ch_7918_a_size_changed_after_activation_is_not_looked_at() {
    let (rig, slow) = rig(1);
    let mut driver = rig.start(1, 0).remove(0);
    slow.permits.release(20);
    for round in 0..20 {
        rig.write(24, 2, [0, 1, 3, 0x8000, 0xffff][round % 5]);
        offer(&mut driver, 0);
        rig.kick(0);
        until("it is used", || driver.used_index() == round as u16 + 1);
    }
    rig.end();
}

#[test]
fn cve_2011_2512_a_queue_that_does_not_exist_is_nothing() {
    let (rig, _) = rig(1);
    rig.negotiate(0);
    for queue in [1, 2, 0x7fff, 0xffff] {
        rig.write(22, 2, queue);
        assert_eq!(
            (rig.read(24, 2), rig.read(28, 2), rig.read(32, 8)),
            (0, 0, 0)
        );
        for (offset, size) in [(24, 2), (26, 2), (28, 2), (32, 4), (32, 8), (58, 2)] {
            rig.write(offset, size, 1);
        }
        assert_eq!(
            (rig.read(24, 2), rig.read(28, 2), rig.read(32, 8)),
            (0, 0, 0)
        );
        rig.kick(queue as u16);
    }
    rig.kick_at(BASE + 0x3ffc, 1023);
    assert_eq!(rig.status(), 11);
    rig.end();
}

#[test]
fn a_queue_that_cannot_be_needs_a_reset() {
    type Spoil = fn(&mut crate::virtio::queue::Layout);
    let wrong: [(&str, Spoil); 6] = [
        ("not a power of two", |l| l.size = 12),
        ("no size", |l| l.size = 0),
        ("too large", |l| l.size = 32),
        ("used ring outside RAM", |l| l.used = 1 << 40),
        ("descriptors at the end of the space", |l| {
            l.descriptors = u64::MAX - 15
        }),
        ("misaligned", |l| l.available += 1),
    ];
    for (what, spoil) in wrong {
        let (rig, _) = rig(1);
        rig.enable_msix(2);
        rig.write(16, 2, 0);
        rig.negotiate(0);
        let mut driver = Driver::new(&rig.ram, 0x1000, 16);
        spoil(&mut driver.layout);
        rig.set_up(0, &driver);
        rig.write(16, 2, 0);
        rig.write(20, 1, 15);
        assert_eq!(rig.status(), 15 | 64, "{what}");
        assert_eq!(rig.messages(), [100], "{what}: the driver is told");
        rig.write(20, 1, 0);
        assert_eq!(rig.status(), 0);
        rig.end();
    }
}

#[test]
fn a_queue_that_cannot_be_does_not_spoil_the_reset_after_it() {
    let (rig, slow) = rig(2);
    rig.negotiate(0);
    let (good, mut bad) = (
        Driver::new(&rig.ram, 0x1000, 16),
        Driver::new(&rig.ram, 0x2000, 16),
    );
    bad.layout.size = 12;
    rig.set_up(0, &good);
    rig.set_up(1, &bad);
    let memory = rig.memory.clone();
    *slow.meanwhile.lock().unwrap() = Some(Box::new(move || {
        let _ = memory.write(BASE + 20, 1, 0);
    }));
    rig.write(20, 1, 15);
    assert_eq!(rig.status(), 0);
    rig.end();
}

/// Counts what is logged.
struct Log(Arc<AtomicUsize>);

impl tracing::Subscriber for Log {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, _: &tracing::Event<'_>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

#[test]
fn a_driver_that_goes_wrong_again_and_again_does_not_fill_the_log() {
    let (rig, _) = rig(1);
    let mut driver = Driver::new(&rig.ram, 0x1000, 16);
    driver.layout.size = 12;
    let logged = Arc::new(AtomicUsize::new(0));
    tracing::subscriber::with_default(Log(logged.clone()), || {
        for _ in 0..3 {
            rig.write(20, 1, 0);
            rig.negotiate(0);
            rig.set_up(0, &driver);
            rig.write(20, 1, 15);
            assert_eq!(rig.status(), 15 | 64);
        }
    });
    assert_eq!(logged.load(Ordering::SeqCst), 1);
    rig.end();
}

#[test]
fn a_chain_that_cannot_be_needs_a_reset() {
    let (rig, slow) = rig(2);
    let mut drivers = rig.start(2, 0);
    slow.permits.release(8);
    offer(&mut drivers[1], 0);
    rig.kick(1);
    until("the other queue is served", || drivers[1].used_index() == 1);
    drivers[0].descriptor(0, (DATA, 0, NEXT, 0));
    drivers[0].make_available(0);
    rig.kick(0);
    until("the device needs a reset", || rig.status() == 15 | 64);
    assert_ne!(
        rig.read(0x1000, 1) & 2,
        0,
        "told by a configuration interrupt"
    );
    offer(&mut drivers[1], 2);
    rig.kick(1);
    rig.settle();
    assert_eq!(drivers[1].used_index(), 1, "no queue is served");
    rig.write(20, 1, 0);
    until("it was reset", || rig.status() == 0);
    rig.end();
}

#[test]
fn ch_4458_a_chain_without_room_for_an_answer_needs_a_reset() {
    let (rig, slow) = rig(1);
    let mut driver = rig.start(1, 0).remove(0);
    slow.permits.release(8);
    driver.offer(0, &[(DATA, 16, false)]);
    rig.kick(0);
    until("the device needs a reset", || rig.status() == 15 | 64);
    assert_eq!(driver.used_index(), 0);
    rig.end();
}

#[test]
fn ch_7605_a_wild_available_index_does_not_spin() {
    let (rig, _) = rig(1);
    let driver = rig.start(1, EVENT_IDX).remove(0);
    driver.set_avail_index(0x4000);
    rig.kick(0);
    until("the device needs a reset", || rig.status() == 15 | 64);
    rig.thread().call_blocking(|| async {});
    rig.end();
}

#[test]
fn one_queue_can_be_reset() {
    let (rig, slow) = rig(2);
    let mut drivers = rig.start(2, feature::RING_RESET);
    offer(&mut drivers[0], 0);
    rig.kick(0);
    until("it has begun", || slow.begun() == 1);
    rig.write(22, 2, 0);
    rig.write(58, 2, 1);
    rig.settle();
    assert_eq!(rig.read(58, 2), 1, "a request is in flight");
    assert_eq!(rig.read(28, 2), 1);
    rig.write(28, 2, 1);
    slow.permits.release(1);
    until("the queue was reset", || rig.read(58, 2) == 0);
    assert_eq!(rig.read(28, 2), 0);
    assert_eq!(rig.read(26, 2), 0xffff, "the vector is none again");
    assert_eq!(drivers[0].used_index(), 0);

    let mut again = Driver::new(&rig.ram, 0x4_0000, 8);
    rig.set_up(0, &again);
    slow.permits.release(2);
    offer(&mut again, 0);
    rig.kick(0);
    offer(&mut drivers[1], 0);
    rig.kick(1);
    until("both are served", || {
        again.used_index() == 1 && drivers[1].used_index() == 1
    });
    rig.end();
}

#[test]
fn a_queue_is_not_reset_without_the_feature() {
    let (rig, slow) = rig(1);
    let mut driver = rig.start(1, 0).remove(0);
    rig.write(58, 2, 1);
    assert_eq!(rig.read(58, 2), 0);
    slow.permits.release(1);
    offer(&mut driver, 0);
    rig.kick(0);
    until("the queue is served", || driver.used_index() == 1);
    rig.end();
}

#[test]
fn doorbells_follow_the_bar() {
    let (rig, slow) = rig(2);
    let mut drivers = rig.start(2, 0);
    slow.permits.release(9);
    let at = |base: u64| [0, 4].map(|queue| irq::Doorbell::Mmio(base + 0x3000 + queue));
    assert_eq!(rig.doorbells(), at(BASE));
    let elsewhere = 0x8_0000_0000;
    rig.place(elsewhere);
    assert_eq!(rig.doorbells(), at(elsewhere));
    offer(&mut drivers[1], 0);
    rig.kick_at(elsewhere + 0x3004, 1);
    until("the queue is served", || drivers[1].used_index() == 1);
    let _ = rig.configure(4, 2, 4);
    assert_eq!(rig.doorbells(), []);
    rig.place(BASE);
    assert_eq!(rig.doorbells(), at(BASE));
    rig.end();
}

#[test]
fn a_store_to_a_doorbell_that_nobody_took_notifies_too() {
    let (rig, slow) = rig_with(1, false);
    let mut driver = rig.start(1, 0).remove(0);
    slow.permits.release(1);
    assert_eq!(rig.doorbells(), []);
    offer(&mut driver, 0);
    rig.write(0x3000, 2, 0);
    until("the queue is served", || driver.used_index() == 1);
    rig.end();
}

#[test]
fn registers_are_reached_through_configuration_space() {
    let (rig, _) = rig(1);
    let window = rig.capability(9, Some(5));
    let aim = |bar: u32, offset: u32, len: u32| {
        let _ = rig.configure(window + 4, 1, bar);
        let _ = rig.configure(window + 8, 4, offset);
        let _ = rig.configure(window + 12, 4, len);
    };
    aim(4, 20, 1);
    let _ = rig.configure(window + 16, 1, 3);
    assert_eq!(rig.status(), 3);
    assert_eq!(rig.configuration(window + 16, 1), 3);
    aim(4, 18, 2);
    assert_eq!(rig.configuration(window + 16, 2), 1);
    // Any part of the data makes the whole access.
    aim(4, 0x2000, 4);
    assert_eq!(rig.configuration(window + 18, 1), 0x66);
    let _ = rig.configure(window + 18, 1, 0x99);
    assert_eq!(rig.read(0x2000, 4), 0x5599_7788);
    for (bar, offset, len) in [
        (4, 20, 0),
        (4, 20, 3),
        (4, 20, 8),
        (0, 20, 1),
        (5, 20, 1),
        (4, u32::MAX, 1),
    ] {
        aim(bar, offset, len);
        let _ = rig.configure(window + 16, 4, 0);
        let _ = rig.configuration(window + 16, 4);
        assert_eq!(rig.status(), 3, "{bar} {offset:#x} {len}");
    }
    rig.end();
}

#[test]
fn a_new_configuration_is_a_new_generation() {
    let (rig, slow) = rig(1);
    rig.enable_msix(2);
    let _ = rig.start(1, 0);
    rig.write(16, 2, 0);
    assert_eq!(rig.read(0x2000, 8), 0x1122_3344_5566_7788);
    let before = rig.read(21, 1);
    let transport = slow.transport.lock().unwrap().clone().unwrap();
    transport
        .upgrade()
        .unwrap()
        .change_config(&mut || slow.config.store(7, Ordering::Relaxed));
    assert_eq!(rig.read(0x2000, 8), 7);
    assert_ne!(rig.read(21, 1), before);
    assert_eq!(rig.messages(), [100]);
    rig.end();
}

#[test]
fn a_vector_that_does_not_exist_reads_back_as_none() {
    let (rig, _) = rig(1);
    for (offset, vector, back) in [(16, 1, 1), (16, 2, 0xffff), (26, 1, 1), (26, 0x800, 0xffff)] {
        rig.write(offset, 2, vector);
        assert_eq!(rig.read(offset, 2), back);
    }
    rig.end();
}

#[test]
fn odd_accesses_are_harmless() {
    let (rig, _) = rig(1);
    for offset in (0..0x4000).step_by(1) {
        for size in [1, 2, 4, 8] {
            let _ = rig.memory.read(BASE + offset, size);
        }
    }
    for offset in (0u64..0x80)
        .chain(0x1000..0x1008)
        .chain(0x2000..0x2080)
        .chain(0x3ff8..0x4000)
    {
        for size in [1, 2, 4, 8] {
            for value in [0, 1, u64::MAX] {
                let _ = rig.memory.write(BASE + offset, size, value);
            }
        }
    }
    rig.write(20, 1, 0);
    until("it was reset", || rig.status() == 0);
    rig.end();
}

#[test]
fn the_name_is_the_user_s() {
    let (rig, _) = rig(1);
    let devices = rig.host.devices();
    let device: &Arc<dyn PciDevice> = &devices[0].1;
    assert_eq!(device.name(), "disk0");
    drop(devices);
    rig.end();
}

/// Several processors do everything to the registers at once while requests run.
#[test]
fn processors_that_fight_over_a_device_leave_it_whole() {
    let (rig, slow) = rig(2);
    rig.enable_msix(2);
    let over = AtomicUsize::new(0);
    let drivers = Mutex::new(rig.start(2, EVENT_IDX | feature::RING_RESET));
    std::thread::scope(|scope| {
        let (slow, over) = (&slow, &over);
        scope.spawn(move || {
            while over.load(Ordering::SeqCst) < 3 {
                slow.permits.release(1);
                std::thread::sleep(std::time::Duration::from_micros(20));
            }
            slow.permits.release(1 << 30);
        });
        for seed in 1..=3_u64 {
            let (rig, drivers) = (&rig, &drivers);
            scope.spawn(move || {
                let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                for _ in 0..5000 {
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    fight(rig, drivers, random >> 8);
                    rig.kick((random & 1) as u16);
                }
                over.fetch_add(1, Ordering::SeqCst);
            });
        }
    });
    rig.place(BASE);
    rig.write(20, 1, 0);
    until("the reset is over", || rig.status() == 0);
    rig.ram
        .write_slice(&[0; 0x1000], GuestAddress(0x1000))
        .unwrap();
    let mut driver = rig.start(1, 0).remove(0);
    offer(&mut driver, 0);
    rig.kick(0);
    until("the chain is used", || driver.used_index() == 1);
    rig.end();
}

fn fight(rig: &Rig, drivers: &Mutex<Vec<Driver>>, random: u64) {
    let queue = (random & 1) as usize;
    match random >> 1 & 15 {
        0..4 => offer(
            &mut drivers.lock().unwrap()[queue],
            (random >> 5 & 7) as u16 * 2,
        ),
        4 => rig.write(20, 1, 0),
        5 | 6 => {
            for value in [1, 3, 11] {
                rig.write(20, 1, value);
            }
            for half in 0..2 {
                rig.write(8, 4, half);
                rig.write(12, 4, if half == 1 { 0x101 } else { 1 << 29 });
            }
            rig.write(20, 1, 11);
        }
        7 | 8 => {
            let at = 0x1000 * (1 + queue as u64);
            let driver = Driver::new(&rig.ram, at, 16);
            rig.ram.write_slice(&[0; 0x1000], GuestAddress(at)).unwrap();
            rig.set_up(queue as u16, &driver);
            drivers.lock().unwrap()[queue] = driver;
            rig.write(20, 1, 15);
        }
        9 => {
            rig.write(22, 2, queue as u64);
            rig.write(58, 2, 1);
        }
        10 => {
            if let Action::Wait(ticket) = rig.configure(4, 2, 2) {
                ticket.wait();
            }
        }
        11 => drop(rig.configure(4, 2, 6)),
        12 => rig.place(if random & 0x100 == 0 {
            BASE
        } else {
            BASE + 0x10_0000
        }),
        13 => drop(rig.configure(
            rig.capability(0x11, None) + 2,
            2,
            (random >> 8 & 3) as u32 * 0x4000,
        )),
        14 => {
            rig.read(0x1000, 1);
        }
        _ => {
            rig.status();
        }
    }
}
