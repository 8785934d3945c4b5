//! Packing, laying out and telling formats apart.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use proptest::prelude::*;
use serde_json::json;
use slipway_types::model::{Lineage, ModelFormat};
use slipway_types::{Digest, ErrorCode};

use super::*;
use crate::registry::digest_of;
use crate::store::Store;

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("store")).unwrap();
    (dir, store)
}

fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (path, content) in files {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    dir
}

fn meta() -> ModelMeta {
    ModelMeta {
        model: "digits".into(),
        version: 7,
        format: ModelFormat::Torch,
        entry: Some("net:Net".into()),
        lineage: Lineage {
            run: Some("run-1".into()),
            image: Some(digest_of(b"image")),
            git_commit: Some("abc-dirty".into()),
            data: None,
        },
        metrics: BTreeMap::from([("accuracy".to_owned(), 0.975), ("bad".to_owned(), f64::NAN)]),
        created_at: "2026-11-24T10:00:00Z".parse().unwrap(),
    }
}

#[test]
fn packs_and_lays_out() {
    let (dir, store) = store();
    let model = folder(&[
        ("model.pt", b"weights"),
        ("code/net.py", b"class Net: pass"),
        ("README.md", b"read"),
        ("config.json", b"{}"),
        ("empty", b""),
    ]);
    symlink("../model.pt", model.path().join("code/link.pt")).unwrap();
    let packed = pack(&store, model.path(), &meta()).unwrap();
    assert_eq!(packed.size, 7 + 15 + 4 + 2 + 7);
    let shown: Vec<_> = packed
        .files
        .iter()
        .map(|f| (f.path.as_str(), f.media_type.rsplit("model.").next().unwrap()))
        .collect();
    assert_eq!(
        shown,
        [
            ("README.md", "doc.v1.raw"),
            ("code/link.pt", "weight.v1.raw"),
            ("code/net.py", "code.v1.raw"),
            ("config.json", "weight.config.v1.raw"),
            ("empty", "weight.v1.raw"),
            ("model.pt", "weight.v1.raw"),
        ]
    );

    let read = read_manifest(&store, &packed.manifest).unwrap();
    assert_eq!(
        (read.model.as_deref(), read.version, read.format),
        (Some("digits"), Some(7), Some(ModelFormat::Torch))
    );
    assert_eq!((read.entry.as_deref(), &read.lineage), (Some("net:Net"), &meta().lineage));
    assert_eq!(read.metrics, BTreeMap::from([("accuracy".to_owned(), 0.975)]));
    assert_eq!(
        (read.created_at, read.size, &read.files),
        (Some(meta().created_at), packed.size, &packed.files)
    );

    let target = dir.path().join("models/digits/7");
    materialize(&store, &packed.manifest, &target).unwrap();
    for (path, content) in [("model.pt", "weights"), ("code/link.pt", "weights"), ("empty", "")] {
        let file = target.join(path);
        assert_eq!(fs::read_to_string(&file).unwrap(), content);
        let stat = file.symlink_metadata().unwrap();
        assert!(stat.is_file() && stat.mode() & 0o7777 == 0o444 && stat.nlink() > 1, "{path}");
    }
    for path in ["", "code"] {
        assert_eq!(target.join(path).metadata().unwrap().mode() & 0o7777, 0o555);
    }
    // Again: it is there.
    let inode = target.metadata().unwrap().ino();
    materialize(&store, &packed.manifest, &target).unwrap();
    assert_eq!(target.metadata().unwrap().ino(), inode);
    let left: Vec<_> = fs::read_dir(dir.path().join("models/digits")).unwrap().collect();
    assert_eq!(left.len(), 1, "nothing aside stays");
    // Somebody added a file: it is another folder now.
    fs::set_permissions(&target, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(target.join("new"), b"").unwrap();
    assert!(matches!(materialize(&store, &packed.manifest, &target), Err(MaterializeError::Exists { .. })));
}

#[test]
fn lays_out_copies_on_another_file_system() {
    let (_dir, store) = store();
    let packed = pack(&store, folder(&[("a/b", b"content"), ("c", b"")]).path(), &meta()).unwrap();
    let shm = tempfile::tempdir_in("/dev/shm").unwrap();
    let same = shm.path().metadata().unwrap().dev() == store.root().metadata().unwrap().dev();
    assert!(!same, "the test needs /dev/shm to be a file system of its own");
    let target = shm.path().join("model");
    materialize(&store, &packed.manifest, &target).unwrap();
    let stat = target.join("a/b").metadata().unwrap();
    assert_eq!((stat.nlink(), stat.mode() & 0o7777), (1, 0o444));
    assert_eq!(fs::read(target.join("a/b")).unwrap(), b"content");
    materialize(&store, &packed.manifest, &target).unwrap();
    // The same length, other content.
    fs::remove_file(target.join("a/b")).unwrap();
    fs::write(target.join("a/b"), b"CONTENT").unwrap();
    assert!(matches!(materialize(&store, &packed.manifest, &target), Err(MaterializeError::Exists { .. })));
}

#[test]
fn a_damaged_store_lays_out_nothing() {
    let (dir, store) = store();
    let packed = pack(&store, folder(&[("a", b"content"), ("b", b"x")]).path(), &meta()).unwrap();
    let digest = digest_of(b"content");
    let shm = tempfile::tempdir_in("/dev/shm").unwrap();
    let blob = store.blob_path(&digest);
    fs::set_permissions(&blob, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&blob, b"CONTENT").unwrap();
    let target = shm.path().join("m");
    let failed = materialize(&store, &packed.manifest, &target).unwrap_err();
    assert!(matches!(failed, MaterializeError::Damaged { .. }), "{failed:?}");
    assert_eq!(failed.code(), ErrorCode::DataLoss);
    assert_eq!(fs::read_dir(shm.path()).unwrap().count(), 0);
    let unknown = materialize(&store, &digest_of(b"unknown"), &dir.path().join("m")).unwrap_err();
    assert_eq!(unknown.code(), ErrorCode::NotFound);
}

#[test]
fn the_same_folder_and_meta_give_the_same_digest() {
    let files: [(&str, &[u8]); 3] = [("b", b"2"), ("a/x", b"1"), ("a.txt", b"3")];
    let (_one, first) = store();
    let (_two, second) = store();
    let other = folder(&[files[2], files[0], files[1]]);
    fs::set_permissions(other.path().join("b"), fs::Permissions::from_mode(0o777)).unwrap();
    let packed = pack(&first, folder(&files).path(), &meta()).unwrap();
    assert_eq!(pack(&second, other.path(), &meta()).unwrap(), packed);
    let paths: Vec<_> = packed.files.iter().map(|f| f.path.as_str()).collect();
    assert_eq!(paths, ["a.txt", "a/x", "b"]);
    let changed = ModelMeta { version: 8, ..meta() };
    assert_ne!(pack(&first, other.path(), &changed).unwrap().manifest, packed.manifest);
}

/// The parts that the specification's JSON schema for configurations allows and requires.
#[test]
fn follows_the_specification() {
    let (_dir, store) = store();
    let packed = pack(&store, folder(&[("w.bin", b"w")]).path(), &meta()).unwrap();
    let manifest: serde_json::Value =
        serde_json::from_slice(&store.read_blob(&packed.manifest, 1 << 20).unwrap()).unwrap();
    let config_bytes =
        store.read_blob(&manifest["config"]["digest"].as_str().unwrap().parse().unwrap(), 1 << 20);
    let config: serde_json::Value = serde_json::from_slice(&config_bytes.unwrap()).unwrap();
    assert_eq!(
        config,
        json!({
            "descriptor": {
                "createdAt": "2026-11-24T10:00:00Z", "name": "digits", "version": "7", "revision": "abc-dirty",
            },
            "config": {"format": "torch"},
            "modelfs": {"type": "layers", "diffIds": [digest_of(b"w")]},
        })
    );
    assert_eq!(manifest["schemaVersion"], 2);
    assert_eq!(manifest["mediaType"], "application/vnd.oci.image.manifest.v1+json");
    assert_eq!(manifest["artifactType"], "application/vnd.cncf.model.manifest.v1+json");
    assert_eq!(manifest["config"]["mediaType"], "application/vnd.cncf.model.config.v1+json");
    assert_eq!(
        manifest["layers"],
        json!([{
            "mediaType": "application/vnd.cncf.model.weight.v1.raw", "digest": digest_of(b"w"), "size": 1,
            "annotations": {"org.cncf.model.filepath": "w.bin"},
        }])
    );
    assert_eq!(manifest["annotations"]["dev.slipway.model.metrics"], r#"{"accuracy":0.975}"#);
}

#[test]
fn refuses_folders_that_reach_out() {
    let (dir, store) = store();
    fs::write(dir.path().join("secret"), b"secret").unwrap();
    let outside = dir.path().join("secret");
    let refused = |make: &dyn Fn(&Path)| {
        let model = folder(&[("a", b"1")]);
        make(model.path());
        pack(&store, model.path(), &meta()).unwrap_err()
    };
    for target in [
        outside.as_path(),
        Path::new("../../../../etc/passwd"),
        Path::new("/etc/passwd"),
        Path::new("gone"),
        Path::new("link"),
    ] {
        let failed = refused(&|at| symlink(target, at.join("link")).unwrap());
        assert!(matches!(failed, PackError::Tree(TreeError::EscapingLink { .. })), "{target:?}: {failed:?}");
        assert_eq!(failed.code(), ErrorCode::InvalidArgument);
    }
    let failed = refused(&|at| symlink(".", at.join("round")).unwrap());
    assert!(
        matches!(failed, PackError::Tree(TreeError::TooDeep { .. } | TreeError::EscapingLink { .. })),
        "{failed:?}"
    );
    let failed = refused(&|at| {
        drop(std::os::unix::net::UnixListener::bind(at.join("socket")).unwrap());
    });
    assert!(matches!(failed, PackError::Tree(TreeError::NotAFile { kind: "socket", .. })), "{failed:?}");
    let failed = refused(&|at| {
        rustix::fs::mknodat(
            rustix::fs::CWD,
            at.join("pipe"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .unwrap();
    });
    assert!(matches!(failed, PackError::Tree(TreeError::NotAFile { kind: "pipe", .. })), "{failed:?}");
    let failed = refused(&|at| {
        use std::os::unix::ffi::OsStrExt;
        fs::write(at.join(std::ffi::OsStr::from_bytes(b"\xff")), b"").unwrap();
    });
    assert!(matches!(failed, PackError::Tree(TreeError::Name { .. })), "{failed:?}");
    let failed = refused(&|at| fs::write(at.join("new\nline"), b"").unwrap());
    assert!(matches!(failed, PackError::Path(_)), "{failed:?}");
    let empty = tempfile::tempdir().unwrap();
    assert!(matches!(pack(&store, empty.path(), &meta()), Err(PackError::Empty { .. })));
    assert!(pack(&store, &empty.path().join("none"), &meta()).is_err());
}

#[test]
fn refuses_more_files_than_a_manifest_holds() {
    let (_dir, store) = store();
    let model = tempfile::tempdir().unwrap();
    for n in 0..=MAX_FILES {
        fs::write(model.path().join(n.to_string()), b"").unwrap();
    }
    let failed = pack(&store, model.path(), &meta()).unwrap_err();
    assert!(matches!(failed, PackError::Tree(TreeError::TooManyFiles { .. })), "{failed:?}");
}

fn manifest(layers: &[(&str, Option<&str>)]) -> Vec<u8> {
    let layers: Vec<_> = layers
        .iter()
        .map(|(media_type, path)| {
            let mut layer = json!({"mediaType": media_type, "digest": digest_of(b"x"), "size": 1});
            if let Some(path) = path {
                layer["annotations"] = json!({FILE_PATH: path});
            }
            layer
        })
        .collect();
    serde_json::to_vec(&json!({
        "schemaVersion": 2, "artifactType": ARTIFACT_TYPE,
        "config": {"mediaType": CONFIG_TYPE, "digest": digest_of(b"c"), "size": 1}, "layers": layers,
    }))
    .unwrap()
}

const CONFIG: &[u8] = br#"{"descriptor":{"name":"x","family":"y"},"config":{"format":"gguf","paramSize":"8b"},"modelfs":{"type":"layers","diff_ids":[]}}"#;

#[test]
fn reads_models_of_other_tools() {
    let bytes = manifest(&[("application/vnd.cncf.model.weight.v1.gguf", Some("m.gguf"))]);
    let read = ModelManifest::read(&bytes, CONFIG).unwrap();
    assert_eq!((read.model.as_deref(), read.version, read.format), (Some("x"), None, None));
    assert_eq!((read.files[0].path.as_str(), read.size, read.digest), ("m.gguf", 1, digest_of(&bytes)));
}

#[test]
fn refuses_manifests_that_cannot_be_laid_out() {
    const RAW: &str = "application/vnd.cncf.model.weight.v1.raw";
    for bad in [
        vec![(RAW, Some("../x"))],
        vec![(RAW, Some("/etc/passwd"))],
        vec![(RAW, Some("a/../../b"))],
        vec![(RAW, Some("a")), (RAW, Some("a"))],
        vec![(RAW, Some("a")), (RAW, Some("a/b"))],
        vec![(RAW, Some(""))],
        vec![(RAW, None)],
        vec![],
        vec![("application/vnd.cncf.model.weight.v1.tar+gzip", Some("a"))],
        vec![("application/vnd.oci.image.layer.v1.tar", Some("a"))],
    ] {
        assert!(ModelManifest::read(&manifest(&bad), CONFIG).is_err(), "{bad:?}");
        assert!(ModelManifest::check(&manifest(&bad)).is_err(), "{bad:?}");
    }
    let good = manifest(&[(RAW, Some("a"))]);
    assert!(ModelManifest::read(&good, CONFIG).is_ok());
    assert!(ModelManifest::read(&good, b"{}").is_err());
    let mut image: serde_json::Value = serde_json::from_slice(&good).unwrap();
    image["artifactType"] = json!(null);
    image["config"]["mediaType"] = json!("application/vnd.oci.image.config.v1+json");
    let failed = ModelManifest::read(image.to_string().as_bytes(), CONFIG).unwrap_err();
    assert!(matches!(failed, ManifestError::OtherKind { .. }));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_packed_folder_comes_back(
        files in proptest::collection::btree_map("[a-c]{1,2}(/[a-c]{1,2}){0,2}", proptest::collection::vec(any::<u8>(), 0..64), 1..8)
    ) {
        let paths: Vec<_> = files.keys().cloned().collect();
        let clash = paths.iter().any(|a| paths.iter().any(|b| b.starts_with(&format!("{a}/"))));
        prop_assume!(!clash);
        let listed: Vec<(&str, &[u8])> = files.iter().map(|(p, c)| (p.as_str(), c.as_slice())).collect();
        let (dir, store) = store();
        let packed = pack(&store, folder(&listed).path(), &meta()).unwrap();
        let target = dir.path().join("out");
        let model = materialize(&store, &packed.manifest, &target).unwrap();
        prop_assert_eq!(model.files.len(), files.len());
        for (path, content) in &files {
            prop_assert_eq!(&fs::read(target.join(path)).unwrap(), content);
        }
    }
}

#[test]
fn tells_formats_apart() {
    let keras = zip::archive(&["metadata.json", "config.json", "model.weights.h5"]);
    let script = zip::archive(&["m/data.pkl", "m/code/__torch__.py", "m/constants.pkl"]);
    let state = zip::archive(&["m/data.pkl", "m/data/0", "m/version"]);
    let legacy = [&b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."[..], b"rest"].concat();
    let onnx = b"\x08\x0a\x12\x05torch";
    let pickle = b"\x80\x04\x95rest";
    let joblib = b"\x78\x9c\x00";
    let predicts = b"class Model:\n    def predict(self, x):\n        return x\n";
    let network = b"class Net(nn.Module):\n    def forward(self, x):\n        return x\n";
    type Files<'a> = Vec<(&'a str, &'a [u8])>;
    let cases: Vec<(Files<'_>, Option<&str>, ModelFormat)> = vec![
        (vec![("model.keras", &keras), ("signature.json", b"{}")], None, ModelFormat::Keras),
        (vec![("saved_model.pb", b"x"), ("variables/variables.index", b"")], None, ModelFormat::TensorFlow),
        (vec![("1/saved_model.pb", b"x")], None, ModelFormat::TensorFlow),
        (vec![("model.onnx", onnx), ("model.onnx.data", b"")], None, ModelFormat::Onnx),
        (vec![("model.pt", &script)], None, ModelFormat::TorchScript),
        (vec![("model.pt", &state)], None, ModelFormat::Torch),
        (vec![("model.pth", &legacy)], None, ModelFormat::Torch),
        (vec![("pytorch_model.bin", &state), ("net.py", network)], Some("net:Net"), ModelFormat::Torch),
        (vec![("model.pt", &state)], Some("net:Net"), ModelFormat::Torch),
        (vec![("model.joblib", joblib)], None, ModelFormat::Sklearn),
        (vec![("model.pkl", pickle)], None, ModelFormat::Sklearn),
        (vec![("model.py", predicts), ("model.pt", &state)], None, ModelFormat::Python),
        (vec![("model.py", b"def predict(x):\n    return x\n")], None, ModelFormat::Python),
        (vec![("own/serve.py", predicts), ("w.bin", b"1")], Some("own.serve:Model"), ModelFormat::Python),
        (vec![("own/__init__.py", predicts)], Some("own:Model"), ModelFormat::Python),
        // The base class has `predict`.
        (vec![("m.py", b"class M(Base):\n    pass\n")], Some("m:M"), ModelFormat::Python),
    ];
    for (files, entry, format) in cases {
        let dir = folder(&files);
        let names: Vec<_> = files.iter().map(|f| f.0).collect();
        assert_eq!(detect_format(dir.path(), None, entry).unwrap(), format, "{names:?}");
        assert_eq!(detect_format(dir.path(), Some(format), entry).unwrap(), format, "{names:?}");
    }
}

#[test]
fn says_what_was_found_and_what_is_expected() {
    let none = folder(&[("weights.xyz", b"1"), ("notes/a/b.onnx", b"\x08")]);
    let failed = detect_format(none.path(), None, None).unwrap_err();
    let text = failed.to_string();
    for part in ["`weights.xyz`", "`notes/a/b.onnx`", "a `*.keras` archive (keras)", "(sklearn)"] {
        assert!(text.contains(part), "{text}");
    }
    assert!(failed.hint().unwrap().contains("entry"));
    let empty = tempfile::tempdir().unwrap();
    let failed = detect_format(empty.path(), None, None).unwrap_err();
    assert!(
        failed.to_string().contains("found nothing") && failed.hint().unwrap().contains("SLIPWAY_MODEL_DIR")
    );

    let onnx = folder(&[("model.onnx", b"\x08\x01")]);
    let failed = detect_format(onnx.path(), Some(ModelFormat::Keras), None).unwrap_err();
    assert!(failed.to_string().contains("no model of format `keras`"), "{failed}");
    assert!(failed.hint().unwrap().contains("looks like `onnx`"));

    // Names alone do not make a model.
    for (name, content) in [
        ("model.keras", &b"not a zip"[..]),
        ("model.onnx", b""),
        ("model.pt", b"text"),
        ("model.pkl", b"text"),
        ("model.py", b"class A:\n    pass\n"),
        ("saved_model.pb.txt", b""),
        ("my_saved_model.pb", b""),
    ] {
        let dir = folder(&[(name, content)]);
        assert!(matches!(detect_format(dir.path(), None, None), Err(DetectError::Nothing { .. })), "{name}");
    }
    let shown = (0..50).map(|n| (format!("f{n:02}"), b"".to_vec())).collect::<Vec<_>>();
    let listed: Vec<(&str, &[u8])> = shown.iter().map(|(n, c)| (n.as_str(), c.as_slice())).collect();
    let text = detect_format(folder(&listed).path(), None, None).unwrap_err().to_string();
    assert!(text.contains("30 more") && !text.contains("f20"), "{text}");
    let broken = folder(&[("model.joblib", b"garbage"), ("net.pt", b"garbage"), ("net.onnx", b"garbage")]);
    let failed = detect_format(broken.path(), Some(ModelFormat::Sklearn), None).unwrap_err().to_string();
    for found in [
        "`model.joblib` (not a pickle)",
        "`net.pt` (not of torch.save or torch.jit.save)",
        "`net.onnx` (not an ONNX graph)",
    ] {
        assert!(failed.contains(found), "{failed}");
    }
}

#[test]
fn checks_the_entry() {
    let dir = folder(&[("net.py", b"class Net:\n    pass\ndef helper():\n    pass\n"), ("w", b"1")]);
    let failed = detect_format(dir.path(), None, Some("net:Other")).unwrap_err();
    assert!(matches!(&failed, DetectError::NoClass { has, .. } if has == &["Net", "helper"]), "{failed:?}");
    for bad in
        ["net", "net:", ":Net", "net.py:Net:x", "../net:Net", "net:Net()", "a..b:C", "1a:B", "net/x:Net"]
    {
        let failed = detect_format(dir.path(), None, Some(bad)).unwrap_err();
        assert!(matches!(failed, DetectError::Entry { .. }), "{bad}: {failed:?}");
    }
    // The class may be in the project folder; only who says `python` means it.
    assert!(detect_format(dir.path(), None, Some("project:Model")).is_err());
    let declared = detect_format(dir.path(), Some(ModelFormat::Python), Some("project:Model"));
    assert_eq!(declared.unwrap(), ModelFormat::Python);
}

#[test]
fn data_digests_depend_on_content_alone() {
    let files: [(&str, &[u8]); 3] = [("b/c", b"2"), ("a", b"1"), ("d", b"")];
    let base = folder(&files);
    let digest = |dir: &Path| data_digest(dir).unwrap();
    let first = digest(base.path());
    let again = folder(&[files[1], files[2], files[0]]);
    fs::create_dir(again.path().join("empty")).unwrap();
    fs::set_permissions(again.path().join("a"), fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(digest(again.path()), first);

    let mut seen = vec![first];
    let mut differs = |change: &dyn Fn(&Path)| {
        let dir = folder(&files);
        change(dir.path());
        let now: Digest = digest(dir.path());
        assert!(!seen.contains(&now), "{now}");
        seen.push(now);
    };
    differs(&|d| fs::write(d.join("a"), b"2").unwrap());
    differs(&|d| fs::rename(d.join("a"), d.join("e")).unwrap());
    differs(&|d| fs::set_permissions(d.join("a"), fs::Permissions::from_mode(0o755)).unwrap());
    differs(&|d| fs::remove_file(d.join("d")).unwrap());
    differs(&|d| symlink("a", d.join("link")).unwrap());
    differs(&|d| symlink("/nowhere", d.join("link")).unwrap());
    differs(&|d| fs::write(d.join("ab"), b"1").unwrap());
    let nothing = tempfile::tempdir().unwrap();
    assert_eq!(digest(nothing.path()), digest_of(b""));
}
