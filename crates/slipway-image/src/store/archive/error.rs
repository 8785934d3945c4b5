//! Why an archive is refused.

use std::io;

use super::super::error::is_full;

/// A layer archive, or a tree that should become one, that is not accepted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// The stream itself could not be read (its source, or its compression).
    #[error("cannot read the archive")]
    Read(#[source] io::Error),
    /// The stream ends within an entry.
    #[error("the archive ends within an entry")]
    Truncated,
    /// A header is no tar header.
    #[error("the archive has a bad header at byte {offset}: {reason}")]
    BadHeader {
        /// Where in the uncompressed stream.
        offset: u64,
        /// What is wrong.
        reason: &'static str,
    },
    /// An entry is not accepted.
    #[error("the entry `{entry}` is refused: {reason}")]
    Refused {
        /// Its path as in the archive, invalid bytes replaced.
        entry: String,
        /// Why.
        reason: Refusal,
    },
    /// An entry could not be written below the layer's root.
    #[error("cannot {action} `{entry}`")]
    Write {
        /// What was tried.
        action: &'static str,
        /// Path of the entry.
        entry: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// More entries than allowed.
    #[error("the archive has more than {limit} entries")]
    TooManyEntries {
        /// The limit.
        limit: u64,
    },
    /// More bytes than allowed.
    #[error("the archive is longer than {limit} bytes")]
    TooLong {
        /// The limit.
        limit: u64,
    },
    /// The compression is one that is not read.
    #[error("the archive is compressed with {format}, which is not supported; use gzip, zstd or none")]
    UnsupportedCompression {
        /// Its name.
        format: &'static str,
    },
    /// A file changed while it was being read.
    #[error("`{entry}` changed while it was read")]
    Changed {
        /// Path below the root.
        entry: String,
    },
}

/// Why one entry is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// It has no name.
    #[error("it has no name")]
    NoName,
    /// Its path begins with `/`.
    #[error("its path is absolute")]
    Absolute,
    /// Its path has a `..`.
    #[error("its path leads out through `..`")]
    ParentDir,
    /// Its path has a NUL byte.
    #[error("its path has a NUL byte")]
    Nul,
    /// Its path, a part of it, or its depth is over the limit.
    #[error("its path is too long or too deep")]
    PathTooLong,
    /// It would be written below something that is no directory.
    #[error("its parent is not a directory within the layer")]
    ParentNotDirectory,
    /// A whiteout of nothing, `.` or `..`, or one that is no file.
    #[error("it is not a valid whiteout")]
    BadWhiteout,
    /// A name that a layer reserves for whiteouts.
    #[error("names that begin with `.wh.` mean deletions in a layer")]
    ReservedName,
    /// A hard link whose target is not a file that this layer has.
    #[error("its target is not a file of this layer")]
    BadLinkTarget,
    /// A sparse file.
    #[error("sparse archive entries are not supported")]
    Sparse,
    /// A type that layers do not have.
    #[error("its type is not supported")]
    UnknownType,
    /// A type without data that claims to have some.
    #[error("its type has no content but it claims some")]
    UnexpectedData,
    /// A number or an attribute is out of range.
    #[error("one of its attributes is out of range")]
    BadAttribute,
    /// An overlay upper directory that refers to its lower layers by attributes.
    #[error("it refers to a lower layer (overlay `redirect` or `metacopy`)")]
    OverlayReference,
}

impl ArchiveError {
    /// Whether the disk (or a quota) is full. Reading says so too where what is read is copied to the same disk.
    pub fn is_out_of_space(&self) -> bool {
        matches!(self, Self::Read(source) | Self::Write { source, .. } if is_full(source))
    }

    pub(super) fn refused(entry: &[u8], reason: Refusal) -> Self {
        Self::Refused { entry: lossy(entry), reason }
    }

    pub(super) fn write(action: &'static str, entry: &[u8]) -> impl FnOnce(rustix::io::Errno) -> Self {
        let entry = lossy(entry);
        move |source| Self::Write { action, entry, source: source.into() }
    }
}

/// A path for people, cut to a length that a message can hold.
pub(super) fn lossy(path: &[u8]) -> String {
    String::from_utf8_lossy(&path[..path.len().min(1024)]).into_owned()
}
