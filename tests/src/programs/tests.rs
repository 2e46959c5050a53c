use super::*;

#[test]
fn ldd_names_libraries_and_the_loader() {
    let text = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibe.so.2 => /cache/root/usr/lib/libe.so.2 (0x00007f)\n\
                \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x0)\n\t/lib64/ld-linux-x86-64.so.2 (0x0)\n";
    let inside: Vec<_> = parse_ldd(text, Some(Path::new("/cache/root")))
        .into_iter()
        .map(|(inside, _)| inside)
        .collect();
    let expected = [
        "/usr/lib/libe.so.2",
        "/lib/x86_64-linux-gnu/libc.so.6",
        "/lib64/ld-linux-x86-64.so.2",
    ];
    assert_eq!(inside, expected.map(PathBuf::from));
}

#[test]
fn a_static_program_has_no_libraries() {
    assert_eq!(parse_ldd("\tnot a dynamic executable\n", None), []);
}
