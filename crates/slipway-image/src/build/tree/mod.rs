//! A folder or file as COPY sees it: its entries, in order, with what counts for the cache.

mod digest;
mod scan;

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Stat};

use super::root::Owner;
use crate::store::FileStamp;

pub(crate) use digest::{HashCache, content_digest, fill_hashes, fill_xattrs, kept_xattr};
pub(crate) use scan::{Excluding, Rules, Verdict, folder_alone, scan};

/// Most entries that one COPY may bring.
pub(crate) const MAX_ENTRIES: usize = 8_000_000;

/// Threads that walk and hash.
const THREADS: usize = 2;

/// One file, folder or link of a tree.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Path below the tree's top; empty for the top itself. Parents come before what is in them.
    pub(crate) path: PathBuf,
    pub(crate) kind: EntryKind,
    /// Permission bits, set-id bits and the sticky bit.
    pub(crate) mode: u32,
    pub(crate) owner: Owner,
    /// Seconds and nanoseconds.
    pub(crate) mtime: (i64, i64),
    /// Device and inode, when other names may have the same content.
    pub(crate) shared: Option<(u64, u64)>,
    pub(crate) stamp: FileStamp,
    pub(crate) xattrs: Vec<(OsString, Vec<u8>)>,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum EntryKind {
    Directory,
    /// A regular file and, once it is known, the SHA-256 of its content.
    File(Option<[u8; 32]>),
    Symlink(OsString),
    Device {
        character: bool,
        number: u64,
    },
    Fifo,
}

/// A source of COPY, resolved.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    /// Name that it gets in a folder.
    pub(crate) name: OsString,
    /// Where it is below the source's root, without links.
    pub(crate) at: PathBuf,
    /// The top first.
    pub(crate) entries: Vec<Entry>,
}

impl Tree {
    /// Whether the top is a folder, whose contents are what is copied.
    pub(crate) fn is_dir(&self) -> bool {
        self.entries.first().is_some_and(|top| top.kind == EntryKind::Directory)
    }
}

/// Why a tree cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// A socket, a device or the like.
    #[error("`{path}` is {what}, which cannot be copied into an image")]
    Special {
        /// Path below the source's root.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// A file was written to meanwhile.
    #[error("`{0}` changed while it was being read")]
    Changed(PathBuf),
    /// Too many entries.
    #[error("there are more than {MAX_ENTRIES} files to copy")]
    TooMany,
    /// The build was cancelled.
    #[error("the build was cancelled")]
    Cancelled,
    /// Something could not be read.
    #[error("cannot read `{path}`")]
    Io {
        /// Path below the source's root.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl TreeError {
    pub(crate) fn io(path: &Path, source: impl Into<io::Error>) -> Self {
        Self::Io { path: path.to_owned(), source: source.into() }
    }
}

/// The stamp by which a changed file is recognised.
pub(crate) fn stamp_of(stat: &Stat) -> FileStamp {
    let nanos = |seconds: i64, nanos: u64| seconds.wrapping_mul(1_000_000_000).wrapping_add(nanos as i64);
    FileStamp {
        dev: stat.st_dev,
        inode: stat.st_ino,
        size: stat.st_size as u64,
        mtime: nanos(stat.st_mtime, stat.st_mtime_nsec),
        ctime: nanos(stat.st_ctime, stat.st_ctime_nsec),
    }
}

/// Words for what a file is, as messages have them.
fn describe(kind: FileType) -> &'static str {
    match kind {
        FileType::Socket => "a socket",
        FileType::Fifo => "a named pipe",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        _ => "of an unknown kind",
    }
}
