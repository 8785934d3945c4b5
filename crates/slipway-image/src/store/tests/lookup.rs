//! Files of images, looked up in their layers.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use slipway_types::Digest;

use super::{TestStore, put_image};
use crate::store::StoreError;

/// A layer whose tree `make` writes, in overlay's notation.
fn layer(test: &TestStore, make: impl FnOnce(&Path)) -> Digest {
    let staging = test.store.staging("test").unwrap();
    make(&staging.fs().unwrap());
    test.store.commit_upper(staging, "test").unwrap().unwrap().diff_id
}

#[test]
fn upper_layers_win_and_links_stay_inside() {
    let test = TestStore::new();
    let base = layer(&test, |fs| {
        fs::create_dir_all(fs.join("etc/sub")).unwrap();
        fs::create_dir_all(fs.join("usr/lib")).unwrap();
        for (name, text) in [
            ("etc/passwd", "old"),
            ("etc/group", "group"),
            ("etc/gone", "x"),
            ("etc/sub/hidden", "x"),
            ("usr/lib/os", "os"),
        ] {
            fs::write(fs.join(name), text).unwrap();
        }
        symlink("../usr/lib/os", fs.join("etc/os")).unwrap();
        symlink("/usr/lib/os", fs.join("etc/absolute")).unwrap();
        symlink("../../../../../../../../etc/group", fs.join("etc/up")).unwrap();
        symlink("loop", fs.join("etc/loop")).unwrap();
        symlink("usr/lib", fs.join("lib")).unwrap();
    });
    let upper = layer(&test, |fs| {
        fs::create_dir_all(fs.join("etc/sub")).unwrap();
        fs::write(fs.join("etc/passwd"), "new").unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            fs.join("etc/gone"),
            rustix::fs::FileType::CharacterDevice,
            rustix::fs::Mode::empty(),
            0,
        )
        .unwrap();
        rustix::fs::setxattr(
            fs.join("etc/sub"),
            "trusted.overlay.opaque",
            b"y",
            rustix::fs::XattrFlags::empty(),
        )
        .unwrap();
        fs::write(fs.join("etc/sub/seen"), "seen").unwrap();
    });
    let image = put_image(&test.store, &[base, upper], "x");
    let read = |path: &str| {
        let bytes = test.store.read_image_file(&image, Path::new(path), 100).unwrap();
        bytes.map(|bytes| String::from_utf8(bytes).unwrap())
    };
    for (path, text) in [
        ("/etc/passwd", Some("new")),
        ("etc/group", Some("group")),
        ("/etc/gone", None),
        ("/etc/sub/hidden", None),
        ("/etc/sub/seen", Some("seen")),
        ("/etc/os", Some("os")),
        ("/etc/absolute", Some("os")),
        ("/etc/up", Some("group")),
        ("/etc/loop", None),
        ("/lib/os", Some("os")),
        ("/lib/../etc/group", None),
        ("/etc/passwd/below", None),
        ("/etc", None),
        ("/absent/file", None),
    ] {
        assert_eq!(read(path).as_deref(), text, "{path}");
    }
    let error = test.store.read_image_file(&image, Path::new("/etc/passwd"), 2).unwrap_err();
    let StoreError::Io { path, source, .. } = &error else { panic!("{error:?}") };
    assert!(path.ends_with("etc/passwd") && source.kind() == std::io::ErrorKind::FileTooLarge, "{error:?}");
}
