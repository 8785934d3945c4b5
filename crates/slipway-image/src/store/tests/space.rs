//! A full disk.

use std::fs;
use std::io::Write;
use std::path::Path;

use super::super::{PruneOptions, Store, StoreError, UnpackLimits};
use super::{TarFile, commit_files, names_in, put_image, reference, rerun, sha256, test_name};

const DISK: &str = "SLIPWAY_TEST_SMALL_DISK";

/// Runs the calling test once more in a mount namespace of its own, where `DISK` is a file system of 8 MiB.
fn on_a_small_disk(test: &str, body: impl FnOnce(&Path)) {
    if let Some(disk) = std::env::var_os(DISK) {
        return body(Path::new(&disk));
    }
    let dir = tempfile::tempdir().unwrap();
    let script = format!("mount -t tmpfs -o size=8m tmpfs \"${DISK}\" && exec \"$0\" \"$@\"");
    let output = rerun(
        test,
        DISK,
        dir.path(),
        &["unshare", "--mount", "--propagation", "private", "sh", "-c", &script],
    )
    .output()
    .unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

/// Bytes that do not compress and differ by their seed.
fn noise(length: usize, mut seed: u64) -> Vec<u8> {
    (0..length)
        .map(|_| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 56) as u8
        })
        .collect()
}

fn assert_full<T: std::fmt::Debug>(result: Result<T, StoreError>) {
    let error = result.unwrap_err();
    assert!(error.is_out_of_space(), "{error:?}");
}

#[test]
fn a_full_disk_is_told_and_harms_nothing() {
    on_a_small_disk(test_name!("a_full_disk_is_told_and_harms_nothing"), |disk| {
        let store = Store::open(disk.join("store")).unwrap();
        let layer = commit_files(&store, &[("a", "1")]);
        let image = put_image(&store, std::slice::from_ref(&layer), "");
        store.tag(&image, &reference("app")).unwrap();

        let big = noise(8 << 20, 1);
        assert_full(store.put_blob(&big));
        assert_eq!(names_in(&store.root().join("tmp")), Vec::<String>::new());
        let tar = TarFile::default().file("a", b"1").file("big", &big).end();
        assert_full(store.unpack_layer(&tar[..], None, &UnpackLimits::default()));
        assert_eq!(names_in(&store.root().join("tmp")), Vec::<String>::new());
        let config = store.image(&image).unwrap().config;
        assert_full(store.import_rootfs(&tar[..], &config, &UnpackLimits::default()));
        assert_eq!(store.check(true).unwrap(), vec![]);

        // To the last byte: now the index has no room, either.
        let mut filler = fs::File::create(disk.join("filler")).unwrap();
        while filler.write(&big[..4096]).is_ok_and(|n| n > 0) {}
        let mut failed = false;
        for i in 0..500 {
            match store.tag(&image, &reference(&format!("name-{i}:{}", "x".repeat(120)))) {
                Ok(_) => {}
                Err(error) => {
                    assert!(error.is_out_of_space(), "{error:?}");
                    failed = true;
                    break;
                }
            }
        }
        assert!(failed, "the index never ran out of room");
        assert_full(store.put_blob(b"one more"));
        assert!(store.layer(&layer).unwrap().is_some());
        // Removing works all the same, and so does opening.
        let report = store.remove_image(image.as_str(), true).unwrap();
        assert_eq!(report.deleted, Some(image));
        store.prune(&PruneOptions::default()).unwrap();
        drop(store);
        let store = Store::open(disk.join("store")).unwrap();
        store.prune(&PruneOptions { all: true, build_cache: true }).unwrap();
        fs::remove_file(disk.join("filler")).unwrap();
        assert_eq!(store.check(true).unwrap(), vec![]);
        store.put_blob(b"room again").unwrap();
    });
}

/// Every commit fails at another point when room ends after another number of bytes.
#[test]
fn room_that_ends_at_any_point_leaves_a_store_that_checks() {
    on_a_small_disk(test_name!("room_that_ends_at_any_point_leaves_a_store_that_checks"), |disk| {
        let mut failures = 0;
        for left in (0..60).map(|n| n * 4096) {
            let root = disk.join("store");
            let store = Store::open(&root).unwrap();
            let mut filler = fs::File::create(disk.join("filler")).unwrap();
            while filler.write(&[1; 4096]).is_ok_and(|n| n > 0) {}
            let length = filler.metadata().unwrap().len();
            filler.set_len(length.saturating_sub(left)).unwrap();
            let steps = || -> Result<(), StoreError> {
                let _lease = store.lease();
                let blob = store.put_blob(&noise(20_000, left))?;
                store.pin("test", "x", &blob)?;
                let tar = TarFile::default().file("f", &noise(30_000, left)).dir("d").file("d/g", b"1").end();
                let info = store.unpack_layer(&tar[..], Some(&sha256(&tar)), &UnpackLimits::default())?;
                let raw = format!(
                    r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":["{}"]}}}}"#,
                    info.diff_id
                );
                let image = store.put_image(raw.as_bytes(), &[info.diff_id], None)?;
                store.tag(&image, &reference("app")).map(drop)
            };
            if let Err(error) = steps() {
                assert!(error.is_out_of_space(), "{left}: {error:?}");
                failures += 1;
            }
            assert_eq!(names_in(&root.join("tmp")), Vec::<String>::new(), "{left}");
            fs::remove_file(disk.join("filler")).unwrap();
            assert_eq!(store.check(true).unwrap(), vec![], "{left}");
            drop(store);
            fs::remove_dir_all(&root).unwrap();
        }
        assert!((5..60).contains(&failures), "{failures}");
    });
}
