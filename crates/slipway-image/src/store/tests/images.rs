//! Images, names, and their removal.

use std::fs;

use super::super::UnpackLimits;
use super::super::{PruneOptions, Store, StoreError};
use super::{TarFile, TestStore, put_image, reference, sha256};
use slipway_types::Digest;

#[test]
fn images_keep_their_bytes_and_need_their_layers() {
    let test = TestStore::new();
    let store = &test.store;
    let a = test.layer(&[("a", "1")]);
    // Foreign configurations have keys and spaces of their own.
    let raw = format!(
        r#"{{ "architecture":"arm64", "variant":"v8", "os":"linux", "created":"2024-02-03T04:05:06Z",
            "x-foreign": 1, "rootfs":{{"type":"layers","diff_ids":["{a}"]}} }}"#
    );
    let manifest = store.put_blob(b"{}").unwrap();
    let id = store.put_image(raw.as_bytes(), std::slice::from_ref(&a), Some(&manifest)).unwrap();
    assert_eq!(id, sha256(raw.as_bytes()));
    assert_eq!(store.put_image(raw.as_bytes(), std::slice::from_ref(&a), None).unwrap(), id);
    let image = store.image(&id).unwrap();
    assert_eq!(image.raw_config, raw.as_bytes());
    assert_eq!((image.layers, image.manifests), (vec![a.clone()], vec![manifest.clone()]));
    assert_eq!(store.image_by_manifest(&manifest).unwrap(), Some(id.clone()));
    assert_eq!(store.image_by_manifest(&id).unwrap(), None);

    store.tag(&id, &reference("app:1")).unwrap();
    store.record_repo_digest(&id, &reference("localhost:5000/app"), &manifest).unwrap();
    let details = store.details(&id).unwrap();
    assert_eq!(details.summary.platform, "linux/arm64/v8");
    assert_eq!(details.summary.size, 1);
    assert_eq!(details.summary.created.unwrap().to_string(), "2024-02-03T04:05:06Z");
    assert_eq!(details.summary.names, ["docker.io/library/app:1"]);
    assert_eq!(details.summary.repo_digests, [format!("localhost:5000/app@{manifest}")]);
    assert_eq!(details.config["x-foreign"], 1);
    let test = test.reopen();
    let store = &test.store;
    assert_eq!(store.list().unwrap(), vec![details.summary]);

    let missing = sha256(b"missing");
    let config = |layer: &Digest| raw.replace(a.as_str(), layer.as_str());
    assert!(matches!(
        store.put_image(config(&missing).as_bytes(), std::slice::from_ref(&missing), None),
        Err(StoreError::LayerNotFound { .. })
    ));
    assert!(matches!(
        store.put_image(raw.as_bytes(), &[], None),
        Err(StoreError::LayersDiffer { listed: 1, given: 0 })
    ));
    assert!(matches!(
        store.put_image(raw.as_bytes(), std::slice::from_ref(&a), Some(&missing)),
        Err(StoreError::BlobNotFound { .. })
    ));
    assert!(matches!(store.put_image(b"no json", &[], None), Err(StoreError::InvalidConfig(_))));
    assert!(store.image(&missing).unwrap_err().is_not_found());
    assert!(store.tag(&missing, &reference("x")).unwrap_err().is_not_found());
    // The bytes of the configurations that failed are garbage, and nothing else is.
    store.prune(&PruneOptions::default()).unwrap();
    test.assert_clean();
    assert_eq!(store.image(&id).unwrap().layers, vec![a]);
}

#[test]
fn a_configuration_made_here_has_one_id() {
    use oci_spec::image::{ConfigBuilder, ImageConfigurationBuilder};
    let test = TestStore::new();
    // The type keeps these in hash maps, in another order in every one.
    let make = || {
        let ports: Vec<String> = (0..20).map(|i| format!("{i}/tcp")).collect();
        let labels =
            (0..20).map(|i| (format!("l{i}"), i.to_string())).collect::<std::collections::HashMap<_, _>>();
        let config = ConfigBuilder::default().exposed_ports(ports).labels(labels).build().unwrap();
        ImageConfigurationBuilder::default().config(config).architecture("amd64").os("linux").build().unwrap()
    };
    let id = test.store.put_image_config(&make(), &[], None).unwrap();
    for _ in 0..5 {
        assert_eq!(test.store.put_image_config(&make(), &[], None).unwrap(), id);
    }
}

#[test]
fn paths_for_overlayfs_leave_out_what_adds_nothing() {
    let test = TestStore::new();
    let store = &test.store;
    let (a, b) = (test.layer(&[("a", "1")]), test.layer(&[("b", "1")]));
    let empty =
        store.unpack_layer(&TarFile::default().dir("./").end()[..], None, &UnpackLimits::default()).unwrap();
    let hides = TarFile::default().file(".wh..wh..opq", b"").file("c", b"").end();
    let hides = store.unpack_layer(&hides[..], None, &UnpackLimits::default()).unwrap().diff_id;
    let paths = |layers: &[&Digest]| {
        let layers: Vec<Digest> = layers.iter().map(|l| (*l).clone()).collect();
        store.layer_paths(&put_image(store, &layers, "")).unwrap()
    };
    let path = |layer: &Digest| store.layer_path(layer);
    assert_eq!(paths(&[&a, &b]), [path(&a), path(&b)]);
    assert_eq!(paths(&[&a, &empty.diff_id, &b, &empty.diff_id]), [path(&a), path(&b)]);
    assert_eq!(paths(&[&a, &b, &a]), [path(&b), path(&a)]);
    assert_eq!(paths(&[&a, &hides, &b]), [path(&hides), path(&b)]);
    assert_eq!(paths(&[]), Vec::<std::path::PathBuf>::new());
    assert_eq!(
        fs::metadata(path(&a)).unwrap().permissions(),
        fs::metadata(path(&hides)).unwrap().permissions()
    );
}

/// Images whose ids begin alike, made by trying.
fn images_with_a_common_prefix(store: &Store) -> (Digest, Digest, String) {
    let mut seen = std::collections::HashMap::new();
    for i in 0.. {
        let raw = format!(
            r#"{{"architecture":"amd64","os":"linux","author":"{i}","rootfs":{{"type":"layers","diff_ids":[]}}}}"#
        );
        let prefix = sha256(raw.as_bytes()).hex()[..4].to_owned();
        if let Some(other) = seen.insert(prefix.clone(), raw.clone()) {
            let put = |raw: &str| store.put_image(raw.as_bytes(), &[], None).unwrap();
            return (put(&other), put(&raw), prefix);
        }
    }
    unreachable!()
}

#[test]
fn images_are_found_by_what_users_type() {
    let test = TestStore::new();
    let store = &test.store;
    let (one, two, prefix) = images_with_a_common_prefix(store);
    let manifest = sha256(b"manifest");
    store.tag(&one, &reference("app")).unwrap();
    store.record_repo_digest(&two, &reference("reg.example:5000/team/app:any"), &manifest).unwrap();
    let find = |text: &str| store.resolve(text).unwrap();
    assert_eq!(find(one.as_str()).as_ref(), Some(&one));
    assert_eq!(find(one.hex()).as_ref(), Some(&one));
    assert_eq!(find(one.short()).as_ref(), Some(&one));
    assert_eq!(find(&format!("sha256:{}", two.short())).as_ref(), Some(&two));
    assert_eq!(find("app").as_ref(), Some(&one));
    assert_eq!(find("docker.io/library/app:latest").as_ref(), Some(&one));
    assert_eq!(find(&format!("reg.example:5000/team/app@{manifest}")).as_ref(), Some(&two));
    for missing in [
        "app:2",
        "other",
        "",
        "a",
        &one.hex()[..3],
        "Not A Name",
        "zzzz",
        manifest.hex(),
        "reg.example:5000/team/app",
    ] {
        assert_eq!(find(missing), None, "{missing}");
    }
    let error = store.resolve(&prefix).unwrap_err();
    assert!(matches!(&error, StoreError::AmbiguousId { matches, .. } if matches.len() == 2), "{error}");
    assert!(error.is_conflict());
    // A name goes before the beginning of an id.
    store.tag(&two, &reference(&prefix)).unwrap();
    assert_eq!(find(&prefix).as_ref(), Some(&two));
    // Names move.
    assert_eq!(store.tag(&two, &reference("app")).unwrap(), Some(one.clone()));
    assert_eq!(store.tag(&two, &reference("app")).unwrap(), None);
    assert_eq!(find("app").as_ref(), Some(&two));
    assert_eq!(store.untag(&reference("app")).unwrap(), Some(two));
    assert_eq!(store.untag(&reference("app")).unwrap(), None);
    let pinned = reference(&format!("app@{manifest}"));
    assert!(matches!(store.tag(&one, &pinned), Err(StoreError::NotAName { .. })));
}

struct Rmi {
    test: TestStore,
    base: Digest,
    top: Digest,
    image: Digest,
}

/// An image of two layers; another image has the lower one.
fn rmi(names: &[&str], digests: &[&str]) -> Rmi {
    let test = TestStore::new();
    let (base, top) = (test.layer(&[("base", "1")]), test.layer(&[("top", "22")]));
    let other = put_image(&test.store, std::slice::from_ref(&base), "other");
    test.store.tag(&other, &reference("other")).unwrap();
    let image = put_image(&test.store, &[base.clone(), top.clone()], "image");
    for name in names {
        test.store.tag(&image, &reference(name)).unwrap();
    }
    for name in digests {
        test.store.record_repo_digest(&image, &reference(name), &sha256(b"manifest")).unwrap();
    }
    Rmi { test, base, top, image }
}

impl Rmi {
    fn assert_gone(&self, report: &super::super::RemoveReport, untagged: &[&str]) {
        assert_eq!(report.deleted.as_ref(), Some(&self.image));
        assert_eq!(report.layers, std::slice::from_ref(&self.top));
        assert!(report.bytes > 2);
        self.assert_untagged(report, untagged);
        assert!(!self.test.store.has(&self.image));
        assert_eq!(self.test.store.layer(&self.top).unwrap(), None);
        assert!(self.test.store.layer(&self.base).unwrap().is_some());
        self.test.assert_clean();
    }

    fn assert_untagged(&self, report: &super::super::RemoveReport, untagged: &[&str]) {
        let got: Vec<String> = report.untagged.iter().map(|r| r.familiar()).collect();
        assert_eq!(got, untagged);
    }
}

#[test]
fn removing_one_of_several_names_only_untags() {
    let r = rmi(&["app:1", "app:2", "mine/copy"], &["app"]);
    let digest = format!("app@{}", sha256(b"manifest"));
    let report = r.test.store.remove_image("app:1", false).unwrap();
    r.assert_untagged(&report, &["app:1"]);
    assert_eq!(report.deleted, None);
    // The last tag of a repository takes its digests along.
    let report = r.test.store.remove_image("app:2", false).unwrap();
    r.assert_untagged(&report, &["app:2", &digest]);
    assert_eq!(report.deleted, None);
    let report = r.test.store.remove_image("mine/copy", false).unwrap();
    r.assert_gone(&report, &["mine/copy:latest"]);
    assert!(r.test.store.remove_image("mine/copy", false).unwrap_err().is_not_found());
}

#[test]
fn removing_by_id_takes_all_names_of_one_repository() {
    let r = rmi(&["app:1", "app:2"], &["app"]);
    let report = r.test.store.remove_image(r.image.short(), false).unwrap();
    r.assert_gone(&report, &["app:1", "app:2", &format!("app@{}", sha256(b"manifest"))]);

    let r = rmi(&["app:1", "copy"], &[]);
    let error = r.test.store.remove_image(r.image.short(), false).unwrap_err();
    assert!(matches!(&error, StoreError::ManyNames { names, .. } if names.len() == 2) && error.is_conflict());
    assert!(r.test.store.resolve("app:1").unwrap().is_some());
    let report = r.test.store.remove_image(r.image.short(), true).unwrap();
    r.assert_gone(&report, &["app:1", "copy:latest"]);

    let r = rmi(&[], &[]);
    let report = r.test.store.remove_image(r.image.as_str(), false).unwrap();
    r.assert_gone(&report, &[]);
}

#[test]
fn removing_by_a_registrys_digest() {
    let digest = format!("app@{}", sha256(b"manifest"));
    let r = rmi(&["app:1"], &["app"]);
    let report = r.test.store.remove_image(&digest, false).unwrap();
    r.assert_untagged(&report, &[&digest]);
    assert_eq!(report.deleted, None);
    let r = rmi(&[], &["app"]);
    let report = r.test.store.remove_image(&digest, false).unwrap();
    r.assert_gone(&report, &[&digest]);
}

#[test]
fn pinned_and_leased_images_stay() {
    let r = rmi(&["app"], &[]);
    let store = &r.test.store;
    store.pin("container", "c1", &r.image).unwrap();
    let error = store.remove_image("app", false).unwrap_err();
    assert!(matches!(&error, StoreError::ImageInUse { users, .. } if *users == ["container c1"]), "{error}");
    assert!(store.resolve("app").unwrap().is_some(), "nothing was changed");
    let report = store.remove_image("app", true).unwrap();
    r.assert_untagged(&report, &["app:latest"]);
    assert_eq!(report.deleted, None);
    assert_eq!(store.image(&r.image).unwrap().layers.len(), 2);
    store.prune(&PruneOptions { all: true, build_cache: true }).unwrap();
    assert_eq!(store.layer_paths(&r.image).unwrap().len(), 2);
    assert!(store.unpin("container", "c1").unwrap());
    store.tag(&r.image, &reference("app")).unwrap();
    let lease = store.lease();
    store.resolve("app").unwrap();
    let report = store.remove_image("app", false).unwrap();
    assert_eq!(report.deleted, None);
    assert_eq!(store.layer_paths(&r.image).unwrap().len(), 2);
    drop(lease);
    assert_eq!(store.prune(&PruneOptions::default()).unwrap().images, std::slice::from_ref(&r.image));
    r.test.assert_clean();
}

#[test]
fn pins_are_found_by_the_beginning_of_their_name() {
    let r = rmi(&["app"], &[]);
    let store = &r.test.store;
    for (kind, name) in [
        ("service", "a/1/image"),
        ("service", "a/12/image"),
        ("service", "a/é"),
        ("service", "ab/1/image"),
        ("service", "A/1/image"),
        ("container", "a/1"),
    ] {
        store.pin(kind, name, &r.image).unwrap();
    }
    assert_eq!(store.pins_below("service", "a/").unwrap(), ["a/1/image", "a/12/image", "a/é"]);
    assert_eq!(store.pins_below("service", "a/1/").unwrap(), ["a/1/image"]);
    assert_eq!(store.pins_below("service", "%").unwrap(), Vec::<String>::new());
}

#[test]
fn cached_layers_survive_their_image() {
    let r = rmi(&["app"], &[]);
    let step = super::super::CachedStep { layer: Some(r.top.clone()), payload: serde_json::json!({}) };
    r.test.store.cache_put(&sha256(b"key"), &step).unwrap();
    let report = r.test.store.remove_image("app", false).unwrap();
    assert_eq!((report.deleted.as_ref(), report.layers), (Some(&r.image), vec![]));
    assert!(r.test.store.cache_get(&sha256(b"key")).unwrap().is_some());
    r.test.assert_clean();
}
