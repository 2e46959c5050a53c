use super::*;

#[test]
fn names_are_normalised() {
    assert_eq!(
        name_of(Path::new("kernel/drivers/virtio-blk.ko.xz")).as_deref(),
        Some("virtio_blk")
    );
    assert_eq!(name_of(Path::new("modules.order")), None);
}

#[test]
fn modinfo_says_what_is_needed() {
    let info = b"license=GPL\0softdep=pre: crypto-crc32c\0depends=jbd2,mbcache\0\0name=ext4\0";
    let expected = [
        Need::Soft("crypto-crc32c".into()),
        Need::Hard("jbd2".into()),
        Need::Hard("mbcache".into()),
    ];
    assert_eq!(needs(info), expected);
    assert_eq!(needs(b"depends=\0"), []);
    assert_eq!(
        needs(b"softdep=pre: a b post: c\0"),
        [Need::Soft("a".into()), Need::Soft("b".into())]
    );
}
