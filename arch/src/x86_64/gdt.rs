//! Segment descriptors (Intel SDM vol. 3 §3.4.5, AMD APM vol. 2 §4.7): the bytes in the GDT and the hidden part that a
//! hypervisor loads, made from one value so that they agree.

/// A segment register with its hidden part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// Address of the first byte.
    pub base: u64,
    /// Last offset, in bytes whatever `g` is.
    pub limit: u32,
    /// What the guest sees in the register.
    pub selector: u16,
    /// Type field, 4 bits.
    pub type_: u8,
    /// Present.
    pub present: bool,
    /// Privilege level, 0 to 3.
    pub dpl: u8,
    /// Default operation size 32 bits (D/B).
    pub db: bool,
    /// Code or data, as opposed to a system segment (S).
    pub s: bool,
    /// 64-bit code (L).
    pub l: bool,
    /// The descriptor's limit counts pages.
    pub g: bool,
    /// Available to software.
    pub avl: bool,
    /// The register holds no segment; nothing else is meaningful then.
    pub unusable: bool,
}

/// GDTR or IDTR.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Linear address.
    pub base: u64,
    /// Last offset, bytes.
    pub limit: u16,
}

/// Selector of the code segment: `__BOOT_CS` of the Linux boot protocol.
pub const CODE: u16 = 0x10;
/// Selector of the data segments: `__BOOT_DS`.
pub const DATA: u16 = 0x18;
/// Selector of the task register.
pub const TASK: u16 = 0x20;

/// Type: code, execute and read, accessed.
const CODE_READ: u8 = 0xb;
/// Type: data, read and write, accessed.
const DATA_WRITE: u8 = 0x3;
/// Type: busy 32- or 64-bit task state.
const TASK_BUSY: u8 = 0xb;

fn flat(selector: u16, type_: u8) -> Segment {
    Segment {
        limit: u32::MAX,
        selector,
        type_,
        present: true,
        s: true,
        g: true,
        ..Segment::default()
    }
}

/// 64-bit code.
pub fn code64() -> Segment {
    Segment {
        l: true,
        ..flat(CODE, CODE_READ)
    }
}

/// Flat 32-bit code.
pub fn code32() -> Segment {
    Segment {
        db: true,
        ..flat(CODE, CODE_READ)
    }
}

/// Flat data.
pub fn data() -> Segment {
    Segment {
        db: true,
        ..flat(DATA, DATA_WRITE)
    }
}

/// The task state segment at 0 that both protocols want: limit 0x67.
pub fn task() -> Segment {
    Segment {
        limit: 0x67,
        selector: TASK,
        type_: TASK_BUSY,
        present: true,
        ..Segment::default()
    }
}

impl Segment {
    /// The eight bytes of a descriptor whose base is below 4 GiB (a 64-bit TSS has eight more, of zeroes).
    pub fn descriptor(&self) -> u64 {
        let base = self.base & 0xffff_ffff;
        let limit = u64::from(if self.g { self.limit >> 12 } else { self.limit });
        let bit = |set: bool, at: u32| u64::from(set) << at;
        (limit & 0xffff)
            | (base & 0xff_ffff) << 16
            | u64::from(self.type_ & 0xf) << 40
            | bit(self.s, 44)
            | u64::from(self.dpl & 3) << 45
            | bit(self.present, 47)
            | (limit >> 16 & 0xf) << 48
            | bit(self.avl, 52)
            | bit(self.l, 53)
            | bit(self.db, 54)
            | bit(self.g, 55)
            | (base >> 24) << 56
    }
}

/// The table's bytes, for [`super::layout::GDT`], with `code` at [`CODE`].
pub fn bytes(code: Segment) -> Vec<u8> {
    let entries = [
        0,
        0,
        code.descriptor(),
        data().descriptor(),
        task().descriptor(),
        0,
    ];
    entries
        .iter()
        .flat_map(|entry| entry.to_le_bytes())
        .collect()
}

/// GDTR for [`bytes`] at `base`.
pub fn register(base: u64) -> Table {
    Table {
        base,
        limit: 6 * 8 - 1,
    }
}

#[cfg(test)]
mod tests;
