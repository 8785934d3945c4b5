//! Pulls that work, and those that fail for honest reasons.

use axum::http::Method;
use serde_json::json;
use slipway_types::ErrorCode;
use slipway_types::image::{BlobState, Platform, TransferEvent};

use super::super::manifest::OCI_LAYER_GZIP;
use super::super::{PullError, digest_of};
use super::fake::{Fake, cut, error, reply, with};
use super::fixtures::{Image, Layer, index, noise};
use super::*;

fn amd64() -> Platform {
    "linux/amd64".parse().unwrap()
}

fn file(store: &Store, image: &Image, layer: usize, path: &str) -> Vec<u8> {
    std::fs::read(store.layer_path(&image.layers[layer].diff_id).join(path)).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn brings_every_kind_of_layer_and_moves_nothing_twice() {
    let fake = Fake::start().await;
    let image = Image::new(vec![
        Layer::gzip(&[("a", b"gzip")]),
        Layer::gzip_members(&[("b", &noise(5000, 1))]),
        Layer::zstd(&[("c", b"zstd")]),
        Layer::plain(&[("d", b"plain")]),
        Layer::gzip(&[("big", &noise(2_000_000, 3))]),
    ]);
    fake.add("team/app", "v1", &image);
    let own = store();
    let events = Events::default();
    let name = fake.reference("team/app:v1");
    let pulled = plain_client().pull(&own.store, &name, &amd64(), events.progress()).await.unwrap();
    assert_eq!(
        (&pulled.image, &pulled.manifest, &pulled.resolved),
        (&image.id(), &image.digest(), &image.digest())
    );
    for (layer, path, content) in
        [(0, "a", &b"gzip"[..]), (1, "b", &noise(5000, 1)), (2, "c", b"zstd"), (3, "d", b"plain")]
    {
        assert_eq!(file(&own.store, &image, layer, path), content, "{path}");
    }
    let stored = own.store.image(&image.id()).unwrap();
    assert_eq!(stored.raw_config, image.config);
    assert_eq!(stored.names, std::slice::from_ref(&name));
    assert_eq!(stored.manifests, [image.digest()]);
    assert_eq!(
        own.store.resolve(&format!("{}/team/app@{}", fake.host, image.digest())).unwrap(),
        Some(image.id())
    );
    for layer in &image.layers {
        assert_eq!(own.store.read_blob(&layer.digest, 1 << 30).unwrap(), layer.blob);
        assert_eq!(events.last(&layer.digest), Some((BlobState::Done, layer.blob.len() as u64)));
    }
    assert!(fake.seen(Method::GET, "/blobs/").iter().all(|s| s.authorization.is_none()));

    fake.forget();
    let events = Events::default();
    plain_client().pull(&own.store, &name, &amd64(), events.progress()).await.unwrap();
    assert_eq!(fake.seen(Method::GET, "/blobs/").len(), 0);
    assert_eq!(events.states(), vec![BlobState::Exists; 5]);
}

#[tokio::test]
async fn reads_docker_manifests_and_images_by_digest() {
    let fake = Fake::start().await;
    let image = Image::docker(vec![Layer::gzip(&[("a", b"x")]), Layer::gzip(&[("a", b"x")])]);
    fake.add("library/old", "latest", &image);
    let own = store();
    let by_digest = fake.reference(&format!("library/old@{}", image.digest()));
    let pulled = plain_client().pull(&own.store, &by_digest, &amd64(), silent()).await.unwrap();
    let stored = own.store.image(&pulled.image).unwrap();
    assert!(stored.names.is_empty() && stored.repo_digests == [by_digest]);
    assert_eq!(fake.seen(Method::GET, &image.layers[0].digest.to_string()).len(), 1, "the same layer once");
}

#[tokio::test]
async fn a_layer_whose_blob_is_unknown_is_fetched_again_for_a_later_push() {
    let fake = Fake::start().await;
    let image = Image::new(vec![Layer::gzip(&[("a", b"x")])]);
    fake.add("a", "1", &image);
    let own = store();
    let tar = fixtures::tar_of(&[("a", b"x")]);
    own.store.unpack_layer(&tar[..], None, &crate::store::UnpackLimits::default()).unwrap();
    plain_client().pull(&own.store, &fake.reference("a:1"), &amd64(), silent()).await.unwrap();
    assert!(own.store.has(&image.layers[0].digest));
    assert!(matches!(
        own.store.layer_source(&image.layers[0].diff_id).unwrap(),
        crate::store::LayerSource::Blob(_)
    ));
}

#[tokio::test]
async fn chooses_from_an_index() {
    let fake = Fake::start().await;
    let arm = Image::on("linux", "arm64", vec![Layer::gzip(&[("arch", b"arm")])]);
    let amd = Image::on("linux", "amd64", vec![Layer::gzip(&[("arch", b"amd")])]);
    for image in [&arm, &amd] {
        fake.add("multi", &image.digest().to_string(), image);
    }
    let list = index(&[("linux/arm64", &arm), ("unknown/unknown", &arm), ("linux/amd64", &amd)]);
    fake.add_index("multi", "latest", &list);
    let own = store();
    let name = fake.reference("multi");
    let pulled = plain_client().pull(&own.store, &name, &amd64(), silent()).await.unwrap();
    assert_eq!((pulled.image, pulled.manifest, pulled.resolved), (amd.id(), amd.digest(), digest_of(&list)));
    assert!(own.store.resolve(&format!("{}/multi@{}", fake.host, digest_of(&list))).unwrap().is_some());

    let other = "linux/s390x".parse().unwrap();
    let refused = plain_client().pull(&own.store, &name, &other, silent()).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::NotFound);
    assert_eq!(
        refused.to_string(),
        format!("{name} has no image for linux/s390x; it has linux/amd64, linux/arm64")
    );

    // One image without an index says its platform in its configuration.
    fake.add("single", "latest", &arm);
    let refused =
        plain_client().pull(&own.store, &fake.reference("single"), &amd64(), silent()).await.unwrap_err();
    assert!(matches!(&refused, PullError::NoPlatform { available, .. } if available == &["linux/arm64"]));
}

#[tokio::test]
async fn mirrors_are_asked_first_and_need_not_work() {
    let (mirror, origin) = (Fake::start().await, Fake::start().await);
    let image = Image::sample();
    // The mirror has the manifest and one of the layers.
    mirror.add("hub/team/app", "1", &image);
    mirror.state().blobs.remove(&("hub/team/app".into(), image.layers[1].digest.to_string()));
    origin.add("team/app", "1", &image);
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let prefixed = format!("{}/hub", mirror.host);
    let settings = mirrored(&origin.host, &[&closed, &prefixed]);
    let own = store();
    let name = origin.reference("team/app:1");
    client(settings.clone(), vec![]).pull(&own.store, &name, &amd64(), silent()).await.unwrap();
    assert_eq!(origin.seen(Method::GET, "/manifests/").len(), 0);
    assert_eq!(mirror.seen(Method::GET, &image.layers[0].digest.to_string()).len(), 1);
    assert_eq!(origin.seen(Method::GET, "/blobs/").len(), 1, "only what the mirror lacks");
    assert_eq!(own.store.image(&image.id()).unwrap().names, [name], "the name is the registry's");

    let missing = origin.reference("team/none:1");
    let failed = client(settings, vec![]).pull(&own.store, &missing, &amd64(), silent()).await.unwrap_err();
    assert_eq!(failed.code(), ErrorCode::NotFound);
    let text = failed.to_string();
    assert!(text.contains(&format!("cannot connect to {closed}")) && text.contains(&mirror.host), "{text}");
    assert!(everything(&failed).contains("MANIFEST_UNKNOWN: manifest unknown"));
}

#[tokio::test]
async fn a_registry_that_is_not_there_is_an_error_at_once() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let own = store();
    let begun = std::time::Instant::now();
    let name = reference(&format!("{closed}/a:1"));
    let failed = plain_client().pull(&own.store, &name, &amd64(), silent()).await.unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!(failed.code(), ErrorCode::Unavailable);
    assert!(everything(&failed).contains("refused"), "{}", everything(&failed));
    assert!(failed.hint().unwrap().contains("mirror"));
    own.assert_empty();
}

#[tokio::test]
async fn resumes_where_the_connection_broke() {
    for ranges in [true, false] {
        let fake = Fake::start().await;
        let image = Image::new(vec![Layer::gzip(&[("data", &noise(600_000, 9))])]);
        fake.add("a", "1", &image);
        let whole = axum::body::Bytes::from(image.layers[0].blob.clone());
        let (length, part) = (whole.len(), whole.slice(..200_000));
        fake.misbehave(Method::GET, &image.layers[0].digest.to_string(), 1, move |_| {
            cut(200, part.clone(), length)
        });
        if !ranges {
            let mut first = fake.state().hook.take().unwrap();
            let digest = image.layers[0].digest.to_string();
            fake.state().hook = Some(Box::new(move |parts| {
                first(parts).or_else(|| parts.uri.path().contains(&digest).then(|| reply(200, whole.clone())))
            }));
        }
        let own = store();
        plain_client().pull(&own.store, &fake.reference("a:1"), &amd64(), silent()).await.unwrap();
        assert_eq!(file(&own.store, &image, 0, "data"), noise(600_000, 9));
        let asked = fake.seen(Method::GET, &image.layers[0].digest.to_string());
        assert_eq!(asked.len(), 2);
        assert_eq!(asked[0].range, None);
        let from: u64 = asked[1].range.as_ref().unwrap()[6..].trim_end_matches('-').parse().unwrap();
        assert!(from > 0 && from <= 200_000, "{from}");
    }
}

#[tokio::test]
async fn a_body_that_is_always_cut_ends_in_an_error() {
    let fake = Fake::start().await;
    let image = Image::new(vec![Layer::gzip(&[("data", &noise(50_000, 9))])]);
    fake.add("a", "1", &image);
    let length = image.layers[0].blob.len();
    fake.misbehave(Method::GET, &image.layers[0].digest.to_string(), 99, move |_| {
        cut(200, axum::body::Bytes::new(), length)
    });
    let own = store();
    let failed =
        plain_client().pull(&own.store, &fake.reference("a:1"), &amd64(), silent()).await.unwrap_err();
    assert_eq!(failed.code(), ErrorCode::Unavailable, "{}", everything(&failed));
    assert_eq!(fake.seen(Method::GET, &image.layers[0].digest.to_string()).len(), 4);
    own.assert_empty();
}

#[tokio::test]
async fn passing_faults_are_tried_again_and_lasting_ones_are_not() {
    for (part, times, status) in [("/manifests/", 3, 503), ("/blobs/", 3, 500), ("/manifests/", 2, 429)] {
        let fake = Fake::start().await;
        fake.add("a", "1", &Image::new(vec![Layer::gzip(&[("f", b"x")])]));
        fake.misbehave(Method::GET, part, times, move |_| {
            with(error(status, "TOOMANYREQUESTS", "slow down"), "retry-after", "0")
        });
        let own = store();
        plain_client().pull(&own.store, &fake.reference("a:1"), &amd64(), silent()).await.unwrap();
    }
    for (status, code, tries) in [
        (500, ErrorCode::Unavailable, 4),
        (429, ErrorCode::Unavailable, 4),
        (400, ErrorCode::Failed, 1),
        (403, ErrorCode::Unauthorized, 1),
        (404, ErrorCode::NotFound, 1),
    ] {
        let fake = Fake::start().await;
        fake.misbehave(Method::GET, "/manifests/", 99, move |_| error(status, "WHY", "because"));
        let own = store();
        let failed =
            plain_client().pull(&own.store, &fake.reference("a:1"), &amd64(), silent()).await.unwrap_err();
        assert_eq!((failed.code(), fake.seen(Method::GET, "/manifests/").len()), (code, tries), "{status}");
        let text = everything(&failed);
        assert!(
            text.contains("WHY: because") && text.contains(&fake.host) && text.contains("/a:1"),
            "{text}"
        );
        own.assert_empty();
    }
}

#[tokio::test]
async fn waits_as_long_as_it_is_asked_to() {
    let fake = Fake::start().await;
    fake.add("a", "1", &Image::new(vec![]));
    fake.misbehave(Method::GET, "/manifests/", 1, |_| with(error(429, "X", "y"), "retry-after", "9999"));
    let begun = std::time::Instant::now();
    let own = store();
    plain_client().pull(&own.store, &fake.reference("a:1"), &amd64(), silent()).await.unwrap();
    // The test's policy caps every pause at 200 ms, where its own first one would be 4 ms.
    assert!(begun.elapsed() >= Duration::from_millis(200));
}

#[tokio::test]
async fn refuses_what_it_does_not_read() {
    let fake = Fake::start().await;
    let layer = || vec![Layer::gzip(&[("f", b"x")])];
    let mut foreign = Image::new(layer());
    foreign.describe(|m| {
        m["layers"][0]["mediaType"] = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip".into();
    });
    fake.add("foreign", "1", &foreign);
    let mut odd = Image::new(layer());
    odd.describe(|m| m["layers"][0]["mediaType"] = "application/x-7z-compressed".into());
    fake.add("odd", "1", &odd);
    let mut config = Image::new(layer());
    config.describe(|m| m["config"]["mediaType"] = "application/vnd.cncf.helm.config.v1+json".into());
    fake.add("chart", "1", &config);
    let mut first = Image::new(layer());
    first.manifest = serde_json::to_vec(&json!({"schemaVersion": 1, "fsLayers": []})).unwrap();
    first.media_type = "application/vnd.docker.distribution.manifest.v1+prettyjws";
    fake.add("first", "1", &first);
    let mut fewer = Image::new(layer());
    fewer.describe(|m| m["layers"] = json!([]));
    fake.add("fewer", "1", &fewer);
    let mut sha512 = Image::new(layer());
    sha512.describe(|m| m["layers"][0]["digest"] = format!("sha512:{}", "a".repeat(128)).into());
    fake.add("sha512", "1", &sha512);
    let mut model = Image::new(layer());
    model.describe(|m| m["artifactType"] = crate::model::ARTIFACT_TYPE.into());
    fake.add("model", "1", &model);
    let nested = index(&[("linux/amd64", &Image::new(layer()))]);
    fake.add_index("nested", &digest_of(&nested).to_string(), &nested);
    let outer = json!({"schemaVersion": 2, "manifests": [{
        "mediaType": super::super::manifest::OCI_INDEX, "digest": digest_of(&nested), "size": nested.len(),
        "platform": {"os": "linux", "architecture": "amd64"},
    }]});
    fake.add_index("nested", "1", outer.to_string().as_bytes());
    let own = store();
    for (repository, code, words) in [
        ("foreign", ErrorCode::InvalidArgument, "kept outside of registries"),
        ("odd", ErrorCode::InvalidArgument, "application/x-7z-compressed"),
        ("chart", ErrorCode::InvalidArgument, "configuration of type"),
        ("first", ErrorCode::InvalidArgument, "Docker's first image format"),
        ("fewer", ErrorCode::DataLoss, "it lists 1 layers, the manifest 0"),
        ("sha512", ErrorCode::DataLoss, "is not a digest"),
        ("model", ErrorCode::InvalidArgument, "is a model artifact, not an image"),
        ("nested", ErrorCode::DataLoss, "another index"),
    ] {
        let name = fake.reference(&format!("{repository}:1"));
        let failed = plain_client().pull(&own.store, &name, &amd64(), silent()).await.unwrap_err();
        assert_eq!(failed.code(), code, "{repository}");
        assert!(failed.to_string().contains(words), "{failed}");
        own.assert_empty();
    }
}

#[tokio::test]
async fn a_layer_that_leaves_the_root_is_refused() {
    let fake = Fake::start().await;
    let evil = Image::new(vec![
        Layer::gzip(&[("fine", b"x")]),
        Layer::gzip(&[("fine", b"x"), ("../../../evil", b"out")]),
    ]);
    fake.add("evil", "1", &evil);
    let own = store();
    let failed =
        plain_client().pull(&own.store, &fake.reference("evil:1"), &amd64(), silent()).await.unwrap_err();
    assert!(
        matches!(&failed, PullError::Unpack { layer, .. } if *layer == evil.layers[1].digest),
        "{failed:?}"
    );
    assert_eq!(failed.code(), ErrorCode::DataLoss);
    assert!(
        own.store.layer(&evil.layers[1].diff_id).unwrap().is_none() && !own.store.has(&evil.layers[1].digest)
    );
    assert!(own.store.list().unwrap().is_empty());
    assert!(!own.dir.path().join("evil").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn giving_up_leaves_nothing_behind() {
    let fake = Fake::start().await;
    let image = Image::new(vec![Layer::gzip(&[("data", &noise(3_000_000, 5))])]);
    fake.add("a", "1", &image);
    let bytes = axum::body::Bytes::from(image.layers[0].blob.clone());
    let length = bytes.len();
    fake.misbehave(Method::GET, &image.layers[0].digest.to_string(), 1, move |_| {
        use futures_util::StreamExt;
        let first = futures_util::stream::iter([Ok::<_, std::io::Error>(bytes.slice(..1_000_000))]);
        let stream = first.chain(futures_util::stream::pending());
        with(reply(200, axum::body::Body::from_stream(stream)), "content-length", &length.to_string())
    });
    let own = store();
    let (begun, moving) = tokio::sync::oneshot::channel();
    let begun = Mutex::new(Some(begun));
    let progress: Progress = Arc::new(move |event| {
        if matches!(event, TransferEvent::Blob { state: BlobState::Moving, .. })
            && let Some(begun) = begun.lock().unwrap().take()
        {
            let _ = begun.send(());
        }
    });
    let (registry, name, handle) = (plain_client(), fake.reference("a:1"), own.store.clone());
    let pull = tokio::spawn(async move { registry.pull(&handle, &name, &amd64(), progress).await.map(drop) });
    tokio::time::timeout(Duration::from_secs(20), moving).await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(
        std::fs::read_dir(own.dir.path().join("store/tmp")).unwrap().next().is_some(),
        "half of it is there"
    );
    pull.abort();
    assert!(pull.await.unwrap_err().is_cancelled());
    // The blocking side ends as soon as it sees that nothing more comes.
    for _ in 0..200 {
        if std::fs::read_dir(own.dir.path().join("store/tmp")).unwrap().next().is_none() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    own.assert_empty();
}

#[tokio::test]
async fn storage_behind_a_redirect_gets_no_credentials() {
    let (fake, storage) = (Fake::start().await, Fake::start().await);
    let image = Image::new(vec![Layer::gzip(&[("f", b"x")])]);
    fake.add("a", "1", &image);
    storage.add("a", "1", &image);
    fake.state().auth = fake::Auth::Basic { user: "u".into(), password: "secret".into() };
    let target = storage.host.clone();
    let user = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, "u:secret");
    fake.state().hook = Some(Box::new(move |parts| {
        let known = parts.headers.get("authorization").is_some_and(|v| v.to_str().unwrap().ends_with(&user));
        let hit = parts.uri.path().contains("/blobs/") && known;
        hit.then(|| with(reply(307, ""), "location", &format!("http://{target}{}?sig=abc", parts.uri.path())))
    }));
    let own = store();
    let credentials = vec![(fake.host.clone(), password("u", "secret"))];
    let registry = client(RegistrySettings::default(), credentials);
    registry.pull(&own.store, &fake.reference("a:1"), &amd64(), silent()).await.unwrap();
    let asked = storage.seen(Method::GET, "/blobs/");
    assert_eq!(asked.len(), 2, "the layer and the configuration");
    assert!(asked.iter().all(|s| s.authorization.is_none() && s.query == "sig=abc"));
    assert!(fake.seen(Method::GET, "/blobs/").iter().any(|s| s.authorization.is_some()));

    // Round and round, and to nowhere.
    for location in ["/v2/a/blobs/again", "file:///etc/passwd", "::"] {
        let own = store();
        fake.state().auth = fake::Auth::None;
        fake.misbehave(Method::GET, "/blobs/", 99, move |_| with(reply(302, ""), "location", location));
        let failed =
            plain_client().pull(&own.store, &fake.reference("a:1"), &amd64(), silent()).await.unwrap_err();
        assert!(everything(&failed).contains("redirects"), "{}", everything(&failed));
    }
}

#[tokio::test]
async fn a_model_artifact_comes_whole() {
    let fake = Fake::start().await;
    let own = store();
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("variables")).unwrap();
    std::fs::write(folder.path().join("saved_model.pb"), noise(100_000, 1)).unwrap();
    std::fs::write(folder.path().join("variables/variables.index"), b"same").unwrap();
    std::fs::write(folder.path().join("variables/copy"), b"same").unwrap();
    let meta = crate::model::ModelMeta {
        model: "digits".into(),
        version: 3,
        format: slipway_types::model::ModelFormat::TensorFlow,
        entry: None,
        lineage: Default::default(),
        metrics: [("accuracy".to_owned(), 0.98)].into(),
        created_at: "2026-11-24T10:00:00Z".parse().unwrap(),
    };
    let packed = crate::model::pack(&own.store, folder.path(), &meta).unwrap();
    let name = fake.reference("models/digits:3");
    let registry = plain_client();
    let pushed = registry.push_artifact(&own.store, &packed.manifest, &name, silent()).await.unwrap();
    assert_eq!(pushed, packed.manifest);
    assert_eq!(fake.seen(Method::PUT, "/blobs/").len(), 3, "two contents and a configuration");

    let other = store();
    let _lease = other.store.lease();
    let pulled = registry.pull_artifact(&other.store, &name, silent()).await.unwrap();
    assert_eq!(pulled, packed.manifest);
    let target = other.dir.path().join("model");
    let model = crate::model::materialize(&other.store, &pulled, &target).unwrap();
    assert_eq!(
        (model.model.as_deref(), model.version, model.metrics["accuracy"]),
        (Some("digits"), Some(3), 0.98)
    );
    assert_eq!(std::fs::read(target.join("saved_model.pb")).unwrap(), noise(100_000, 1));

    let image = Image::sample();
    fake.add("image", "1", &image);
    let wrong =
        registry.pull_artifact(&store().store, &fake.reference("image:1"), silent()).await.unwrap_err();
    assert!(matches!(wrong, PullError::OtherKind { .. }), "{wrong:?}");
    let mut evil = Image::new(vec![]);
    evil.describe(|m| {
        m["artifactType"] = crate::model::ARTIFACT_TYPE.into();
        m["layers"] = json!([{
            "mediaType": "application/vnd.cncf.model.weight.v1.raw", "digest": digest_of(b"x"), "size": 1,
            "annotations": {crate::model::FILE_PATH: "../x"},
        }]);
    });
    fake.add("evil", "1", &evil);
    let fresh = store();
    let refused =
        registry.pull_artifact(&fresh.store, &fake.reference("evil:1"), silent()).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::DataLoss);
    fresh.assert_empty();
    assert_eq!(OCI_LAYER_GZIP, image.layers[0].media_type);
}
