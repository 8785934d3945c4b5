//! The image store: blobs, unpacked layers, images and their names, the build cache, and garbage collection.
//!
//! Everything blocks: async callers go through `spawn_blocking`. One process opens a store; in it [`Store`] is cloned
//! freely and used from many threads.
//!
//! On disk, below the root:
//! - `blobs/sha256/<hex>`: files named by the SHA-256 of their bytes, mode 0444.
//! - `layers/<hex of the diff id>/fs`: an unpacked layer, ready to be a lower directory of overlayfs.
//! - `index.db`: what the store holds. What lies on disk and is not in the index is garbage.
//! - `contexts/<hex>`: file hashes of build contexts ([`FileHashes`]), a mere cache.
//! - `tmp/`: what is not complete. It must be on the same file system; emptied when the store is opened.
//! - `lock`: held by the process that has the store open.
//! - `reserve`: 1 MiB of room, given up for a moment when something is to be removed and the disk is full.
//!
//! Every write goes to `tmp/` first, is flushed to disk, renamed to its place, and recorded in the index, in this
//! order: after a crash at any point the index names only what is whole.

mod archive;
mod blobs;
mod check;
mod codec;
mod error;
mod hashes;
mod images;
mod import;
mod index;
mod layers;
mod lease;
mod lookup;
mod names;
mod pins;
mod prune;
mod reach;
mod removal;
mod staging;
mod steps;
mod trash;

#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use rustix::fs::FlockOperation;

pub use archive::{ArchiveError, Refusal, UnpackLimits};
pub use blobs::BlobWriter;
pub use check::Problem;
pub use error::{Result, StoreError};
pub use hashes::{FileHashes, FileStamp};
pub use images::StoredImage;
pub use layers::{LayerBlob, LayerInfo, LayerSource};
pub use lease::Lease;
pub use prune::{PruneOptions, PruneReport, Usage};
pub use removal::RemoveReport;
pub use staging::Staging;
pub use steps::CachedStep;

/// Bytes of the reserve: a transaction of the index and some directories.
const RESERVE: u64 = 1 << 20;

/// The image store of this machine.
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    root: PathBuf,
    index: index::Index,
    /// Shared by whatever stores or looks up, exclusive to what removes. Not recursive: never taken twice by a thread.
    gc: RwLock<()>,
    /// From the look at what is there to the record in the index, one commit at a time. Taken after `gc`.
    commit: Mutex<()>,
    leases: Mutex<lease::Leases>,
    /// Paths in `tmp/` that operations of this process are using.
    active: Mutex<HashSet<PathBuf>>,
    next: AtomicU64,
    _lock: File,
}

impl Store {
    /// Opens the store below `root`, which is made if need be (mode 0700), and removes what a process that died left
    /// half done. Fails with [`StoreError::Locked`] while another process has it open.
    pub fn open(root: impl AsRef<Path>) -> Result<Self> {
        let root = root.as_ref();
        make_directory(root)?;
        let root = fs::canonicalize(root).map_err(StoreError::io("resolve", root))?;
        let lock = lock(&root)?;
        for name in ["blobs", "blobs/sha256", "layers", "contexts", "tmp"] {
            make_directory(&root.join(name))?;
        }
        sync_directory(&root)?;
        let index = with_reserve(&root, || index::Index::open(&root.join("index.db")))?;
        let inner = Inner {
            index,
            root,
            gc: RwLock::new(()),
            commit: Mutex::new(()),
            leases: Mutex::default(),
            active: Mutex::default(),
            next: AtomicU64::new(0),
            _lock: lock,
        };
        let store = Self { inner: Arc::new(inner) };
        let left_over = store.stale_temporaries()?.into_iter().chain(store.unfinished_contexts()?);
        for path in left_over {
            // What cannot go now is reported by `check`; the store works beside it.
            if let Err(error) = trash::remove(&path) {
                tracing::warn!(path = %path.display(), %error, "a left-over staging directory could not be removed");
            }
        }
        Ok(store)
    }

    /// The directory that it lives in, absolute.
    pub fn root(&self) -> &Path {
        &self.inner.root
    }

    /// A number that no other call of this process and no left-over in `tmp/` has.
    fn fresh_number(&self) -> String {
        format!("{}-{}", std::process::id(), self.inner.next.fetch_add(1, Ordering::Relaxed))
    }
}

/// Runs something that must work on a full disk, if need be in the room of the reserve.
fn with_reserve<T>(root: &Path, f: impl Fn() -> Result<T>) -> Result<T> {
    let path = root.join("reserve");
    let mut result = f();
    if matches!(&result, Err(e) if e.is_out_of_space()) && fs::remove_file(&path).is_ok() {
        result = f();
    }
    // Without room for it there is none to give up later, either.
    let kept =
        OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path).and_then(
            |file| Ok(rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, RESERVE)?),
        );
    if kept.is_err() {
        let _ = fs::remove_file(&path);
    }
    result
}

impl Inner {
    fn gc_shared(&self) -> RwLockReadGuard<'_, ()> {
        self.gc.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn gc_exclusive(&self) -> RwLockWriteGuard<'_, ()> {
        self.gc.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn commit_lock(&self) -> MutexGuard<'_, ()> {
        self.commit.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("root", &self.root).finish_non_exhaustive()
    }
}

fn lock(root: &Path) -> Result<File> {
    let path = root.join("lock");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(StoreError::io("open", &path))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut text = String::new();
            let _ = (&mut file).take(20).read_to_string(&mut text);
            return Err(StoreError::Locked { root: root.to_owned(), holder: text.trim().parse().ok() });
        }
        result => result.map_err(StoreError::os("lock", &path))?,
    }
    // For the message above only: a full disk must not keep the store from being opened and pruned.
    let _ =
        file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
    Ok(file)
}

fn make_directory(path: &Path) -> Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(StoreError::io("create", path))
}

/// Makes the names in a directory durable.
fn sync_directory(path: &Path) -> Result<()> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(StoreError::io("flush", path))
}

/// Writes a small file aside, flushes it, and renames it to its place.
fn replace_file(temporary: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let written = (|| {
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(temporary, path)
    })();
    if written.is_err() {
        let _ = fs::remove_file(temporary);
    }
    written
}
