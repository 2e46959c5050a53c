use super::*;

#[test]
fn releases_compare_by_their_numbers() {
    assert!(version("6.1.0-56-amd64") > version("6.1.0-9-amd64"));
    assert!(version("6.12.1+deb13-amd64") > version("6.8.0-88-generic"));
}

#[test]
fn a_text_file_has_no_payload() {
    assert_eq!(payload(b"no kernel"), None);
    assert_eq!(payload(&[b'x'; 4096]), None);
}

#[test]
fn payload_lies_behind_the_setup_sectors() {
    let mut image = vec![0; 4096];
    image[0x1f1] = 1;
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x248] = 16;
    image[0x24c] = 4;
    image[1040..1044].copy_from_slice(b"data");
    assert_eq!(payload(&image), Some(&b"data"[..]));
    image[0x24f] = 0x7f;
    assert_eq!(payload(&image), None, "a payload past the end");
}
