//! What the machine is called: the SMBIOS structures (DMTF DSP0134 3.0) with the system's UUID.
//!
//! A 64-bit entry point on a 16-byte boundary of the last 64 KiB below 1 MiB (§5.2.2), behind it the structures
//! BIOS Information, System Information and End-of-Table. No firmware and no enclosure is made up to fill the list of
//! structures that a real machine has.

use super::layout;

/// Bytes of the entry point.
const ENTRY: u64 = 24;
/// The version that the structures are of.
const VERSION: [u8; 2] = [3, 0];

/// "BIOS Characteristics are not supported": bit 3 of the first word (§7.1.1).
const NOT_SUPPORTED: u64 = 1 << 3;
/// "Is a virtual machine", and UEFI-less: bit 4 of the second extension byte (§7.1.2.2).
const VIRTUAL_MACHINE: u8 = 1 << 4;
/// "Power switch" as what woke the system (§7.2.2).
const POWER_SWITCH: u8 = 6;

/// What guests ask for by name.
#[derive(Clone, Copy, Debug)]
pub struct System<'a> {
    /// Who makes it.
    pub manufacturer: &'a str,
    /// What it is.
    pub product: &'a str,
    /// The maker's version.
    pub version: &'a str,
    /// RFC 4122, most significant byte first; all zeroes for a system without one.
    pub uuid: [u8; 16],
}

/// The bytes for [`layout::SMBIOS`]: entry point and structures.
pub fn bytes(system: &System<'_>) -> Vec<u8> {
    let table = [
        firmware(system),
        identity(system),
        structure(127, 2, &[], &[]),
    ]
    .concat();
    let mut bytes = entry_point(table.len() as u32);
    bytes.extend(table);
    bytes
}

/// §5.2.2.
fn entry_point(table: u32) -> Vec<u8> {
    let mut entry = b"_SM3_".to_vec();
    let [major, minor] = VERSION;
    // Checksum, length, version, docrev, revision of the entry point, reserved.
    entry.extend([0, ENTRY as u8, major, minor, 0, 1, 0]);
    entry.extend(table.to_le_bytes());
    entry.extend((layout::SMBIOS.start + ENTRY).to_le_bytes());
    let sum = entry.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    if let Some(checksum) = entry.get_mut(5) {
        *checksum = sum.wrapping_neg();
    }
    entry
}

/// BIOS Information (§7.1): type 0.
fn firmware(system: &System<'_>) -> Vec<u8> {
    // Vendor, version, no starting segment, release date, no ROM.
    let mut fields = vec![1, 2, 0, 0, 3, 0];
    fields.extend(NOT_SUPPORTED.to_le_bytes());
    // Extension bytes; no release numbers (0xff).
    fields.extend([0, VIRTUAL_MACHINE, 0xff, 0xff, 0xff, 0xff]);
    structure(
        0,
        0,
        &fields,
        &[system.manufacturer, system.version, "01/01/2026"],
    )
}

/// System Information (§7.2): type 1.
fn identity(system: &System<'_>) -> Vec<u8> {
    // Manufacturer, product, version, no serial number.
    let mut fields = vec![1, 2, 3, 0];
    fields.extend(wire(system.uuid));
    // No SKU, no family.
    fields.extend([POWER_SWITCH, 0, 0]);
    structure(
        1,
        1,
        &fields,
        &[system.manufacturer, system.product, system.version],
    )
}

/// The first three fields of a UUID are little-endian in SMBIOS (§7.2.1).
fn wire(uuid: [u8; 16]) -> [u8; 16] {
    let [a, b, c, d, e, f, g, h, rest @ ..] = uuid;
    let [i, j, k, l, m, n, o, p] = rest;
    [d, c, b, a, f, e, h, g, i, j, k, l, m, n, o, p]
}

/// A structure with its strings, which its fields number from 1 (§6.1).
fn structure(kind: u8, handle: u16, fields: &[u8], strings: &[&str]) -> Vec<u8> {
    let mut bytes = vec![kind, fields.len() as u8 + 4];
    bytes.extend(handle.to_le_bytes());
    bytes.extend(fields);
    for string in strings {
        bytes.extend(string.bytes());
        bytes.push(0);
    }
    // An empty string ends them; where there are none, it takes two.
    bytes.extend(std::iter::repeat_n(
        0,
        if strings.is_empty() { 2 } else { 1 },
    ));
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYSTEM: System<'_> = System {
        manufacturer: "maker",
        product: "product",
        version: "v7",
        uuid: [
            0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde, 0xf0, 1, 2, 3, 4, 5, 6, 7, 8,
        ],
    };

    #[test]
    fn the_entry_point_leads_to_the_structures() {
        let bytes = bytes(&SYSTEM);
        assert!(bytes.len() as u64 <= layout::SMBIOS.end - layout::SMBIOS.start);
        assert!(layout::SMBIOS.start.is_multiple_of(16) && layout::SMBIOS.start >= 0xf_0000);
        let entry = &bytes[..24];
        assert_eq!(&entry[..5], b"_SM3_");
        assert_eq!(entry.iter().fold(0u8, |sum, b| sum.wrapping_add(*b)), 0);
        let len = u32::from_le_bytes(entry[12..16].try_into().unwrap());
        assert_eq!(len as usize, bytes.len() - 24);
        let at = u64::from_le_bytes(entry[16..].try_into().unwrap());
        assert_eq!(at, layout::SMBIOS.start + 24);
    }

    /// Walks the structures as a guest does: length, then strings to the double zero.
    #[test]
    fn structures_are_walked_to_the_end_of_the_table() {
        let bytes = bytes(&SYSTEM);
        let mut rest = &bytes[24..];
        let mut seen = Vec::new();
        while !rest.is_empty() {
            let (kind, len) = (rest[0], usize::from(rest[1]));
            let strings = rest[len..]
                .windows(2)
                .position(|two| two == [0, 0])
                .unwrap();
            let text = String::from_utf8(rest[len..len + strings].to_vec()).unwrap();
            seen.push((kind, rest[..len].to_vec(), text));
            rest = &rest[len + strings + 2..];
        }
        let kinds: Vec<_> = seen.iter().map(|(kind, ..)| *kind).collect();
        assert_eq!(kinds, [0, 1, 127]);
        assert_eq!(seen[0].1.len(), 0x18);
        assert!(seen[0].2.starts_with("maker\0v7\0"));
        let (_, system, strings) = &seen[1];
        assert_eq!(system.len(), 0x1b);
        assert_eq!(strings, "maker\0product\0v7");
        let uuid = [
            0x78, 0x56, 0x34, 0x12, 0xbc, 0x9a, 0xf0, 0xde, 1, 2, 3, 4, 5, 6, 7, 8,
        ];
        assert_eq!(system[8..24], uuid);
    }
}
