//! The KVM side of the machine, with guests of a few bytes.
//!
//! They need a `/dev/kvm` and nothing else: one without hardware virtualization will do. Where there is none, the
//! whole program runs on an emulated host.

use std::io;
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use arch::x86_64::cpuid::Model;
use arch::x86_64::layout::Layout;
use arch::x86_64::regs::{Entry, VcpuState};
use arch::x86_64::topology::Topology;
use devices::bus::{Action, Bus, Mmio, Priority, Redeem, Ticket};
use devices::irq::{Doorbell, MsiMessage};
use devices::memory::GuestRam;
use libtest_mimic::{Arguments, Failed, Trial};
use tests::host;
use vm_memory::{Bytes, GuestAddress};
use vmm::kvm::Board;
use vmm::kvm::host::Host;
use vmm::kvm::processors::Processors;
use vmm::kvm::ram;
use vmm::kvm::threads::{Setup, Threads};
use vmm::kvm::vcpu::Stop;

/// Where the code is, and the port that ends it.
const CODE: u64 = 0x10_0000;
const EXIT: u16 = 0xf4;
const LOG: u16 = 0x3f8;

fn main() -> ExitCode {
    let args = Arguments::from_args();
    let moved = if args.list {
        Ok(None)
    } else {
        host::elsewhere(&[])
    };
    if let Ok(Some(status)) = moved {
        return ExitCode::from(u8::from(status != 0));
    }
    let open = Host::open().map_err(|error| error.to_string());
    let lacking = moved
        .map_err(|error| format!("{error:#}"))
        .err()
        .or(open.err());
    let required = std::env::var_os("SPINDLE_TEST_REQUIRE").is_some_and(|value| value == "all");
    let test = |name: &str, run: fn() -> Result<(), Failed>| {
        let trial = Trial::test(name, run).with_ignored_flag(lacking.is_some() && !required);
        trial.with_kind(lacking.clone().unwrap_or_default())
    };
    libtest_mimic::run(
        &args,
        vec![
            test("port_and_memory_accesses_reach_the_buses", accesses),
            test("a_triple_fault_is_a_crash", triple_fault),
            test("a_guest_is_parked_and_booted_again", park_and_boot),
            test(
                "a_boot_that_ends_at_once_leaves_no_processor_behind",
                park_at_once,
            ),
            test("a_stuck_processor_is_not_waited_for", stuck),
            test("what_a_guest_repeats_is_heard_once", repeated),
            test("a_doorbell_is_a_signal_and_no_exit", doorbell),
            test("messages_interrupt_by_irqfd_and_without", messages),
            test(
                "processors_wait_for_their_start_up_message",
                application_processors,
            ),
        ],
    )
    .exit_code()
}

/// A port whose stores are never done, or tell again and again of a crash.
struct Trouble(Ticket, mpsc::Sender<(u64, u8, u64)>);

/// Where [`Trouble`] is: the wait, then the crash.
const TROUBLE: u16 = 0x500;

impl Mmio for Trouble {
    fn read(&self, _: u64, _: u8) -> u64 {
        0
    }

    fn write(&self, offset: u64, _: u8, _: u64) -> Action {
        match offset {
            0 => {
                self.1.send((TROUBLE.into(), 1, 0)).unwrap();
                Action::Wait(self.0.clone())
            }
            _ => Action::GuestCrashLoaded,
        }
    }
}

/// Logs stores, answers loads with 0x5a in each byte, and ends the guest at [`EXIT`].
struct Device(mpsc::Sender<(u64, u8, u64)>, Mutex<u64>);

impl Mmio for Device {
    fn read(&self, _: u64, _: u8) -> u64 {
        0x5a5a_5a5a_5a5a_5a5a
    }

    fn write(&self, offset: u64, size: u8, value: u64) -> Action {
        self.0.send((offset, size, value)).unwrap();
        *self.1.lock().unwrap() += 1;
        Action::None
    }
}

struct Exit;

impl Mmio for Exit {
    fn read(&self, _: u64, _: u8) -> u64 {
        0
    }

    fn write(&self, _: u64, _: u8, value: u64) -> Action {
        Action::Exit(value as u8)
    }
}

struct Guest {
    ram: GuestRam,
    board: Board,
    threads: Threads,
    stores: mpsc::Receiver<(u64, u8, u64)>,
    stops: mpsc::Receiver<(usize, Stop)>,
    /// What the guest waits for at [`TROUBLE`].
    relief: Redeem,
}

const MINUTE: Duration = Duration::from_secs(60);

impl Guest {
    fn new(cpus: u32) -> Guest {
        let host = Host::open().unwrap();
        let topology = Topology::flat(cpus).unwrap();
        let processors = Processors::new(&host, &Model::parse("host").unwrap(), topology).unwrap();
        let layout = Layout::new(16 << 20, processors.phys_bits()).unwrap();
        let ram = ram::allocate(&layout).unwrap();
        let board = Board::new(host, ram.clone()).unwrap();
        let (memory, ports) = (Arc::new(Bus::new()), Arc::new(Bus::new()));
        let (store, stores) = mpsc::channel();
        let device = Arc::new(Device(store.clone(), Mutex::new(0)));
        memory.map(0xd000_0000, 0x1000, Priority::Fixed, device.clone());
        ports.map(LOG.into(), 8, Priority::Fixed, device);
        ports.map(EXIT.into(), 4, Priority::Fixed, Arc::new(Exit));
        let (ticket, relief) = Ticket::new();
        ports.map(
            TROUBLE.into(),
            2,
            Priority::Fixed,
            Arc::new(Trouble(ticket, store)),
        );
        let (stop, stops) = mpsc::channel();
        let setup = Setup {
            vm: board.vm(),
            memory,
            ports,
            enter: Box::new(|| io::Result::Ok(())),
            report: Box::new(move |index, why| stop.send((index, why)).unwrap()),
        };
        let threads = Threads::start(setup, processors.list().unwrap()).unwrap();
        threads.ready().unwrap();
        Guest {
            ram,
            board,
            threads,
            stores,
            stops,
            relief,
        }
    }

    /// Boots flat 32-bit code.
    fn boot(&self, code: &[u8]) {
        self.ram.write_slice(code, GuestAddress(CODE)).unwrap();
        self.threads.boot(entry());
    }

    fn exit(&self) -> u8 {
        match self.stops.recv_timeout(MINUTE).unwrap() {
            (0, Stop::Asked(Action::Exit(status))) => status,
            other => panic!("{other:?}"),
        }
    }

    fn end(self) {
        self.threads.end(Instant::now() + MINUTE).unwrap();
    }
}

fn entry() -> VcpuState {
    Entry::Pvh {
        rip: CODE as u32,
        start_info: 0,
    }
    .state()
}

/// mov dx, port; mov al, value; out dx, al
fn out(port: u16, value: u8) -> Vec<u8> {
    let [low, high] = port.to_le_bytes();
    vec![0x66, 0xba, low, high, 0xb0, value, 0xee]
}

/// mov dword ptr [address], value
fn store(address: u32, value: u32) -> Vec<u8> {
    let mut code = vec![0xc7, 0x05];
    code.extend(address.to_le_bytes());
    code.extend(value.to_le_bytes());
    code
}

fn accesses() -> Result<(), Failed> {
    let guest = Guest::new(1);
    let mut code = out(LOG, b'!');
    code.extend(store(0xd000_0010, 0x1234_5678));
    code.extend([0xa1, 0x20, 0, 0, 0xd0]); // mov eax, [0xd0000020]
    code.extend([0x66, 0xba, 0xf9, 0x03, 0xef]); // mov dx, 0x3f9; out dx, eax
    code.extend([0xa0, 0x20, 0, 0x10, 0xd0]); // mov al, [0xd0100020]: nobody is there
    code.extend([0xee]); // out dx, al
    code.extend([0xbe, 0, 0, 0x10, 0]); // mov esi, CODE
    code.extend([0xb9, 3, 0, 0, 0]); // mov ecx, 3
    code.extend([0xf3, 0x66, 0x6f]); // rep outsw
    code.extend(out(EXIT, 7));
    guest.boot(&code);
    assert_eq!(guest.exit(), 7);
    let stores: Vec<_> = guest.stores.try_iter().collect();
    let word = |at: usize| u64::from(u16::from_le_bytes([code[at], code[at + 1]]));
    assert_eq!(
        stores,
        [
            (0, 1, b'!'.into()),
            (0x10, 4, 0x1234_5678),
            (1, 4, 0x5a5a_5a5a),
            (1, 1, 0xff),
            (1, 2, word(0)),
            (1, 2, word(2)),
            (1, 2, word(4)),
        ]
    );
    guest.end();
    Ok(())
}

fn triple_fault() -> Result<(), Failed> {
    let guest = Guest::new(1);
    guest.boot(&[0x0f, 0x0b]); // ud2, and there is no IDT
    match guest.stops.recv_timeout(MINUTE)? {
        (0, Stop::Crashed(reason)) => assert!(reason.starts_with("triple fault"), "{reason}"),
        other => panic!("{other:?}"),
    }
    guest.end();
    Ok(())
}

fn park_and_boot() -> Result<(), Failed> {
    let guest = Guest::new(2);
    for turn in 1..=3 {
        let mut code = out(LOG, turn);
        code.extend([0xeb, 0xfe]); // jmp $
        guest.boot(&code);
        assert_eq!(guest.stores.recv_timeout(MINUTE)?, (0, 1, turn.into()));
        guest.threads.park().wait();
        guest.board.renew()?;
    }
    // Parked already: at once.
    guest.threads.park().wait();
    guest.boot(&out(EXIT, 1));
    assert_eq!(guest.exit(), 1);
    guest.end();
    Ok(())
}

fn park_at_once() -> Result<(), Failed> {
    let guest = Guest::new(32);
    guest.ram.write_slice(&[0xeb, 0xfe], GuestAddress(CODE))?; // jmp $
    for _ in 0..100 {
        // Before its threads are awake.
        guest.threads.boot(entry());
        guest.threads.park().wait();
        guest.board.renew()?;
    }
    if let Ok(stop) = guest.stops.try_recv() {
        panic!("{stop:?}");
    }
    guest.boot(&out(EXIT, 1));
    assert_eq!(guest.exit(), 1);
    guest.end();
    Ok(())
}

fn stuck() -> Result<(), Failed> {
    let guest = Guest::new(2);
    guest.boot(&out(TROUBLE, 0));
    guest.stores.recv_timeout(MINUTE)?;
    let parked = guest.threads.park();
    std::thread::sleep(Duration::from_millis(20));
    assert!(!parked.is_redeemed());
    let (threads, relief) = (guest.threads, guest.relief);
    let (done, dropped) = mpsc::channel();
    std::thread::spawn(move || {
        drop(threads);
        done.send(()).unwrap();
    });
    dropped.recv_timeout(Duration::from_secs(5))?;
    drop(relief);
    Ok(())
}

fn repeated() -> Result<(), Failed> {
    let guest = Guest::new(1);
    let mut code = vec![0xb9, 0, 1, 0, 0]; // mov ecx, 256
    code.extend(out(TROUBLE + 1, 0));
    code.extend([0xe2, 0xf7]); // loop
    code.extend(out(EXIT, 1));
    for _ in 0..2 {
        guest.boot(&code);
        let first = guest.stops.recv_timeout(MINUTE)?;
        let is_crash = matches!(first, (0, Stop::Asked(Action::GuestCrashLoaded)));
        assert!(is_crash, "{first:?}");
        assert_eq!(guest.exit(), 1);
        guest.threads.park().wait();
        guest.board.renew()?;
    }
    guest.end();
    Ok(())
}

fn doorbell() -> Result<(), Failed> {
    let guest = Guest::new(1);
    let doorbells = guest.board.doorbells();
    let bell = rustix::event::eventfd(0, rustix::event::EventfdFlags::NONBLOCK)?;
    let count = || {
        let mut count = [0; 8];
        rustix::io::read(&bell, &mut count).map_or(0, |_| u64::from_ne_bytes(count))
    };
    let places = [Doorbell::Mmio(0xd000_0040), Doorbell::Pio(LOG + 4)];
    for at in places {
        doorbells.attach(at, bell.as_fd())?;
    }
    let taken = doorbells.attach(places[0], bell.as_fd()).unwrap_err();
    assert_eq!(taken.raw_os_error(), Some(17));
    let mut code = store(0xd000_0040, 1);
    code.extend([0xc6, 0x05, 0x40, 0, 0, 0xd0, 2]); // mov byte ptr [0xd0000040], 2
    code.extend(out(LOG + 4, 3));
    code.extend(store(0xd000_0044, 4));
    code.extend(out(EXIT, 1));
    guest.boot(&code);
    guest.exit();
    assert_eq!(count(), 3);
    assert_eq!(guest.stores.try_iter().collect::<Vec<_>>(), [(0x44, 4, 4)]);

    // Still there after a reset, until it is taken off.
    guest.threads.park().wait();
    guest.board.renew()?;
    guest.threads.boot(entry());
    guest.exit();
    assert_eq!(count(), 3);
    for at in places {
        doorbells.detach(at, bell.as_fd());
    }
    guest.threads.park().wait();
    guest.board.renew()?;
    guest.threads.boot(entry());
    guest.exit();
    assert_eq!(count(), 0);
    guest.end();
    Ok(())
}

/// Code that enables the local APIC, says 1, and then waits for interrupts of vector 0x40, says 2 for
/// each and ends after the third. It never returns from one: KVM without hardware cannot emulate that.
fn waiter(guest: &Guest) -> Vec<u8> {
    const HANDLER: u64 = CODE + 0x1000;
    const IDT: u64 = CODE + 0x2000;
    let mut handler = out(LOG, 2);
    handler.extend(store(0xfee0_00b0, 0)); // end of interrupt
    handler.extend([0xbc, 0, 0, 0x20, 0]); // mov esp, 0x200000
    handler.extend([0x43]); // inc ebx
    handler.extend([0x83, 0xfb, 3]); // cmp ebx, 3
    handler.extend([0x74, 0x04]); // je past the loop
    handler.extend([0xfb]); // sti
    handler.extend([0xf4]); // hlt
    handler.extend([0xeb, 0xfd]); // jmp hlt
    handler.extend(out(EXIT, 9));
    guest
        .ram
        .write_slice(&handler, GuestAddress(HANDLER))
        .unwrap();
    let [a, b, c, d, ..] = HANDLER.to_le_bytes();
    let gate = [a, b, 0x10, 0, 0, 0x8e, c, d];
    guest
        .ram
        .write_slice(&gate, GuestAddress(IDT + 0x40 * 8))
        .unwrap();
    let pointer = IDT + 0x800;
    guest
        .ram
        .write_obj(0x7ff_u16, GuestAddress(pointer))
        .unwrap();
    guest
        .ram
        .write_obj(IDT as u32, GuestAddress(pointer + 2))
        .unwrap();
    let gdt = arch::x86_64::gdt::bytes(arch::x86_64::gdt::code32());
    guest
        .ram
        .write_slice(&gdt, GuestAddress(arch::x86_64::layout::GDT))
        .unwrap();
    let mut code = vec![0xbc, 0, 0, 0x20, 0]; // mov esp, 0x200000
    code.extend([0x31, 0xdb]); // xor ebx, ebx
    code.extend([0x0f, 0x01, 0x1d]); // lidt [pointer]
    code.extend((pointer as u32).to_le_bytes());
    code.extend(store(0xfee0_00f0, 0x1ff));
    code.extend(out(LOG, 1));
    code.extend([0xfb]); // sti
    code.extend([0xf4]); // hlt
    code.extend([0xeb, 0xfd]); // jmp hlt
    code
}

fn messages() -> Result<(), Failed> {
    let guest = Guest::new(1);
    let code = waiter(&guest);
    let sink = guest.board.messages();
    let message = MsiMessage {
        address: 0xfee0_0000,
        data: 0x40,
    };
    let said = |value: u64| {
        assert_eq!(guest.stores.recv_timeout(MINUTE).unwrap(), (0, 1, value));
    };
    let elsewhere = MsiMessage {
        address: 0x1000,
        data: 0x40,
    };
    let route = sink.route(elsewhere).unwrap();
    for _ in 0..2 {
        guest.boot(&code);
        said(1);
        sink.send(message);
        said(2);
        // A message to RAM interrupts nobody, however it is sent.
        sink.send(elsewhere);
        route.trigger();
        route.update(message)?;
        route.trigger();
        said(2);
        let other = sink.route(message).unwrap();
        drop(sink.route(elsewhere));
        other.trigger();
        said(2);
        assert_eq!(guest.exit(), 9);
        route.update(elsewhere)?;
        // Routes outlive the machine that they were made for.
        guest.threads.park().wait();
        guest.board.renew()?;
    }
    guest.end();
    Ok(())
}

fn application_processors() -> Result<(), Failed> {
    const LAST: u8 = 31;
    let guest = Guest::new(u32::from(LAST) + 1);
    // The last processor starts in real mode at 0x8000: mov dx, 0x3f8; mov al, 0x77; out dx, al; hlt
    let second = [0xba, 0xf8, 0x03, 0xb0, 0x77, 0xee, 0xf4];
    guest.ram.write_slice(&second, GuestAddress(0x8000))?;
    let mut code = store(0xfee0_00f0, 0x1ff);
    code.extend(store(0xfee0_0310, u32::from(LAST) << 24));
    code.extend(store(0xfee0_0300, 0x4500)); // INIT
    code.extend(store(0xfee0_0310, u32::from(LAST) << 24));
    code.extend(store(0xfee0_0300, 0x4608)); // SIPI to 0x8000
    code.extend([0xf4]); // hlt
    // After a reset, too, whoever is called is there.
    for _ in 0..10 {
        guest.boot(&code);
        let said = guest.stores.recv_timeout(Duration::from_secs(10))?;
        assert_eq!(said, (0, 1, 0x77));
        guest.threads.park().wait();
        guest.board.renew()?;
    }
    guest.end();
    Ok(())
}
