//! Garbage collection and checking.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use slipway_types::Digest;

use super::super::error::During;
use super::super::{CachedStep, LayerBlob, Problem, PruneOptions};
use super::{TestStore, commit_files, put_image, reference, sha256};

const ALL: PruneOptions = PruneOptions { all: true, build_cache: true };

#[test]
fn pruning_removes_what_nothing_reaches() {
    let test = TestStore::new();
    let store = &test.store;
    let named = test.layer(&[("named", "1")]);
    let dangling = test.layer(&[("dangling", "1")]);
    let cached = test.layer(&[("cached", "1")]);
    let loose = test.layer(&[("loose", "1")]);
    let pinned = test.layer(&[("pinned", "1")]);
    let image = put_image(store, std::slice::from_ref(&named), "named");
    store.tag(&image, &reference("app")).unwrap();
    let unnamed = put_image(store, &[named.clone(), dangling.clone()], "unnamed");
    store
        .cache_put(&sha256(b"k"), &CachedStep { layer: Some(cached.clone()), payload: serde_json::json!({}) })
        .unwrap();
    store.pin("x", "y", &pinned).unwrap();
    let blob = store.put_blob(b"loose blob").unwrap();
    let form = store.put_blob(b"compressed").unwrap();
    let form = LayerBlob { digest: form, media_type: "m".to_owned(), size: 10 };
    store.record_layer_blob(&named, &form).unwrap();
    store.file_hashes(std::path::Path::new("/context")).unwrap();

    let usage = store.usage().unwrap();
    assert_eq!((usage.images, usage.layers, usage.layer_bytes, usage.cache_entries), (2, 5, 5, 1));
    assert!(usage.reclaimable_bytes > 0);
    let report = store.prune(&PruneOptions::default()).unwrap();
    assert_eq!(report.images, std::slice::from_ref(&unnamed));
    let mut expected = vec![dangling, loose];
    expected.sort();
    assert_eq!(report.layers, expected);
    let mut expected = vec![blob, unnamed];
    expected.sort();
    assert_eq!(report.blobs, expected);
    assert_eq!((report.cache_entries, report.strays), (0, 0));
    assert!(store.has(&form.digest));
    test.assert_clean();

    let report = store.prune(&PruneOptions { build_cache: true, ..PruneOptions::default() }).unwrap();
    assert_eq!((report.layers, report.cache_entries), (vec![cached], 1));
    let before = store.usage().unwrap().reclaimable_bytes;
    let report = store.prune(&ALL).unwrap();
    assert_eq!((report.images, report.layers), (vec![image], vec![named]));
    assert_eq!(report.bytes, before);
    assert!(!store.has(&form.digest));
    assert!(store.layer(&pinned).unwrap().is_some());
    assert_eq!(store.usage().unwrap().reclaimable_bytes, 0);
    test.assert_clean();
}

#[test]
fn a_pinned_manifest_keeps_all_that_it_names() {
    let test = TestStore::new();
    let store = &test.store;
    let weights = store.put_blob(b"weights").unwrap();
    let config = store.put_blob(b"config").unwrap();
    let layer = test.layer(&[("a", "1")]);
    let image = put_image(store, std::slice::from_ref(&layer), "");
    let descriptor =
        |digest: &Digest| serde_json::json!({"digest": digest.as_str(), "size": 1, "mediaType": "x"});
    let put = |value: serde_json::Value| store.put_blob(value.to_string().as_bytes()).unwrap();
    let model = put(serde_json::json!({"config": descriptor(&config), "layers": [descriptor(&weights)]}));
    let of_image =
        put(serde_json::json!({"config": descriptor(&image), "layers": [], "subject": descriptor(&model)}));
    let list =
        put(serde_json::json!({"manifests": [descriptor(&of_image), descriptor(&sha256(b"not here"))]}));
    store.pin("model", "digits/1", &list).unwrap();
    let report = store.prune(&ALL).unwrap();
    assert_eq!((report.images.len(), report.layers.len(), report.blobs.len()), (0, 0, 0));
    assert_eq!(store.pins("model").unwrap(), [("digits/1".to_owned(), list.clone())]);
    test.assert_clean();
    // A pin holds one digest.
    store.pin("model", "digits/1", &weights).unwrap();
    let report = store.prune(&ALL).unwrap();
    assert_eq!((report.images, report.layers), (vec![image], vec![layer]));
    assert!(store.has(&weights) && !store.has(&config) && !store.has(&list));
    assert!(store.unpin("model", "digits/1").unwrap());
    assert!(!store.unpin("model", "digits/1").unwrap());
    assert!(store.pin("model", "x", &sha256(b"none")).unwrap_err().is_not_found());
    store.prune(&ALL).unwrap();
    assert_eq!(store.usage().unwrap(), super::super::Usage::default());
}

#[test]
fn leases_keep_what_was_used_since_they_were_taken() {
    let test = TestStore::new();
    let store = &test.store;
    let before = test.layer(&[("before", "1")]);
    let asked = test.layer(&[("asked", "1")]);
    let long = store.lease();
    let blob = store.put_blob(b"blob").unwrap();
    let during = test.layer(&[("during", "1")]);
    store.layer(&asked).unwrap();
    let short = store.lease();
    drop(short);
    assert_eq!(store.prune(&ALL).unwrap().layers, [before]);
    long.keep(&blob);
    drop(long);
    let report = store.prune(&ALL).unwrap();
    let mut expected = vec![during, asked];
    expected.sort();
    assert_eq!((report.layers, report.blobs), (expected, vec![blob]));
    test.assert_clean();
}

#[test]
fn strays_are_reported_and_removed() {
    let test = TestStore::new();
    let store = &test.store;
    let layer = test.layer(&[("a", "1")]);
    store.pin("x", "y", &layer).unwrap();
    let stray_layer = store.root().join("layers").join(sha256(b"x").hex());
    fs::create_dir_all(stray_layer.join("fs/etc")).unwrap();
    let stray_blob = store.blob_path(&sha256(b"y"));
    fs::write(&stray_blob, "y").unwrap();
    let stale = store.root().join("tmp/old.1-1");
    fs::create_dir(&stale).unwrap();
    let live = store.staging("live").unwrap();
    fs::write(live.path().join("file"), "x").unwrap();
    let problems = store.check(false).unwrap();
    assert_eq!(problems.len(), 3, "{problems:?}");
    for problem in [
        Problem::Stray { path: stray_layer.clone() },
        Problem::Stray { path: stray_blob.clone() },
        Problem::StaleStaging { path: stale.clone() },
    ] {
        assert!(problems.contains(&problem), "{problem}");
    }
    assert_eq!(store.prune(&PruneOptions::default()).unwrap().strays, 3);
    assert!(!stray_layer.exists() && !stray_blob.exists() && !stale.exists());
    assert!(live.path().join("file").exists());
    drop(live);
    test.assert_clean();
    // A stray in the place of a layer gives way to it.
    let files = [("b", "2")];
    let id = test.layer(&files);
    store.prune(&ALL).unwrap();
    fs::create_dir_all(store.layer_path(&id).join("wrong")).unwrap();
    assert_eq!(test.layer(&files), id);
    assert!(!store.layer_path(&id).join("wrong").exists());
    test.assert_clean();
}

#[test]
fn lost_things_are_reported() {
    let test = TestStore::new();
    let store = &test.store;
    let layer = test.layer(&[("a", "1")]);
    let image = put_image(store, std::slice::from_ref(&layer), "");
    store.pin("container", "c", &image).unwrap();
    fs::remove_dir_all(store.layer_path(&layer).parent().unwrap()).unwrap();
    fs::remove_file(store.blob_path(&image)).unwrap();
    let problems = store.check(true).unwrap();
    assert_eq!(
        problems,
        [Problem::MissingBlob { digest: image.clone() }, Problem::MissingLayer { diff_id: layer }]
    );
    store
        .inner
        .index
        .write(|i| i.execute_batch("DELETE FROM blobs; DELETE FROM images; DELETE FROM layers").during("x"))
        .unwrap();
    let problems = store.check(false).unwrap();
    assert!(
        matches!(&problems[..], [Problem::DanglingPin { digest, .. }] if *digest == image),
        "{problems:?}"
    );
}

#[test]
fn pruning_beside_builds_takes_nothing_from_them() {
    let test = TestStore::new();
    let done = AtomicBool::new(false);
    let store = &test.store;
    std::thread::scope(|scope| {
        let pruner = scope.spawn(|| {
            let mut rounds = 0;
            while !done.load(Ordering::Relaxed) || rounds == 0 {
                store.prune(&ALL).unwrap();
                rounds += 1;
            }
        });
        let builders: Vec<_> = (0..3)
            .map(|thread| {
                scope.spawn(move || {
                    for round in 0..12 {
                        let _lease = store.lease();
                        let text = format!("{round}");
                        let shared = commit_files(store, &[("shared", &text)]);
                        let own = commit_files(store, &[("own", &format!("{thread}-{round}"))]);
                        let image = put_image(store, &[shared, own], &format!("{thread}"));
                        let name = reference(&format!("app:{thread}"));
                        store.tag(&image, &name).unwrap();
                        assert_eq!(store.layer_paths(&image).unwrap().len(), 2);
                    }
                })
            })
            .collect();
        // Whatever became of them, the pruner must end.
        let results: Vec<_> = builders.into_iter().map(|builder| builder.join()).collect();
        done.store(true, Ordering::Relaxed);
        pruner.join().unwrap();
        results.into_iter().for_each(|result| result.unwrap());
    });
    test.assert_clean();
}
