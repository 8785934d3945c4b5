//! Blobs, layers, the build cache and file hashes.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::sync::Barrier;
use std::time::{Duration, Instant, SystemTime};

use oci_spec::image::ImageConfigurationBuilder;
use serde_json::json;
use slipway_types::Digest;

use super::super::{CachedStep, FileHashes, FileStamp, LayerBlob, LayerSource, StoreError, UnpackLimits};
use super::{TarFile, TestStore, names_in, sha256};

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn blobs_are_verified_and_durable() {
    let test = TestStore::new();
    let store = &test.store;
    let digest = store.put_blob(b"some bytes").unwrap();
    assert_eq!(digest, sha256(b"some bytes"));
    assert!(store.has(&digest));
    assert_eq!(store.blob_size(&digest).unwrap(), Some(10));
    assert_eq!(store.read_blob(&digest, 10).unwrap(), b"some bytes");
    let mut text = String::new();
    store.open_blob(&digest).unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "some bytes");
    assert_eq!(fs::metadata(store.blob_path(&digest)).unwrap().permissions().mode() & 0o777, 0o444);
    assert!(matches!(store.read_blob(&digest, 9), Err(StoreError::BlobTooLarge { size: 10, limit: 9, .. })));
    let missing = sha256(b"missing");
    assert!(!store.has(&missing));
    assert!(store.open_blob(&missing).unwrap_err().is_not_found());

    let mut writer = store.blob_writer().unwrap();
    writer.write_all(b"lie").unwrap();
    assert_eq!(writer.size(), 3);
    assert!(matches!(writer.commit(Some(&digest)), Err(StoreError::DigestMismatch { .. })));
    let mut abandoned = store.blob_writer().unwrap();
    abandoned.write_all(b"half").unwrap();
    drop(abandoned);
    let mut writer = store.blob_writer().unwrap();
    writer.write_all(b"some bytes").unwrap();
    assert_eq!(writer.commit(Some(&digest)).unwrap(), digest);
    assert_eq!(names_in(&store.root().join("blobs/sha256")), [digest.hex()]);
    test.assert_clean();

    // Bytes that rot are noticed when they are read, and by the deep check.
    let path = store.blob_path(&digest);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&path, "some bites").unwrap();
    assert!(matches!(store.read_blob(&digest, 100), Err(StoreError::DigestMismatch { .. })));
    assert_eq!(store.check(false).unwrap(), vec![]);
    assert_eq!(store.check(true).unwrap().len(), 1);
    fs::write(&path, "shorter").unwrap();
    assert!(!store.has(&digest), "a blob that is not whole must be fetched again");
    store.put_blob(b"some bytes").unwrap();
    let test = test.reopen();
    assert_eq!(test.store.read_blob(&digest, 10).unwrap(), b"some bytes");
    test.assert_clean();
}

#[test]
fn a_pulled_layer_keeps_its_blob() {
    let test = TestStore::new();
    let store = &test.store;
    // Not canonical: unsorted, with a trailer.
    let mut tar = TarFile::default().file("z", b"z").file("a", b"a").end();
    tar.resize(20 * 512, 0);
    for (name, bytes, media_type) in
        [("gzip", gzip(&tar), "tar+gzip"), ("zstd", zstd::encode_all(&tar[..], 3).unwrap(), "tar+zstd")]
    {
        let test = TestStore::new();
        let store = &test.store;
        let digest = store.put_blob(&bytes).unwrap();
        let blob = LayerBlob { digest, media_type: media_type.to_owned(), size: bytes.len() as u64 };
        let limits = UnpackLimits::default();
        let wrong = sha256(b"wrong");
        assert!(matches!(
            store.unpack_blob(&blob, Some(&wrong), &limits),
            Err(StoreError::DigestMismatch { .. })
        ));
        assert_eq!(names_in(&store.root().join("layers")), Vec::<String>::new());
        let info = store.unpack_blob(&blob, Some(&sha256(&tar)), &limits).unwrap();
        assert_eq!((info.entries, info.size, info.tar_size), (2, 2, 20 * 512), "{name}");
        assert_eq!(store.unpack_blob(&blob, Some(&sha256(&tar)), &limits).unwrap(), info);
        assert_eq!(store.layer_source(&info.diff_id).unwrap(), LayerSource::Blob(blob.clone()));
        assert_eq!(store.layer_blobs(&info.diff_id).unwrap(), vec![blob]);
        let mut out = Vec::new();
        store.write_layer_tar(&info.diff_id, &mut out).unwrap();
        assert_eq!(out, tar);
        test.assert_clean();
        // Files of the layer that change are found against the blob.
        fs::write(store.layer_path(&info.diff_id).join("a"), "b").unwrap();
        assert_eq!(store.check(true).unwrap().len(), 1);
    }
    // Without a blob there is nothing to write it from until one is recorded.
    let info = store.unpack_layer(&tar[..], None, &UnpackLimits::default()).unwrap();
    assert!(matches!(
        store.write_layer_tar(&info.diff_id, &mut Vec::new()),
        Err(StoreError::LayerWithoutSource { .. })
    ));
    let bytes = gzip(&tar);
    let blob = LayerBlob { digest: sha256(&bytes), media_type: "x".to_owned(), size: bytes.len() as u64 };
    store.record_layer_blob(&info.diff_id, &blob).unwrap();
    assert_eq!(store.layer_source(&info.diff_id).unwrap(), LayerSource::Unrecorded, "the blob is not here");
    store.put_blob(&bytes).unwrap();
    store.record_layer_blob(&info.diff_id, &blob).unwrap();
    assert_eq!(store.layer_source(&info.diff_id).unwrap(), LayerSource::Blob(blob.clone()));
    assert!(store.record_layer_blob(&sha256(b"none"), &blob).unwrap_err().is_not_found());
}

#[test]
fn a_changed_canonical_layer_is_not_written_out_as_good() {
    let test = TestStore::new();
    let diff_id = test.layer(&[("a", "1")]);
    let file = test.store.layer_path(&diff_id).join("a");
    fs::write(&file, "2").unwrap();
    let error = test.store.write_layer_tar(&diff_id, &mut Vec::new()).unwrap_err();
    assert!(matches!(error, StoreError::LayerChanged { .. }), "{error}");
    assert_eq!(test.store.check(false).unwrap(), vec![]);
    assert_eq!(test.store.check(true).unwrap().len(), 1);
    // A receiver that fails is told apart.
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    assert!(matches!(test.store.write_layer_tar(&diff_id, &mut Full), Err(StoreError::Output { .. })));
}

#[test]
fn a_layer_whose_files_are_gone_is_stored_again() {
    let test = TestStore::new();
    let diff_id = test.layer(&[("a", "1")]);
    let image = super::put_image(&test.store, std::slice::from_ref(&diff_id), "");
    fs::remove_dir_all(test.store.layer_path(&diff_id)).unwrap();
    assert_eq!(test.store.layer(&diff_id).unwrap(), None);
    assert!(test.store.layer_paths(&image).unwrap_err().is_not_found());
    assert_eq!(test.store.check(false).unwrap().len(), 1);
    assert_eq!(test.layer(&[("a", "1")]), diff_id);
    assert_eq!(test.store.layer_paths(&image).unwrap().len(), 1);
    test.assert_clean();
}

#[test]
fn one_layer_committed_by_many_threads_is_there_once() {
    let test = TestStore::new();
    let barrier = Barrier::new(8);
    let ids: Vec<Digest> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    barrier.wait();
                    test.layer(&[("d/a", "1"), ("d/b", "2")])
                })
            })
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert!(ids.iter().all(|id| *id == ids[0]));
    assert_eq!(names_in(&test.store.root().join("layers")), [ids[0].hex()]);
    test.assert_clean();
}

#[test]
fn the_same_files_import_to_the_same_image() {
    let test = TestStore::new();
    let config = ImageConfigurationBuilder::default().architecture("amd64").os("linux").build().unwrap();
    let t = TarFile::default;
    let one = t().dir("./").dir("./etc").file("./etc/a", b"1").file("./b", b"2").end();
    let other = t().file("b", b"2").dir("etc").file("etc/a", b"1").end();
    let limits = UnpackLimits::default();
    let id = test.store.import_rootfs(&one[..], &config, &limits).unwrap();
    assert_eq!(test.store.import_rootfs(&gzip(&other)[..], &config, &limits).unwrap(), id);
    let zstd = zstd::encode_all(&other[..], 1).unwrap();
    assert_eq!(test.store.import_rootfs(&zstd[..], &config, &limits).unwrap(), id);
    let image = test.store.image(&id).unwrap();
    assert_eq!(image.layers.len(), 1);
    assert_eq!(image.config.rootfs().diff_ids().len(), 1);
    assert_eq!(image.config.history().as_ref().unwrap().len(), 1);
    let mut tar = Vec::new();
    test.store.write_layer_tar(&image.layers[0], &mut tar).unwrap();
    assert_eq!(sha256(&tar), image.layers[0]);
    let empty = test.store.import_rootfs(&t().end()[..], &config, &limits).unwrap();
    assert_eq!(test.store.layer_paths(&empty).unwrap(), Vec::<std::path::PathBuf>::new());
    test.assert_clean();
}

#[test]
fn cached_steps_need_their_layer() {
    let test = TestStore::new();
    let layer = test.layer(&[("a", "1")]);
    let key = |name: &str| sha256(name.as_bytes());
    let with_layer = CachedStep { layer: Some(layer.clone()), payload: json!({"env": ["A=1"]}) };
    let without = CachedStep { layer: None, payload: json!(null) };
    test.store.cache_put(&key("1"), &with_layer).unwrap();
    test.store.cache_put(&key("2"), &without).unwrap();
    let lost = CachedStep { layer: Some(key("none")), payload: json!(1) };
    assert!(test.store.cache_put(&key("3"), &lost).unwrap_err().is_not_found());
    let long = CachedStep { layer: None, payload: json!("x".repeat(1 << 20)) };
    assert!(matches!(test.store.cache_put(&key("3"), &long), Err(StoreError::TooLong { .. })));
    let test = test.reopen();
    assert_eq!(test.store.cache_get(&key("1")).unwrap(), Some(with_layer));
    assert_eq!(test.store.cache_get(&key("2")).unwrap(), Some(without));
    assert_eq!(test.store.cache_get(&key("3")).unwrap(), None);
    fs::remove_dir_all(test.store.root().join("layers").join(layer.hex())).unwrap();
    assert_eq!(test.store.cache_get(&key("1")).unwrap(), None);
}

#[test]
fn file_hashes_are_remembered_for_settled_files_only() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "1").unwrap();
    let stamp = FileStamp::of(&fs::metadata(&file).unwrap());
    let cache = dir.path().join("cache");
    let mut hashes = FileHashes::load(&cache).unwrap();
    // Read right after it was written: it could change once more within the clock's tick.
    hashes.insert(&file, &stamp, [1; 32], SystemTime::now());
    assert_eq!(hashes.get(&file, &stamp), None);
    let later = SystemTime::now() + Duration::from_secs(3);
    let future = FileStamp { mtime: stamp.mtime + 10_000_000_000, ..stamp };
    hashes.insert(&file, &future, [1; 32], later);
    assert_eq!(hashes.get(&file, &future), None);
    hashes.insert(&file, &stamp, [1; 32], later);
    assert_eq!(hashes.get(&file, &stamp), Some([1; 32]));
    hashes.save().unwrap();

    let mut hashes = FileHashes::load(&cache).unwrap();
    assert_eq!(hashes.get(&file, &stamp), Some([1; 32]));
    for changed in [
        FileStamp { dev: 0, ..stamp },
        FileStamp { inode: 0, ..stamp },
        FileStamp { size: 0, ..stamp },
        FileStamp { mtime: 0, ..stamp },
        FileStamp { ctime: 0, ..stamp },
    ] {
        assert_eq!(hashes.get(&file, &changed), None);
    }
    assert_eq!(hashes.get(&dir.path().join("other"), &stamp), None);
    // A hash of a file that is not settled takes the older one away.
    hashes.insert(&file, &FileStamp { size: 9, ..stamp }, [2; 32], SystemTime::now());
    assert!(hashes.is_empty());

    // Damage of any byte, or a cut, makes it empty.
    let bytes = fs::read(&cache).unwrap();
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x55;
        fs::write(&cache, &damaged).unwrap();
        assert!(FileHashes::load(&cache).unwrap().is_empty(), "byte {at}");
        fs::write(&cache, &bytes[..at]).unwrap();
        assert!(FileHashes::load(&cache).unwrap().is_empty(), "cut at {at}");
    }
}

#[test]
fn unused_file_hashes_age_and_go() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cache");
    let stamp = FileStamp { dev: 1, inode: 2, size: 3, mtime: 4, ctime: 5 };
    let [used, unused, new] = ["/used", "/unused", "/new"].map(std::path::PathBuf::from);
    let mut hashes = FileHashes::load(&path).unwrap();
    hashes.insert(&used, &stamp, [1; 32], SystemTime::now());
    hashes.insert(&unused, &stamp, [2; 32], SystemTime::now());
    hashes.save().unwrap();
    for round in 0..20 {
        let mut hashes = FileHashes::load(&path).unwrap();
        assert!(hashes.get(&used, &stamp).is_some(), "{round}");
        hashes.insert(&new, &stamp, [round; 32], SystemTime::now());
        hashes.save().unwrap();
    }
    let hashes = FileHashes::load(&path).unwrap();
    assert_eq!((hashes.len(), hashes.get(&unused, &stamp)), (2, None));
}

#[test]
fn twenty_thousand_file_hashes_load_quickly() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cache");
    let stamp = |i: u64| FileStamp { dev: 1, inode: i, size: 3, mtime: 4, ctime: 5 };
    let name = |i: u64| {
        std::path::PathBuf::from(format!("/home/someone/project/data/part-{:03}/file-{i:06}.bin", i / 100))
    };
    let mut hashes = FileHashes::load(&path).unwrap();
    for i in 0..20_000 {
        hashes.insert(&name(i), &stamp(i), [i as u8; 32], SystemTime::now());
    }
    hashes.save().unwrap();
    let names: Vec<_> = (0..20_000).map(name).collect();
    // Best of five, and a bound far from the measured time: other work shares this machine, and this build is not optimised.
    let best = (0..5)
        .map(|_| {
            let start = Instant::now();
            let mut hashes = FileHashes::load(&path).unwrap();
            for (i, name) in names.iter().enumerate() {
                assert_eq!(hashes.get(name, &stamp(i as u64)), Some([i as u8; 32]));
            }
            hashes.save().unwrap();
            start.elapsed()
        })
        .min()
        .unwrap();
    assert!(best < Duration::from_millis(400), "{best:?}");
}
