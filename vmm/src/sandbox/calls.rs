//! seccomp: the system calls of each kind of thread, and what their arguments may be.
//!
//! Each list is what the thread needs once the machine stands, found by running the whole test suite
//! under it. Arguments are checked where the same call does good and harm: ioctl by number, memory
//! never executable, signals only to this process, new tasks only as threads.
//!
//! What is asked of a ring passes no filter: each ring is restricted to reading, writing, flushing and
//! polling when it is made, and no thread can make another.

use std::collections::BTreeMap;
use std::io;

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use super::Thread;
use crate::error::Error;

/// What one argument must be.
enum Check {
    /// Argument `.0` is one of `.1`.
    OneOf(u8, &'static [u64]),
    /// Argument `.0` with mask `.1` is `.2`.
    Masked(u8, u64, u64),
    /// Argument `.0` is this process.
    Myself(u8),
}

use Check::{Masked, Myself, OneOf};

/// What the C library and Rust's need on any thread: memory, locks, clocks, its own end.
const EVERY: &[c_long] = &[
    libc::SYS_brk,
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_clone3, // never gets through: see `Filters::soft`
    libc::SYS_close,
    libc::SYS_dup,
    libc::SYS_eventfd2,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_fstat,
    libc::SYS_futex,
    libc::SYS_getcpu,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_gettid,
    libc::SYS_gettimeofday,
    libc::SYS_lseek,
    libc::SYS_madvise,
    libc::SYS_membarrier,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_nanosleep,
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_preadv2,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_sigaltstack,
    libc::SYS_write,
    libc::SYS_writev,
];

/// What reaches a disk's file: leaf operations that are done by the thread itself or by the pool.
const DATA: &[c_long] = &[
    libc::SYS_fallocate,
    libc::SYS_fdatasync,
    libc::SYS_fsync,
    libc::SYS_ftruncate,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_pwritev2,
    libc::SYS_statx,
    libc::SYS_sync_file_range,
];

/// Opening files by name, and looking at them. Landlock says which.
const OPEN: &[c_long] = &[
    libc::SYS_access,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fstatfs,
    libc::SYS_getdents64,
    libc::SYS_newfstatat,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_readlink,
    libc::SYS_readlinkat,
    libc::SYS_stat,
    libc::SYS_statfs,
];

/// What an executor sleeps in.
const EXECUTOR: &[c_long] = &[
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_epoll_wait,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
];

/// What the main loop does beside: consoles, and taking away its pid file and sockets.
const CONSOLE: &[c_long] = &[
    libc::SYS_accept4,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_shutdown,
    libc::SYS_unlink,
    libc::SYS_unlinkat,
];

const NO_EXEC: Check = Masked(2, libc::PROT_EXEC as u64, 0);

/// What makes a new task a thread of this process.
const THREAD_FLAGS: u64 = (libc::CLONE_VM | libc::CLONE_THREAD | libc::CLONE_SIGHAND) as u64;

/// What would put it into namespaces of its own.
const NAMESPACE_FLAGS: u64 = 0x7e02_0080;

/// Calls of [`EVERY`] thread whose arguments matter.
const EVERY_CHECKED: &[(c_long, Check)] = &[
    (libc::SYS_mmap, NO_EXEC),
    (libc::SYS_mprotect, NO_EXEC),
    (
        libc::SYS_clone,
        Masked(0, THREAD_FLAGS | NAMESPACE_FLAGS, THREAD_FLAGS),
    ),
    (libc::SYS_tgkill, Myself(0)),
    (
        libc::SYS_prctl,
        OneOf(
            0,
            &[
                libc::PR_SET_NAME as u64,
                libc::PR_GET_NAME as u64,
                libc::PR_SET_NO_NEW_PRIVS as u64,
                // The C library names the memory it maps, where the kernel can.
                libc::PR_SET_VMA as u64,
            ],
        ),
    ),
    // A thread may narrow its own list.
    (
        libc::SYS_seccomp,
        OneOf(0, &[libc::SECCOMP_SET_MODE_FILTER as u64]),
    ),
    (
        libc::SYS_fcntl,
        OneOf(
            1,
            &[
                libc::F_GETFD as u64,
                libc::F_SETFD as u64,
                libc::F_GETFL as u64,
                libc::F_DUPFD_CLOEXEC as u64,
                libc::F_OFD_SETLK as u64,
                libc::F_OFD_GETLK as u64,
            ],
        ),
    ),
    // The terminal is given back by whoever ends the process.
    (libc::SYS_ioctl, TERMINAL_IOCTLS),
];

/// Terminals: reading and setting their modes (asm-generic/ioctls.h).
const TERMINAL_IOCTLS: Check = OneOf(
    1,
    &[
        libc::TCGETS,
        libc::TCSETS,
        libc::TCSETSW,
        libc::TCSETSF,
        0x802c_542a, // TCGETS2
        0x402c_542b, // TCSETS2
        0x402c_542c, // TCSETSW2
        0x402c_542d, // TCSETSF2
    ],
);

/// Block devices: discard, zero, and what they are like (linux/fs.h).
const BLOCK_IOCTLS: Check = OneOf(
    1,
    &[
        0x125e,      // BLKROGET
        0x1268,      // BLKSSZGET
        0x1277,      // BLKDISCARD
        0x1278,      // BLKIOMIN
        0x1279,      // BLKIOOPT
        0x127b,      // BLKPBSZGET
        0x127f,      // BLKZEROOUT
        0x8008_1272, // BLKGETSIZE64
    ],
);

/// Every KVM ioctl: a guest's reset makes its machine anew.
const KVM_IOCTLS: Check = Masked(1, 0xff00, 0xae00);

/// The lists of `thread`.
fn lists(thread: Thread) -> Vec<&'static [c_long]> {
    match thread {
        Thread::Main => vec![EVERY, DATA, EXECUTOR, CONSOLE],
        Thread::Io => vec![EVERY, DATA, EXECUTOR],
        Thread::Vcpu | Thread::Pool => vec![EVERY, DATA],
        Thread::Opener => vec![EVERY, DATA, OPEN],
    }
}

/// The ioctls of `thread` beside those of every thread.
fn ioctls(thread: Thread) -> &'static [Check] {
    match thread {
        // Interrupt routes change in the thread that handles the register.
        Thread::Main | Thread::Io => &[BLOCK_IOCTLS, KVM_IOCTLS],
        Thread::Vcpu => &[KVM_IOCTLS],
        Thread::Pool | Thread::Opener => &[BLOCK_IOCTLS],
    }
}

/// One compiled program a kind of thread.
#[derive(Debug)]
pub struct Filters {
    main: BpfProgram,
    vcpu: BpfProgram,
    io: BpfProgram,
    pool: BpfProgram,
    opener: BpfProgram,
    /// Before any of the others: calls that fail with an errno because their user has another way.
    soft: BpfProgram,
}

impl Filters {
    /// Compiles all lists.
    ///
    /// # Errors
    /// None on x86-64 with the lists as they are.
    pub fn new() -> Result<Filters, Error> {
        // clone3 hides its flags behind a pointer; with ENOSYS the C library takes clone.
        let soft = compile(
            BTreeMap::from([(libc::SYS_clone3, vec![])]),
            SeccompAction::Allow,
            SeccompAction::Errno(libc::ENOSYS as u32),
        )?;
        Ok(Filters {
            main: program(Thread::Main)?,
            vcpu: program(Thread::Vcpu)?,
            io: program(Thread::Io)?,
            pool: program(Thread::Pool)?,
            opener: program(Thread::Opener)?,
            soft,
        })
    }

    /// Puts the calling thread under its list.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn apply(&self, thread: Thread) -> io::Result<()> {
        let program = match thread {
            Thread::Main => &self.main,
            Thread::Vcpu => &self.vcpu,
            Thread::Io => &self.io,
            Thread::Pool => &self.pool,
            Thread::Opener => &self.opener,
        };
        for program in [&self.soft, program] {
            seccompiler::apply_filter(program).map_err(io::Error::other)?;
        }
        Ok(())
    }
}

/// Whether the kernel has seccomp filters. The kernel itself is asked: /proc need not be mounted.
#[allow(unsafe_code)] // no crate makes this call
pub fn supported() -> bool {
    let action = libc::SECCOMP_RET_TRAP;
    // SAFETY: the kernel reads a 32-bit action behind the pointer (seccomp(2)).
    let answer = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_GET_ACTION_AVAIL,
            0,
            &raw const action,
        )
    };
    answer == 0
}

fn program(thread: Thread) -> Result<BpfProgram, Error> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for call in lists(thread).into_iter().flatten() {
        rules.insert(*call, vec![]);
    }
    let checked = EVERY_CHECKED.iter().map(|(call, check)| (*call, check));
    let ioctls = ioctls(thread).iter().map(|check| (libc::SYS_ioctl, check));
    for (call, check) in checked.chain(ioctls) {
        rules.entry(call).or_default().extend(check.rules()?);
    }
    // A trap and not a kill: the handler gives the terminal back, says what happened, and ends the
    // process. Where it cannot run, the kernel ends the process itself.
    compile(rules, SeccompAction::Trap, SeccompAction::Allow)
}

fn compile(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    otherwise: SeccompAction,
    then: SeccompAction,
) -> Result<BpfProgram, Error> {
    SeccompFilter::new(rules, otherwise, then, TargetArch::x86_64)
        .and_then(BpfProgram::try_from)
        .map_err(|error| Error::user("-sandbox: cannot build the filter").because(error))
}

impl Check {
    /// Alternatives, any of which allows the call.
    fn rules(&self) -> Result<Vec<SeccompRule>, Error> {
        let one = |argument, operator, value| {
            SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)
                .and_then(|condition| SeccompRule::new(vec![condition]))
                .map_err(|error| Error::user("-sandbox: cannot build the filter").because(error))
        };
        match *self {
            OneOf(argument, values) => values
                .iter()
                .map(|value| one(argument, SeccompCmpOp::Eq, *value))
                .collect(),
            Masked(argument, mask, value) => {
                Ok(vec![one(argument, SeccompCmpOp::MaskedEq(mask), value)?])
            }
            Myself(argument) => {
                let pid = u64::from(std::process::id());
                Ok(vec![one(argument, SeccompCmpOp::Eq, pid)?])
            }
        }
    }
}
