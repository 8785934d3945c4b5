use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use slipway_types::model::{Lineage, ModelFormat};

use super::*;
use crate::model::ModelMeta;

fn names(carrier: &Carrier) -> Vec<(String, u32, u64)> {
    let mut bytes = Vec::new();
    carrier.layer().1.write_to(&mut bytes).unwrap();
    assert_eq!(digest_of(&bytes), carrier.layer().0.digest);
    assert_eq!(bytes.len() as u64, carrier.size());
    let mut archive = tar::Archive::new(bytes.as_slice());
    let entries = archive.entries().unwrap().map(|entry| {
        let entry = entry.unwrap();
        let header = entry.header();
        assert_eq!((header.uid().unwrap(), header.gid().unwrap(), header.mtime().unwrap()), (0, 0, 0));
        let name = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
        (name, header.mode().unwrap(), entry.size())
    });
    entries.collect()
}

#[test]
fn a_folder_is_the_same_image_wherever_it_lies() {
    let of = |umask: u32| {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::create_dir(path("python")).unwrap();
        std::fs::write(path("runner"), "program").unwrap();
        std::fs::write(path("python/worker.py"), "pass").unwrap();
        std::fs::set_permissions(path("runner"), Permissions::from_mode(0o755 & !umask)).unwrap();
        std::fs::set_permissions(path("python/worker.py"), Permissions::from_mode(0o644 & !umask)).unwrap();
        (Carrier::of_folder(folder.path(), "slipway", &Platform::host()).unwrap(), folder)
    };
    let ((one, _kept), (two, _)) = (of(0), of(0o77));
    assert_eq!(one.digest(), two.digest());
    let expected = [
        ("slipway/", 0o755, 0),
        ("slipway/python/", 0o755, 0),
        ("slipway/python/worker.py", 0o644, 4),
        ("slipway/runner", 0o755, 7),
    ];
    assert_eq!(names(&one), expected.map(|(name, mode, size)| (name.to_owned(), mode, size)));
    let config: serde_json::Value = serde_json::from_slice(one.config().1).unwrap();
    assert_eq!(config["rootfs"]["diff_ids"][0], one.layer().0.digest.as_str());
    assert_eq!(config["architecture"], Platform::host().architecture.as_str());

    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("x", folder.path().join("link")).unwrap();
    let refused = Carrier::of_folder(folder.path(), "slipway", &Platform::host());
    assert!(matches!(refused, Err(CarrierError::Special(_))));
}

#[test]
#[expect(clippy::print_stderr, reason = "a skip is said aloud")]
fn a_program_is_an_image_that_runs() {
    let program = Program::running("slipway").unwrap();
    let user = (65_532, 65_532);
    let carrier = Carrier::of_program(&program, user, &Platform::host()).unwrap();
    let again = Carrier::of_program(&program, user, &Platform::host()).unwrap();
    assert_eq!(carrier.digest(), again.digest());
    let names = names(&carrier);
    let size = std::fs::metadata("/proc/self/exe").unwrap().len();
    assert!(names.contains(&("slipway".to_owned(), 0o755, size)), "{names:?}");
    for (at, (name, ..)) in names.iter().enumerate() {
        // Whatever holds something comes before it.
        for (end, _) in name.trim_end_matches('/').match_indices('/') {
            let folder = (format!("{}/", &name[..end]), 0o755, 0);
            assert!(names[..at].contains(&folder), "{name}: {names:?}");
        }
    }
    let config: serde_json::Value = serde_json::from_slice(carrier.config().1).unwrap();
    let run = &config["config"];
    assert_eq!((&run["User"], &run["Entrypoint"]), (&json!("65532:65532"), &json!(["/slipway"])));

    // It runs with nothing but these files.
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root may change the root folder");
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let mut bytes = Vec::new();
    carrier.layer().1.write_to(&mut bytes).unwrap();
    tar::Archive::new(bytes.as_slice()).unpack(root.path()).unwrap();
    let libraries = run["Env"][0].as_str().unwrap().split_once('=').unwrap().1;
    let output = std::process::Command::new("chroot")
        .arg(root.path())
        .args(["/slipway", "--list"])
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LD_LIBRARY_PATH", libraries)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("a_program_is_an_image"), "{output:?}");
}

#[test]
fn a_tree_has_what_is_wanted_with_its_links() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::create_dir_all(path(".git/objects")).unwrap();
    std::fs::create_dir_all(path("lib/cache")).unwrap();
    for name in [".git/objects/x", "lib/a.py", "lib/cache/big", "train.py"] {
        std::fs::write(path(name), "x").unwrap();
    }
    std::os::unix::fs::symlink("lib/a.py", path("link")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
    let wanted = |path: &str| !path.starts_with(".git") && path != "lib/cache";
    let tree = Carrier::of_tree(folder.path(), "workspace", &wanted, &Platform::host()).unwrap();
    let expected = [
        ("workspace/", 0o755, 0),
        ("workspace/lib/", 0o755, 0),
        ("workspace/lib/a.py", 0o644, 1),
        ("workspace/link", 0o777, 0),
        ("workspace/train.py", 0o644, 1),
    ];
    assert_eq!(names(&tree), expected.map(|(name, mode, size)| (name.to_owned(), mode, size)));
}

#[test]
fn a_model_version_is_one_image() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path().join("store")).unwrap();
    let _lease = store.lease();
    let folder = root.path().join("model");
    let long = format!("{}/{}.bin", "deep".repeat(40), "n".repeat(120));
    std::fs::create_dir_all(folder.join(&long).parent().unwrap()).unwrap();
    std::fs::write(folder.join("weights.bin"), [7; 5000]).unwrap();
    std::fs::write(folder.join(&long), "").unwrap();
    let meta = ModelMeta {
        model: "m".to_owned(),
        version: 1,
        format: ModelFormat::Python,
        entry: None,
        lineage: Lineage::default(),
        metrics: BTreeMap::new(),
        created_at: jiff::Timestamp::UNIX_EPOCH,
    };
    let manifest = model::pack(&store, &folder, &meta).unwrap().manifest;
    let carrier = Carrier::of_model(&store, &manifest, "model", &Platform::host()).unwrap();
    let again = Carrier::of_model(&store, &manifest, "model", &Platform::host()).unwrap();
    assert_eq!(carrier.digest(), again.digest());
    let (deep, _) = long.split_once('/').unwrap();
    let expected = [
        ("model/".to_owned(), 0o555, 0),
        (format!("model/{deep}/"), 0o555, 0),
        (format!("model/{long}"), 0o444, 0),
        ("model/weights.bin".to_owned(), 0o444, 5000),
    ];
    assert_eq!(names(&carrier), expected);

    // A file that is not what it was is never sent as if it were.
    let blob = store.blob_path(&digest_of(&[7; 5000]));
    for length in [4999, 5001] {
        std::fs::remove_file(&blob).unwrap();
        std::fs::write(&blob, vec![7; length]).unwrap();
        let failed = carrier.layer().1.write_to(&mut std::io::sink());
        assert!(matches!(failed, Err(CarrierError::Changed { .. })), "{length}: {failed:?}");
    }
    std::fs::remove_file(&blob).unwrap();
    assert!(matches!(
        Carrier::of_model(&store, &manifest, "model", &Platform::host()),
        Err(CarrierError::Blob { .. })
    ));
}
