//! Images of files, and digests that are known before anything is sent.

use std::time::Duration;

use axum::http::Method;
use slipway_types::image::Platform;

use super::super::{Compression, manifest_of};
use super::fake::Fake;
use super::fixtures::noise;
use super::push::build;
use super::*;
use crate::carrier::Carrier;

fn carrier(folder: &std::path::Path) -> Carrier {
    std::fs::write(folder.join("weights"), noise(700_000, 3)).unwrap();
    Carrier::of_folder(folder, "model", &Platform::host()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_carrier_is_sent_once_and_is_an_image() {
    let (folder, fake) = (tempfile::tempdir().unwrap(), Fake::start().await);
    let carrier = carrier(folder.path());
    let name = fake.reference("models/m:v1");
    let events = Events::default();
    assert!(plain_client().push_carrier(&carrier, &name, events.progress()).await.unwrap());
    assert!(events.states().contains(&BlobState::Done));
    assert_eq!(fake.seen(Method::PUT, "/blobs/").len(), 2);

    // Whether it is there is asked without sending anything, and a blob that nothing names is no image.
    fake.forget();
    let has = |digest: &Digest| {
        let reference = fake.reference(&format!("models/m@{digest}"));
        async move { plain_client().has(&reference).await }
    };
    assert!(has(carrier.digest()).await.unwrap());
    assert!(!has(&Digest::from_sha256([7; 32])).await.unwrap());
    assert!(!plain_client().has(&name).await.unwrap(), "a tag may mean anything");
    assert_eq!(fake.seen(Method::HEAD, "/manifests/").len(), 2);
    assert!(fake.seen(Method::PUT, "/").is_empty() && fake.seen(Method::POST, "/").is_empty());

    fake.forget();
    let events = Events::default();
    assert!(!plain_client().push_carrier(&carrier, &name, events.progress()).await.unwrap());
    assert!(events.states().iter().all(|state| *state == BlobState::Exists));
    assert_eq!(fake.seen(Method::PUT, "/").len() + fake.seen(Method::POST, "/").len(), 0);

    let back = store();
    let by_digest = fake.reference(&format!("models/m@{}", carrier.digest()));
    let pulled = plain_client().pull(&back.store, &by_digest, &Platform::host(), silent()).await.unwrap();
    assert_eq!(&pulled.manifest, carrier.digest());
    let weights = back.store.read_image_file(&pulled.image, "/model/weights".as_ref(), 1 << 20).unwrap();
    assert_eq!(weights.unwrap(), noise(700_000, 3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_changed_are_not_sent() {
    let (folder, fake) = (tempfile::tempdir().unwrap(), Fake::start().await);
    let carrier = carrier(folder.path());
    std::fs::write(folder.path().join("weights"), "short").unwrap();
    let name = fake.reference("models/m:v1");
    let client = plain_client();
    let pushed = client.push_carrier(&carrier, &name, silent());
    let pushed = tokio::time::timeout(Duration::from_secs(60), pushed).await.unwrap();
    assert!(pushed.is_err());
    assert!(fake.seen(Method::PUT, "/manifests/").is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_digest_of_a_push_is_known_without_it() {
    for compression in [Compression::Gzip, Compression::Zstd] {
        let (own, fake) = (store(), Fake::start().await);
        let id = build(&own.store);
        let guessed =
            manifest_of(&own.store, &id, &"nowhere.example/app:1".parse().unwrap(), compression).unwrap();
        assert_eq!(
            manifest_of(&own.store, &id, &"nowhere.example/app:1".parse().unwrap(), compression).unwrap(),
            guessed
        );
        let name = fake.reference("app:1");
        let pushed = plain_client().push(&own.store, &id, &name, compression, silent()).await.unwrap();
        assert_eq!(pushed, guessed);

        // What was pulled keeps its manifest.
        let back = store();
        let pulled =
            plain_client().pull(&back.store, &name, &"linux/amd64".parse().unwrap(), silent()).await.unwrap();
        let known = manifest_of(
            &back.store,
            &pulled.image,
            &"nowhere.example/app:1".parse().unwrap(),
            Compression::Gzip,
        )
        .unwrap();
        assert_eq!(known, pushed);
    }
}

#[tokio::test]
async fn a_tag_that_names_the_image_is_not_written_again() {
    let (own, fake) = (store(), Fake::start().await);
    let id = build(&own.store);
    for puts in [1, 0] {
        fake.forget();
        let name = fake.reference("app:1");
        plain_client().push(&own.store, &id, &name, Compression::Gzip, silent()).await.unwrap();
        assert_eq!(fake.seen(Method::PUT, "/manifests/").len(), puts);
    }
}
