//! Pushes.

use axum::http::Method;
use slipway_types::ErrorCode;

use super::super::{Compression, digest_of};
use super::fake::{Fake, error, nowhere, reply, with};
use super::fixtures::{Image, Layer, noise};
use super::*;

/// An image built here: two layers of directory trees.
pub(super) fn build(store: &Store) -> Digest {
    let mut layers = Vec::new();
    for (name, content) in [("first", noise(200_000, 1)), ("second", vec![b'x'; 100_000])] {
        let staging = store.staging("test").unwrap();
        let fs = staging.fs().unwrap();
        std::fs::create_dir(fs.join("app")).unwrap();
        std::fs::write(fs.join("app").join(name), content).unwrap();
        for path in [fs.join("app").join(name), fs.join("app"), fs] {
            let at = rustix::fs::Timespec { tv_sec: 1_700_000_000, tv_nsec: 0 };
            let times = rustix::fs::Timestamps { last_access: at, last_modification: at };
            rustix::fs::utimensat(rustix::fs::CWD, &path, &times, rustix::fs::AtFlags::empty()).unwrap();
        }
        layers.push(store.commit_upper(staging, "test").unwrap().unwrap().diff_id);
    }
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": layers},
    });
    store.put_image(config.to_string().as_bytes(), &layers, None).unwrap()
}

async fn push(own: &TestStore, id: &Digest, fake: &Fake, name: &str, compression: Compression) -> Digest {
    plain_client().push(&own.store, id, &fake.reference(name), compression, silent()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_built_is_compressed_once_and_always_the_same() {
    let platform = "linux/amd64".parse().unwrap();
    let mut digests = Vec::new();
    for compression in [Compression::Gzip, Compression::Zstd] {
        let (own, fake) = (store(), Fake::start().await);
        let id = build(&own.store);
        let events = Events::default();
        let name = fake.reference("app:1");
        let first =
            plain_client().push(&own.store, &id, &name, compression, events.progress()).await.unwrap();
        assert!(events.states().contains(&BlobState::Compressing));
        assert_eq!(fake.seen(Method::PUT, "/blobs/").len(), 3);
        assert!(own.store.resolve(&format!("{}/app@{first}", fake.host)).unwrap() == Some(id.clone()));

        // Nothing is compressed or sent again.
        fake.forget();
        let events = Events::default();
        let again =
            plain_client().push(&own.store, &id, &name, compression, events.progress()).await.unwrap();
        assert_eq!(again, first);
        assert_eq!(fake.seen(Method::PUT, "/blobs/").len() + fake.seen(Method::POST, "/").len(), 0);
        assert_eq!(events.states().iter().filter(|s| **s == BlobState::Compressing).count(), 0);

        // To another registry without compressing.
        let second = Fake::start().await;
        assert_eq!(push(&own, &id, &second, "other/app:2", compression).await, first);

        // The same on another machine.
        let elsewhere = store();
        let same = build(&elsewhere.store);
        assert_eq!(push(&elsewhere, &same, &Fake::start().await, "app:1", compression).await, first);

        // And it comes back as it was.
        let back = store();
        let pulled = plain_client().pull(&back.store, &name, &platform, silent()).await.unwrap();
        assert_eq!((pulled.image, pulled.manifest), (id, first.clone()));
        digests.push(first);
    }
    assert_ne!(digests[0], digests[1]);
}

#[tokio::test]
async fn gzip_headers_tell_nothing() {
    let (own, fake) = (store(), Fake::start().await);
    let id = build(&own.store);
    push(&own, &id, &fake, "app:1", Compression::Gzip).await;
    let layer = own.store.image(&id).unwrap().layers[0].clone();
    let blob = own.store.layer_blobs(&layer).unwrap().remove(0);
    let bytes = own.store.read_blob(&blob.digest, 1 << 30).unwrap();
    assert_eq!(&bytes[..8], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0], "no flags, no time");
    assert_eq!(bytes[9], 255, "no operating system");
}

#[tokio::test]
async fn a_known_form_at_the_registry_needs_no_local_blob() {
    let (own, fake) = (store(), Fake::start().await);
    let id = build(&own.store);
    let first = push(&own, &id, &fake, "app:1", Compression::Gzip).await;
    let layers = own.store.image(&id).unwrap().layers;
    for layer in &layers {
        for blob in own.store.layer_blobs(layer).unwrap() {
            std::fs::remove_file(own.store.blob_path(&blob.digest)).unwrap();
        }
    }
    drop(own.store);
    let again = Store::open(own.dir.path().join("store")).unwrap();
    let name = fake.reference("app:2");
    let second = plain_client().push(&again, &id, &name, Compression::Gzip, silent()).await.unwrap();
    assert_eq!(second, first);
}

#[tokio::test]
async fn what_was_pulled_keeps_its_digest() {
    let fake = Fake::start().await;
    let platform = "linux/amd64".parse().unwrap();
    let images = [
        Image::docker(vec![Layer::gzip_members(&[("a", &noise(10_000, 1))])]),
        Image::new(vec![Layer::zstd(&[("a", b"x")]), Layer::plain(&[("b", b"y")])]),
    ];
    for (n, image) in images.iter().enumerate() {
        let name = format!("origin{n}");
        fake.add(&name, "1", image);
        let own = store();
        let reference = fake.reference(&format!("{name}:1"));
        let pulled = plain_client().pull(&own.store, &reference, &platform, silent()).await.unwrap();
        let other = Fake::start().await;
        // Whatever compression is asked for.
        let pushed = push(&own, &pulled.image, &other, "copy:1", Compression::Zstd).await;
        assert_eq!(pushed, image.digest());
        let (media_type, bytes) = other.state().manifests[&("copy".to_owned(), "1".to_owned())].clone();
        assert_eq!((media_type.as_str(), &bytes[..]), (image.media_type, &image.manifest[..]));
    }
}

#[tokio::test]
async fn layers_of_a_pulled_base_are_kept_and_mounted() {
    let fake = Fake::start().await;
    fake.state().mounting = true;
    let base = Image::docker(vec![Layer::gzip(&[("base", &noise(50_000, 1))])]);
    fake.add("library/base", "1", &base);
    let own = store();
    let platform = "linux/amd64".parse().unwrap();
    plain_client().pull(&own.store, &fake.reference("library/base:1"), &platform, silent()).await.unwrap();
    let staging = own.store.staging("test").unwrap();
    std::fs::write(staging.fs().unwrap().join("new"), b"new").unwrap();
    let top = own.store.commit_upper(staging, "test").unwrap().unwrap().diff_id;
    let layers = vec![base.layers[0].diff_id.clone(), top];
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": layers},
    });
    let id = own.store.put_image(config.to_string().as_bytes(), &layers, None).unwrap();
    let digest = push(&own, &id, &fake, "team/derived:1", Compression::Gzip).await;
    let mounts = fake.seen(Method::POST, "/team/derived/blobs/uploads/");
    assert!(mounts.iter().any(|s| s.query.contains("from=library%2Fbase") && s.status == 201));
    assert!(fake.seen(Method::PUT, "/blobs/").iter().all(|s| !s.query.contains(base.layers[0].digest.hex())));
    let state = fake.state();
    let (_, manifest) = &state.manifests[&("team/derived".to_owned(), digest.to_string())];
    let manifest: serde_json::Value = serde_json::from_slice(manifest).unwrap();
    assert_eq!(manifest["layers"][0]["digest"], base.layers[0].digest.as_str());
    assert_eq!(manifest["layers"][0]["mediaType"], super::super::manifest::OCI_LAYER_GZIP);
}

#[tokio::test]
async fn failed_uploads_are_tried_again() {
    let own = store();
    let id = build(&own.store);
    for (method, part, times) in [
        (Method::HEAD, "/blobs/", 2),
        (Method::POST, "/blobs/uploads/", 2),
        (Method::PUT, "/blobs/uploads/", 2),
        (Method::PUT, "/manifests/", 2),
    ] {
        let fake = Fake::start().await;
        fake.misbehave(method.clone(), part, times, |_| error(503, "BUSY", "later"));
        let digest = push(&own, &id, &fake, "app:1", Compression::Gzip).await;
        assert!(
            fake.state().manifests.contains_key(&("app".to_owned(), digest.to_string())),
            "{method} {part}"
        );

        let fake = Fake::start().await;
        fake.misbehave(method.clone(), part, 99, |_| error(503, "BUSY", "later"));
        let failed = plain_client()
            .push(&own.store, &id, &fake.reference("app:1"), Compression::Gzip, silent())
            .await
            .unwrap_err();
        assert_eq!(failed.code(), ErrorCode::Unavailable, "{method} {part}");
        assert!(!fake.state().manifests.contains_key(&("app".to_owned(), "1".to_owned())));
    }
}

#[tokio::test]
async fn a_registry_that_took_something_else() {
    let own = store();
    let id = build(&own.store);
    for part in ["/manifests/", "/blobs/uploads/"] {
        let fake = Fake::start().await;
        fake.misbehave(Method::PUT, part, 99, |_| {
            with(reply(201, ""), "docker-content-digest", nowhere().as_str())
        });
        let failed = plain_client()
            .push(&own.store, &id, &fake.reference("app:1"), Compression::Gzip, silent())
            .await
            .unwrap_err();
        assert_eq!(failed.code(), ErrorCode::DataLoss, "{part}");
        assert!(everything(&failed).contains(nowhere().as_str()));
    }
    let fake = Fake::start().await;
    let pinned = fake.reference(&format!("app@{}", nowhere()));
    let failed =
        plain_client().push(&own.store, &id, &pinned, Compression::Gzip, silent()).await.unwrap_err();
    assert_eq!(failed.code(), ErrorCode::InvalidArgument);
    let unknown = digest_of(b"no image");
    let failed = plain_client()
        .push(&own.store, &unknown, &fake.reference("app:1"), Compression::Gzip, silent())
        .await
        .unwrap_err();
    assert_eq!(failed.code(), ErrorCode::NotFound);
}

#[tokio::test]
async fn uploads_may_go_elsewhere_without_credentials() {
    let (own, fake, storage) = (store(), Fake::start().await, Fake::start().await);
    let id = build(&own.store);
    fake.state().auth = fake::Auth::Basic { user: "u".into(), password: "p".into() };
    let target = storage.host.clone();
    fake.misbehave(Method::POST, "/blobs/uploads/", 99, move |parts| {
        let location = format!("http://{target}{}77?state=a%3Db", parts.uri.path());
        with(reply(202, ""), "location", &location)
    });
    let registry = client(RegistrySettings::default(), vec![(fake.host.clone(), password("u", "p"))]);
    // The fake's manifest check finds no blobs: they are at the storage.
    let failed = registry
        .push(&own.store, &id, &fake.reference("app:1"), Compression::Gzip, silent())
        .await
        .unwrap_err();
    assert!(everything(&failed).contains("MANIFEST_BLOB_UNKNOWN"), "{}", everything(&failed));
    let sent = storage.seen(Method::PUT, "/blobs/uploads/77");
    assert_eq!(sent.len(), 3);
    assert!(sent.iter().all(|s| s.authorization.is_none() && s.body > 0 && s.status == 201));
}
