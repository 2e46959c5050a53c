//! As much of ELF-64 as the harness reads: the named sections of a kernel module.

/// The bytes of the section called `name` in a little-endian ELF-64 file.
pub fn section<'a>(file: &'a [u8], name: &str) -> Option<&'a [u8]> {
    if !file.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let table = usize::try_from(number(file, 0x28, 8)?).ok()?;
    let stride = usize::try_from(number(file, 0x3a, 2)?).ok()?;
    let count = usize::try_from(number(file, 0x3c, 2)?).ok()?;
    let header = |index: usize| file.get(table.checked_add(index.checked_mul(stride)?)?..);
    let body = |header: &[u8]| {
        let start = usize::try_from(number(header, 0x18, 8)?).ok()?;
        let len = usize::try_from(number(header, 0x20, 8)?).ok()?;
        file.get(start..start.checked_add(len)?)
    };
    let names = body(header(usize::try_from(number(file, 0x3e, 2)?).ok()?)?)?;
    (0..count).find_map(|index| {
        let header = header(index)?;
        let found = names.get(usize::try_from(number(header, 0, 4)?).ok()?..)?;
        let found = found.split(|byte| *byte == 0).next()?;
        if found == name.as_bytes() {
            body(header)
        } else {
            None
        }
    })
}

fn number(bytes: &[u8], at: usize, len: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(len)?)?;
    Some(
        bytes
            .iter()
            .rev()
            .fold(0, |value, byte| value << 8 | u64::from(*byte)),
    )
}
