use super::*;

#[test]
fn parents_come_first_and_once() {
    let mut cpio = Cpio::new();
    cpio.file("/usr/bin/a", 0o755, b"12345");
    cpio.file("usr/bin/b", 0o644, b"");
    let archive = cpio.finish();
    assert_eq!(
        names(&archive),
        ["usr", "usr/bin", "usr/bin/a", "usr/bin/b", "TRAILER!!!"]
    );
    assert_eq!(archive.len() % 4, 0);
}

/// Reads the archive back by its own lengths.
fn names(mut archive: &[u8]) -> Vec<String> {
    let mut names = Vec::new();
    while !archive.is_empty() {
        assert_eq!(&archive[..6], b"070701");
        let field = |index: usize| {
            let at = 6 + index * 8;
            usize::from_str_radix(str::from_utf8(&archive[at..at + 8]).unwrap(), 16).unwrap()
        };
        let (size, name) = (field(6), field(11));
        names.push(String::from_utf8(archive[110..110 + name - 1].to_vec()).unwrap());
        archive = &archive[(110 + name).next_multiple_of(4) + size.next_multiple_of(4)..];
    }
    names
}
