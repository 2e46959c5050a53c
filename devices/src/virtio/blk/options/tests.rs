use block::options::{Tree, from_tree};

use super::*;

fn parse(text: &str) -> Result<VirtioBlkPci, Error> {
    from_tree(Tree::parse_keyval(&format!("drive=d0,{text}"), None).unwrap())
}

fn check(text: &str) -> Result<(), String> {
    parse(text)
        .and_then(|options| options.check(4))
        .map_err(|why| why.to_string())
}

#[test]
fn real_command_lines_are_taken() {
    for text in [
        "id=virtio-disk0,bus=pcie.0,addr=0x4",
        "num-queues=4,iothread=io0,write-cache=on",
        "disable-legacy=on,disable-modern=false,packed=off",
        "logical_block_size=4096,physical_block_size=4k,min_io_size=4096,opt_io_size=1M",
        "addr=5.1,serial=disk-1,queue-size=1024,share-rw=on,rerror=report,werror=report",
        "vectors=0,ioeventfd=off,multifunction=on",
    ] {
        assert_eq!(check(text), Ok(()), "{text}");
    }
}

#[test]
fn what_is_not_built_is_refused_by_name() {
    for (text, name) in [
        ("packed=on", "packed"),
        ("disable-legacy=off", "disable-legacy"),
        ("disable-modern=on", "disable-modern"),
        ("bootindex=1", "bootindex"),
        ("werror=stop", "werror"),
        ("rerror=ignore", "rerror"),
        ("seg-max-adjust=off", "seg-max-adjust"),
        ("bus=pci.1", "bus"),
        ("iommu_platform=on", "iommu_platform"),
        ("scsi=on", "scsi"),
        ("num-queue=2", "num-queues"),
    ] {
        let why = check(text).unwrap_err();
        assert!(why.contains(name), "{text}: {why}");
    }
}

#[test]
fn values_that_cannot_be_are_refused() {
    for text in [
        "num-queues=0",
        "num-queues=1025",
        "queue-size=0",
        "queue-size=2",
        "queue-size=100",
        "queue-size=2048",
        "logical_block_size=256",
        "logical_block_size=1000",
        "logical_block_size=4M",
        "logical_block_size=4096,physical_block_size=512",
        "physical_block_size=0",
        "min_io_size=100",
        "min_io_size=64M",
        "opt_io_size=8G",
        "discard_granularity=0",
        "discard_granularity=100",
        "max-discard-sectors=0",
        "max-write-zeroes-sectors=0",
        "vectors=2049",
        "addr=20",
        "addr=1.8",
    ] {
        let name = text.rsplit(',').next().unwrap().split('=').next().unwrap();
        let why = check(text).unwrap_err();
        assert!(why.contains(name), "{text}: {why}");
    }
    assert_eq!(check("max-discard-sectors=0,discard=off"), Ok(()));
}

fn mapping(text: &str, queues: u16) -> Result<Vec<String>, String> {
    let options = parse(text).map_err(|why| why.to_string())?;
    let names = options.mapping(queues).map_err(|why| why.to_string())?;
    Ok(names
        .iter()
        .map(|name| name.unwrap_or("-").to_owned())
        .collect())
}

#[test]
fn queues_go_round_or_where_they_are_sent() {
    assert_eq!(mapping("", 2).unwrap(), ["-", "-"]);
    assert_eq!(mapping("iothread=a", 2).unwrap(), ["a", "a"]);
    let two = "iothread-vq-mapping.0.iothread=a,iothread-vq-mapping.1.iothread=b";
    assert_eq!(mapping(two, 3).unwrap(), ["a", "b", "a"]);
    let sent = "iothread-vq-mapping.0.iothread=a,iothread-vq-mapping.0.vqs.0=2,\
        iothread-vq-mapping.1.iothread=b,iothread-vq-mapping.1.vqs.0=1,iothread-vq-mapping.1.vqs.1=0";
    assert_eq!(mapping(sent, 3).unwrap(), ["b", "b", "a"]);
    for (text, queues) in [
        (sent, 2),
        (sent, 4),
        (&format!("{two},iothread=c"), 2),
        (&format!("{two},iothread-vq-mapping.1.vqs.0=0"), 2),
        (&two.replace("=b", "=a"), 2),
        (&sent.replace("vqs.1=0", "vqs.1=1"), 3),
    ] {
        let why = mapping(text, queues).unwrap_err();
        assert!(why.starts_with("'iothread-vq-mapping'"), "{text}: {why}");
    }
}
