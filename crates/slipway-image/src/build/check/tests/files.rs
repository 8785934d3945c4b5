//! Contexts on disk.

use super::*;

#[test]
fn a_folder_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("src/deep")).unwrap();
    std::fs::write(folder.path().join("src/a.py"), "").unwrap();
    std::fs::write(folder.path().join("b.env"), "").unwrap();
    let ignore = Ignore::parse("*.env\nsrc/deep\n").unwrap();
    let files = OnDisk { root: folder.path(), ignore: &ignore };
    assert_eq!(files.entry("").unwrap().kind, FileKind::Folder);
    assert_eq!(files.entry("src/a.py"), Some(Entry { kind: FileKind::File, ignored_by: None }));
    assert_eq!(files.entry("b.env").unwrap().ignored_by.unwrap().line, 1);
    assert!(files.entry("src/deep").unwrap().ignored_by.is_some());
    assert!(files.entry("none").is_none() && files.entry("../x").is_none());
    let mut names: Vec<String> = files.list("src").into_iter().map(|(name, _)| name).collect();
    names.sort();
    assert_eq!(names, ["a.py", "deep"]);
    assert_eq!(files.list("none"), []);
}
