//! How image formats say what they are in their first sector.

/// The format whose header `sector` (the first bytes of an image) is, if it looks like one.
pub(crate) fn format_of(sector: &[u8]) -> Option<&'static str> {
    const HEADERS: &[(usize, &[u8], &str)] = &[
        (0, b"QFI\xfb", "qcow2"),
        (0, b"QED\0", "qed"),
        (0, b"KDMV", "vmdk"),
        (0, b"COWD", "vmdk"),
        (0, b"# Disk DescriptorFile", "vmdk"),
        (0, b"vhdxfile", "vhdx"),
        (0, b"conectix", "vpc"),
        (0x40, b"\x7f\x10\xda\xbe", "vdi"),
        (0, b"WithoutFreeSpace", "parallels"),
        (0, b"WithouFreSpacExt", "parallels"),
        (0, b"LUKS\xba\xbe", "luks"),
        (0, b"Bochs Virtual HD Image", "bochs"),
        (0, b"#!/bin/sh\n#V2.0 Format\n", "cloop"),
    ];
    let found = HEADERS.iter().find(|(at, magic, _)| {
        sector
            .get(*at..)
            .is_some_and(|rest| rest.starts_with(magic))
    });
    found.map(|(_, _, format)| *format)
}
