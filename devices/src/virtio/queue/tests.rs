use proptest::prelude::*;

use super::*;
use crate::virtio::testing::{Driver, INDIRECT, NEXT, RAM, WRITE, image, ram};

const SIZE: u16 = 8;
const DATA: u64 = 0x8000;
const TABLE: u64 = 0x4000;

/// A driver and the device's view of its ring.
fn pair() -> (Driver, SplitRing) {
    let driver = Driver::new(&ram(), 0x1000, SIZE);
    let ring = open(&driver, false).unwrap();
    (driver, ring)
}

fn open(driver: &Driver, event_idx: bool) -> Result<SplitRing, Error> {
    SplitRing::new(driver.ram.clone(), SIZE, &driver.layout, event_idx)
}

fn pop(ring: &mut SplitRing) -> Result<Option<(usize, usize)>, Error> {
    Ok(ring.pop()?.map(|mut chain| {
        let sizes = (
            chain.buffers().readable().len(),
            chain.buffers().writable().len(),
        );
        chain.discard(Reset(()));
        sizes
    }))
}

/// Expects that the ring refuses what is available, and writes nothing anywhere.
fn refuses(driver: &Driver, ring: &mut SplitRing, error: Error) {
    let before = image(&driver.ram);
    assert_eq!(pop(ring), Err(error));
    assert!(image(&driver.ram) == before, "guest memory changed");
}

#[test]
fn a_chain_is_read_then_written_then_used() {
    let (mut driver, mut ring) = pair();
    assert_eq!(pop(&mut ring), Ok(None));
    driver.offer(
        2,
        &[
            (DATA, 16, false),
            (DATA + 0x100, 512, true),
            (DATA + 0x400, 1, true),
        ],
    );
    assert!(ring.is_ready());
    let mut chain = ring.pop().unwrap().unwrap();
    assert!(!ring.is_ready());
    assert_eq!(chain.buffers().readable().len(), 16);
    assert_eq!(chain.buffers().writable().len(), 513);
    let used = chain.complete(513);
    assert_eq!(driver.take_used(), None);
    assert!(ring.publish(&[used]).unwrap());
    assert_eq!(driver.take_used(), Some((2, 513)));
}

#[test]
fn a_buffer_may_cross_regions_of_memory() {
    let (mut driver, mut ring) = pair();
    driver.offer(0, &[(RAM / 2 - 8, 16, false)]);
    assert_eq!(pop(&mut ring), Ok(Some((16, 0))));
}

#[test]
fn an_indirect_table_may_be_longer_than_what_follows_in_the_ring() {
    let (mut driver, mut ring) = pair();
    for i in 0..SIZE {
        let last = i + 1 == SIZE;
        driver.descriptor_at(TABLE, i, (DATA, 8, u16::from(!last) * NEXT, i + 1));
    }
    driver.descriptor(3, (TABLE, u32::from(SIZE) * 16, INDIRECT, 0));
    driver.make_available(3);
    assert_eq!(pop(&mut ring), Ok(Some((64, 0))));
}

#[test]
fn the_indices_wrap() {
    let (mut driver, mut ring) = pair();
    for round in 0..=u16::MAX {
        driver.offer(round % SIZE, &[(DATA, 1, true)]);
        let chain = ring.pop().unwrap().unwrap();
        let _ = ring.publish(&[chain.complete(u32::from(round))]).unwrap();
        assert_eq!(
            driver.take_used(),
            Some((u32::from(round % SIZE), u32::from(round)))
        );
    }
}

#[test]
fn a_batch_is_one_update_and_one_interrupt() {
    let (mut driver, mut ring) = pair();
    for head in 0..4 {
        driver.offer(head, &[(DATA, 1, true)]);
    }
    let used: Vec<_> = (0..4)
        .map(|_| ring.pop().unwrap().unwrap().complete(1))
        .collect();
    assert_eq!(driver.used_index(), 0);
    assert!(ring.publish(&used).unwrap());
    assert_eq!(driver.used_index(), 4);
    assert_eq!(
        (0..4)
            .map(|_| driver.take_used().unwrap().0)
            .collect::<Vec<_>>(),
        [0, 1, 2, 3]
    );
}

#[test]
fn no_interrupt_where_the_driver_wants_none() {
    let (mut driver, mut ring) = pair();
    driver.set_flags(1);
    driver.offer(0, &[(DATA, 1, true)]);
    let used = ring.pop().unwrap().unwrap().complete(1);
    assert!(!ring.publish(&[used]).unwrap());
}

#[test]
fn event_idx_interrupts_when_the_event_is_passed() {
    let mut driver = Driver::new(&ram(), 0x1000, SIZE);
    let wish = Driver::new(&driver.ram, 0x1000, SIZE);
    let mut ring = open(&driver, true).unwrap();
    let mut step = |count: u16| {
        for head in 0..count {
            driver.offer(head, &[(DATA, 1, true)]);
        }
        let used: Vec<_> = (0..count)
            .map(|_| ring.pop().unwrap().unwrap().complete(1))
            .collect();
        ring.publish(&used).unwrap()
    };
    assert!(step(1), "0 is passed by going to 1");
    assert!(!step(1), "the driver did not ask again");
    assert!(!step(2));
    wish.set_used_event(5);
    assert!(!step(1));
    assert!(step(2), "5 is passed by going from 5 to 7");
}

#[test]
fn notifications_are_enabled_before_the_index_is_read_again() {
    let driver = &mut Driver::new(&ram(), 0x1000, SIZE);
    let mut ring = open(driver, true).unwrap();
    ring.disable_notification().unwrap();
    driver.offer(0, &[(DATA, 1, true)]);
    assert_eq!(pop(&mut ring), Ok(Some((0, 1))));
    assert!(!ring.enable_notification().unwrap());
    assert_eq!(driver.avail_event(), 1);
    driver.offer(1, &[(DATA, 1, true)]);
    assert!(
        ring.enable_notification().unwrap(),
        "a chain came without notice"
    );
}

#[test]
fn cve_2016_6490_zero_length_descriptors_end() {
    let (mut driver, mut ring) = pair();
    driver.offer(
        0,
        &[
            (DATA, 0, false),
            (u64::MAX, 0, false),
            (0, 0, true),
            (DATA, 1, true),
        ],
    );
    assert_eq!(pop(&mut ring), Ok(Some((0, 1))));
}

#[test]
fn cve_2016_6490_a_loop_ends() {
    let (mut driver, mut ring) = pair();
    driver.descriptor(0, (DATA, 16, NEXT, 1));
    driver.descriptor(1, (DATA, 0, NEXT, 0));
    driver.make_available(0);
    refuses(&driver, &mut ring, Error::Chain);
}

#[test]
fn a_descriptor_that_follows_itself_ends() {
    let (mut driver, mut ring) = pair();
    driver.descriptor(5, (DATA, 0, NEXT | WRITE, 5));
    driver.make_available(5);
    refuses(&driver, &mut ring, Error::Chain);
}

#[test]
fn a_next_outside_the_table_is_refused() {
    let (mut driver, mut ring) = pair();
    driver.descriptor(0, (DATA, 16, NEXT, SIZE));
    driver.make_available(0);
    refuses(&driver, &mut ring, Error::Chain);
}

#[test]
fn a_head_outside_the_table_is_refused() {
    for head in [SIZE, 0x7fff, 0xffff] {
        let (mut driver, mut ring) = pair();
        driver.make_available(head);
        refuses(&driver, &mut ring, Error::Chain);
    }
}

#[test]
fn a_buffer_outside_ram_is_refused() {
    for (at, len) in [
        (RAM, 1),
        (RAM - 1, 2),
        (u64::MAX, 1),
        (u64::MAX - 511, 512),
        (0, u32::MAX - 16),
    ] {
        for writable in [false, true] {
            let (mut driver, mut ring) = pair();
            driver.offer(0, &[(DATA, 16, false), (at, len, writable)]);
            refuses(&driver, &mut ring, Error::BufferOutOfRam);
        }
    }
}

#[test]
fn openvmm_4047_a_buffer_that_wraps_is_refused() {
    let (mut driver, mut ring) = pair();
    driver.offer(0, &[(u64::MAX - 0xff, 0x200, true)]);
    refuses(&driver, &mut ring, Error::BufferOutOfRam);
}

#[test]
fn a_chain_over_4_gib_is_refused() {
    let (mut driver, mut ring) = pair();
    driver.descriptor(0, (0, RAM as u32, NEXT, 1));
    driver.descriptor(1, (0, u32::MAX, 0, 0));
    driver.make_available(0);
    refuses(&driver, &mut ring, Error::Chain);
}

#[test]
fn indirect_in_indirect_is_refused() {
    let (mut driver, mut ring) = pair();
    driver.descriptor_at(TABLE, 0, (TABLE + 0x100, 16, INDIRECT, 0));
    driver.descriptor_at(TABLE + 0x100, 0, (DATA, 16, 0, 0));
    driver.descriptor(0, (TABLE, 16, INDIRECT, 0));
    driver.make_available(0);
    refuses(&driver, &mut ring, Error::Chain);
}

#[test]
fn an_indirect_table_that_is_none_is_refused() {
    for (at, len) in [
        (TABLE, 0),
        (TABLE, 8),
        (TABLE, 24),
        (RAM, 16),
        (RAM - 8, 16),
        (u64::MAX - 15, 16),
        (TABLE, !15),
    ] {
        let (mut driver, mut ring) = pair();
        driver.descriptor_at(TABLE, 0, (DATA, 16, NEXT, 1));
        driver.descriptor_at(TABLE, 1, (DATA, 16, NEXT, 0));
        driver.descriptor(0, (at, len, INDIRECT, 0));
        driver.make_available(0);
        assert!(
            matches!(pop(&mut ring), Err(Error::Chain | Error::TooLong)),
            "{at:#x} {len:#x}"
        );
    }
}

#[test]
fn a_chain_longer_than_the_queue_is_refused() {
    for (count, result) in [(SIZE, Ok(Some((64, 0)))), (SIZE + 1, Err(Error::TooLong))] {
        let (mut driver, mut ring) = pair();
        for i in 0..count {
            let more = u16::from(i + 1 < count) * NEXT;
            driver.descriptor_at(TABLE, i, (DATA, 8, more, i + 1));
        }
        driver.descriptor(0, (TABLE, u32::from(count) * 16, INDIRECT, 0));
        driver.make_available(0);
        assert_eq!(pop(&mut ring), result);
    }
}

#[test]
fn a_table_of_65536_descriptors_is_refused() {
    for count in [65535u32, 65536] {
        let ram = ram();
        let mut driver = Driver::new(&ram, 0x18_0000, SIZE);
        let mut ring = open(&driver, false).unwrap();
        for i in 0..65535 {
            driver.descriptor_at(0, i, (DATA, 1, NEXT, i + 1));
        }
        driver.descriptor(0, (0, count * 16, INDIRECT, 0));
        driver.make_available(0);
        assert!(matches!(pop(&mut ring), Err(Error::Chain | Error::TooLong)));
    }
}

#[test]
fn a_readable_buffer_after_a_writable_one_is_refused() {
    let (mut driver, mut ring) = pair();
    driver.offer(0, &[(DATA, 16, false), (DATA, 1, true), (DATA, 16, false)]);
    refuses(&driver, &mut ring, Error::Order);
}

#[test]
fn ch_7605_a_wild_available_index_is_refused() {
    for index in [SIZE + 1, 0x8000, 0xffff] {
        let (driver, mut ring) = pair();
        driver.set_avail_index(index);
        refuses(&driver, &mut ring, Error::AvailIndex);
    }
}

#[test]
fn an_available_index_may_not_go_back() {
    let (mut driver, mut ring) = pair();
    driver.offer(0, &[(DATA, 1, true)]);
    driver.offer(1, &[(DATA, 1, true)]);
    assert!(pop(&mut ring).unwrap().is_some());
    driver.set_avail_index(0);
    refuses(&driver, &mut ring, Error::AvailIndex);
}

#[test]
fn cve_2016_5403_no_more_in_flight_than_the_queue_holds() {
    let (mut driver, mut ring) = pair();
    driver.descriptor(0, (DATA, 1, WRITE, 0));
    let mut chains = Vec::new();
    for _ in 0..SIZE {
        driver.make_available(0);
        chains.push(ring.pop().unwrap().unwrap());
    }
    driver.make_available(0);
    refuses(&driver, &mut ring, Error::AvailIndex);
    chains
        .into_iter()
        .for_each(|chain| chain.discard(Reset(())));
}

#[test]
fn cve_2017_17381_a_size_that_was_not_offered_is_refused() {
    for size in [0, 3, 6, 7, SIZE * 2, 0x8000, u16::MAX] {
        let mut driver = Driver::new(&ram(), 0x1000, SIZE);
        driver.layout.size = size;
        assert_eq!(open(&driver, false).err(), Some(Error::Size), "{size}");
    }
}

#[test]
fn a_ring_outside_ram_is_refused() {
    for part in 0..3 {
        for at in [RAM, RAM - 16, u64::MAX - 15, 1 << 63] {
            let mut driver = Driver::new(&ram(), 0x1000, SIZE);
            let layout = &mut driver.layout;
            *[
                &mut layout.descriptors,
                &mut layout.available,
                &mut layout.used,
            ][part] = at;
            assert_eq!(
                open(&driver, false).err(),
                Some(Error::RingOutOfRam),
                "{part} {at:#x}"
            );
        }
    }
}

#[test]
fn a_misaligned_ring_is_refused() {
    for (part, by) in [(0, 8), (1, 1), (2, 2)] {
        let mut driver = Driver::new(&ram(), 0x1000, SIZE);
        let layout = &mut driver.layout;
        *[
            &mut layout.descriptors,
            &mut layout.available,
            &mut layout.used,
        ][part] += by;
        assert_eq!(open(&driver, false).err(), Some(Error::Alignment), "{part}");
    }
}

#[test]
#[should_panic(expected = "a descriptor chain was lost")]
fn a_lost_chain_is_noticed() {
    let (mut driver, mut ring) = pair();
    driver.offer(0, &[(DATA, 1, true)]);
    drop(ring.pop());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever is in the table: an error, or buffers that were wholly inside RAM; only the used ring changes.
    #[test]
    fn random_tables_never_leave_ram(
        table in prop::collection::vec((
            prop_oneof![0..RAM + 0x1000, Just(TABLE), Just(u64::MAX - 8)],
            prop_oneof![0u32..0x200, Just(16u32), Just(32u32), any::<u32>()],
            0u16..8,
            0u16..SIZE + 2,
        ), 2 * usize::from(SIZE)),
        heads in prop::collection::vec(0u16..SIZE + 1, 1..usize::from(SIZE)),
        event_idx: bool,
    ) {
        let mut driver = Driver::new(&ram(), 0x1000, SIZE);
        let mut ring = open(&driver, event_idx).unwrap();
        for (index, descriptor) in (0u16..).zip(table) {
            match index.checked_sub(SIZE) {
                None => driver.descriptor(index, descriptor),
                Some(index) => driver.descriptor_at(TABLE, index, descriptor),
            }
        }
        heads.iter().for_each(|head| driver.make_available(*head));
        let before = image(&driver.ram);
        while let Ok(Some(mut chain)) = ring.pop() {
            let buffers = chain.buffers();
            let mut bytes = vec![0; buffers.readable().len()];
            buffers.readable().copy_to(&mut bytes);
            let room = buffers.writable().len();
            prop_assert!(bytes.len() + room <= u32::MAX as usize);
            ring.publish(&[chain.complete(0)]).unwrap();
        }
        let ring = driver.layout.used as usize..driver.layout.used as usize + 6 + 8 * usize::from(SIZE);
        let after = image(&driver.ram);
        prop_assert!(before[..ring.start] == after[..ring.start] && before[ring.end..] == after[ring.end..]);
    }
}
