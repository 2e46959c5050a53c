use super::*;

#[test]
fn each_way_of_having_no_kvm_names_what_to_do() {
    let cases = [
        (libc::ENOENT, true, "modprobe"),
        (libc::ENOENT, false, "cargo demo"),
        (libc::EACCES, true, "group"),
        (libc::EPERM, true, "usermod"),
        (libc::ENODEV, true, "modprobe"),
        (libc::EMFILE, true, "Too many open files"),
    ];
    for (errno, virtualization, remedy) in cases {
        let line = unusable(errno, virtualization).to_string();
        assert!(line.starts_with("-accel kvm: "), "{line}");
        assert!(line.contains("/dev/kvm"), "{line}");
        assert!(line.contains(remedy), "{line}");
        assert!(!line.contains('\n') && !line.contains("  "), "{line}");
    }
}
