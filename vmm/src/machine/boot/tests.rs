use std::io::Write as _;

use vm_memory::GuestMemoryBackend;

use super::*;

fn ram() -> GuestRam {
    GuestRam::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap()
}

fn files(kernel: &[u8]) -> (tempfile::TempDir, Files) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kernel");
    File::create(&path).unwrap().write_all(kernel).unwrap();
    let files = Files::open(&Boot {
        kernel: path,
        initrd: None,
        append: String::new(),
    });
    (dir, files.unwrap())
}

#[test]
fn a_reset_finds_ram_as_the_first_boot_did() {
    let (_dir, files) = files(b"0123456789");
    let ram = ram();
    let writes = [
        Write {
            address: 0x1000,
            content: Content::Kernel(2..6),
        },
        Write {
            address: 0x1004,
            content: Content::Zero(0x1800),
        },
        Write {
            address: 0x8000,
            content: Content::Bytes(b"zero page".to_vec()),
        },
    ];
    let read = |at: u64, len: usize| {
        let mut bytes = vec![0; len];
        ram.read_slice(&mut bytes, GuestAddress(at)).unwrap();
        bytes
    };
    files.write(&writes, &ram, true).unwrap();
    let first = read(0, 0x10000);
    assert_eq!(read(0x1000, 6), b"2345\0\0");
    ram.write_slice(&[0xff; 0x9000], GuestAddress(0x800))
        .unwrap();
    files.write(&writes, &ram, false).unwrap();
    assert_eq!(read(0x1000, 0x1804), first[0x1000..0x2804]);
    assert_eq!(read(0x8000, 9), b"zero page");
    assert_eq!(read(0x2804, 1), [0xff]);
    assert_eq!(ram.num_regions(), 1);
}

#[test]
fn a_kernel_that_became_shorter_is_an_error_that_names_it() {
    let (_dir, files) = files(b"0123456789");
    let path = files.kernel.path.clone();
    let writes = [Write {
        address: 0,
        content: Content::Kernel(0..10),
    }];
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(5)
        .unwrap();
    let error = files.write(&writes, &ram(), false).unwrap_err().to_string();
    assert!(error.starts_with("-kernel: '"), "{error}");
}

#[test]
fn what_is_no_kernel_is_named() {
    let (_dir, files) = files(b"#!/bin/sh\n");
    let layout = Layout::new(1 << 28, 40).unwrap();
    let error = files.plan(&layout, 0).unwrap_err().to_string();
    assert!(error.starts_with("-kernel: '"), "{error}");
    assert!(error.contains("not a Linux kernel"), "{error}");
    let missing = OpenFile::open("-initrd", Path::new("/nonexistent/initrd")).unwrap_err();
    assert!(
        missing
            .to_string()
            .starts_with("-initrd: cannot open '/nonexistent/initrd': No such file"),
        "{missing}"
    );
    let folder = OpenFile::open("-kernel", Path::new("/")).unwrap_err();
    assert!(folder.to_string().contains("no regular file"), "{folder}");
}
