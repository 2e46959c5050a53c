use super::*;

#[test]
fn addresses_read_as_users_write_them() {
    for (text, device, function) in [
        ("4.0", 4, 0),
        ("4", 4, 0),
        ("1f.2", 31, 2),
        ("0x1F.7", 31, 7),
        ("00.0", 0, 0),
    ] {
        assert_eq!(text.parse(), Ok(Address::new(device, function).unwrap()));
    }
    for text in ["", ".", "4.", "20", "1.8", "+4", "-1", "4.0.0", "x", "100"] {
        assert_eq!(text.parse::<Address>(), Err(InvalidAddress), "{text}");
    }
    assert_eq!(Address::from_devfn(0xfa).to_string(), "1f.2");
}
