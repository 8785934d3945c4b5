//! From a directory to its archive and back.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use proptest::prelude::*;
use rustix::fs::{CWD, FileType, Mode, XattrFlags};

use super::super::archive::{ArchiveError, Refusal};
use super::super::{LayerSource, StoreError, UnpackLimits};
use super::{TestStore, set_mtime, sha256, tree};

/// Every kind of thing that a layer can have.
fn everything(root: &Path) {
    let at = |name: &str| root.join(name);
    let xattr = |name: &str, key: &str, value: &[u8]| {
        rustix::fs::lsetxattr(at(name), key, value, XattrFlags::empty()).unwrap();
    };
    let node = |name: &str, kind, mode, dev| {
        rustix::fs::mknodat(CWD, at(name), kind, Mode::from_raw_mode(mode), dev).unwrap();
    };
    for name in ["bin", "tmp", "opaque", "opaque/inner", "a", "a-b"] {
        fs::create_dir(at(name)).unwrap();
    }
    fs::set_permissions(at("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    fs::write(at("empty"), "").unwrap();
    fs::write(at("bin/tool"), vec![42; 3_000_000]).unwrap();
    std::os::unix::fs::chown(at("bin/tool"), Some(4_000_000_000), Some(2_097_152)).unwrap();
    fs::set_permissions(at("bin/tool"), fs::Permissions::from_mode(0o6755)).unwrap();
    xattr("bin/tool", "security.capability", &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    xattr("bin/tool", "user.b", b"2");
    xattr("bin/tool", "user.a", b"");
    xattr("a", "user.dir", b"\xff\0");
    fs::hard_link(at("bin/tool"), at("a/tool")).unwrap();
    fs::write(at("a/child"), "c").unwrap();
    fs::write(at("a.txt"), "sorts between").unwrap();
    symlink("tool", at("bin/link")).unwrap();
    fs::hard_link(at("bin/link"), at("bin/same-link")).unwrap();
    symlink("t".repeat(2000), at("bin/long-link")).unwrap();
    fs::create_dir_all(at(&format!("{}/{}", "p".repeat(90), "q".repeat(90)))).unwrap();
    fs::create_dir_all(at(&format!("{0}/{0}", "r".repeat(240)))).unwrap();
    fs::write(at("naïve \u{1f600}"), "x").unwrap();
    fs::write(root.join(std::ffi::OsStr::new(bytes_name())), "x").unwrap();
    node("bin/null", FileType::CharacterDevice, 0o666, rustix::fs::makedev(1, 3));
    node("bin/disk", FileType::BlockDevice, 0o660, rustix::fs::makedev(259, 1_000_000));
    node("bin/fifo", FileType::Fifo, 0o640, 0);
    // Deletions. Overlayfs uses one inode for all of its whiteouts.
    node("gone", FileType::CharacterDevice, 0, 0);
    fs::hard_link(at("gone"), at("bin/gone")).unwrap();
    xattr("opaque", "trusted.overlay.opaque", b"y");
    UnixListener::bind(at("socket")).unwrap();
    set_mtime(&at("empty"), -86_400);
    set_mtime(&at("a.txt"), 9_000_000_000); // more than eleven octal digits
}

fn bytes_name() -> &'static std::ffi::OsStr {
    use std::os::unix::ffi::OsStrExt;
    std::ffi::OsStr::from_bytes(b"not utf-8 \xfe")
}

#[test]
fn every_kind_of_entry_survives_the_round_trip() {
    let first = TestStore::new();
    let staging = first.store.staging("x").unwrap();
    everything(&staging.fs().unwrap());
    let info = first.store.commit_upper(staging, "RUN everything").unwrap().unwrap();
    let mut tar = Vec::new();
    first.store.write_layer_tar(&info.diff_id, &mut tar).unwrap();
    assert_eq!(sha256(&tar), info.diff_id);
    assert_eq!(tar.len() as u64, info.tar_size);
    assert_eq!(info.size, 3_000_000 + 1 + 13 + 1 + 1);
    assert_eq!(first.store.layer_source(&info.diff_id).unwrap(), LayerSource::Canonical);

    let second = TestStore::new();
    let copy = second.store.unpack_layer(&tar[..], Some(&info.diff_id), &UnpackLimits::default()).unwrap();
    assert_eq!((copy.size, copy.entries, copy.tar_size), (info.size, info.entries, info.tar_size));
    let relative = |store: &TestStore| -> Vec<_> {
        let root = store.store.layer_path(&info.diff_id);
        tree(&root).iter().map(|p| p.strip_prefix(&root).unwrap().to_owned()).collect()
    };
    let mut expected = relative(&first);
    expected.retain(|path| path != Path::new("socket"));
    assert_eq!(relative(&second), expected);

    // Committed from there it is the same layer.
    let staging = second.store.staging("again").unwrap();
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .arg(second.store.layer_path(&info.diff_id))
        .arg(staging.path())
        .status()
        .unwrap();
    assert!(copied.success());
    let again = second.store.commit_upper(staging, "").unwrap().unwrap();
    assert_eq!(again.diff_id, info.diff_id);
    let tool = second.store.layer_path(&info.diff_id).join("bin/tool").metadata().unwrap();
    assert_eq!(
        (tool.uid(), tool.gid(), tool.mode() & 0o7777, tool.nlink()),
        (4_000_000_000, 2_097_152, 0o6755, 2)
    );

    // Other programs read it: GNU tar, and its names are in order.
    let file = first.dir.path().join("layer.tar");
    fs::write(&file, &tar).unwrap();
    let list = std::process::Command::new("tar")
        .arg("tf")
        .arg(&file)
        .arg("--quoting-style=literal")
        .output()
        .unwrap();
    assert!(list.status.success(), "{}", String::from_utf8_lossy(&list.stderr));
    let names: Vec<&[u8]> = list.stdout.split(|b| *b == b'\n').filter(|n| !n.is_empty()).collect();
    assert_eq!(names.len() as u64, info.entries);
    assert!(names.is_sorted());
    let position = |name: &str| names.iter().position(|n| *n == name.as_bytes()).unwrap();
    assert!(position("a-b/") < position("a.txt") && position("a.txt") < position("a/"));
    assert!(position("a/") < position("a/child"));
    assert!(names.contains(&&b".wh.gone"[..]) && names.contains(&&b"opaque/.wh..wh..opq"[..]));
    first.assert_clean();
    second.assert_clean();
}

#[test]
fn the_bytes_are_fixed() {
    let test = TestStore::new();
    // Changing the canonical form changes the identity of every image built so far. The digest is that of the archive
    // that a few lines of Python around `tarfile` write of the same entries (ustar, device numbers as zeros, two zero blocks).
    let diff_id = test.layer(&[("etc/motd", "hello\n"), ("usr/bin/x", "#!/bin/sh\n")]);
    assert_eq!(diff_id.as_str(), "sha256:5a558bf3494129c201b68bd5b54860cff8e25302023ea5606be065d40c9ac9b9");
}

#[test]
fn an_empty_upper_directory_is_no_layer() {
    let test = TestStore::new();
    let staging = test.store.staging("x").unwrap();
    staging.fs().unwrap();
    fs::create_dir(staging.path().join("work")).unwrap();
    assert_eq!(test.store.commit_upper(staging, "").unwrap(), None);
    let staging = test.store.staging("x").unwrap();
    UnixListener::bind(staging.fs().unwrap().join("socket")).unwrap();
    assert_eq!(test.store.commit_upper(staging, "").unwrap(), None);
    test.assert_clean();
}

#[test]
fn what_overlayfs_leaves_is_stripped_or_refused() {
    let test = TestStore::new();
    let commit = |key: &str, value: &[u8]| {
        let staging = test.store.staging("x").unwrap();
        let dir = staging.fs().unwrap().join("d");
        fs::create_dir(&dir).unwrap();
        set_mtime(&dir, 7);
        rustix::fs::lsetxattr(&dir, key, value, XattrFlags::empty()).unwrap();
        test.store.commit_upper(staging, "")
    };
    let plain = commit("trusted.overlay.origin", b"handle").unwrap().unwrap().diff_id;
    assert_eq!(commit("trusted.overlay.impure", b"y").unwrap().unwrap().diff_id, plain);
    assert_eq!(commit("trusted.md5", b"x").unwrap().unwrap().diff_id, plain);
    let mut list = [0; 100];
    let n = rustix::fs::llistxattr(test.store.layer_path(&plain).join("d"), &mut list[..]).unwrap();
    assert_eq!(&list[..n], b"");
    for key in ["trusted.overlay.redirect", "trusted.overlay.metacopy"] {
        let error = commit(key, b"/other").unwrap_err();
        assert!(
            matches!(
                &error,
                StoreError::Tree(ArchiveError::Refused { reason: Refusal::OverlayReference, .. })
            ),
            "{error:?}"
        );
    }
    let staging = test.store.staging("x").unwrap();
    fs::write(staging.fs().unwrap().join(".wh.x"), "").unwrap();
    let error = test.store.commit_upper(staging, "").unwrap_err();
    assert!(matches!(error, StoreError::Tree(ArchiveError::Refused { reason: Refusal::ReservedName, .. })));
    test.assert_clean();
}

/// One thing of a random tree.
#[derive(Clone, Debug)]
enum Thing {
    File(Vec<u8>, u32),
    Directory(u32),
    Link(String),
    Fifo,
    Whiteout,
    Opaque,
    HardLink(usize),
}

fn things() -> impl Strategy<Value = Vec<(Vec<String>, Thing, i64)>> {
    let name = prop_oneof![
        5 => "[a-c.-]{1,3}".prop_filter("reserved", |n| n != "." && n != ".."),
        1 => "[a-zé ]{1,60}",
        1 => "x{90,200}",
    ];
    let thing = prop_oneof![
        4 => (prop::collection::vec(any::<u8>(), 0..2000), 0u32..0o10000).prop_map(|(d, m)| Thing::File(d, m)),
        2 => (0u32..0o10000).prop_map(Thing::Directory),
        1 => "[a-z./]{1,150}".prop_map(Thing::Link),
        1 => Just(Thing::Fifo),
        1 => Just(Thing::Whiteout),
        1 => Just(Thing::Opaque),
        1 => any::<usize>().prop_map(Thing::HardLink),
    ];
    prop::collection::vec((prop::collection::vec(name, 1..4), thing, -10i64..4_000_000_000), 1..25)
}

fn build(root: &Path, things: &[(Vec<String>, Thing, i64)]) {
    let mut files = Vec::new();
    for (parts, thing, _) in things {
        let path = root.join(parts.join("/"));
        if fs::create_dir_all(path.parent().unwrap()).is_err() || path.symlink_metadata().is_ok() {
            continue;
        }
        let node = |kind, mode| rustix::fs::mknodat(CWD, &path, kind, Mode::from_raw_mode(mode), 0).unwrap();
        match thing {
            Thing::File(data, mode) => {
                fs::write(&path, data).unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).unwrap();
                files.push(path);
            }
            Thing::Directory(mode) => {
                fs::create_dir(&path).unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).unwrap();
            }
            Thing::Link(target) => symlink(target, &path).unwrap(),
            Thing::Fifo => node(FileType::Fifo, 0o600),
            Thing::Whiteout => node(FileType::CharacterDevice, 0),
            Thing::Opaque => {
                fs::create_dir(&path).unwrap();
                rustix::fs::lsetxattr(&path, "trusted.overlay.opaque", b"y", XattrFlags::empty()).unwrap();
            }
            Thing::HardLink(which) if !files.is_empty() => {
                fs::hard_link(&files[which % files.len()], &path).unwrap();
            }
            Thing::HardLink(_) => {}
        }
    }
    for (at, path) in tree(root).iter().enumerate().rev() {
        set_mtime(path, things[at % things.len()].2);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn random_trees_survive_the_round_trip(things in things()) {
        let first = TestStore::new();
        let staging = first.store.staging("x").unwrap();
        build(&staging.fs().unwrap(), &things);
        if let Some(info) = first.store.commit_upper(staging, "").unwrap() {
            let mut tar = Vec::new();
            first.store.write_layer_tar(&info.diff_id, &mut tar).unwrap();
            let staging = first.store.staging("y").unwrap();
            let fs = staging.fs().unwrap();
            super::super::archive::unpack(&tar[..], &fs, &UnpackLimits::default()).unwrap();
            let again = first.store.commit_upper(staging, "").unwrap().unwrap();
            prop_assert_eq!(again, info);
        }
    }
}
