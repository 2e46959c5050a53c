//! Command lines, and the machine or the mistake that they are.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use super::*;
use crate::config::Cpus;
use crate::error::Kind;
use crate::models::Model;

/// Words of a line: split at spaces, `~` stands for a space within a word.
fn words(line: &str) -> Vec<OsString> {
    line.split_whitespace()
        .map(|word| word.replace('~', " ").into())
        .collect()
}

fn machine(line: &str) -> Config {
    match parse(words(line)) {
        Ok(Request::Run(config)) => *config,
        other => panic!("{line}: {other:?}"),
    }
}

/// With what every machine needs.
fn with(line: &str) -> Config {
    machine(&format!("-kernel vmlinuz -nographic {line}"))
}

fn mistake(line: &str) -> String {
    match parse(words(line)) {
        Err(error) => {
            assert_eq!(error.kind(), Kind::User, "{line}");
            error.to_string()
        }
        Ok(request) => panic!("{line}: {request:?}"),
    }
}

fn text(line: &str) -> String {
    match parse(words(line)) {
        Ok(Request::Print(text)) => text,
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn the_command_line_of_the_readme() {
    let config = machine(
        "-kernel vmlinuz -initrd initrd.img -append root=/dev/vda~console=ttyS0 -m 1G -smp 2 \
         -drive file=disk.img,format=raw,if=virtio -nographic",
    );
    assert_eq!(config.boot.kernel.to_str(), Some("vmlinuz"));
    assert_eq!(config.boot.initrd.unwrap().to_str(), Some("initrd.img"));
    assert_eq!(config.boot.append, "root=/dev/vda console=ttyS0");
    assert_eq!(config.memory, 1 << 30);
    assert_eq!(config.cpus.cpus, 2);
    assert_eq!(config.serial, Serial::Stdio);
    assert!(config.sandbox.on && !config.no_reboot);
    let drive = &config.drives[0];
    assert_eq!(
        drive.config.node.to_keyval(),
        "driver=raw,file.driver=file,file.filename=disk.img"
    );
    assert_eq!((drive.id(), drive.config.probed), (Some("virtio0"), false));
    assert_eq!(config.devices[0].origin, "-drive #1");
    let Model::VirtioBlkPci(device) = &config.devices[0].model else {
        panic!("{:?}", config.devices)
    };
    assert_eq!(device.drive, "virtio0");
}

#[test]
fn a_value_is_left_alone_whatever_it_looks_like() {
    assert_eq!(with("-append -drive~x").boot.append, "-drive x");
    assert_eq!(with("-append --").boot.append, "--");
    assert_eq!(with("-append -help").boot.append, "-help");
    assert_eq!(with("--append a=b,c=d").boot.append, "a=b,c=d");
    with("-name -m");
    let empty = ["-kernel", "k", "-nographic", "-append", ""].map(OsString::from);
    let Ok(Request::Run(config)) = parse(empty) else {
        panic!("an empty value is a value")
    };
    assert_eq!(config.boot.append, "");
}

#[test]
fn a_path_need_not_be_text() {
    let name = OsString::from_vec(b"k\xff".to_vec());
    let line = ["-nographic".into(), "-kernel".into(), name.clone()];
    let Ok(Request::Run(config)) = parse(line) else {
        panic!("a path is bytes")
    };
    assert_eq!(config.boot.kernel.as_os_str(), name);
    let line = ["-append".into(), name];
    assert!(parse(line).is_err());
}

#[test]
fn what_says_what_holds_anyway_is_taken() {
    with(
        "-enable-kvm -accel kvm -machine q35,accel=kvm,usb=off,kernel-irqchip=on,vmport=off -M type=q35 \
         -no-user-config -display none -vga none -nic none -net none -monitor none \
         -rtc base=utc,clock=host,driftfix=none -cpu host,-cx16 -name guest=g,debug-threads=on \
         -sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny \
         -uuid 12345678-1234-1234-1234-123456789abc -pidfile p -no-reboot -nodefaults",
    );
}

#[test]
fn memory_sizes() {
    const MIB: u64 = 1 << 20;
    for (line, mib) in [
        ("", 128),
        ("-m 512", 512),
        ("-m 512M", 512),
        ("-m 1G", 1024),
        ("-m 1.5G", 1536),
        ("-m size=1G", 1024),
        ("-m size=256", 256),
        ("-m 2097152k", 2048),
        ("-m 1024M,slots=0,maxmem=1G", 1024),
    ] {
        assert_eq!(with(line).memory, mib * MIB, "{line}");
    }
}

#[test]
fn processor_arrangements() {
    for (line, [cpus, sockets, dies, cores, threads]) in [
        ("", [1, 1, 1, 1, 1]),
        ("-smp 4", [4, 1, 1, 4, 1]),
        ("-smp cpus=4", [4, 1, 1, 4, 1]),
        ("-smp 4,sockets=2", [4, 2, 1, 2, 1]),
        ("-smp 4,cores=2", [4, 2, 1, 2, 1]),
        ("-smp 4,threads=2", [4, 1, 1, 2, 2]),
        ("-smp 8,sockets=2,dies=2,cores=1,threads=2", [8, 2, 2, 1, 2]),
        ("-smp sockets=2,cores=3", [6, 2, 1, 3, 1]),
        ("-smp maxcpus=2", [2, 1, 1, 2, 1]),
        ("-smp 2,maxcpus=2,clusters=1", [2, 1, 1, 2, 1]),
        ("-smp 255", [255, 1, 1, 255, 1]),
    ] {
        let expected = Cpus {
            cpus,
            sockets,
            dies,
            cores,
            threads,
        };
        assert_eq!(with(line).cpus, expected, "{line}");
    }
}

#[test]
fn serial_ports() {
    let unix = |path: &str, wait| Serial::Unix {
        path: path.into(),
        wait,
    };
    for (line, expected) in [
        ("-nographic", Serial::Stdio),
        ("-display none", Serial::Null),
        ("-nodefaults", Serial::None),
        ("-nodefaults -nographic", Serial::None),
        ("-nodefaults -serial stdio", Serial::Stdio),
        ("-serial mon:stdio", Serial::Stdio),
        ("-serial file:a:b,c", Serial::File("a:b,c".into())),
        ("-serial unix:/s,server=on", unix("/s", true)),
        ("-serial unix:/s,server=on,wait=off", unix("/s", false)),
        ("-serial unix:/s,server,nowait", unix("/s", false)),
        ("-serial pty", Serial::Pty),
        ("-serial pty -serial none", Serial::Pty),
        ("-nographic -serial null", Serial::Null),
        ("-nographic -serial none", Serial::None),
    ] {
        assert_eq!(
            machine(&format!("-kernel k {line}")).serial,
            expected,
            "{line}"
        );
    }
}

#[test]
fn drives_become_nodes_and_devices_in_order() {
    let config = with(
        "-device virtio-blk-pci,drive=d1,id=first,addr=3.1,iothread=t0 \
         -drive file=a,,b,format=raw,if=none,id=d1,readonly=on,cache=none,aio=native,serial=S1,discard=unmap \
         -blockdev driver=null-co,node-name=n0,size=1G \
         -drive if=virtio,format=raw,file.driver=file,file.filename=c,offset=512,cache.direct=on,cache.writeback=off \
         -device {\"driver\":\"virtio-blk-pci\",\"drive\":\"n0\",\"num-queues\":2} \
         -object iothread,id=t0,poll-max-ns=0 -object iothread,id=t1 \
         -drive if=virtio,format=null-co,size=1G,node-name=zero",
    );
    let nodes: Vec<String> = config
        .drives
        .iter()
        .map(|drive| drive.config.node.to_keyval())
        .collect();
    assert_eq!(
        nodes,
        [
            "driver=raw,file.driver=file,file.filename=a,,b,file.aio=native,cache.direct=on,\
             cache.no-flush=off,discard=unmap,read-only=on",
            "file.driver=file,file.filename=c,offset=512,cache.direct=on,driver=raw",
            "size=1G,node-name=zero,driver=null-co",
        ]
    );
    let node = &config.blockdevs[0];
    assert_eq!(
        node.options.to_keyval(),
        "driver=null-co,node-name=n0,size=1G"
    );
    assert_eq!(node.origin, "-blockdev #1");
    let drives: Vec<_> = config
        .drives
        .iter()
        .map(|d| (d.id(), d.config.index, d.config.write_cache))
        .collect();
    assert_eq!(
        drives,
        [
            (Some("d1"), Some(0), true),
            (Some("virtio0"), Some(0), false),
            (Some("virtio1"), Some(1), true)
        ]
    );
    assert_eq!(config.drives[0].config.serial.as_deref(), Some("S1"));
    let origins: Vec<_> = config.devices.iter().map(|d| d.origin.as_str()).collect();
    assert_eq!(
        origins,
        ["-device #1", "-drive #2", "-device #2", "-drive #3"]
    );
    let threads: Vec<_> = config
        .iothreads
        .iter()
        .map(|t| (t.id.as_str(), t.poll_max_ns))
        .collect();
    assert_eq!(threads, [("t0", Some(0)), ("t1", None)]);
}

#[test]
fn cache_modes() {
    for (mode, direct, no_flush, write_cache) in [
        ("writeback", "off", "off", true),
        ("writethrough", "off", "off", false),
        ("none", "on", "off", true),
        ("off", "on", "off", true),
        ("directsync", "on", "off", false),
        ("unsafe", "off", "on", true),
    ] {
        let config = with(&format!("-drive file=a,format=raw,if=virtio,cache={mode}"));
        let drive = &config.drives[0].config;
        let cache = drive.node.get("cache").unwrap().to_keyval();
        assert_eq!(
            cache,
            format!("direct={direct},no-flush={no_flush}"),
            "{mode}"
        );
        assert_eq!(drive.write_cache, write_cache, "{mode}");
    }
}

/// Lines, and the words that the user reads. `*` before a line: it is put behind a kernel.
#[test]
fn mistakes() {
    let rows = [
        (
            "",
            "-display: no display in this build; -nographic puts the console on this terminal, -display none goes without",
        ),
        (
            "-nographic",
            "-kernel: must be given: there is no firmware in this build; -kernel vmlinuz boots a Linux kernel",
        ),
        (
            "disk.img",
            "'disk.img': options begin with a dash; a disk is -drive file=disk.img,format=raw,if=virtio",
        ),
        ("-kernl x", "-kernl: unknown option; did you mean -kernel?"),
        (
            "--kernl x",
            "--kernl: unknown option; did you mean -kernel?",
        ),
        (
            "-bogus",
            "-bogus: unknown option; -help lists those there are",
        ),
        (
            "-m=1G",
            "-m=1G: unknown option; -help lists those there are",
        ),
        ("-kernel", "-kernel: its value is missing"),
        ("*-kernel b", "-kernel: is given twice; give it once"),
        ("*-m 1G -m 2G", "-m: is given twice; give it once"),
        (
            "*-m 1",
            "-m: 1 MiB are too few: a machine has at least 2 MiB, and Linux needs about 64",
        ),
        (
            "*-m 0",
            "-m: 0 MiB are too few: a machine has at least 2 MiB, and Linux needs about 64",
        ),
        ("*-m 1b", "-m: 1 bytes are not a whole number of MiB"),
        ("*-m 1G,size=2G", "-m: 'size': is given twice; give it once"),
        (
            "*-m x",
            "-m: 'size': expected a size such as 4096, 64k or 1.5G, got 'x'",
        ),
        (
            "*-m 1G,slots=2,maxmem=2G",
            "-m: no memory hotplug in this build; leave slots and maxmem out",
        ),
        (
            "*-m siz=1G",
            "-m: 'siz': unknown option; did you mean 'size'?",
        ),
        ("*-smp 0", "-smp: cpus: must be at least 1"),
        ("*-smp 2,cores=0", "-smp: cores: must be at least 1"),
        ("*-smp 4097", "-smp: cpus: 4097 is more than 4096"),
        (
            "*-smp 2,clusters=2",
            "-smp: 'clusters': is not in this build; use sockets, dies, cores, threads",
        ),
        (
            "*-smp 4,maxcpus=8",
            "-smp: maxcpus: 8 are more than cpus, 4, and CPU hotplug is not in this build",
        ),
        (
            "*-smp 3,sockets=2",
            "-smp: sockets (2) * dies (1) * cores (1) * threads (1) is 2, not the 3 CPUs asked for",
        ),
        (
            "*-smp -1",
            "-smp: 'cpus': expected a number from 0 to 4294967295, got '-1'",
        ),
        (
            "*-smp 2,core=2",
            "-smp: 'core': unknown option; did you mean 'cores'?",
        ),
        (
            "*-cpu qemu64",
            "-cpu: the CPU model 'qemu64' is not in this build; use host or max",
        ),
        ("*-M pc", "-M: machine pc is not in this build; use -M q35"),
        (
            "*-machine microvm",
            "-machine: machine microvm is not in this build; use -M q35",
        ),
        (
            "*-machine q35,accel=tcg",
            "-machine: accelerator 'tcg' is not in this build; use -accel kvm",
        ),
        (
            "*-machine q35,usb=on",
            "-machine: 'usb': 'on' is not in this build; use usb=off or leave it out",
        ),
        (
            "*-machine q35,dump-guest-core=on",
            "-machine: 'dump-guest-core': 'on' is not in this build; use dump-guest-core=off or leave it out",
        ),
        (
            "*-machine q35,acel=kvm",
            "-machine: 'acel': unknown option; did you mean 'accel'?",
        ),
        (
            "*-accel tcg",
            "-accel: accelerator 'tcg' is not in this build; use -accel kvm",
        ),
        (
            "*-uuid 5",
            "-uuid: '5' is no UUID; write one like 12345678-1234-1234-1234-123456789abc",
        ),
        (
            "*-rtc base=localtime",
            "-rtc: 'base': 'localtime' is not in this build; use base=utc",
        ),
        (
            "*-name a,process=b",
            "-name: 'process': unknown option; there are guest, debug-threads",
        ),
        (
            "*-sandbox maybe",
            "-sandbox: 'enable': expected on or off, got 'maybe'",
        ),
        (
            "*-sandbox on,spawn=allow",
            "-sandbox: 'spawn': is always deny; -sandbox off is all that can be had",
        ),
        (
            "*-sandbox off -allow-path /tmp",
            "-allow-path: has nothing to allow with -sandbox off; leave one of them out",
        ),
        (
            "*-pidfile a -pidfile b",
            "-pidfile: is given twice; give it once",
        ),
        // What is not built is refused by name.
        (
            "*-netdev user",
            "-netdev: no network card in this build; use -nic none",
        ),
        (
            "*-nic user",
            "-nic: no network card in this build ('user'); use -nic none",
        ),
        (
            "*-net none -net user",
            "-net: no network card in this build ('user'); use -net none",
        ),
        (
            "*-vga std",
            "-vga: no display adapter in this build ('std'); use -vga none",
        ),
        (
            "*-display gtk",
            "-display: no display in this build ('gtk'); use -display none",
        ),
        (
            "*-monitor stdio",
            "-monitor: no monitor in this build ('stdio'); use -monitor none",
        ),
        (
            "*-S",
            "-S: needs a monitor, and there is none in this build; leave it out",
        ),
        (
            "*-no-shutdown",
            "-no-shutdown: needs a monitor, and there is none in this build; leave it out",
        ),
        (
            "*-qmp unix:x",
            "-qmp: no monitor in this build; leave it out, or use -monitor none",
        ),
        (
            "*-hda x",
            "-hda: no IDE controller in this build; use -drive file=FILE,format=raw,if=virtio",
        ),
        (
            "*-cdrom x",
            "-cdrom: no CD-ROM drive in this build; use -drive file=FILE,format=raw,if=virtio,readonly=on",
        ),
        (
            "*-daemonize",
            "-daemonize: spindle stays in the foreground; use a service manager, or 'spindle ... &' with -pidfile",
        ),
        ("*-bios x", "-bios: no firmware in this build; use -kernel"),
        // Serial ports.
        (
            "*-serial stdio -serial null",
            "-serial #2: there is one serial port in this build; give -serial once",
        ),
        (
            "*-serial tcp:1",
            "-serial: 'tcp' is not in this build; use stdio, mon:stdio, file:PATH, unix:PATH,server=on[,wait=off], pty, null or none",
        ),
        (
            "*-serial studio",
            "-serial: 'studio' is no place for a serial port; use stdio, mon:stdio, file:PATH, unix:PATH,server=on[,wait=off], pty, null or none",
        ),
        (
            "*-serial file:",
            "-serial: 'file:' is no place for a serial port; use stdio, mon:stdio, file:PATH, unix:PATH,server=on[,wait=off], pty, null or none",
        ),
        (
            "*-serial unix:/s",
            "-serial: 'server': spindle listens and does not connect; add server=on",
        ),
        (
            "*-serial unix:/s,sever=on",
            "-serial: 'sever': unknown option; did you mean 'server'?",
        ),
        (
            "*-serial mon:pty",
            "-serial: no monitor in this build; mon:stdio is the same as stdio",
        ),
        // Disks.
        (
            "*-drive if=virtio",
            "-drive #1: file: must be given: empty drives are not in this build",
        ),
        (
            "*-drive file=a,file=b,if=virtio",
            "-drive #1: 'file': is given twice; give it once",
        ),
        (
            "*-drive file=,if=virtio",
            "-drive #1: 'file': expected the path of an image",
        ),
        (
            "*-drive file=a",
            "-drive #1: 'if': no AHCI controller in this build; use if=virtio",
        ),
        (
            "*-drive file=a,if=scsi",
            "-drive #1: 'if': 'scsi' is not in this build; use if=virtio",
        ),
        (
            "*-drive file=a,if=virtoi",
            "-drive #1: 'if': expected ide, scsi, sd, mtd, floppy, pflash, virtio, none, got 'virtoi'; did you mean 'virtio'?",
        ),
        (
            "*-drive file=a,format=raw,if=virtio,cache=wirteback",
            "-drive #1: 'cache': expected none, writeback, writethrough, directsync, unsafe, got 'wirteback'; did you mean 'writeback'?",
        ),
        (
            "*-drive file=a,format=raw,if=virtio,cache.dierct=on",
            "-drive #1: 'cache.dierct': unknown option; did you mean 'direct'?",
        ),
        (
            "*-drive file=a,if=virtio,media=cdrom",
            "-drive #1: 'media': no CD-ROM drive in this build; use media=disk,readonly=on",
        ),
        (
            "*-drive file=a,if=virtio,snapshot=on",
            "-drive #1: snapshot: temporary overlays are not in this build",
        ),
        (
            "*-drive file=a,if=virtio,readonly=maybe",
            "-drive #1: 'readonly': expected on or off, got 'maybe'",
        ),
        (
            "*-drive file=a,if=virtio,werror=stop",
            "-drive #1: werror: 'stop' needs a monitor, which is not in this build; use report",
        ),
        (
            "*-drive file=a,format=raw,if=virtio,fromat=x",
            "-drive #1: 'fromat': unknown option; did you mean 'format'?",
        ),
        (
            "*-drive file=a,if=virtio,offest=512",
            "-drive #1: 'offest': unknown option; did you mean 'offset'?",
        ),
        (
            "*-drive file=a,if=virtio,index=1 -drive file=b,if=virtio,index=1",
            "-drive #2: 'index': 1 of if=virtio is taken; give another",
        ),
        (
            "*-drive file=a,if=virtio,unit=1",
            "-drive #1: 'unit': is not in this build; use index",
        ),
        (
            "*-blockdev driver=null-co,node-name=a,sise=1G",
            "-blockdev #1: 'sise': unknown option; did you mean 'size'?",
        ),
        (
            "*-drive file=a,if=none,id=d -device virtio-blk-pci,drive=d,packed=on",
            "-device #1: 'packed': packed rings are not built",
        ),
        (
            "*-drive file=nbd://h,if=virtio",
            "-drive #1: file: protocol 'nbd' is not in this build",
        ),
        (
            "*-drive file=a,if=none,id=x -drive file=b,if=none,id=x",
            "-drive #2: 'id': 'x' is taken; give another",
        ),
        (
            "*-drive file=a,if=virtio -drive file=b,if=none,id=virtio0",
            "-drive #2: 'id': 'virtio0' is taken; give another",
        ),
        (
            "*-blockdev driver=file",
            "-blockdev #1: 'node-name': must be given",
        ),
        (
            "*-blockdev node-name=a",
            "-blockdev #1: 'driver': must be given",
        ),
        (
            "*-blockdev driver=null-co,node-name=a -blockdev driver=null-co,node-name=a",
            "-blockdev #2: 'node-name': 'a' is taken; give another",
        ),
        (
            "*-blockdev driver=null-co,node-name=a -drive file=b,if=none,id=a",
            "-drive #1: 'id': 'a' is taken; give another",
        ),
        (
            "*-blockdev driver=null-co,node-name=a -drive file=b,if=none,node-name=a",
            "-drive #1: 'node-name': 'a' is taken; give another",
        ),
        (
            "*-blockdev {",
            "-blockdev #1: not valid JSON: EOF while parsing an object at line 1 column 1",
        ),
        (
            "*-device virtio-blk-pic,drive=a",
            "-device #1: device 'virtio-blk-pic' is not in this build; did you mean 'virtio-blk-pci'?",
        ),
        (
            "*-device e1000",
            "-device #1: device 'e1000' is not in this build; -device help lists those there are",
        ),
        (
            "*-device virtio-blk-pci,drvie=a",
            "-device #1: 'drvie': unknown option; did you mean 'drive'?",
        ),
        (
            "*-device virtio-blk-pci",
            "-device #1: 'drive': must be given",
        ),
        (
            "*-device virtio-blk-pci,drive=a",
            "-device #1: 'drive': there is no 'a'; -drive id= or -blockdev node-name= makes one",
        ),
        (
            "*-drive file=a,if=none,id=disk -device virtio-blk-pci,drive=dsik",
            "-device #1: 'drive': there is no 'dsik'; did you mean 'disk'?",
        ),
        (
            "*-drive file=a,if=virtio,id=d -device virtio-blk-pci,drive=d",
            "-device #1: 'drive': 'd' is on -drive #1 already; a disk is on one device",
        ),
        (
            "*-drive file=a,if=none,id=d -device virtio-blk-pci,drive=d -device virtio-blk-pci,drive=d",
            "-device #2: 'drive': 'd' is on -device #1 already; a disk is on one device",
        ),
        (
            "*-device pvpanic,id=a -device isa-debug-exit,id=a",
            "-device #2: 'id': 'a' is taken; give another",
        ),
        (
            "*-device isa-debug-exit,iosize=3",
            "-device #1: 'iosize': expected 1, 2 or 4",
        ),
        (
            "*-device isa-debug-exit,iobase=0xfffd,iosize=4",
            "-device #1: 'iobase': its ports reach beyond 0xffff",
        ),
        ("*-object iothread", "-object #1: 'id': must be given"),
        (
            "*-object iothread,id=",
            "-object #1: 'id': '' is not a name: a letter, then letters, digits, '-', '.', '_'",
        ),
        (
            "*-object iothread,id=a -object iothread,id=a",
            "-object #2: 'id': 'a' is taken; give another",
        ),
        (
            "*-object rng-random,id=a",
            "-object #1: object 'rng-random' is not in this build; there is iothread",
        ),
        (
            "*-drive file=a,if=none,id=d -device virtio-blk-pci,drive=d,iothread=t",
            "-device #1: 'iothread': there is no 't'; -object iothread,id= makes one",
        ),
        ("*-device id=a", "-device #1: 'driver': must be given"),
    ];
    let mut wrong = Vec::new();
    for (line, expected) in rows {
        let line = match line.strip_prefix('*') {
            Some(line) => format!("-kernel k -nographic {line}"),
            None => line.to_owned(),
        };
        match parse(words(&line)) {
            Err(error) if error.to_string() == expected => {}
            Err(error) => wrong.push(format!("{line}\n  {error}\n  {expected}")),
            Ok(_) => wrong.push(format!("{line}\n  was taken")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn an_empty_value_asks_for_nothing() {
    for option in [
        "-m", "-smp", "-machine", "-accel", "-rtc", "-name", "-sandbox",
    ] {
        let line = ["-kernel", "k", "-nographic", option, ""].map(OsString::from);
        match parse(line) {
            Err(error) => assert_eq!(error.to_string(), format!("{option}: its value is empty")),
            Ok(_) => panic!("{option} was taken"),
        }
    }
}

#[test]
fn memory_beyond_the_host_is_refused() {
    let error = mistake("-kernel k -nographic -m 1048576G");
    assert!(
        error.starts_with("-m: ") && !error.contains('\n'),
        "{error}"
    );
}

#[test]
fn help_lists_every_option_in_a_line() {
    let help = text("-kernel x -help");
    for (option, what) in args::rows() {
        assert!(!what.is_empty(), "{option}");
        let lines = help
            .lines()
            .filter(|line| line.trim_start().starts_with(&*option));
        assert!(lines.count() >= 1, "{option}");
    }
    assert!(help.contains("exit status:"));
    assert_eq!(
        text("-version"),
        format!("spindle {}\n", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn help_of_an_option() {
    for (line, expected) in [
        ("-device help", "isa-debug-exit"),
        ("-device ?", "isa-debug-exit"),
        ("-device virtio-blk-pci,help", "num-queues=number"),
        ("-device virtio-blk-pci,drive=x,help", "num-queues=number"),
        ("-drive help", "if=ide|scsi"),
        ("-machine help", "q35"),
        ("-cpu help", "host"),
        ("-object help", "poll-max-ns"),
        ("-smp help", "threads"),
        ("-blockdev help", "null-co"),
    ] {
        assert!(text(line).contains(expected), "{line}: {}", text(line));
    }
}

#[test]
fn what_is_built_is_not_refused() {
    for (option, _) in args::rows() {
        let name = option
            .trim_start_matches('-')
            .split(' ')
            .next()
            .unwrap()
            .to_owned();
        assert_eq!(refused::reason(&name), None, "{name}");
    }
}
