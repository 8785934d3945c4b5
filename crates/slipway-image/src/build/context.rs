//! The build context: a folder of this host, seen through its ignore file.

use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use super::copy::{CopyError, Writer, sniff};
use super::ignore::{self, Ignore, IgnoreError};
use super::root::{Owner, Root};
use super::runner::CancelFlag;
use super::tree::{HashCache, Rules, Verdict};
use crate::store::{Store, StoreError};

/// Why a context cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    /// The path is not absolute.
    #[error("the context `{0}` is not an absolute path")]
    Relative(PathBuf),
    /// The folder cannot be opened.
    #[error("cannot open the context folder `{path}`")]
    Open {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The ignore file cannot be read.
    #[error("cannot read `{path}`")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The ignore file is malformed.
    #[error("`{path}` is not a valid ignore file")]
    Ignore {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: IgnoreError,
    },
    /// The hashes of files that were read before cannot be had.
    #[error("cannot read the file hashes of the context")]
    Hashes(#[source] StoreError),
}

/// Unpacks a context that was given as a tar, plain or compressed with gzip, zstd, bzip2 or xz, into a folder. Gives
/// false, and does nothing, for a file that is no tar.
///
/// # Errors
/// The archive is damaged, leads out of the folder, or cannot be written.
pub fn unpack_context(archive: &mut File, folder: &Path) -> Result<bool, CopyError> {
    let fail = |source: io::Error| CopyError::Io { path: folder.to_owned(), source };
    let Some(compression) = sniff(archive).map_err(fail)? else { return Ok(false) };
    let root = Root::open(folder).map_err(fail)?;
    let cancel = CancelFlag::new();
    let writer = Writer { root: &root, owner: Some(Owner::default()), mode: None, cancel: &cancel };
    writer.extract(archive.try_clone().map_err(fail)?, compression, "the context", "/")?;
    Ok(true)
}

/// An opened context.
pub(crate) struct Context {
    pub(crate) root: Root,
    pub(crate) ignore: Ignore,
    pub(crate) cache: HashCache,
}

impl Context {
    /// Opens a context folder. `<Dockerfile>.dockerignore` beside the Dockerfile is used where it exists, else
    /// `.dockerignore` in the folder.
    pub(crate) fn open(
        folder: &Path,
        dockerfile: Option<&Path>,
        store: &Store,
    ) -> Result<Self, ContextError> {
        if !folder.is_absolute() {
            return Err(ContextError::Relative(folder.to_owned()));
        }
        let root =
            Root::open(folder).map_err(|source| ContextError::Open { path: folder.to_owned(), source })?;
        let beside = dockerfile.map(|path| {
            let mut name = path.as_os_str().to_owned();
            name.push(".dockerignore");
            PathBuf::from(name)
        });
        let ignore = match beside.map(|path| read_ignore(&path)).transpose()?.flatten() {
            Some(ignore) => ignore,
            None => read_ignore(&folder.join(".dockerignore"))?.unwrap_or_default(),
        };
        let hashes = store.file_hashes(folder).map_err(ContextError::Hashes)?;
        let cache = HashCache { folder: folder.to_owned(), hashes: RwLock::new(hashes) };
        Ok(Self { root, ignore, cache })
    }

    /// Keeps the hashes for the next build. They only save time, so a failure is no failure of the build.
    pub(crate) fn save(&self) {
        let mut hashes = self.cache.hashes.write().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = hashes.save() {
            tracing::warn!(%error, context = %self.cache.folder.display(), "file hashes were not kept");
        }
    }
}

impl Rules for Context {
    fn verdict(&self, path: &Path, is_dir: bool) -> Verdict {
        if self.ignore.is_empty() {
            return Verdict::Keep;
        }
        let text = String::from_utf8_lossy(path.as_os_str().as_bytes());
        if !self.ignore.is_ignored(&text) {
            Verdict::Keep
        } else if is_dir && !self.ignore.may_skip_folder(&text) {
            Verdict::Descend
        } else {
            Verdict::Skip
        }
    }

    fn faithful(&self) -> bool {
        false
    }
}

/// The rules of images and stages: everything is copied as it is.
pub(crate) struct Everything;

impl Rules for Everything {
    fn verdict(&self, _path: &Path, _is_dir: bool) -> Verdict {
        Verdict::Keep
    }

    fn faithful(&self) -> bool {
        true
    }
}

fn read_ignore(path: &Path) -> Result<Option<Ignore>, ContextError> {
    use std::io::Read;
    let read = || -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(path)?.take(ignore::MAX_TEXT as u64 + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    match read() {
        Ok(bytes) => Ignore::parse(&String::from_utf8_lossy(&bytes))
            .map(Some)
            .map_err(|source| ContextError::Ignore { path: path.to_owned(), source }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ContextError::Read { path: path.to_owned(), source }),
    }
}
