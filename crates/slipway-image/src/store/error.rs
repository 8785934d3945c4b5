//! What can go wrong in the store.

use std::io;
use std::path::{Path, PathBuf};

use slipway_types::{Digest, Reference};

use super::archive::ArchiveError;

/// Shorthand of this module.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// Why an operation of the store failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A file or directory could not be read or written.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// Another process has the store open.
    #[error("the store at `{}` is in use by {}", root.display(), holder.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}")))]
    Locked {
        /// The store's root.
        root: PathBuf,
        /// The process that wrote its id into the lock file, if that can be read.
        holder: Option<u32>,
    },
    /// The index database failed.
    #[error("the index of the store could not {action}")]
    Index {
        /// What was tried.
        action: &'static str,
        /// SQLite's answer.
        #[source]
        source: rusqlite::Error,
    },
    /// The store was written by a newer Slipway.
    #[error("the store has format {found}, this program knows formats up to {supported}")]
    NewerSchema {
        /// Format on disk.
        found: i64,
        /// Newest known format.
        supported: i64,
    },
    /// A value in the index makes no sense.
    #[error("the index of the store is damaged: {what}")]
    DamagedIndex {
        /// Which value.
        what: String,
    },
    /// Content is not what its digest promised. Nothing of it was kept.
    #[error("the content has digest {actual}, expected {expected}")]
    DigestMismatch {
        /// What was promised.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
    /// No such blob.
    #[error("blob {digest} is not in the store")]
    BlobNotFound {
        /// Which.
        digest: Digest,
    },
    /// A blob is longer than the caller wants to hold in memory.
    #[error("blob {digest} has {size} bytes, more than the {limit} allowed here")]
    BlobTooLarge {
        /// Which.
        digest: Digest,
        /// Its length.
        size: u64,
        /// The caller's limit.
        limit: u64,
    },
    /// No such layer.
    #[error("layer {diff_id} is not in the store")]
    LayerNotFound {
        /// Which.
        diff_id: Digest,
    },
    /// The layer's files are no longer those that its diff id was computed from.
    #[error("the files of layer {diff_id} were changed since it was stored")]
    LayerChanged {
        /// Which.
        diff_id: Digest,
    },
    /// The layer was unpacked from a stream of which no copy was kept.
    #[error("the archive of layer {diff_id} was not kept, so it cannot be written again")]
    LayerWithoutSource {
        /// Which.
        diff_id: Digest,
    },
    /// A layer archive was refused or could not be unpacked.
    #[error("the layer could not be unpacked")]
    Archive(#[source] ArchiveError),
    /// A directory tree cannot be written as a layer.
    #[error("the directory tree cannot be written as a layer")]
    Tree(#[source] ArchiveError),
    /// The receiver of a layer's archive failed.
    #[error("cannot write out the archive of layer {diff_id}")]
    Output {
        /// Which.
        diff_id: Digest,
        /// The receiver's answer.
        #[source]
        source: io::Error,
    },
    /// No image has this name or id.
    #[error("no image `{text}`")]
    ImageNotFound {
        /// As asked for.
        text: String,
    },
    /// Several images have ids that begin like this.
    #[error("`{prefix}` begins the ids of {} images", matches.len())]
    AmbiguousId {
        /// As asked for.
        prefix: String,
        /// The ids that begin so (at most ten).
        matches: Vec<Digest>,
    },
    /// An image cannot go because something keeps it.
    #[error("image {} is in use by {}", id.short(), users.join(", "))]
    ImageInUse {
        /// Which.
        id: Digest,
        /// The pins, as `kind name`.
        users: Vec<String>,
    },
    /// An id names an image that has names in several repositories.
    #[error("image {} has names in several repositories: {}", id.short(), names.join(", "))]
    ManyNames {
        /// Which.
        id: Digest,
        /// Its names.
        names: Vec<String>,
    },
    /// A name for an image must be a repository and a tag.
    #[error("`{name}` cannot be given to an image: a name has a tag and no digest")]
    NotAName {
        /// As given.
        name: Reference,
    },
    /// A configuration is no OCI image configuration.
    #[error("the image configuration cannot be read")]
    InvalidConfig(#[source] serde_json::Error),
    /// A configuration lists other layers than those given with it.
    #[error("the image configuration lists {listed} layers that differ from the {given} given")]
    LayersDiffer {
        /// Number in `rootfs.diff_ids`.
        listed: usize,
        /// Number given.
        given: usize,
    },
    /// Neither an image, nor a layer, nor a blob has this digest, so nothing can be pinned.
    #[error("nothing in the store has digest {digest}")]
    NothingToPin {
        /// Which.
        digest: Digest,
    },
    /// What was to be remembered is over the limit of its kind.
    #[error("{what} has {size} bytes, more than the {limit} allowed")]
    TooLong {
        /// What it is.
        what: &'static str,
        /// Its length.
        size: u64,
        /// The limit.
        limit: u64,
    },
}

impl StoreError {
    /// Whether the disk (or a quota) is full. The store is intact then, and what was being written is gone.
    pub fn is_out_of_space(&self) -> bool {
        match self {
            Self::Io { source, .. } => is_full(source),
            Self::Archive(e) | Self::Tree(e) => e.is_out_of_space(),
            Self::Index { source, .. } => source.sqlite_error().is_some_and(|e| {
                // The shared-memory file of the WAL grows by writes; SQLite reports their failure as its own code.
                e.code == rusqlite::ErrorCode::DiskFull
                    || e.extended_code == rusqlite::ffi::SQLITE_IOERR_SHMSIZE
            }),
            _ => false,
        }
    }

    /// Whether the image, layer or blob asked for is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(
            self,
            Self::BlobNotFound { .. }
                | Self::LayerNotFound { .. }
                | Self::ImageNotFound { .. }
                | Self::NothingToPin { .. }
        )
    }

    /// Whether the request is at odds with the state of the store (in use, ambiguous, locked).
    pub fn is_conflict(&self) -> bool {
        matches!(
            self,
            Self::Locked { .. } | Self::AmbiguousId { .. } | Self::ImageInUse { .. } | Self::ManyNames { .. }
        )
    }

    pub(super) fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.as_ref().to_owned(), source }
    }

    pub(super) fn os(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(rustix::io::Errno) -> Self {
        move |source| Self::Io { action, path: path.as_ref().to_owned(), source: source.into() }
    }
}

/// Whether an IO error says that the disk or a quota is full.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Names what the index was doing when it failed.
pub(super) trait During<T> {
    fn during(self, action: &'static str) -> Result<T>;
}

impl<T> During<T> for rusqlite::Result<T> {
    fn during(self, action: &'static str) -> Result<T> {
        self.map_err(|source| match source {
            // A column that is no digest (see `index::Column`) is damage, not a failure of SQLite.
            rusqlite::Error::FromSqlConversionFailure(_, _, cause) => {
                StoreError::DamagedIndex { what: cause.to_string() }
            }
            source => StoreError::Index { action, source },
        })
    }
}
