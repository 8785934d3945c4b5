//! The build context: a folder of this host, seen through its ignore file.

use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use super::copy::{CopyError, Special, Writer, sniff};
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

/// Whether what a file begins with is a tar, plain or compressed, as [`unpack_context`] takes it. The file is at its
/// start afterwards.
///
/// # Errors
/// It cannot be read.
pub fn is_archive(file: &mut File) -> io::Result<bool> {
    Ok(sniff(file)?.is_some())
}

/// Unpacks a context that was given as a tar, plain or compressed with gzip, zstd, bzip2 or xz, into a folder. Gives
/// false, and does nothing, for a file that is no tar. Devices and named pipes in it are left out: no COPY may name
/// them, and what opens one may wait for ever.
///
/// # Errors
/// The archive is damaged, leads out of the folder, or cannot be written; or it was cancelled.
pub fn unpack_context(archive: &mut File, folder: &Path, cancel: &CancelFlag) -> Result<bool, CopyError> {
    unpack(archive, folder, "the context", cancel)
}

/// As [`unpack_context`], for a tar that messages call `shown`.
///
/// # Errors
/// As there.
pub fn unpack(
    archive: &mut File,
    folder: &Path,
    shown: &str,
    cancel: &CancelFlag,
) -> Result<bool, CopyError> {
    let fail = |source: io::Error| CopyError::Io { path: folder.to_owned(), source };
    let Some(compression) = sniff(archive).map_err(fail)? else { return Ok(false) };
    let root = Root::open(folder).map_err(fail)?;
    let writer = Writer { root: &root, owner: Some(Owner::default()), mode: None, cancel };
    writer.extract(archive.try_clone().map_err(fail)?, compression, shown, "/", Special::Skip)?;
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
    /// `.dockerignore` in the folder. With `within`, neither may lead out of that folder.
    pub(crate) fn open(
        folder: &Path,
        dockerfile: Option<&Path>,
        within: Option<&Path>,
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
        let ignore = match beside.map(|path| read_ignore(&path, within)).transpose()?.flatten() {
            Some(ignore) => ignore,
            None => read_ignore(&folder.join(".dockerignore"), within)?.unwrap_or_default(),
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

fn read_ignore(path: &Path, within: Option<&Path>) -> Result<Option<Ignore>, ContextError> {
    let fail = |source| ContextError::Read { path: path.to_owned(), source };
    let Some(bytes) = read_text(path, within, ignore::MAX_TEXT as u64).map_err(fail)? else {
        return Ok(None);
    };
    Ignore::parse(&String::from_utf8_lossy(&bytes))
        .map(Some)
        .map_err(|source| ContextError::Ignore { path: path.to_owned(), source })
}

/// Reads a regular file of at most `max` bytes; `None` when it is missing. With `within`, links in that folder do not
/// lead out of it.
pub(super) fn read_text(path: &Path, within: Option<&Path>, max: u64) -> io::Result<Option<Vec<u8>>> {
    use std::io::Read;
    if let Some(folder) = within {
        // The folder acts as `/`, so that a path outside is looked for inside.
        return Root::open(folder)?.read(path.strip_prefix(folder).unwrap_or(path), max);
    }
    // Opening a named pipe would wait for a writer.
    let flags = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let file = match File::options().read(true).custom_flags(flags).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {max} bytes")));
    }
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn nothing_outside_an_archive_is_read() {
        let outer = tempfile::tempdir().unwrap();
        let folder = outer.path().join("context");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(outer.path().join("shadow"), "root").unwrap();
        std::fs::write(folder.join("real"), "FROM scratch").unwrap();
        symlink(outer.path().join("shadow"), folder.join("absolute")).unwrap();
        symlink("../shadow", folder.join("relative")).unwrap();
        symlink("/real", folder.join("inside")).unwrap();
        let pipe = folder.join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
            .unwrap();
        for name in ["absolute", "relative", "../shadow", "pipe", "none"] {
            let read = read_text(&folder.join(name), Some(&folder), 100).unwrap();
            assert!(read.is_none(), "{name}");
        }
        assert_eq!(read_text(&folder.join("inside"), Some(&folder), 100).unwrap().unwrap(), b"FROM scratch");
        assert!(read_text(&folder.join("real"), Some(&folder), 3).is_err());
        assert_eq!(read_text(&folder.join("relative"), None, 100).unwrap().unwrap(), b"root");
        assert!(read_text(&pipe, None, 100).is_err());
        assert!(read_text(&folder.join("real"), None, 3).is_err());
        assert!(read_text(&folder.join("none"), None, 3).unwrap().is_none());
    }

    #[test]
    fn devices_of_an_archive_are_left_out() {
        let outer = tempfile::tempdir().unwrap();
        let mut archive = tar::Builder::new(tempfile::tempfile().unwrap());
        for (name, kind) in [
            ("pipe", tar::EntryType::Fifo),
            ("null", tar::EntryType::Char),
            ("file", tar::EntryType::Regular),
        ] {
            let mut header = tar::Header::new_ustar();
            header.set_entry_type(kind);
            header.set_device_major(1).unwrap();
            header.set_device_minor(3).unwrap();
            header.set_mode(0o644);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            header.set_size(0);
            archive.append_data(&mut header, name, io::empty()).unwrap();
        }
        let mut archive = archive.into_inner().unwrap();
        io::Seek::rewind(&mut archive).unwrap();
        assert!(unpack_context(&mut archive, outer.path(), &CancelFlag::new()).unwrap());
        let names: Vec<_> =
            std::fs::read_dir(outer.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["file"]);
    }
}
