//! Tests of the store as a whole. They run as root.

mod canonical;
mod collect;
mod crash;
mod images;
mod layers;
mod lookup;
mod space;
mod unpack;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use oci_spec::image::{ImageConfigurationBuilder, RootFs};
use sha2::{Digest as _, Sha256};
use slipway_types::{Digest, Reference};
use tar::Header;

use super::Store;

/// A store in a temporary directory.
struct TestStore {
    store: Store,
    dir: tempfile::TempDir,
}

impl TestStore {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { store: Store::open(dir.path().join("store")).unwrap(), dir }
    }

    /// Closes it and opens it again.
    fn reopen(self) -> Self {
        let Self { store, dir } = self;
        drop(store);
        Self { store: Store::open(dir.path().join("store")).unwrap(), dir }
    }

    /// Commits a layer with these files.
    fn layer(&self, files: &[(&str, &str)]) -> Digest {
        commit_files(&self.store, files)
    }

    fn assert_clean(&self) {
        assert_eq!(self.store.check(true).unwrap(), vec![]);
        assert_eq!(names_in(&self.store.root().join("tmp")), Vec::<String>::new());
    }
}

fn commit_files(store: &Store, files: &[(&str, &str)]) -> Digest {
    let staging = store.staging("test").unwrap();
    let root = staging.fs().unwrap();
    for (path, text) in files {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
    }
    for path in tree(&root) {
        let mode = if path.is_dir() { 0o755 } else { 0o644 };
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        set_mtime(&path, 1_700_000_000);
    }
    store.commit_upper(staging, "test").unwrap().unwrap().diff_id
}

/// Stores an image of these layers; `mark` makes its configuration unlike others.
fn put_image(store: &Store, layers: &[Digest], mark: &str) -> Digest {
    let mut rootfs = RootFs::default();
    rootfs.set_diff_ids(layers.iter().map(ToString::to_string).collect());
    let config =
        ImageConfigurationBuilder::default().rootfs(rootfs).author(mark).architecture("amd64").os("linux");
    store.put_image_config(&config.build().unwrap(), layers, None).unwrap()
}

fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

fn sha256(bytes: &[u8]) -> Digest {
    Digest::from_sha256(Sha256::digest(bytes).into())
}

fn set_mtime(path: &Path, seconds: i64) {
    use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};
    let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

fn names_in(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// All paths below a directory, sorted; links are not followed.
fn tree(root: &Path) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    let mut work = vec![root.to_owned()];
    while let Some(dir) = work.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.is_symlink() {
                work.push(path.clone());
            }
            paths.push(path);
        }
    }
    paths.sort();
    paths
}

/// Everything that an escape could change in a directory.
fn snapshot(root: &Path) -> Vec<(PathBuf, u32, u64, i64, Vec<u8>)> {
    tree(root)
        .into_iter()
        .map(|path| {
            let stat = path.symlink_metadata().unwrap();
            let text = if stat.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
            (path, stat.permissions().mode(), stat.nlink(), stat.mtime(), text)
        })
        .collect()
}

/// Writes archives that no honest program writes.
#[derive(Default)]
struct TarFile(Vec<u8>);

impl TarFile {
    fn add(self, name: &str, kind: u8, link: &str, data: &[u8]) -> Self {
        self.add_with(name, kind, link, data, |_| {})
    }

    fn add_with(
        mut self,
        name: &str,
        kind: u8,
        link: &str,
        data: &[u8],
        edit: impl FnOnce(&mut Header),
    ) -> Self {
        let mut header = Header::new_ustar();
        header.set_size(data.len() as u64);
        header.set_mode(if kind == b'5' { 0o755 } else { 0o644 });
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_700_000_000);
        let old = header.as_old_mut();
        old.name[..name.len()].copy_from_slice(name.as_bytes());
        old.linkname[..link.len()].copy_from_slice(link.as_bytes());
        old.linkflag = [kind];
        edit(&mut header);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, name: &str, data: &[u8]) -> Self {
        self.add(name, b'0', "", data)
    }

    fn dir(self, name: &str) -> Self {
        self.add(name, b'5', "", b"")
    }

    fn symlink(self, name: &str, target: &str) -> Self {
        self.add(name, b'2', target, b"")
    }

    fn hardlink(self, name: &str, target: &str) -> Self {
        self.add(name, b'1', target, b"")
    }

    /// An extended header for the next entry.
    fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut data = Vec::new();
        for (key, value) in records {
            let body = [b" ", key.as_bytes(), b"=", value, b"\n"].concat();
            let mut length = body.len();
            while length != body.len() + length.to_string().len() {
                length = body.len() + length.to_string().len();
            }
            data.extend_from_slice(length.to_string().as_bytes());
            data.extend_from_slice(&body);
        }
        self.add("PaxHeaders/x", b'x', "", &data)
    }

    fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

/// Runs this test alone in another process of the same program, with a variable set.
fn rerun(test: &str, variable: &str, value: &Path, wrapper: &[&str]) -> std::process::Command {
    let program = std::env::current_exe().unwrap();
    let mut command = match wrapper {
        [] => std::process::Command::new(program),
        [first, rest @ ..] => {
            let mut command = std::process::Command::new(first);
            command.args(rest).arg(program);
            command
        }
    };
    command.args([test, "--exact", "--nocapture", "--test-threads=1"]).env(variable, value);
    command
}

/// The name of a test of the calling module, as the test program knows it.
macro_rules! test_name {
    ($test:literal) => {
        concat!(module_path!(), "::", $test).split_once("::").unwrap().1
    };
}
use test_name;

#[test]
fn a_second_opener_is_told_who_has_the_store() {
    let test = TestStore::new();
    let error = Store::open(test.store.root()).unwrap_err();
    assert!(error.is_conflict());
    let text = error.to_string();
    assert!(text.contains(&format!("process {}", std::process::id())), "{text}");
    let clone = test.store.clone();
    let root = test.store.root().to_owned();
    drop(test.store);
    assert!(Store::open(&root).is_err(), "a clone keeps it open");
    drop(clone);
    Store::open(&root).unwrap();
}

#[test]
fn a_newer_format_is_refused() {
    let test = TestStore::new();
    let root = test.store.root().to_owned();
    test.store
        .inner
        .index
        .write(|i| Ok(i.execute("UPDATE schema_version SET version = 99", []).unwrap()))
        .unwrap();
    drop(test.store);
    let error = Store::open(&root).unwrap_err();
    assert!(matches!(error, super::StoreError::NewerSchema { found: 99, .. }), "{error}");
}

#[test]
fn the_store_goes_between_threads() {
    fn assert_shared<T: Send + Sync + Clone + 'static>() {}
    assert_shared::<Store>();
}
