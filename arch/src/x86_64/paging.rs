//! The page tables that a 64-bit kernel is entered with: the first 4 GiB mapped to themselves in 2 MiB pages
//! (Intel SDM vol. 3 §4.5). 1 GiB pages would need fewer bytes, but not every CPU has them.

use super::layout::PAGE;

const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const LARGE: u64 = 1 << 7;
/// Page directories: one for each GiB.
const DIRECTORIES: u64 = 4;

/// PML4, page directory pointers and four page directories, to be written at `base` (page aligned, below 4 GiB), which
/// is CR3's value. 24 KiB.
pub fn identity_map(base: u64) -> Vec<u8> {
    const ENTRIES: u64 = 512;
    let table = |index: u64| (base + index * PAGE) | PRESENT | WRITABLE;
    let rest = |used: u64| std::iter::repeat_n(0, (ENTRIES - used) as usize);
    let pml4 = std::iter::once(table(1)).chain(rest(1));
    let pointers = (0..DIRECTORIES)
        .map(|n| table(2 + n))
        .chain(rest(DIRECTORIES));
    let pages = (0..DIRECTORIES * ENTRIES).map(|n| n << 21 | PRESENT | WRITABLE | LARGE);
    pml4.chain(pointers)
        .chain(pages)
        .flat_map(u64::to_le_bytes)
        .collect()
}

#[cfg(test)]
mod tests;
