use super::*;

/// Answers each load with its tag in the top byte and the offset below.
struct Tag(u64);

impl Mmio for Tag {
    fn read(&self, offset: u64, _size: u8) -> u64 {
        self.0 << 56 | offset
    }
    fn write(&self, _offset: u64, _size: u8, _value: u64) -> Action {
        Action::Reset
    }
}

fn tag(n: u64) -> Arc<dyn Mmio> {
    Arc::new(Tag(n))
}

#[test]
fn nobody_reads_as_all_ones_and_swallows_stores() {
    let bus = Bus::new();
    assert_eq!(bus.read(0x60, 1), 0xff);
    assert_eq!(bus.read(0, 8), u64::MAX);
    assert!(matches!(bus.write(0x60, 1, 0), Action::None));
}

#[test]
fn an_access_must_lie_within_one_range() {
    let bus = Bus::new();
    bus.map(0x100, 4, Priority::Fixed, tag(1));
    bus.map(0x104, 4, Priority::Fixed, tag(2));
    assert_eq!(bus.read(0x102, 8), u64::MAX);
    assert_eq!(bus.read(0x107, 1), 3);
    assert_eq!(bus.read(0x108, 1), 0xff);
    assert!(matches!(bus.write(0x100, 4, 0), Action::Reset));
}

#[test]
fn a_range_is_free_where_nothing_answers() {
    let bus = Bus::new();
    bus.map(0x100, 4, Priority::Fixed, tag(1));
    for (base, len, free) in [
        (0xfe, 2, true),
        (0xfe, 3, false),
        (0x103, 1, false),
        (0x104, 4, true),
        (0, u64::MAX, false),
        (0x100, 0, true),
    ] {
        assert_eq!(bus.is_free(base, len), free, "{base:#x}+{len:#x}");
    }
}

#[test]
fn fixed_ranges_win_and_a_hole_splits_what_lies_below() {
    let bus = Bus::new();
    let bar = bus.map(0x1000, 0x100, Priority::Movable, tag(1));
    let fixed = bus.map(0x1040, 0x10, Priority::Fixed, tag(2));
    assert_eq!(bus.read(0x103f, 1) & 0xff, 0x3f);
    assert_eq!(bus.read(0x1040, 8), 2 << 56);
    assert_eq!(bus.read(0x1050, 8), 1 << 56 | 0x50);
    bus.unmap(fixed);
    assert_eq!(bus.read(0x1040, 8), 1 << 56 | 0x40);
    bus.unmap(bar);
    assert_eq!(bus.read(0x1040, 4), 0xffff_ffff);
}

#[test]
fn among_equals_the_first_mapped_answers() {
    let bus = Bus::new();
    bus.map(0x2000, 0x10, Priority::Movable, tag(1));
    bus.map(0x1ff8, 0x20, Priority::Movable, tag(2));
    assert_eq!(bus.read(0x1ff8, 8), 2 << 56);
    assert_eq!(bus.read(0x2000, 8), 1 << 56);
    assert_eq!(bus.read(0x2010, 8), 2 << 56 | 0x18);
}

#[test]
fn ranges_at_the_top_of_the_space_and_empty_ones_do_not_wrap() {
    let bus = Bus::new();
    bus.map(u64::MAX - 7, 8, Priority::Movable, tag(1));
    bus.map(u64::MAX - 3, 64, Priority::Movable, tag(2));
    let empty = bus.map(0x10, 0, Priority::Movable, tag(3));
    assert_eq!(bus.read(u64::MAX - 7, 8), 1 << 56);
    assert_eq!(bus.read(u64::MAX, 8), u64::MAX);
    assert_eq!(bus.read(0x10, 1), 0xff);
    bus.unmap(empty);
}

#[test]
fn a_ticket_waits_until_it_is_redeemed() {
    let (ticket, redeem) = Ticket::new();
    assert!(!ticket.is_redeemed());
    let waiter = std::thread::spawn({
        let ticket = ticket.clone();
        move || ticket.wait()
    });
    drop(redeem);
    waiter.join().unwrap();
    assert!(ticket.is_redeemed());
}
