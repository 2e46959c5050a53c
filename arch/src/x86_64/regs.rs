//! What a vCPU's registers hold before its first instruction: for each way into a kernel, and after reset.

use super::gdt::{self, Segment, Table};
use super::layout;

/// General registers, instruction pointer and flags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the registers' names say it")]
pub struct Regs {
    pub rax: u64,
    pub rbx: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub rsp: u64,
    pub rbp: u64,
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
    pub rip: u64,
    pub rflags: u64,
}

/// Segment, table and control registers. Everything else of a hypervisor's special registers (the APIC base above all)
/// keeps the value it has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the registers' names say it")]
pub struct SpecialRegs {
    pub cs: Segment,
    pub ds: Segment,
    pub es: Segment,
    pub fs: Segment,
    pub gs: Segment,
    pub ss: Segment,
    pub tr: Segment,
    pub ldt: Segment,
    pub gdt: Table,
    pub idt: Table,
    pub cr0: u64,
    pub cr2: u64,
    pub cr3: u64,
    pub cr4: u64,
    pub cr8: u64,
    pub efer: u64,
}

/// A vCPU's state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VcpuState {
    /// General registers.
    pub regs: Regs,
    /// System registers.
    pub sregs: SpecialRegs,
}

/// Always-one bit of RFLAGS.
pub const RFLAGS_ONE: u64 = 1 << 1;
/// Protected mode.
pub const CR0_PE: u64 = 1 << 0;
/// Monitor coprocessor.
pub const CR0_MP: u64 = 1 << 1;
/// Extension type: always one.
pub const CR0_ET: u64 = 1 << 4;
/// Native FPU errors.
pub const CR0_NE: u64 = 1 << 5;
/// Supervisor honours read-only pages.
pub const CR0_WP: u64 = 1 << 16;
/// Not write-through.
pub const CR0_NW: u64 = 1 << 29;
/// Cache disable.
pub const CR0_CD: u64 = 1 << 30;
/// Paging.
pub const CR0_PG: u64 = 1 << 31;
/// Physical address extension.
pub const CR4_PAE: u64 = 1 << 5;
/// Long mode enable.
pub const EFER_LME: u64 = 1 << 8;
/// Long mode active.
pub const EFER_LMA: u64 = 1 << 10;

/// How the boot CPU enters a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// The Linux 64-bit boot protocol: long mode, identity map, RSI holds the zero page.
    Linux64 {
        /// Physical address of the first instruction.
        rip: u64,
        /// Physical address of `struct boot_params`.
        boot_params: u64,
    },
    /// PVH (Xen's `x86/HVM direct boot ABI`): 32-bit protected mode without paging, EBX holds the start info.
    Pvh {
        /// Physical address of the first instruction.
        rip: u32,
        /// Physical address of `struct hvm_start_info`.
        start_info: u32,
    },
}

impl Entry {
    /// The boot CPU's state.
    ///
    /// For [`Entry::Linux64`] the tables of [`gdt`] and [`super::paging`] must be at [`layout::GDT`] and
    /// [`layout::PAGE_TABLES`]; [`super::boot::plan`] writes them, and the GDT for [`Entry::Pvh`].
    pub fn state(&self) -> VcpuState {
        match *self {
            Self::Linux64 { rip, boot_params } => VcpuState {
                regs: Regs {
                    rip,
                    rsi: boot_params,
                    rsp: layout::BOOT_STACK,
                    rbp: layout::BOOT_STACK,
                    rflags: RFLAGS_ONE,
                    ..Regs::default()
                },
                sregs: SpecialRegs {
                    cr0: CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_PG,
                    cr3: layout::PAGE_TABLES,
                    cr4: CR4_PAE,
                    efer: EFER_LME | EFER_LMA,
                    ..flat(gdt::code64())
                },
            },
            Self::Pvh { rip, start_info } => VcpuState {
                regs: Regs {
                    rip: rip.into(),
                    rbx: start_info.into(),
                    rflags: RFLAGS_ONE,
                    ..Regs::default()
                },
                sregs: SpecialRegs {
                    cr0: CR0_PE | CR0_ET,
                    ..flat(gdt::code32())
                },
            },
        }
    }
}

fn flat(code: Segment) -> SpecialRegs {
    let data = gdt::data();
    SpecialRegs {
        cs: code,
        ds: data,
        es: data,
        fs: data,
        gs: data,
        ss: data,
        tr: gdt::task(),
        ldt: Segment {
            unusable: true,
            ..Segment::default()
        },
        gdt: gdt::register(layout::GDT),
        idt: Table::default(),
        ..SpecialRegs::default()
    }
}

/// The state after reset or INIT (Intel SDM vol. 3 table 10-1, AMD APM vol. 2 §14.1.3): what an application processor
/// waits for its start-up IPI with. The vCPU's run state (wait for SIPI) is the hypervisor's.
///
/// `signature` is CPUID leaf 1 EAX of the vCPU, which EDX holds after reset.
pub fn reset(signature: u32) -> VcpuState {
    let data = Segment {
        limit: 0xffff,
        type_: 0x3,
        present: true,
        s: true,
        ..Segment::default()
    };
    let system = |type_| Segment {
        s: false,
        type_,
        ..data
    };
    let table = Table {
        base: 0,
        limit: 0xffff,
    };
    VcpuState {
        regs: Regs {
            rdx: signature.into(),
            rip: 0xfff0,
            rflags: RFLAGS_ONE,
            ..Regs::default()
        },
        sregs: SpecialRegs {
            cs: Segment {
                base: 0xffff_0000,
                selector: 0xf000,
                type_: 0xb,
                ..data
            },
            ds: data,
            es: data,
            fs: data,
            gs: data,
            ss: data,
            tr: system(0xb),
            ldt: system(0x2),
            gdt: table,
            idt: table,
            cr0: CR0_CD | CR0_NW | CR0_ET,
            ..SpecialRegs::default()
        },
    }
}
