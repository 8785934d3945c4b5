//! Hashing a tree: file contents once, then everything that a COPY of it would write.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::SystemTime;

use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use super::{EntryKind, THREADS, Tree, TreeError, stamp_of};
use crate::build::root::Root;
use crate::build::runner::CancelFlag;
use crate::store::{FileHashes, FileStamp};

/// Hashes of files that were read before, and the folder that the tree's root is.
pub(crate) struct HashCache {
    pub(crate) folder: PathBuf,
    pub(crate) hashes: RwLock<FileHashes>,
}

/// What reading a file or folder gave.
struct Read1 {
    index: usize,
    hash: Option<[u8; 32]>,
    stamp: FileStamp,
    xattrs: Vec<(OsString, Vec<u8>)>,
    read_at: SystemTime,
}

const NANOS: i64 = 1_000_000_000;

/// How often a file that changes under the reader is read again.
const ATTEMPTS: usize = 3;

/// Fills in the hashes of all regular files. What the cache knows is not read. With `xattrs`, the extended
/// attributes that images keep are read as well.
pub(crate) fn fill_hashes(
    root: &Root,
    tree: &mut Tree,
    cache: Option<&HashCache>,
    xattrs: bool,
    cancel: &CancelFlag,
) -> Result<(), TreeError> {
    if let Some(cache) = cache {
        let hashes = cache.hashes.read().unwrap_or_else(PoisonError::into_inner);
        let base = cache.folder.join(&tree.at);
        for entry in &mut tree.entries {
            if let EntryKind::File(hash @ None) = &mut entry.kind {
                let path = if entry.path.as_os_str().is_empty() { &base } else { &base.join(&entry.path) };
                *hash = hashes.get(path, &entry.stamp);
            }
        }
    }
    let wanted: Vec<usize> = (0..tree.entries.len())
        .filter(|&i| match tree.entries[i].kind {
            EntryKind::File(hash) => hash.is_none() || xattrs,
            EntryKind::Directory => xattrs,
            _ => false,
        })
        .collect();
    let results = read_all(&wanted, cancel, |index, buffer| match tree.entries[index].kind {
        EntryKind::Directory => read_attributes(root, tree, index),
        _ => read_content(root, tree, index, xattrs, buffer),
    })?;
    let mut hashes = cache.map(|cache| cache.hashes.write().unwrap_or_else(PoisonError::into_inner));
    for one in results {
        fill(tree, &one);
        if let (Some(hash), Some(hashes), Some(cache)) = (one.hash, &mut hashes, cache) {
            let path = join(&cache.folder, &join(&tree.at, &tree.entries[one.index].path));
            hashes.insert(&path, &one.stamp, hash, one.read_at);
        }
        tree.entries[one.index].xattrs = one.xattrs;
    }
    Ok(())
}

/// Fills in the extended attributes that images keep, and nothing else: no file's content is read.
pub(crate) fn fill_xattrs(root: &Root, tree: &mut Tree, cancel: &CancelFlag) -> Result<(), TreeError> {
    let wanted: Vec<usize> = (0..tree.entries.len())
        .filter(|&i| matches!(tree.entries[i].kind, EntryKind::File(_) | EntryKind::Directory))
        .collect();
    for one in read_all(&wanted, cancel, |index, _| read_attributes(root, tree, index))? {
        fill(tree, &one);
        tree.entries[one.index].xattrs = one.xattrs;
    }
    Ok(())
}

/// Reads entries on a few threads, each with a buffer of its own. The first error ends them all.
fn read_all(
    wanted: &[usize],
    cancel: &CancelFlag,
    read: impl Fn(usize, &mut [u8]) -> Result<Read1, TreeError> + Sync,
) -> Result<Vec<Read1>, TreeError> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let next = AtomicUsize::new(0);
    let results: Mutex<Result<Vec<Read1>, TreeError>> = Mutex::new(Ok(Vec::with_capacity(wanted.len())));
    let worker = || {
        let mut buffer = vec![0; 256 << 10];
        while let Some(&index) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
            let result =
                if cancel.is_cancelled() { Err(TreeError::Cancelled) } else { read(index, &mut buffer) };
            let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
            match (&mut *results, result) {
                (Ok(results), Ok(one)) => results.push(one),
                (Ok(_), Err(error)) => {
                    *results = Err(error);
                    return;
                }
                (Err(_), _) => return,
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..THREADS.min(wanted.len()) {
            scope.spawn(worker);
        }
        worker();
    });
    results.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Puts what was read into its entry, but for the attributes. A folder stays as it was listed.
fn fill(tree: &mut Tree, one: &Read1) {
    let entry = &mut tree.entries[one.index];
    if let EntryKind::File(hash) = &mut entry.kind {
        *hash = one.hash.or(*hash);
        entry.stamp = one.stamp;
        entry.mtime = (one.stamp.mtime.div_euclid(NANOS), one.stamp.mtime.rem_euclid(NANOS));
    }
}

/// `join` that leaves no trailing slash for an empty part.
fn join(base: &Path, part: &Path) -> PathBuf {
    if part.as_os_str().is_empty() { base.to_owned() } else { base.join(part) }
}

/// The attributes of a file or folder.
fn read_attributes(root: &Root, tree: &Tree, index: usize) -> Result<Read1, TreeError> {
    let entry = &tree.entries[index];
    let path = join(&tree.at, &entry.path);
    let fail = |source: std::io::Error| TreeError::io(&path, source);
    let fd = match entry.kind {
        EntryKind::Directory => root.open_dir(&path),
        _ => root.open_file(&path),
    }
    .map_err(fail)?;
    let stat = rustix::fs::fstat(&fd).map_err(|e| fail(e.into()))?;
    let xattrs = read_xattrs(fd.as_fd()).map_err(|e| fail(e.into()))?;
    Ok(Read1 { index, hash: None, stamp: stamp_of(&stat), xattrs, read_at: SystemTime::UNIX_EPOCH })
}

/// The content of a file, and its attributes if they are asked for.
fn read_content(
    root: &Root,
    tree: &Tree,
    index: usize,
    xattrs: bool,
    buffer: &mut [u8],
) -> Result<Read1, TreeError> {
    let path = join(&tree.at, &tree.entries[index].path);
    let fail = |source: std::io::Error| TreeError::io(&path, source);
    for _ in 0..ATTEMPTS {
        let read_at = SystemTime::now();
        let mut file = File::from(root.open_file(&path).map_err(fail)?);
        let before = rustix::fs::fstat(&file).map_err(|e| fail(e.into()))?;
        let mut hasher = Sha256::new();
        loop {
            match file.read(buffer) {
                Ok(0) => break,
                Ok(n) => hasher.update(&buffer[..n]),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(fail(error)),
            }
        }
        let after = rustix::fs::fstat(&file).map_err(|e| fail(e.into()))?;
        if stamp_of(&before) == stamp_of(&after) {
            let xattrs =
                if xattrs { read_xattrs(file.as_fd()).map_err(|e| fail(e.into()))? } else { Vec::new() };
            let hash = Some(hasher.finalize().into());
            return Ok(Read1 { index, hash, stamp: stamp_of(&after), xattrs, read_at });
        }
    }
    Err(TreeError::Changed(path))
}

/// Whether an attribute is part of an image: file capabilities, access lists and those of users.
pub(crate) fn kept_xattr(name: &[u8]) -> bool {
    matches!(name, b"security.capability" | b"system.posix_acl_access" | b"system.posix_acl_default")
        || (name.starts_with(b"user.") && !name.starts_with(b"user.overlay."))
}

fn read_xattrs(fd: BorrowedFd<'_>) -> Result<Vec<(OsString, Vec<u8>)>, Errno> {
    let mut names = vec![0_u8; 64 << 10];
    let length = match rustix::fs::flistxattr(fd, &mut names[..]) {
        Ok(length) => length,
        Err(Errno::NOTSUP) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut xattrs = Vec::new();
    for name in names[..length].split(|&b| b == 0) {
        if kept_xattr(name) {
            let mut value = vec![0_u8; 64 << 10];
            let length = rustix::fs::fgetxattr(fd, OsStr::from_bytes(name), &mut value[..])?;
            value.truncate(length);
            xattrs.push((OsStr::from_bytes(name).to_owned(), value));
        }
    }
    xattrs.sort();
    Ok(xattrs)
}

/// SHA-256 of everything that a COPY of the tree would write, times left out. All hashes must be filled in.
pub(crate) fn content_digest(tree: &Tree) -> [u8; 32] {
    let mut hasher = Sha256::new();
    let mut record = Vec::with_capacity(256);
    let text = |record: &mut Vec<u8>, bytes: &[u8]| {
        record.extend((bytes.len() as u64).to_le_bytes());
        record.extend(bytes);
    };
    for entry in &tree.entries {
        record.clear();
        text(&mut record, entry.path.as_os_str().as_bytes());
        record.extend(entry.owner.uid.to_le_bytes());
        record.extend(entry.owner.gid.to_le_bytes());
        // The mode of a link means nothing.
        let mode = if matches!(entry.kind, EntryKind::Symlink(_)) { 0 } else { entry.mode };
        record.extend(mode.to_le_bytes());
        match &entry.kind {
            EntryKind::Directory => record.push(b'd'),
            EntryKind::File(hash) => {
                record.push(b'f');
                record.extend(hash.unwrap_or_default());
            }
            EntryKind::Symlink(target) => {
                record.push(b'l');
                text(&mut record, target.as_bytes());
            }
            EntryKind::Device { character, number } => {
                record.push(if *character { b'c' } else { b'b' });
                record.extend(number.to_le_bytes());
            }
            EntryKind::Fifo => record.push(b'p'),
        }
        record.extend((entry.xattrs.len() as u64).to_le_bytes());
        for (name, value) in &entry.xattrs {
            text(&mut record, name.as_bytes());
            text(&mut record, value);
        }
        hasher.update(&record);
    }
    hasher.finalize().into()
}
