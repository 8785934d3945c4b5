//! A registry that does not send what it promised. Nothing of it may stay.

use axum::body::{Body, Bytes};
use axum::http::{Method, Response};
use serde_json::json;
use slipway_types::ErrorCode;

use super::super::digest_of;
use super::super::manifest::MAX_MANIFEST;
use super::fake::{Fake, nowhere, reply, with};
use super::fixtures::{Image, Layer, gzip, index, noise, tar_of};
use super::*;

async fn refused(fake: &Fake, name: &str) -> (TestStore, String, ErrorCode) {
    let own = store();
    let platform = "linux/amd64".parse().unwrap();
    let failed =
        plain_client().pull(&own.store, &fake.reference(name), &platform, silent()).await.unwrap_err();
    (own, everything(&failed), failed.code())
}

/// Serves other bytes under a digest.
fn swap(fake: &Fake, digest: &Digest, bytes: Vec<u8>) {
    let bytes = Bytes::from(bytes);
    fake.misbehave(Method::GET, digest.as_str(), 99, move |_| reply(200, bytes.clone()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn layers_with_another_digest() {
    let good = tar_of(&[("f", &noise(100_000, 1))]);
    // The right length, and: noise; a valid archive of other content; the same archive with one bit changed.
    let layer = Layer::new(&good, gzip(&good), super::super::manifest::OCI_LAYER_GZIP);
    let other = {
        let mut blob = gzip(&tar_of(&[("f", &noise(100_000, 2))]));
        blob.resize(layer.blob.len(), 0);
        blob
    };
    let mut flipped = layer.blob.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    for bytes in [noise(layer.blob.len(), 3), other, flipped] {
        let received = digest_of(&bytes);
        let fake = Fake::start().await;
        fake.add("a", "1", &Image::new(vec![layer.clone(), Layer::gzip(&[("g", b"x")])]));
        swap(&fake, &layer.digest, bytes);
        let (own, text, code) = refused(&fake, "a:1").await;
        assert_eq!(code, ErrorCode::DataLoss, "{text}");
        for part in [layer.digest.as_str(), received.as_str(), &fake.host] {
            assert!(text.contains(part), "{text}");
        }
        assert!(own.store.layer(&layer.diff_id).unwrap().is_none());
        assert!(!own.store.has(&layer.digest) && !own.store.has(&received));
        assert!(own.store.list().unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_blob_that_matches_while_the_configuration_lies() {
    let fake = Fake::start().await;
    let mut image = Image::new(vec![Layer::gzip(&[("f", b"x")])]);
    image.layers[0].diff_id = nowhere();
    let image = Image::new(image.layers);
    fake.add("a", "1", &image);
    let (own, text, code) = refused(&fake, "a:1").await;
    assert_eq!(code, ErrorCode::DataLoss);
    assert!(
        text.contains(nowhere().as_str()) && text.contains(digest_of(&tar_of(&[("f", b"x")])).as_str()),
        "{text}"
    );
    own.assert_empty();
}

#[tokio::test]
async fn manifests_and_configurations() {
    let image = Image::sample();
    let fake = Fake::start().await;
    fake.add("a", "1", &image);

    // Asked for by digest.
    swap(&fake, &image.digest(), Image::new(vec![]).manifest);
    let (own, text, code) = refused(&fake, &format!("a@{}", image.digest())).await;
    assert_eq!(code, ErrorCode::DataLoss);
    assert!(text.contains(image.digest().as_str()) && text.contains(Image::new(vec![]).digest().as_str()));
    own.assert_empty();

    // By tag, with a header that says something else.
    let manifest = Bytes::from(image.manifest.clone());
    fake.misbehave(Method::GET, "/manifests/", 99, move |_| {
        with(reply(200, manifest.clone()), "docker-content-digest", nowhere().as_str())
    });
    let (own, text, code) = refused(&fake, "a:1").await;
    assert_eq!(code, ErrorCode::DataLoss);
    assert!(text.contains(nowhere().as_str()), "{text}");
    own.assert_empty();

    // By an index: another digest, and another size.
    fake.add_index("multi", "1", &index(&[("linux/amd64", &image)]));
    fake.add("multi", "x", &image);
    swap(&fake, &image.digest(), Image::new(vec![]).manifest);
    let (own, _, code) = refused(&fake, "multi:1").await;
    assert_eq!(code, ErrorCode::DataLoss);
    own.assert_empty();
    fake.state().hook = None;
    let mut list: serde_json::Value = serde_json::from_slice(&index(&[("linux/amd64", &image)])).unwrap();
    list["manifests"][0]["size"] = json!(5);
    fake.add_index("multi", "1", list.to_string().as_bytes());
    let (own, text, code) = refused(&fake, "multi:1").await;
    assert_eq!(code, ErrorCode::DataLoss);
    assert!(text.contains("promised 5 bytes"), "{text}");
    own.assert_empty();

    let mut config = image.config.clone();
    config[10] ^= 1;
    swap(&fake, &image.id(), config);
    let (own, text, code) = refused(&fake, "a:1").await;
    assert_eq!(code, ErrorCode::DataLoss);
    assert!(text.contains(image.id().as_str()), "{text}");
    own.assert_empty();
}

#[tokio::test]
async fn sizes() {
    let layer = Layer::gzip(&[("f", &noise(90_000, 1))]);
    let length = layer.blob.len() as i64;
    for (difference, chunked) in [(-1, false), (1, false), (-1, true), (1, true), (1 << 40, true)] {
        let fake = Fake::start().await;
        let mut image = Image::new(vec![layer.clone()]);
        image.describe(|m| m["layers"][0]["size"] = json!(length + difference));
        fake.add("a", "1", &image);
        if chunked {
            let bytes = Bytes::from(layer.blob.clone());
            let digest = layer.digest.to_string();
            fake.state().hook = Some(Box::new(move |parts| {
                let first = parts.uri.path().contains(&digest) && !parts.headers.contains_key("range");
                let stream = futures_util::stream::iter([Ok::<_, std::io::Error>(bytes.clone())]);
                first.then(|| reply(200, Body::from_stream(stream)))
            }));
        }
        let (own, text, code) = refused(&fake, "a:1").await;
        assert_eq!(code, ErrorCode::DataLoss, "{text}");
        assert!(text.contains(&format!("promised {} bytes", length + difference)), "{text}");
        own.assert_empty();
    }
}

#[tokio::test]
async fn more_than_is_accepted() {
    let fake = Fake::start().await;
    let image = Image::sample();
    fake.add("a", "1", &image);
    let endless = |_: &axum::http::request::Parts| -> Response<Body> {
        let stream =
            futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from_static(&[b' '; 65536])));
        reply(200, Body::from_stream(stream))
    };
    fake.misbehave(Method::GET, "/manifests/", 99, endless);
    let (own, text, code) = refused(&fake, "a:1").await;
    assert_eq!(code, ErrorCode::ResourceExhausted);
    assert!(text.contains(&MAX_MANIFEST.to_string()), "{text}");
    own.assert_empty();

    // An endless error reply is cut off as well.
    fake.misbehave(Method::GET, "/manifests/", 99, move |parts| {
        let mut response = endless(parts);
        *response.status_mut() = axum::http::StatusCode::NOT_FOUND;
        response
    });
    let (_, _, code) = refused(&fake, "a:1").await;
    assert_eq!(code, ErrorCode::NotFound);

    fake.state().hook = None;
    let mut huge = Image::new(vec![]);
    huge.describe(|m| m["config"]["size"] = json!(1_u64 << 40));
    fake.add("huge", "1", &huge);
    let (own, _, code) = refused(&fake, "huge:1").await;
    assert_eq!(code, ErrorCode::ResourceExhausted);
    own.assert_empty();
}

#[tokio::test]
async fn another_range_than_asked_for() {
    let fake = Fake::start().await;
    let image = Image::new(vec![Layer::gzip(&[("f", &noise(90_000, 1))])]);
    fake.add("a", "1", &image);
    let bytes = Bytes::from(image.layers[0].blob.clone());
    let digest = image.layers[0].digest.to_string();
    fake.state().hook = Some(Box::new(move |parts| {
        let hit = parts.uri.path().contains(&digest);
        hit.then(|| match parts.headers.contains_key("range") {
            false => fake::cut(200, bytes.slice(..40_000), bytes.len()),
            true => with(
                reply(206, bytes.clone()),
                "content-range",
                &format!("bytes 0-{}/{}", bytes.len() - 1, bytes.len()),
            ),
        })
    }));
    let (own, text, _) = refused(&fake, "a:1").await;
    assert!(text.contains("another part of a blob"), "{text}");
    own.assert_empty();
}

#[tokio::test]
async fn a_lying_mirror_is_not_worked_around() {
    let (mirror, origin) = (Fake::start().await, Fake::start().await);
    let image = Image::sample();
    for fake in [&mirror, &origin] {
        fake.add("a", "1", &image);
    }
    swap(&mirror, &image.layers[0].digest, noise(image.layers[0].blob.len(), 4));
    let own = store();
    let platform = "linux/amd64".parse().unwrap();
    let failed = client(mirrored(&origin.host, &[&mirror.host]), vec![])
        .pull(&own.store, &origin.reference("a:1"), &platform, silent())
        .await
        .unwrap_err();
    assert_eq!(failed.code(), ErrorCode::DataLoss);
    assert!(everything(&failed).contains(&mirror.host));
    assert_eq!(origin.seen(Method::GET, "/blobs/").len(), 0);
}
