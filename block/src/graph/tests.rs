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
