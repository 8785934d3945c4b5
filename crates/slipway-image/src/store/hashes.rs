//! Hashes of a build context's files, remembered by what `stat` says of them.
//!
//! File format (all numbers little-endian): the magic `slipwayH`, format (u32), number of records (u32); records of 88
//! bytes, sorted by path: offset (u32) and length (u32) of the path, device, inode, size (u64 each), mtime and ctime
//! (nanoseconds since the epoch, i64 each), age (u32), SHA-256 (32 bytes), 4 bytes of zero; the paths; the SHA-256 of all
//! before it. A file that is not exactly that is taken for empty: it is a cache.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sha2::{Digest as _, Sha256};

use super::error::{Result, StoreError};
use super::{Store, layers, replace_file};

const MAGIC: &[u8; 8] = b"slipwayH";
const FORMAT: u32 = 1;
const HEADER: usize = 16;
const RECORD: usize = 88;
const SUM: usize = 32;
/// Longest file that is read.
const MAX_BYTES: u64 = 1 << 30;
/// A file that changes this soon after it was hashed may keep its times: clocks of file systems are coarse.
const SETTLED: Duration = Duration::from_secs(2);
/// Saves that an entry which nobody asks for survives: builds of one context may use different parts of it.
const MAX_AGE: u32 = 16;

/// What identifies the state of a file. `ctime` cannot be set by programs, so content that changes changes this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileStamp {
    /// Device.
    pub dev: u64,
    /// Inode.
    pub inode: u64,
    /// Bytes.
    pub size: u64,
    /// Last change of the content, in nanoseconds since the epoch.
    pub mtime: i64,
    /// Last change of the inode, in nanoseconds since the epoch.
    pub ctime: i64,
}

impl FileStamp {
    /// From what `stat` says.
    pub fn of(metadata: &fs::Metadata) -> Self {
        let nanos = |seconds: i64, nanos: i64| seconds.saturating_mul(1_000_000_000).saturating_add(nanos);
        Self {
            dev: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            mtime: nanos(metadata.mtime(), metadata.mtime_nsec()),
            ctime: nanos(metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Whether the file had been left alone for long enough when it was read.
    fn is_settled(&self, read_at: SystemTime) -> bool {
        let Some(limit) = read_at.checked_sub(SETTLED).and_then(|t| t.duration_since(UNIX_EPOCH).ok()) else {
            return false;
        };
        let limit = i64::try_from(limit.as_nanos()).unwrap_or(i64::MAX);
        self.mtime < limit && self.ctime < limit
    }
}

/// SHA-256 of files by absolute path and [`FileStamp`].
#[derive(Debug)]
pub struct FileHashes {
    path: PathBuf,
    entries: HashMap<Box<[u8]>, Entry>,
    changed: bool,
}

#[derive(Debug)]
struct Entry {
    stamp: FileStamp,
    hash: [u8; 32],
    /// Saves since it was last asked for.
    age: u32,
    used: AtomicBool,
}

impl FileHashes {
    /// Reads the hashes in a file. A missing or damaged one has none.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let bytes = match fs::metadata(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(e) => return Err(StoreError::io("read", path)(e)),
            Ok(metadata) if metadata.len() > MAX_BYTES => Vec::new(),
            Ok(_) => fs::read(path).map_err(StoreError::io("read", path))?,
        };
        let entries = decode(&bytes).unwrap_or_default();
        Ok(Self { path: path.to_owned(), entries, changed: false })
    }

    /// The hash of a file in exactly this state.
    pub fn get(&self, path: &Path, stamp: &FileStamp) -> Option<[u8; 32]> {
        let entry = self.entries.get(path.as_os_str().as_bytes())?;
        if entry.stamp != *stamp {
            return None;
        }
        entry.used.store(true, Ordering::Relaxed);
        Some(entry.hash)
    }

    /// Remembers a hash. `stamp` is from before the file was read, as is `read_at`; a file that changed within two seconds
    /// before that, or later, is not remembered: it could change again and look the same.
    pub fn insert(&mut self, path: &Path, stamp: &FileStamp, hash: [u8; 32], read_at: SystemTime) {
        let key = path.as_os_str().as_bytes();
        if stamp.is_settled(read_at) {
            let entry = Entry { stamp: *stamp, hash, age: 0, used: AtomicBool::new(true) };
            self.entries.insert(key.into(), entry);
            self.changed = true;
        } else if self.entries.remove(key).is_some() {
            self.changed = true;
        }
    }

    /// Number of files.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Writes the hashes back, atomically; does nothing if none was added. Entries that were not asked for in a while
    /// are dropped.
    pub fn save(&mut self) -> Result<()> {
        if !self.changed {
            return Ok(());
        }
        for entry in self.entries.values_mut() {
            let used = std::mem::take(entry.used.get_mut());
            entry.age = if used { 0 } else { entry.age + 1 };
        }
        self.entries.retain(|_, entry| entry.age <= MAX_AGE);
        // Savers of one context may run at once; the last one wins.
        let temporary = {
            use std::sync::atomic::AtomicU64;
            static NEXT: AtomicU64 = AtomicU64::new(0);
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            self.path.with_extension(format!("new-{}-{number}", std::process::id()))
        };
        replace_file(&temporary, &self.path, &encode(&self.entries))
            .map_err(StoreError::io("write", &self.path))?;
        self.changed = false;
        Ok(())
    }
}

impl Store {
    /// The remembered hashes of a build context, by its absolute path.
    pub fn file_hashes(&self, context: &Path) -> Result<FileHashes> {
        let name = hex::encode(Sha256::digest(context.as_os_str().as_bytes()));
        FileHashes::load(self.inner.root.join("contexts").join(name))
    }

    /// What a process left that died while it saved hashes.
    pub(super) fn unfinished_contexts(&self) -> Result<Vec<PathBuf>> {
        let contexts = self.inner.root.join("contexts");
        let mut unfinished = Vec::new();
        for entry in fs::read_dir(&contexts).map_err(StoreError::io("list", &contexts))? {
            let path = entry.map_err(StoreError::io("list", &contexts))?.path();
            if path.extension().is_some() {
                unfinished.push(path);
            }
        }
        Ok(unfinished)
    }

    pub(super) fn forget_contexts(&self) -> Result<()> {
        let contexts = self.inner.root.join("contexts");
        for entry in fs::read_dir(&contexts).map_err(StoreError::io("list", &contexts))? {
            layers::remove_tree(&entry.map_err(StoreError::io("list", &contexts))?.path())?;
        }
        Ok(())
    }
}

fn encode(entries: &HashMap<Box<[u8]>, Entry>) -> Vec<u8> {
    let mut sorted: Vec<(&[u8], &Entry)> = entries.iter().map(|(path, entry)| (&path[..], entry)).collect();
    sorted.sort_unstable_by_key(|(path, _)| *path);
    // Offsets are 32 bits wide; no context comes near that, and one that does is cached in part.
    let mut length = 0usize;
    let fitting = sorted
        .iter()
        .take_while(|(path, _)| {
            length += path.len() + RECORD;
            (length as u64) < MAX_BYTES - 1024
        })
        .count();
    sorted.truncate(fitting);
    let mut out = Vec::with_capacity(HEADER + length + SUM);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&FORMAT.to_le_bytes());
    out.extend_from_slice(&(sorted.len() as u32).to_le_bytes());
    let mut offset = 0u32;
    for (path, entry) in &sorted {
        out.extend_from_slice(&offset.to_le_bytes());
        out.extend_from_slice(&(path.len() as u32).to_le_bytes());
        let FileStamp { dev, inode, size, mtime, ctime } = entry.stamp;
        for number in [dev, inode, size, mtime.cast_unsigned(), ctime.cast_unsigned()] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&entry.age.to_le_bytes());
        out.extend_from_slice(&entry.hash);
        out.extend_from_slice(&[0; 4]);
        offset += path.len() as u32;
    }
    for (path, _) in &sorted {
        out.extend_from_slice(path);
    }
    let sum: [u8; SUM] = Sha256::digest(&out).into();
    out.extend_from_slice(&sum);
    out
}

fn decode(bytes: &[u8]) -> Option<HashMap<Box<[u8]>, Entry>> {
    let (body, sum) = bytes.split_at_checked(bytes.len().checked_sub(SUM)?)?;
    let rest = body.strip_prefix(MAGIC)?;
    let number32 = |bytes: &[u8], at: usize| bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes);
    let number64 = |bytes: &[u8], at: usize| bytes.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
    if number32(rest, 0)? != FORMAT || Sha256::digest(body)[..] != *sum {
        return None;
    }
    let count = number32(rest, 4)? as usize;
    let (records, paths) = body[HEADER..].split_at_checked(count.checked_mul(RECORD)?)?;
    let mut entries = HashMap::with_capacity(count);
    for record in records.chunks_exact(RECORD) {
        let (offset, length) = (number32(record, 0)? as usize, number32(record, 4)? as usize);
        let path = paths.get(offset..offset.checked_add(length)?)?;
        let stamp = FileStamp {
            dev: number64(record, 8)?,
            inode: number64(record, 16)?,
            size: number64(record, 24)?,
            mtime: number64(record, 32)?.cast_signed(),
            ctime: number64(record, 40)?.cast_signed(),
        };
        let hash = record.get(52..84)?.try_into().ok()?;
        let entry = Entry { stamp, hash, age: number32(record, 48)?, used: AtomicBool::new(false) };
        entries.insert(path.into(), entry);
    }
    Some(entries)
}
