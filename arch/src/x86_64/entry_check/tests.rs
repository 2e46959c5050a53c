use super::*;
use crate::x86_64::regs::{Entry, reset};

const LINUX: Entry = Entry::Linux64 {
    rip: 0x100_0200,
    boot_params: 0x7000,
};
const PVH: Entry = Entry::Pvh {
    rip: 0x100_0000,
    start_info: 0x6000,
};

#[test]
fn every_entry_passes() {
    for state in [LINUX.state(), PVH.state(), reset(0x0080_0f12)] {
        for bits in [32, 36, 40, 52] {
            check_entry_state(&state, bits).unwrap();
        }
    }
}

#[test]
fn entries_keep_their_protocols() {
    // Documentation/arch/x86/boot.rst, 64-bit boot protocol.
    let linux = LINUX.state();
    let s = linux.sregs;
    assert_eq!(
        (s.cs.selector, s.ds.selector, s.es.selector, s.ss.selector),
        (0x10, 0x18, 0x18, 0x18)
    );
    assert!(s.cs.l && s.cr0 & CR0_PG != 0 && s.efer & EFER_LMA != 0);
    assert_eq!((linux.regs.rsi, linux.regs.rflags & 1 << 9), (0x7000, 0));
    // xen/include/public/arch-x86/hvm/start_info.h and docs/misc/pvh.pandoc.
    let pvh = PVH.state();
    let s = pvh.sregs;
    assert_eq!(pvh.regs.rbx, 0x6000);
    assert_eq!(
        (s.cr0, s.cr4, s.efer),
        (CR0_PE | super::super::regs::CR0_ET, 0, 0)
    );
    assert_eq!(
        (s.cs.base, s.cs.limit, s.cs.type_, s.cs.db),
        (0, u32::MAX, 0xb, true)
    );
    assert_eq!(
        (s.ds.base, s.ds.limit, s.tr.base, s.tr.limit),
        (0, u32::MAX, 0, 0x67)
    );
    assert_eq!(pvh.regs.rflags & (1 << 17 | 1 << 9 | 1 << 8), 0);
    // SDM vol. 3 table 10-1.
    let ap = reset(0x1234);
    assert_eq!(
        (ap.sregs.cs.base + ap.regs.rip, ap.regs.rdx, ap.sregs.cr0),
        (0xffff_fff0, 0x1234, 0x6000_0010)
    );
}

type Break = fn(&mut VcpuState);

/// Applies `change` to a good state and expects the rule that it breaks.
fn broken(mut state: VcpuState, change: Break, register: &str, rule: &str) {
    change(&mut state);
    let violation = check_entry_state(&state, 40).expect_err(rule);
    assert_eq!((violation.register, violation.rule), (register, rule));
}

#[test]
fn each_control_register_rule() {
    let cases: &[(Break, &str, &str)] = &[
        (|s| s.sregs.cr0 |= 1 << 63, "CR0", "reserved bits are zero"),
        (|s| s.sregs.cr0 |= CR0_NW, "CR0", "NW needs CD"),
        (|s| s.sregs.cr0 &= !CR0_PE, "CR0", "PG needs PE"),
        (|s| s.sregs.cr4 |= 1 << 15, "CR4", "reserved bits are zero"),
        (
            |s| {
                s.sregs.cr0 &= !CR0_WP;
                s.sregs.cr4 |= CR4_CET;
            },
            "CR4",
            "CET needs CR0.WP",
        ),
        (
            |s| s.sregs.cr3 |= 1 << 40,
            "CR3",
            "no bit beyond the address width",
        ),
        (|s| s.sregs.cr8 = 16, "CR8", "a priority of four bits"),
        (|s| s.sregs.efer |= 1 << 9, "EFER", "reserved bits are zero"),
        (
            |s| s.sregs.efer &= !EFER_LME,
            "EFER",
            "LMA is LME and CR0.PG",
        ),
        (
            |s| s.sregs.efer &= !EFER_LMA,
            "EFER",
            "LMA is LME and CR0.PG",
        ),
        (|s| s.sregs.cr0 &= !CR0_PG, "EFER", "LMA is LME and CR0.PG"),
        (|s| s.sregs.cr4 &= !CR4_PAE, "CR4", "long mode needs PAE"),
    ];
    for &(change, register, rule) in cases {
        broken(LINUX.state(), change, register, rule);
    }
    broken(
        PVH.state(),
        |s| s.sregs.cr4 |= CR4_PCIDE,
        "CR4",
        "PCIDE needs long mode",
    );
}

#[test]
fn each_segment_rule() {
    let cases: &[(Break, &str, &str)] = &[
        (|s| s.sregs.cs.unusable = true, "CS", "usable"),
        (|s| s.sregs.cs.s = false, "CS", "code or data, not system"),
        (
            |s| s.sregs.cs.type_ = 0xa,
            "CS",
            "accessed code, or real mode's data",
        ),
        (
            |s| {
                s.sregs.cs.type_ = 3;
                s.sregs.cs.dpl = 1;
            },
            "CS",
            "DPL is 0 in real mode",
        ),
        (|s| s.sregs.cs.base = 1 << 32, "CS", "base is 32 bits"),
        (
            |s| s.sregs.cs.db = true,
            "CS",
            "L and D exclude each other in long mode",
        ),
        (|s| s.sregs.cs.present = false, "CS", "present"),
        (
            |s| s.sregs.cs.limit = 0xfff_0000,
            "CS",
            "G needs a limit that ends a page",
        ),
        (
            |s| s.sregs.cs.g = false,
            "CS",
            "a limit beyond 1 MiB needs G",
        ),
        (
            |s| s.sregs.cs.dpl = 1,
            "CS",
            "non-conforming code has the stack's privilege",
        ),
        (
            |s| {
                s.sregs.cs.type_ = 15;
                s.sregs.cs.dpl = 1;
            },
            "CS",
            "conforming code is no less privileged than the stack",
        ),
        (|s| s.sregs.ss.type_ = 0xb, "SS", "accessed writable data"),
        (|s| s.sregs.ss.selector |= 1, "SS", "RPL is the code's"),
        (
            |s| {
                s.sregs.cs.dpl = 3;
                s.sregs.ss.dpl = 3;
            },
            "SS",
            "DPL is RPL",
        ),
        (|s| s.sregs.ds.s = false, "DS", "code or data, not system"),
        (|s| s.sregs.es.type_ = 2, "ES", "accessed"),
        (|s| s.sregs.fs.type_ = 9, "FS", "code must be readable"),
        (|s| s.sregs.ds.base = 1 << 32, "DS", "base is 32 bits"),
        (|s| s.sregs.gs.present = false, "GS", "present"),
        (|s| s.sregs.gs.type_ = 0x13, "GS", "fields in range"),
        (|s| s.sregs.fs.base = 1 << 47, "FS", "canonical base"),
        (|s| s.sregs.gs.base = 1 << 63, "GS", "canonical base"),
    ];
    for &(change, register, rule) in cases {
        broken(LINUX.state(), change, register, rule);
    }
    broken(
        reset(0),
        |s| {
            s.sregs.ss.dpl = 3;
            s.sregs.ss.selector = 3;
            s.sregs.cs.selector |= 3;
            s.sregs.cs.dpl = 3;
        },
        "SS",
        "DPL is 0 in real mode",
    );
}

#[test]
fn each_system_segment_rule() {
    let cases: &[(Break, &str, &str)] = &[
        (|s| s.sregs.tr.unusable = true, "TR", "usable"),
        (|s| s.sregs.tr.type_ = 9, "TR", "busy task state"),
        (|s| s.sregs.tr.type_ = 3, "TR", "busy task state"),
        (|s| s.sregs.tr.s = true, "TR", "a system segment"),
        (|s| s.sregs.tr.selector |= 4, "TR", "from the GDT"),
        (|s| s.sregs.tr.base = 1 << 50, "TR", "canonical base"),
        (|s| s.sregs.tr.present = false, "TR", "present"),
        (|s| s.sregs.gdt.base = 1 << 48, "GDTR", "canonical base"),
        (
            |s| s.sregs.idt.base = 0xffff_0000_0000_0000,
            "IDTR",
            "canonical base",
        ),
    ];
    for &(change, register, rule) in cases {
        broken(LINUX.state(), change, register, rule);
    }
    let cases: &[(Break, &str)] = &[
        (|s| s.sregs.ldt.type_ = 3, "a local descriptor table"),
        (|s| s.sregs.ldt.s = true, "a system segment"),
        (|s| s.sregs.ldt.selector = 4, "from the GDT"),
        (|s| s.sregs.ldt.base = 1 << 47, "canonical base"),
        (|s| s.sregs.ldt.present = false, "present"),
    ];
    for &(change, rule) in cases {
        broken(reset(0), change, "LDTR", rule);
    }
}

#[test]
fn each_rip_and_rflags_rule() {
    broken(LINUX.state(), |s| s.regs.rip = 1 << 47, "RIP", "canonical");
    broken(
        PVH.state(),
        |s| s.regs.rip = 1 << 32,
        "RIP",
        "32 bits outside 64-bit code",
    );
    for state in [LINUX.state(), PVH.state(), reset(0)] {
        broken(
            state,
            |s| s.regs.rflags |= 1 << 15,
            "RFLAGS",
            "reserved bits are zero",
        );
        broken(state, |s| s.regs.rflags = 0, "RFLAGS", "bit 1 is one");
        broken(
            state,
            |s| s.regs.rflags |= 1 << 17,
            "RFLAGS",
            "no entry is in virtual-8086 mode",
        );
    }
}

#[test]
fn five_level_paging_widens_canonical() {
    let mut state = LINUX.state();
    state.regs.rip = 0xff00_0000_0000_0000;
    assert!(check_entry_state(&state, 52).is_err());
    state.sregs.cr4 |= CR4_LA57;
    assert!(check_entry_state(&state, 52).is_ok());
}
