use super::*;

fn parse(text: &str) -> DriveConfig {
    DriveConfig::parse(text).unwrap()
}

fn refused(text: &str) -> String {
    DriveConfig::parse(text).unwrap_err().to_string()
}

/// The node's options as text.
fn node(text: &str) -> String {
    parse(text).node.to_keyval()
}

#[test]
fn a_drive_is_a_front_end_and_a_tree() {
    let config = parse("file=disk.img,format=raw,if=virtio,index=2,id=d0,serial=S,media=disk");
    assert_eq!(
        (config.id.as_deref(), config.interface, config.index),
        (Some("d0"), Some(Interface::Virtio), Some(2))
    );
    assert_eq!(
        (config.serial.as_deref(), config.write_cache, config.probed),
        (Some("S"), true, false)
    );
    assert_eq!(
        config.node.to_keyval(),
        "driver=raw,file.driver=file,file.filename=disk.img"
    );
    let config = parse("file=disk.img");
    assert!(config.probed && config.interface.is_none());
    assert_eq!(
        node("format=raw,file.driver=file,file.filename=a:b"),
        "file.driver=file,file.filename=a:b,driver=raw"
    );
    // The protocol of a plain path need not be said.
    assert_eq!(
        node("format=raw,file.filename=a:b"),
        "file.filename=a:b,file.driver=file,driver=raw"
    );
}

#[test]
fn every_cache_mode_is_two_switches_and_the_disks_cache() {
    for (mode, direct, no_flush, write_cache) in [
        ("none", "on", "off", true),
        ("off", "on", "off", true),
        ("writeback", "off", "off", true),
        ("writethrough", "off", "off", false),
        ("directsync", "on", "off", false),
        ("unsafe", "off", "on", true),
    ] {
        let config = parse(&format!("file=a,format=raw,cache={mode}"));
        let text = config.node.to_keyval();
        assert!(
            text.ends_with(&format!("cache.direct={direct},cache.no-flush={no_flush}")),
            "{mode}: {text}"
        );
        assert_eq!(config.write_cache, write_cache, "{mode}");
    }
    let config = parse("file=a,format=raw,cache=none,cache.direct=off,cache.writeback=off");
    assert!(config.node.to_keyval().contains("cache.direct=off") && !config.write_cache);
}

#[test]
fn dotted_options_reach_their_node() {
    assert_eq!(
        node("file=a,,b,format=raw,file.locking=off,aio=native,discard=unmap,readonly,offset=512"),
        "file.locking=off,file.driver=file,file.filename=a,,b,file.aio=native,offset=512,driver=raw,discard=unmap,read-only=on"
    );
}

#[test]
fn file_may_name_a_protocol() {
    assert_eq!(
        node("file=null-co://,format=raw"),
        "driver=raw,file.driver=null-co"
    );
    assert_eq!(
        node("file=file:a:b,format=raw"),
        "driver=raw,file.driver=file,file.filename=a:b"
    );
    assert_eq!(
        node("file=./a:b,format=raw"),
        "driver=raw,file.driver=file,file.filename=./a:b"
    );
    assert_eq!(
        node("file=/dev/null,format=raw"),
        "driver=raw,file.driver=host_device,file.filename=/dev/null"
    );
    assert_eq!(
        node("file=a,format=file,aio=threads"),
        "driver=file,filename=a,aio=threads"
    );
    assert_eq!(node("driver=null-co,size=1M"), "driver=null-co,size=1M");
    assert_eq!(
        node(r#"file=json:{"driver":"null-co"},format=raw"#),
        "driver=raw,file.driver=null-co"
    );
}

#[test]
fn what_is_not_built_is_refused_by_name() {
    for (text, expected) in [
        (
            "file=nbd:host:10809,format=raw",
            "file: protocol 'nbd' is not in this build",
        ),
        (
            "file=a,,b:c,format=raw",
            "'file': unknown protocol 'a,b'; a path with a colon in it is given as file.filename=a,,b:c",
        ),
        (
            "file=a:b,format=raw",
            "'file': unknown protocol 'a'; a path with a colon in it is given as file.filename=a:b",
        ),
        (
            "file=a,file.filename=b,format=raw",
            "'file': means the same as 'file.filename': give one of them",
        ),
        (
            "file=a,filename=b,format=file",
            "'file': means the same as 'filename': give one of them",
        ),
        (
            "file=json:{},format=raw",
            "'file': its 'driver' must be given: json:{\"driver\":\"file\",\"filename\":\"disk.img\"}",
        ),
        (
            "format=raw",
            "file: must be given: empty drives are not in this build",
        ),
        (
            "file=a,snapshot=on",
            "snapshot: temporary overlays are not in this build",
        ),
        (
            "file=a,copy-on-read=on",
            "copy-on-read: is not in this build",
        ),
        (
            "file=a,werror=stop",
            "werror: 'stop' needs a monitor, which is not in this build; use report",
        ),
        ("file=a,bps=1", "bps: throttling is not in this build"),
        (
            "file=a,iops_rd=1",
            "iops_rd: throttling is not in this build",
        ),
        (
            "file=a,throttling.iops-total=1",
            "throttling.iops-total: throttling is not in this build",
        ),
        (
            "file=a,cache=writebak",
            "'cache': expected none, writeback, writethrough, directsync, unsafe, got 'writebak'; did you mean 'writeback'?",
        ),
        (
            "file=a,if=virtoi",
            "'if': expected ide, scsi, sd, mtd, floppy, pflash, virtio, none, got 'virtoi'; did you mean 'virtio'?",
        ),
        (
            "file=a,format=raw,driver=raw",
            "'format': means the same as 'driver': give one of them",
        ),
        (
            "file=a,cache.writeback=maybe",
            "'cache.writeback': expected on or off, got 'maybe'",
        ),
        (
            "file=a,index=-1",
            "'index': expected a number from 0 to 4294967295, got '-1'",
        ),
    ] {
        assert_eq!(refused(text), expected, "{text}");
    }
}
