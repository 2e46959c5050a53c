//! CPU features by the names that QEMU gives them.
//!
//! A name stands for one bit of one register of one leaf (`kvmclock` for two), and taking a feature away takes away those
//! that cannot be without it, so that a guest never sees AVX without XSAVE.

use super::CpuidEntry;

/// A register of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reg {
    Eax,
    Ebx,
    Ecx,
    Edx,
}

/// The features in one register: names in order of their bits, `-` for a bit without one, `N:` jumps to bit N.
struct Word {
    function: u32,
    index: u32,
    reg: Reg,
    names: &'static str,
}

const fn word(function: u32, index: u32, reg: Reg, names: &'static str) -> Word {
    Word {
        function,
        index,
        reg,
        names,
    }
}

#[rustfmt::skip]
const WORDS: &[Word] = &[
    word(1, 0, Reg::Edx, "fpu vme de pse tsc msr pae mce cx8 apic - sep mtrr pge mca cmov pat pse36 pn clflush - ds acpi \
        mmx fxsr sse sse2 ss ht tm ia64 pbe"),
    word(1, 0, Reg::Ecx, "pni pclmulqdq dtes64 monitor ds-cpl vmx smx est tm2 ssse3 cid - fma cx16 xtpr pdcm - pcid dca \
        sse4.1 sse4.2 x2apic movbe popcnt tsc-deadline aes xsave - avx f16c rdrand hypervisor"),
    word(6, 0, Reg::Eax, "2: arat"),
    word(7, 0, Reg::Ebx, "fsgsbase tsc-adjust sgx bmi1 hle avx2 fdp-excptn-only smep bmi2 erms invpcid rtm - zero-fcs-fds \
        mpx - avx512f avx512dq rdseed adx smap avx512ifma pcommit clflushopt clwb intel-pt avx512pf avx512er avx512cd \
        sha-ni avx512bw avx512vl"),
    word(7, 0, Reg::Ecx, "- avx512vbmi umip pku - waitpkg avx512vbmi2 shstk gfni vaes vpclmulqdq avx512vnni avx512bitalg \
        - avx512-vpopcntdq - la57 22: rdpid - bus-lock-detect cldemote - movdiri movdir64b - sgxlc pks"),
    word(7, 0, Reg::Edx, "2: avx512-4vnniw avx512-4fmaps fsrm 8: avx512-vp2intersect - md-clear 14: serialize - tsx-ldtrk \
        19: arch-lbr ibt - amx-bf16 avx512-fp16 amx-tile amx-int8 spec-ctrl stibp flush-l1d arch-capabilities \
        core-capability ssbd"),
    word(7, 1, Reg::Eax, "sha512 sm3 sm4 - avx-vnni avx512-bf16 - cmpccxadd 10: fzrm fsrs fsrc 17: fred lkgs wrmsrns \
        21: amx-fp16 23: avx-ifma 26: lam"),
    word(7, 1, Reg::Edx, "4: avx-vnni-int8 avx-ne-convert 8: amx-complex 10: avx-vnni-int16 14: prefetchiti 19: avx10"),
    word(7, 2, Reg::Edx, "intel-psfd ipred-ctrl rrsba-ctrl ddpd-u bhi-ctrl mcdt-no"),
    word(0xd, 1, Reg::Eax, "xsaveopt xsavec xgetbv1 xsaves xfd"),
    word(0x4000_0001, 0, Reg::Eax, "kvmclock kvm-nopiodelay kvm-mmu kvmclock kvm-asyncpf kvm-steal-time kvm-pv-eoi \
        kvm-pv-unhalt - kvm-pv-tlb-flush kvm-asyncpf-vmexit kvm-pv-ipi kvm-poll-control kvm-pv-sched-yield \
        kvm-asyncpf-int kvm-msi-ext-dest-id 24: kvmclock-stable-bit"),
    word(0x8000_0001, 0, Reg::Edx, "11: syscall 19: mp nx - mmxext 25: fxsr-opt pdpe1gb rdtscp - lm 3dnowext 3dnow"),
    word(0x8000_0001, 0, Reg::Ecx, "lahf-lm cmp-legacy svm extapic cr8legacy abm sse4a misalignsse 3dnowprefetch osvw ibs \
        xop skinit wdt - lwp fma4 tce - nodeid-msr - tbm topoext perfctr-core perfctr-nb"),
    word(0x8000_0007, 0, Reg::Ebx, "overflow-recov succor"),
    word(0x8000_0007, 0, Reg::Edx, "8: invtsc"),
    word(0x8000_0008, 0, Reg::Ebx, "clzero - xsaveerptr 9: wbnoinvd 12: ibpb - ibrs amd-stibp - stibp-always-on \
        24: amd-ssbd virt-ssbd amd-no-ssb - amd-psfd"),
    word(0x8000_000a, 0, Reg::Edx, "npt lbrv svm-lock nrip-save tsc-scale vmcb-clean flushbyasid decodeassists \
        10: pause-filter - pfthreshold avic - v-vmsave-vmload vgif 18: x2avic 25: vnmi 28: svme-addr-chk"),
    word(0x8000_0021, 0, Reg::Eax, "no-nested-data-bp - lfence-always-serializing 6: null-sel-clr-base - auto-ibrs \
        27: sbpb ibpb-brtype srso-no"),
];

/// Other names for the same, after `_` has become `-`.
const ALIASES: &[(&str, &str)] = &[
    ("ffxsr", "fxsr-opt"),
    ("i64", "lm"),
    ("pclmuldq", "pclmulqdq"),
    ("sse3", "pni"),
    ("sse4-1", "sse4.1"),
    ("sse4-2", "sse4.2"),
    ("xd", "nx"),
];

/// (feature, those that need it).
const NEEDED_BY: &[(&str, &str)] = &[
    (
        "xsave",
        "xsaveopt xsavec xgetbv1 xsaves xfd avx pku mpx amx-tile xsaveerptr",
    ),
    ("xsaves", "xfd shstk ibt arch-lbr"),
    ("sse", "sse2"),
    (
        "sse2",
        "pni ssse3 sse4.1 sse4.2 aes pclmulqdq sha-ni gfni avx",
    ),
    (
        "avx",
        "fma f16c fma4 xop avx2 vaes vpclmulqdq avx-vnni avx-vnni-int8 avx-vnni-int16 avx-ne-convert avx-ifma sha512 sm3 \
         sm4",
    ),
    ("avx2", "avx512f"),
    (
        "avx512f",
        "avx512dq avx512ifma avx512pf avx512er avx512cd avx512bw avx512vl avx512vbmi avx512vbmi2 avx512vnni avx512bitalg \
         avx512-vpopcntdq avx512-4vnniw avx512-4fmaps avx512-vp2intersect avx512-bf16 avx512-fp16 avx10",
    ),
    ("amx-tile", "amx-bf16 amx-int8 amx-fp16 amx-complex"),
    (
        "svm",
        "npt lbrv svm-lock nrip-save tsc-scale vmcb-clean flushbyasid decodeassists pause-filter pfthreshold avic \
         v-vmsave-vmload vgif x2avic vnmi svme-addr-chk",
    ),
];

/// Bits of leaf 1 EDX that AMD repeats in leaf 0x80000001 EDX.
const AMD_MIRROR: u32 = 0x0183_f3ff;

/// One bit of CPUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feature {
    name: &'static str,
    function: u32,
    index: u32,
    reg: Reg,
    bit: u32,
}

impl Feature {
    /// The bits that `name` stands for: none if it is unknown. `_` may be written for `-`.
    pub fn named(name: &str) -> Vec<Self> {
        let name = name.replace('_', "-");
        let alias = ALIASES
            .iter()
            .find(|(alias, _)| *alias == name)
            .map(|&(_, real)| real);
        let name = alias.unwrap_or(&name);
        all().filter(|feature| feature.name == name).collect()
    }

    /// The feature's name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    fn register<'a>(&self, entry: &'a mut CpuidEntry) -> &'a mut u32 {
        match self.reg {
            Reg::Eax => &mut entry.eax,
            Reg::Ebx => &mut entry.ebx,
            Reg::Ecx => &mut entry.ecx,
            Reg::Edx => &mut entry.edx,
        }
    }

    fn is_in(&self, entry: &CpuidEntry) -> bool {
        entry.function == self.function && entry.index == self.index
    }

    /// Whether the answers have the bit.
    pub fn is_set(&self, entries: &[CpuidEntry]) -> bool {
        let mut found = entries.iter().filter(|e| self.is_in(e)).copied();
        found.any(|mut entry| *self.register(&mut entry) & 1 << self.bit != 0)
    }

    /// Takes the bit away, with those of the features that need this one.
    pub(super) fn clear(&self, entries: &mut [CpuidEntry]) {
        let amd = super::is_amd(entries);
        for entry in entries.iter_mut() {
            if self.is_in(entry) {
                *self.register(entry) &= !(1 << self.bit);
            }
            if amd && self.function == 1 && self.reg == Reg::Edx && entry.function == 0x8000_0001 {
                entry.edx &= !(1 << self.bit & AMD_MIRROR);
            }
        }
        let needed_by = NEEDED_BY.iter().filter(|(name, _)| *name == self.name);
        for name in needed_by.flat_map(|(_, by)| by.split_whitespace()) {
            Self::named(name)
                .iter()
                .for_each(|feature| feature.clear(entries));
        }
    }
}

/// Every feature that has a name.
fn all() -> impl Iterator<Item = Feature> {
    WORDS.iter().flat_map(|word| {
        let mut next = 0;
        word.names.split_whitespace().filter_map(move |token| {
            if let Some(bit) = token.strip_suffix(':').and_then(|bit| bit.parse().ok()) {
                next = bit;
                return None;
            }
            let bit = next;
            next += 1;
            (token != "-").then_some(Feature {
                name: token,
                function: word.function,
                index: word.index,
                reg: word.reg,
                bit,
            })
        })
    })
}

/// Every feature's name, for help and suggestions; `kvmclock` comes twice.
pub fn names() -> impl Iterator<Item = &'static str> {
    all().map(|feature| feature.name)
}
