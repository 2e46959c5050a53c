use std::path::{Path, PathBuf};

use exec::{Config, Executor};

use super::*;
use crate::OpKind;
use crate::request::Flags;

/// Runs `test` as a task of an executor of its own.
pub(crate) fn run<T>(test: impl Future<Output = T>) -> T {
    Executor::new(Config::default()).unwrap().block_on(test)
}

fn image(dir: &Path, name: &str, len: u64) -> PathBuf {
    let path = dir.join(name);
    std::fs::File::create(&path).unwrap().set_len(len).unwrap();
    path
}

async fn drive(graph: &Graph, text: &str) -> Result<Added<Arc<Drive>>, Error> {
    graph.add_drive(&DriveConfig::parse(text)?).await
}

fn guest(device: &str) -> Attach {
    Attach {
        device: device.to_owned(),
        ..Attach::default()
    }
}

#[test]
fn a_drive_writes_and_reads_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = image(dir.path(), "disk", 1 << 20);
    run(async {
        let graph = Graph::new();
        let added = drive(
            &graph,
            &format!(
                "file={},format=raw,if=virtio,id=d0,serial=S1",
                path.display()
            ),
        )
        .await
        .unwrap();
        assert!(added.warnings.is_empty());
        let disk = graph.attach("d0", &guest("vda")).await.unwrap();
        assert_eq!(
            (disk.id(), disk.serial(), disk.len()),
            ("d0", Some("S1"), 1 << 20)
        );
        disk.submit(Request::write(4096, [7; 1000].as_slice(), Flags::empty()))
            .await
            .unwrap();
        disk.submit(Request::flush()).await.unwrap();
        let mut back = [1; 1002];
        disk.submit(Request::read(4095, back.as_mut_slice()))
            .await
            .unwrap();
        assert_eq!((back[0], back[1], back[1000], back[1001]), (0, 7, 7, 0));
        let error = disk
            .submit(Request::write(
                (1 << 20) - 1,
                [0; 2].as_slice(),
                Flags::empty(),
            ))
            .await
            .unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EIO));
        let stats = disk.stats()[OpKind::Write];
        assert_eq!((stats.count, stats.bytes, stats.failed), (1, 1000, 1));
        assert!(graph.close().await.is_empty());
    });
    assert_eq!(&std::fs::read(path).unwrap()[4096..5096], [7; 1000]);
}

/// It has no length, and nothing that could be flushed.
#[test]
fn dev_null_is_an_empty_disk() {
    run(async {
        let graph = Graph::new();
        drive(&graph, "file=/dev/null,format=raw,if=virtio,id=d0")
            .await
            .unwrap();
        let disk = graph.attach("d0", &guest("vda")).await.unwrap();
        assert!(disk.is_empty());
        disk.submit(Request::flush()).await.unwrap();
        assert!(graph.close().await.is_empty());
    });
}

async fn add(graph: &Graph, text: &str) -> Result<Arc<Node>, Error> {
    Ok(graph.add(Tree::parse(text, Some("driver"))?).await?.item)
}

#[test]
fn nodes_refer_to_nodes_or_hold_them() {
    let dir = tempfile::tempdir().unwrap();
    let path = image(dir.path(), "disk", 1 << 20);
    let path = path.display();
    run(async {
        let graph = Graph::new();
        add(&graph, &format!("file,node-name=f0,filename={path}"))
            .await
            .unwrap();
        let by_name = add(&graph, "raw,node-name=r0,file=f0,offset=4k,size=64k")
            .await
            .unwrap();
        assert_eq!(by_name.len(), 64 << 10);
        let json = format!(
            r#"{{"driver":"raw","node-name":"r1","read-only":true,"cache":{{"direct":false}},"file":{{"driver":"file","filename":"{path}"}}}}"#
        );
        let inline = add(&graph, &json).await.unwrap();
        let below = inline.children()[0].node();
        assert!(
            below.is_read_only() && below.name().starts_with('#'),
            "{below:?}"
        );
        let error = graph.remove("f0").await.unwrap_err();
        assert_eq!(
            (error.kind, error.to_string().as_str()),
            (ErrorKind::InUse, "node 'f0' is used by node 'r0'")
        );
        assert_eq!(
            graph.remove(below.name()).await.unwrap_err().kind,
            ErrorKind::InUse
        );
        graph.remove("r0").await.unwrap();
        graph.remove("f0").await.unwrap();
        graph.remove("r1").await.unwrap();
        assert!(graph.nodes().is_empty());
    });
}

#[test]
fn what_cannot_be_made_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = image(dir.path(), "disk", 1000);
    let (path, none) = (path.display(), dir.path().join("none"));
    let none = none.display();
    run(async {
        let graph = Graph::new();
        add(&graph, "null-co,node-name=taken,size=1M")
            .await
            .unwrap();
        let cases = [
            ("null-co".to_owned(), "'node-name': must be given".to_owned()),
            ("node-name=x".to_owned(), "'driver': must be given".to_owned()),
            ("null-co,node-name=taken".to_owned(), "node-name: there is a node called 'taken' already".to_owned()),
            ("null-oc,node-name=x".to_owned(), "'driver': unknown driver 'null-oc'; did you mean 'null-co'?".to_owned()),
            ("qcow2,node-name=x,file=taken".to_owned(), "driver: driver 'qcow2' is not in this build".to_owned()),
            ("raw,node-name=x,file=tkaen".to_owned(), "file: there is no drive or node called 'tkaen'; did you mean 'taken'?".to_owned()),
            ("raw,node-name=x".to_owned(), "'file': must be given".to_owned()),
            ("raw,node-name=x,file=taken,offset=2M".to_owned(), "'offset': 2097152 is past the end of the image, which has 1048576 bytes".to_owned()),
            ("raw,node-name=x,file=taken,size=100".to_owned(), "'size': 100 is not a multiple of 512".to_owned()),
            ("raw,node-name=x,file.driver=file,file.filename=".to_owned() + &none.to_string(), format!("file.filename: cannot open '{none}': No such file or directory")),
            (format!("raw,node-name=x,file.driver=file,file.filename={path},file.cahce.direct=on"), "'file.cahce': unknown option; did you mean 'cache'?".to_owned()),
            (format!("raw,node-name=x,file.driver=file,file.filename={path},file.cache.direct=maybe"), "'file.cache.direct': expected on or off, got 'maybe'".to_owned()),
            (format!("raw,node-name=x,file.driver=file,file.node-name=x,file.filename={path}"), "file.node-name: the name 'x' is given twice".to_owned()),
            (format!("file,node-name=x,filename={path},detect-zeroes=unmap"), "'detect-zeroes': 'unmap' needs discard=unmap".to_owned()),
            (format!("file,node-name=x,filename={path},force-share=on"), "'force-share': needs read-only=on".to_owned()),
            (format!("host_device,node-name=x,filename={path}"), format!("'filename': '{path}' is not a device; use driver=file")),
            ("file,node-name=x,filename=/dev/null".to_owned(), "'filename': '/dev/null' is a device; use driver=host_device".to_owned()),
            ("file,node-name=x,filename=/dev/fdset/1".to_owned(), "filename: passing descriptors (-add-fd) is not in this build".to_owned()),
            ("null-co,node-name=0x".to_owned(), "'node-name': '0x' is not a name: a letter, then letters, digits, '-', '.', '_', at most 31 in all".to_owned()),
        ];
        for (text, expected) in cases {
            assert_eq!(
                add(&graph, &text).await.unwrap_err().to_string(),
                expected,
                "{text}"
            );
        }
        assert_eq!(graph.nodes().len(), 1);
        // A name that was used in what failed is free again.
        add(&graph, "null-co,node-name=x").await.unwrap();
    });
}

#[test]
fn a_second_writer_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = image(dir.path(), "disk", 1 << 20);
    let path = path.display();
    run(async {
        let graph = Graph::new();
        add(&graph, &format!("file,node-name=f0,filename={path}"))
            .await
            .unwrap();
        add(&graph, "raw,node-name=r0,file=f0").await.unwrap();
        add(&graph, "raw,node-name=r1,file=f0").await.unwrap();
        let first = graph.attach("r0", &guest("vda")).await.unwrap();
        let error = graph
            .attach("r1", &guest("vdb"))
            .await
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("node 'f0': node 'r") && error.contains("needs 'write', which node 'r"),
            "{error}"
        );
        let error = graph
            .attach("r0", &guest("vdb"))
            .await
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "node 'r0': vda needs 'write', which vdb does not share"
        );
        // Another description of the file in this very process is another user of the image.
        add(&graph, &format!("file,node-name=f1,filename={path}"))
            .await
            .unwrap();
        let error = graph
            .attach("f1", &guest("vdb"))
            .await
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            format!("node 'f1': failed to get \"write\" lock on '{path}': this process uses it")
        );
        graph.detach(&first).await;
        let second = graph.attach("r1", &guest("vdb")).await.unwrap();
        assert_eq!(second.node().name(), "r1");
        graph.detach(&second).await;
        let share = |device: &str| Attach {
            share_rw: true,
            ..guest(device)
        };
        graph.attach("r0", &share("vda")).await.unwrap();
        graph.attach("r0", &share("vdb")).await.unwrap();
        assert!(graph.close().await.is_empty());
    });
}

#[test]
fn ghsa_jmr4_a_guest_cannot_give_an_unnamed_format_a_header() {
    let dir = tempfile::tempdir().unwrap();
    let path = image(dir.path(), "disk", 1 << 20);
    std::fs::write(&path, [b"QFI\xfb".as_slice(), &[0; 65532]].concat()).unwrap();
    run(async {
        let graph = Graph::new();
        let added = drive(&graph, &format!("file={},if=none,id=d0", path.display()))
            .await
            .unwrap();
        let [warning] = added.warnings.as_slice() else {
            panic!("one warning")
        };
        assert!(
            warning.contains("format of the image was not given")
                && warning.contains("looks like qcow2"),
            "{warning}"
        );
        let disk = graph.attach("d0", &guest("vda")).await.unwrap();
        let mut header = [0; 4096];
        disk.submit(Request::write(0, header.as_slice(), Flags::empty()))
            .await
            .unwrap();
        header[..4].copy_from_slice(b"QFI\xfb");
        for (at, len) in [(0, 4096), (0, 512), (0, 4), (0, 100)] {
            let error = disk
                .submit(Request::write(at, &header[..len], Flags::empty()))
                .await
                .unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EPERM), "{at} {len}");
        }
        // In two halves neither.
        disk.submit(Request::write(2, &header[2..512], Flags::empty()))
            .await
            .unwrap();
        let error = disk
            .submit(Request::write(0, &header[..2], Flags::empty()))
            .await
            .unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EPERM));
        disk.submit(Request::write(512, header.as_slice(), Flags::empty()))
            .await
            .unwrap();
        disk.submit(Request::write(0, [b'M'; 512].as_slice(), Flags::empty()))
            .await
            .unwrap();
        assert!(graph.close().await.is_empty());
        // Named, it is the guest's own affair.
        let graph = Graph::new();
        drive(
            &graph,
            &format!("file={},format=raw,if=none,id=d0", path.display()),
        )
        .await
        .unwrap();
        let disk = graph.attach("d0", &guest("vda")).await.unwrap();
        disk.submit(Request::write(0, header.as_slice(), Flags::empty()))
            .await
            .unwrap();
    });
}

#[test]
fn a_read_only_drive_refuses_changes() {
    let dir = tempfile::tempdir().unwrap();
    let path = image(dir.path(), "disk", 4096);
    run(async {
        let graph = Graph::new();
        drive(
            &graph,
            &format!("file={},format=raw,readonly,if=none,id=d0", path.display()),
        )
        .await
        .unwrap();
        let disk = graph.attach("d0", &guest("vda")).await.unwrap();
        assert!(disk.is_read_only());
        for request in [
            Request::write(0, [1; 512].as_slice(), Flags::empty()),
            Request::write_zeroes(0..512, Flags::empty()),
            Request::discard(0..512),
        ] {
            assert_eq!(
                disk.submit(request).await.unwrap_err().raw_os_error(),
                Some(libc::EROFS)
            );
        }
        disk.submit(Request::flush()).await.unwrap();
        assert!(graph.close().await.is_empty());
    });
}

#[test]
fn space_is_given_back_only_when_asked() {
    use std::os::unix::fs::MetadataExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    let blocks = || std::fs::metadata(&path).unwrap().blocks();
    for (options, shrinks) in [("", false), (",discard=unmap", true)] {
        std::fs::write(&path, vec![5; 1 << 20]).unwrap();
        let before = blocks();
        run(async {
            let graph = Graph::new();
            drive(
                &graph,
                &format!("file={},format=raw,if=none,id=d0{options}", path.display()),
            )
            .await
            .unwrap();
            let disk = graph.attach("d0", &guest("vda")).await.unwrap();
            disk.submit(Request::discard(0..1 << 19)).await.unwrap();
            disk.submit(Request::write_zeroes(
                (1 << 19) + 5..1 << 20,
                Flags::MAY_UNMAP,
            ))
            .await
            .unwrap();
            let mut back = vec![1; 1 << 19];
            disk.submit(Request::read(1 << 19, back.as_mut_slice()))
                .await
                .unwrap();
            assert!(back[..5] == [5; 5] && back[5..].iter().all(|byte| *byte == 0));
            assert!(graph.close().await.is_empty());
        });
        assert_eq!(blocks() < before, shrinks, "{options}");
    }
}

#[test]
fn ch_7720_direct_io_takes_any_request() {
    let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let path = image(dir.path(), "disk", 10_000);
    let len = run(async {
        let graph = Graph::new();
        drive(
            &graph,
            &format!(
                "file={},format=raw,cache=none,if=none,id=d0",
                path.display()
            ),
        )
        .await
        .unwrap();
        let disk = graph.attach("d0", &guest("vda")).await.unwrap();
        assert_eq!(disk.len(), 10_240);
        disk.submit(Request::write(4095, [9; 4099].as_slice(), Flags::FUA))
            .await
            .unwrap();
        disk.submit(Request::write(10_000, [8; 240].as_slice(), Flags::empty()))
            .await
            .unwrap();
        let mut back = [1; 4101];
        disk.submit(Request::read(4094, back.as_mut_slice()))
            .await
            .unwrap();
        assert!(back[0] == 0 && back[1..4100] == [9; 4099] && back[4100] == 0);
        let mut back = [1; 241];
        disk.submit(Request::read(9_999, back.as_mut_slice()))
            .await
            .unwrap();
        assert!(back[0] == 0 && back[1..] == [8; 240]);
        assert!(graph.close().await.is_empty());
        disk.limits().request_alignment
    });
    // Where the file system has no direct I/O this went through the page cache, and tested less.
    assert!(len.is_power_of_two());
}

#[test]
fn drained_requests_wait_or_are_discarded() {
    use std::rc::Rc;
    use std::time::Duration;
    run(async {
        let graph = Graph::new();
        drive(&graph, "driver=null-co,latency-ns=20000000,if=none,id=d0")
            .await
            .unwrap();
        let disk = graph.attach("d0", &guest("vda")).await.unwrap();
        let results = Rc::new(std::cell::RefCell::new(Vec::new()));
        let start = |name: &'static str| {
            let (disk, results) = (Arc::clone(&disk), Rc::clone(&results));
            exec::spawn(async move {
                let result = disk.submit(Request::flush()).await;
                results
                    .borrow_mut()
                    .push((name, result.err().and_then(|error| error.raw_os_error())));
            });
        };
        start("before");
        exec::yield_now().await;
        let drained = graph.drain(disk.node()).await;
        assert_eq!(
            *results.borrow(),
            [("before", None)],
            "a drain waits for what is in flight"
        );
        start("discarded");
        exec::sleep(Duration::from_millis(5)).await;
        disk.discard_parked();
        exec::sleep(Duration::from_millis(5)).await;
        assert_eq!(
            results.borrow()[1..],
            [("discarded", Some(libc::ECANCELED))]
        );
        start("parked");
        exec::sleep(Duration::from_millis(30)).await;
        assert_eq!(results.borrow().len(), 2, "nothing starts while drained");
        drop(drained);
        exec::sleep(Duration::from_millis(60)).await;
        assert_eq!(results.borrow()[2..], [("parked", None)]);
    });
}

#[test]
fn cve_2026_45782_a_detached_drive_reaches_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = image(dir.path(), "disk", 4096);
    run(async {
        let graph = Graph::new();
        let text = format!(
            "file={},format=raw,if=none,id=d0,node-name=n0",
            path.display()
        );
        drive(&graph, &text).await.unwrap();
        let disk = graph.attach("d0", &guest("vda")).await.unwrap();
        assert_eq!(
            graph.remove("d0").await.unwrap_err().to_string(),
            "drive 'd0' is used by vda"
        );
        graph.detach(&disk).await;
        let code = |result: std::io::Result<()>| result.unwrap_err().raw_os_error();
        assert_eq!(
            code(disk.submit(Request::flush()).await),
            Some(libc::ENODEV)
        );
        add(&graph, "raw,node-name=above,file=n0").await.unwrap();
        let error = graph.remove("d0").await.unwrap_err().to_string();
        assert_eq!(error, "drive 'd0': its node 'n0' is used by node 'above'");
        assert_eq!(graph.remove("n0").await.unwrap_err().kind, ErrorKind::InUse);
        graph.remove("above").await.unwrap();
        let disk = graph.attach("d0", &guest("vda")).await.unwrap();
        disk.submit(Request::flush()).await.unwrap();
        assert!(graph.close().await.is_empty());
        assert_eq!(
            code(disk.submit(Request::flush()).await),
            Some(libc::ENODEV)
        );
        assert!(graph.nodes().is_empty() && graph.drives().is_empty());
    });
}
