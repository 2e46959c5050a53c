//! The processor manuals' checks on guest state, as a pure function.
//!
//! A wrong initial state fails on the CPU as a bare "invalid guest state" exit, on one vendor and not on the other, or
//! (with a lenient hypervisor) works until it meets a strict one. So every state we make is held against the union of
//! Intel's VM-entry checks (SDM vol. 3 §27.3.1, 26.3.1 in older editions; in real mode those for unrestricted
//! guests) and AMD's VMRUN checks (APM vol. 2 §15.5.1), before any hypervisor sees it.

use std::fmt;

use super::gdt::Segment;
use super::regs::{
    CR0_CD, CR0_NW, CR0_PE, CR0_PG, CR4_PAE, EFER_LMA, EFER_LME, RFLAGS_ONE, VcpuState,
};

/// The rule that a state breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The register.
    pub register: &'static str,
    /// What must hold.
    pub rule: &'static str,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.register, self.rule)
    }
}

impl std::error::Error for Violation {}

type Check = Result<(), Violation>;

fn require(holds: bool, register: &'static str, rule: &'static str) -> Check {
    if holds {
        Ok(())
    } else {
        Err(Violation { register, rule })
    }
}

const CR0_DEFINED: u64 = 0xe005_003f;
/// CR4 bits defined by either vendor: VME to UMIP, LA57, VMXE, SMXE, FSGSBASE, PCIDE, OSXSAVE, KL, SMEP, SMAP, PKE, CET,
/// PKS, UINTR, LASS, LAM_SUP, FRED.
const CR4_DEFINED: u64 = 0x1_1bff_ffff & !(1 << 15);
const CR4_LA57: u64 = 1 << 12;
const CR4_PCIDE: u64 = 1 << 17;
const CR4_CET: u64 = 1 << 23;
const CR0_WP: u64 = super::regs::CR0_WP;
/// EFER bits defined by either vendor: SCE, LME, LMA, NXE, SVME, LMSLE, FFXSR, TCE, MCOMMIT, INTWB, UAIE, AIBRSE.
const EFER_DEFINED: u64 = 0x36_fd01;
const RFLAGS_RESERVED: u64 = !0x3f_7fd7;
const RFLAGS_VM: u64 = 1 << 17;

/// Holds `state` against the manuals' rules; `phys_bits` is the guest's physical address width.
///
/// # Errors
/// The first rule broken.
pub fn check_entry_state(state: &VcpuState, phys_bits: u8) -> Result<(), Violation> {
    control_registers(state, phys_bits)?;
    segments(state)?;
    tables(state)?;
    instruction_pointer(state)
}

fn long_mode(state: &VcpuState) -> bool {
    state.sregs.efer & EFER_LMA != 0
}

fn canonical(state: &VcpuState, address: u64) -> bool {
    let shift = if state.sregs.cr4 & CR4_LA57 != 0 {
        7
    } else {
        16
    };
    ((address << shift) as i64 >> shift) as u64 == address
}

fn control_registers(state: &VcpuState, phys_bits: u8) -> Check {
    let s = &state.sregs;
    let (pe, pg) = (s.cr0 & CR0_PE != 0, s.cr0 & CR0_PG != 0);
    require(s.cr0 & !CR0_DEFINED == 0, "CR0", "reserved bits are zero")?;
    require(
        s.cr0 & CR0_NW == 0 || s.cr0 & CR0_CD != 0,
        "CR0",
        "NW needs CD",
    )?;
    require(!pg || pe, "CR0", "PG needs PE")?;
    require(s.cr4 & !CR4_DEFINED == 0, "CR4", "reserved bits are zero")?;
    require(
        s.cr4 & CR4_PCIDE == 0 || long_mode(state),
        "CR4",
        "PCIDE needs long mode",
    )?;
    require(
        s.cr4 & CR4_CET == 0 || s.cr0 & CR0_WP != 0,
        "CR4",
        "CET needs CR0.WP",
    )?;
    require(
        s.cr3.checked_shr(phys_bits.into()).unwrap_or(0) == 0,
        "CR3",
        "no bit beyond the address width",
    )?;
    require(s.cr8 <= 15, "CR8", "a priority of four bits")?;
    require(
        s.efer & !EFER_DEFINED == 0,
        "EFER",
        "reserved bits are zero",
    )?;
    require(
        long_mode(state) == (s.efer & EFER_LME != 0 && pg),
        "EFER",
        "LMA is LME and CR0.PG",
    )?;
    require(
        !long_mode(state) || s.cr4 & CR4_PAE != 0,
        "CR4",
        "long mode needs PAE",
    )
}

fn segments(state: &VcpuState) -> Check {
    let s = &state.sregs;
    code(state)?;
    require(
        s.cs.type_ == 3 || s.cs.type_ & 4 != 0 || s.cs.dpl == s.ss.dpl,
        "CS",
        "non-conforming code has the stack's privilege",
    )?;
    require(
        s.cs.type_ & 4 == 0 || s.cs.dpl <= s.ss.dpl,
        "CS",
        "conforming code is no less privileged than the stack",
    )?;
    if !s.ss.unusable {
        require(matches!(s.ss.type_, 3 | 7), "SS", "accessed writable data")?;
    }
    require(
        s.cs.selector & 3 == s.ss.selector & 3,
        "SS",
        "RPL is the code's",
    )?;
    require(
        s.ss.unusable || s.ss.dpl == (s.ss.selector & 3) as u8,
        "SS",
        "DPL is RPL",
    )?;
    require(
        s.ss.dpl == 0 || (s.cs.type_ != 3 && s.cr0 & CR0_PE != 0),
        "SS",
        "DPL is 0 in real mode",
    )?;
    for (name, segment) in [
        ("SS", s.ss),
        ("DS", s.ds),
        ("ES", s.es),
        ("FS", s.fs),
        ("GS", s.gs),
    ] {
        if segment.unusable {
            continue;
        }
        require(segment.s, name, "code or data, not system")?;
        require(segment.type_ & 1 != 0, name, "accessed")?;
        require(
            segment.type_ & 8 == 0 || segment.type_ & 2 != 0,
            name,
            "code must be readable",
        )?;
        if matches!(name, "SS" | "DS" | "ES") {
            require(segment.base >> 32 == 0, name, "base is 32 bits")?;
        }
        common(name, &segment)?;
    }
    require(canonical(state, s.fs.base), "FS", "canonical base")?;
    require(canonical(state, s.gs.base), "GS", "canonical base")?;
    system(state)
}

fn code(state: &VcpuState) -> Check {
    let cs = &state.sregs.cs;
    require(!cs.unusable, "CS", "usable")?;
    require(cs.s, "CS", "code or data, not system")?;
    require(
        matches!(cs.type_, 3 | 9 | 11 | 13 | 15),
        "CS",
        "accessed code, or real mode's data",
    )?;
    require(cs.type_ != 3 || cs.dpl == 0, "CS", "DPL is 0 in real mode")?;
    require(cs.base >> 32 == 0, "CS", "base is 32 bits")?;
    require(
        !(long_mode(state) && cs.l && cs.db),
        "CS",
        "L and D exclude each other in long mode",
    )?;
    common("CS", cs)
}

fn system(state: &VcpuState) -> Check {
    let (tr, ldt) = (&state.sregs.tr, &state.sregs.ldt);
    require(!tr.unusable, "TR", "usable")?;
    require(
        tr.type_ == 11 || (tr.type_ == 3 && !long_mode(state)),
        "TR",
        "busy task state",
    )?;
    require(!tr.s, "TR", "a system segment")?;
    require(tr.selector & 4 == 0, "TR", "from the GDT")?;
    require(canonical(state, tr.base), "TR", "canonical base")?;
    common("TR", tr)?;
    if ldt.unusable {
        return Ok(());
    }
    require(ldt.type_ == 2, "LDTR", "a local descriptor table")?;
    require(!ldt.s, "LDTR", "a system segment")?;
    require(ldt.selector & 4 == 0, "LDTR", "from the GDT")?;
    require(canonical(state, ldt.base), "LDTR", "canonical base")?;
    common("LDTR", ldt)
}

/// What holds for every usable segment register.
fn common(name: &'static str, segment: &Segment) -> Check {
    require(segment.present, name, "present")?;
    require(
        segment.dpl <= 3 && segment.type_ <= 15,
        name,
        "fields in range",
    )?;
    require(
        !segment.g || segment.limit & 0xfff == 0xfff,
        name,
        "G needs a limit that ends a page",
    )?;
    require(
        segment.g || segment.limit >> 20 == 0,
        name,
        "a limit beyond 1 MiB needs G",
    )
}

fn tables(state: &VcpuState) -> Check {
    require(
        canonical(state, state.sregs.gdt.base),
        "GDTR",
        "canonical base",
    )?;
    require(
        canonical(state, state.sregs.idt.base),
        "IDTR",
        "canonical base",
    )
}

fn instruction_pointer(state: &VcpuState) -> Check {
    let (regs, s) = (&state.regs, &state.sregs);
    if long_mode(state) && s.cs.l {
        require(canonical(state, regs.rip), "RIP", "canonical")?;
    } else {
        require(regs.rip >> 32 == 0, "RIP", "32 bits outside 64-bit code")?;
    }
    require(
        regs.rflags & RFLAGS_RESERVED == 0,
        "RFLAGS",
        "reserved bits are zero",
    )?;
    require(regs.rflags & RFLAGS_ONE != 0, "RFLAGS", "bit 1 is one")?;
    require(
        regs.rflags & RFLAGS_VM == 0,
        "RFLAGS",
        "no entry is in virtual-8086 mode",
    )
}

#[cfg(test)]
mod tests;
