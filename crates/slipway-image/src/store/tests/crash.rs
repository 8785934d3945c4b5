//! Processes that die.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use super::super::{Problem, PruneOptions, Store};
use super::{TestStore, commit_files, put_image, reference, rerun, test_name};

const ROOT: &str = "SLIPWAY_TEST_CRASH_ROOT";

#[test]
fn what_a_dead_process_left_is_removed_when_the_store_is_opened() {
    let test = TestStore::new();
    let layer = test.layer(&[("a", "1")]);
    let root = test.store.root().to_owned();
    let left = root.join("tmp/unpack.1-2/fs/deep");
    fs::create_dir_all(&left).unwrap();
    fs::write(left.join("file"), "x").unwrap();
    fs::write(root.join("tmp/blob.1-3"), "x").unwrap();
    fs::write(root.join("contexts/abc.new-1-0"), "x").unwrap();
    // Something was mounted in it: it is detached, and what it showed stays.
    let users = test.dir.path().join("users");
    fs::create_dir(&users).unwrap();
    fs::write(users.join("precious"), "x").unwrap();
    let target = root.join("tmp/unpack.1-2/mount");
    fs::create_dir(&target).unwrap();
    rustix::mount::mount_bind(&users, &target).unwrap();
    let file_target = root.join("tmp/unpack.1-2/file-mount");
    fs::write(&file_target, "").unwrap();
    rustix::mount::mount_bind(users.join("precious"), &file_target).unwrap();
    let test = test.reopen();
    assert!(users.join("precious").exists());
    assert_eq!(fs::read_to_string("/proc/self/mounts").unwrap().matches("unpack.1-2").count(), 0);
    assert!(test.store.layer(&layer).unwrap().is_some());
    assert_eq!(super::names_in(&root.join("contexts")), Vec::<String>::new());
    test.assert_clean();
}

/// Commits and acknowledges until it is killed.
fn work(root: &Path) {
    let store = Store::open(root.join("store")).unwrap();
    let mut acknowledged =
        OpenOptions::new().append(true).create(true).open(root.join("acknowledged")).unwrap();
    let round = fs::read_to_string(root.join("acknowledged")).unwrap().lines().count();
    for number in round.. {
        let _lease = store.lease();
        let text = format!("{number}");
        let layer = commit_files(&store, &[("dir/file", &text), ("other", &text)]);
        let blob = store.put_blob(text.as_bytes()).unwrap();
        store.pin("test", &text, &blob).unwrap();
        let image = put_image(&store, &[layer], &text);
        store.tag(&image, &reference(&format!("app:{number}"))).unwrap();
        writeln!(acknowledged, "{image} {blob}").unwrap();
    }
}

#[test]
fn acknowledged_work_survives_a_kill_at_any_moment() {
    if let Some(root) = std::env::var_os(ROOT) {
        return work(Path::new(&root));
    }
    let dir = tempfile::tempdir().unwrap();
    let list = dir.path().join("acknowledged");
    let count = || fs::read_to_string(&list).map_or(0, |text| text.lines().count());
    let name = test_name!("acknowledged_work_survives_a_kill_at_any_moment");
    for round in 0..6 {
        let before = count();
        let mut child = rerun(name, ROOT, dir.path(), &[])
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let start = Instant::now();
        while count() < before + 2 {
            assert!(start.elapsed() < Duration::from_secs(60), "no progress");
            assert!(child.try_wait().unwrap().is_none(), "the worker ended by itself");
            std::thread::sleep(Duration::from_millis(2));
        }
        // Another moment of its work each time.
        std::thread::sleep(Duration::from_millis(7 * round));
        child.kill().unwrap();
        child.wait().unwrap();
        let store = Store::open(dir.path().join("store")).unwrap();
        let text = fs::read_to_string(&list).unwrap();
        for (number, line) in text.lines().enumerate() {
            let (image, blob) = line.split_once(' ').unwrap();
            assert_eq!(store.resolve(&format!("app:{number}")).unwrap().unwrap().as_str(), image);
            assert_eq!(store.layer_paths(&image.parse().unwrap()).unwrap().len(), 1);
            assert!(store.has(&blob.parse().unwrap()));
        }
        let problems = store.check(true).unwrap();
        assert!(problems.iter().all(|p| matches!(p, Problem::Stray { .. })), "{problems:?}");
        store.prune(&PruneOptions::default()).unwrap();
        assert_eq!(store.check(true).unwrap(), vec![]);
    }
}
