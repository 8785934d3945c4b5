//! Folders copied out of a root file system.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use rustix::fs::XattrFlags;

use crate::build::copy_folder_out;

#[test]
fn a_folder_that_is_copied_out_keeps_what_a_program_sees() {
    let dir = tempfile::tempdir().unwrap();
    let (root, to) = (dir.path().join("root"), dir.path().join("volume"));
    fs::create_dir_all(root.join("data/sub")).unwrap();
    fs::write(root.join("data/file"), "text").unwrap();
    fs::write(root.join("data/sub/empty"), "").unwrap();
    fs::hard_link(root.join("data/file"), root.join("data/sub/same")).unwrap();
    symlink("file", root.join("data/link")).unwrap();
    fs::set_permissions(root.join("data/file"), fs::Permissions::from_mode(0o2750)).unwrap();
    let attribute = |path: &str| rustix::fs::setxattr(root.join(path), "user.x", b"y", XattrFlags::empty());
    let kept = attribute("data/file").is_ok() && attribute("data/sub").is_ok();

    let open = || rustix::fs::open(&root, rustix::fs::OFlags::DIRECTORY, rustix::fs::Mode::empty()).unwrap();
    assert!(!copy_folder_out(open(), "/none".as_ref(), &to).unwrap() && !to.exists());
    assert!(!copy_folder_out(open(), "/data/file".as_ref(), &to).unwrap() && !to.exists());
    assert!(copy_folder_out(open(), "/data".as_ref(), &to).unwrap());

    let (from, copy) = (root.join("data/file").metadata().unwrap(), to.join("file").metadata().unwrap());
    assert_eq!((copy.mode(), copy.mtime_nsec()), (from.mode(), from.mtime_nsec()));
    assert_eq!(copy.ino(), to.join("sub/same").metadata().unwrap().ino());
    assert_eq!(fs::read_to_string(to.join("link")).unwrap(), "text");
    assert_eq!(fs::read(to.join("sub/empty")).unwrap(), b"");
    // Where the file system below the test has attributes of users.
    for path in ["file", "sub"].iter().filter(|_| kept) {
        let mut value = [0; 8];
        let length = rustix::fs::getxattr(to.join(path), "user.x", &mut value[..]).unwrap();
        assert_eq!(&value[..length], b"y", "{path}");
    }
}
