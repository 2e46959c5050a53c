use super::*;
use std::sync::atomic::{AtomicUsize, Ordering};

#[test]
fn an_entry_is_made_once_however_many_ask() {
    let root = tempfile::tempdir().unwrap();
    let made = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let path = entry_in(root.path(), "kind", "key", |dir| {
                    made.fetch_add(1, Ordering::SeqCst);
                    Ok(fs::write(dir.join("file"), "whole")?)
                });
                assert_eq!(
                    fs::read_to_string(path.unwrap().join("file")).unwrap(),
                    "whole"
                );
            });
        }
    });
    assert_eq!(made.into_inner(), 1);
}

#[test]
fn a_failed_entry_is_absent_and_made_anew() {
    let root = tempfile::tempdir().unwrap();
    let half = |dir: &Path| {
        fs::write(dir.join("half"), "")?;
        anyhow::bail!("no more");
    };
    assert!(entry_in(root.path(), "kind", "key", half).is_err());
    assert!(!root.path().join("kind/key").exists());
    let path = entry_in(root.path(), "kind", "key", |_| Ok(())).unwrap();
    assert_eq!(
        fs::read_dir(path).unwrap().count(),
        0,
        "nothing of the first try is left"
    );
}

#[test]
fn unused_entries_go_and_used_ones_stay() {
    let root = tempfile::tempdir().unwrap();
    let old = entry_in(root.path(), "kind", "old", |_| Ok(())).unwrap();
    let used = entry_in(root.path(), "kind", "used", |_| Ok(())).unwrap();
    for path in [&old, &used] {
        let long_ago = SystemTime::now() - KEEP - Duration::from_secs(60);
        File::open(path)
            .unwrap()
            .set_times(FileTimes::new().set_modified(long_ago))
            .unwrap();
    }
    entry_in(root.path(), "kind", "used", |_| unreachable!()).unwrap();
    entry_in(root.path(), "kind", "new", |_| Ok(())).unwrap();
    assert!(!old.exists() && used.exists());
}
