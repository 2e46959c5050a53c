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

#[test]
fn a_device_that_is_not_kvm_is_told_from_an_old_kvm() {
    assert!(is_kvm(12).is_ok());
    let said = |version| is_kvm(version).unwrap_err().to_string();
    assert!(said(-1).contains("/dev/kvm is something else"));
    assert!(said(10).contains("version 10, not 12"));
}
