//! Writing into a stage's file system, with Docker's rules for where things go.
//!
//! Facts about those rules: the Dockerfile reference (COPY, ADD) and the behaviour of BuildKit's copier:
//! a folder brings its contents; a file goes into the destination when that is a folder or is written with a
//! trailing slash; a link at the destination is followed, one below it is replaced; folders that exist keep their
//! own mode at the top and take the source's below.

mod archive;
mod data;
mod glob;
mod mode;
mod owner;
mod parents;
mod select;

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Timespec, Timestamps};
use rustix::io::Errno;

use super::context::Everything;
use super::root::{Found, Owner, Root, make_dir, set_owner};
use super::runner::CancelFlag;
use super::tree::{Entry, EntryKind, Tree, TreeError, fill_xattrs, scan, stamp_of};

pub use archive::ArchiveError;
pub(crate) use archive::{Special, sniff};
pub use mode::ModeError;
pub(crate) use mode::{ModeChange, parse_mode};
pub use owner::OwnerError;
pub(crate) use owner::{UserNames, resolve_owner};
pub(crate) use parents::select_with_parents;
pub use select::SelectError;
pub(crate) use select::{Selected, select};

/// Copies a folder out of a root file system, with owners, modes, times and attributes: `to` becomes the copy. Gives
/// false, and does nothing, when there is no such folder. Links in `path` lead nowhere outside of the root.
///
/// # Errors
/// Something there cannot be read, or `to` cannot be written.
pub fn copy_folder_out(root: OwnedFd, path: &Path, to: &Path) -> Result<bool, CopyError> {
    let root = Root::new(root);
    let cancel = CancelFlag::new();
    let found = root.find(path).map_err(|source| TreeError::io(path, source))?;
    let Some(found) = found.filter(Found::is_dir) else { return Ok(false) };
    let entries = scan(&root, &found.path, &Everything, &cancel)?;
    let mut tree = Tree { name: OsString::new(), at: found.path, entries };
    fill_xattrs(&root, &mut tree, &cancel)?;
    let (parent, name) = (to.parent().unwrap_or(to), to.file_name().unwrap_or_default());
    let outside = Root::open(parent).map_err(|source| CopyError::Io { path: parent.to_owned(), source })?;
    let writer = Writer { root: &outside, owner: None, mode: None, cancel: &cancel };
    writer.place(&root, &tree, &format!("/{}", name.to_string_lossy()))?;
    Ok(true)
}

/// Why something cannot be written into the image.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The source cannot be read.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// A file where a folder is needed.
    #[error("`{0}` in the image is not a folder")]
    NotAFolder(PathBuf),
    /// A folder where a file is to go.
    #[error("`{0}` in the image is a folder, and a file cannot replace it")]
    IsAFolder(PathBuf),
    /// An archive cannot be extracted.
    #[error("cannot extract `{path}`")]
    Archive {
        /// The archive as written in the Dockerfile.
        path: String,
        /// Why.
        #[source]
        source: ArchiveError,
    },
    /// Writing failed.
    #[error("cannot write `{path}` in the image")]
    Io {
        /// Path inside.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl CopyError {
    pub(crate) fn io(path: &Path, source: impl Into<io::Error>) -> Self {
        Self::Io { path: Path::new("/").join(path), source: source.into() }
    }

    /// The system's error below it, if there is one.
    pub(crate) fn io_source(&self) -> Option<&io::Error> {
        match self {
            Self::Io { source, .. } | Self::Tree(TreeError::Io { source, .. }) => Some(source),
            Self::Archive { source, .. } => source.io_source(),
            _ => None,
        }
    }
}

/// Writes into a stage's file system.
pub(crate) struct Writer<'a> {
    pub(crate) root: &'a Root,
    /// Owner of everything that is written; as the source has it when absent.
    pub(crate) owner: Option<Owner>,
    /// Mode of the files and folders that are copied; as the source has it when absent.
    pub(crate) mode: Option<&'a ModeChange>,
    pub(crate) cancel: &'a CancelFlag,
}

/// Where the top of a source goes.
struct Place {
    /// Folder that holds it.
    dir: OwnedFd,
    /// Path of that folder inside.
    path: PathBuf,
    /// Its name there.
    name: OsString,
}

impl Writer<'_> {
    /// Owner of folders that are made on the way.
    fn folder_owner(&self) -> Owner {
        self.owner.unwrap_or_default()
    }

    /// Mode of something that is copied and has this one.
    fn mode_of(&self, mode: u32, is_dir: bool) -> u32 {
        self.mode.map_or(mode, |change| change.apply(mode, is_dir))
    }

    fn ensure_dir(&self, path: &Path) -> Result<Found, CopyError> {
        self.root.ensure_dir(path, self.folder_owner()).map_err(|source| dir_error(path, source))
    }

    /// Makes a folder (mode 0755) and what is missing above it. Existing ones stay as they are.
    pub(crate) fn make_folder(&self, path: &str) -> Result<(), CopyError> {
        self.ensure_dir(Path::new(path)).map(drop)
    }

    /// Copies one source to `destination`, an absolute path whose trailing slash matters. `from` is where the
    /// tree was listed.
    pub(crate) fn place(&self, from: &Root, tree: &Tree, destination: &str) -> Result<(), CopyError> {
        let Some(top) = tree.entries.first() else { return Ok(()) };
        if !tree.is_dir() {
            let place = self.file_place(&tree.name, destination)?;
            let mut copier = TreeCopier::new(self, from, tree, place.dir, place.path);
            return copier.put(top, &place.name);
        }
        let top_dir = self.folder_place(top, destination)?;
        let mut copier = TreeCopier::new(self, from, tree, top_dir.fd, top_dir.path);
        for entry in &tree.entries[1..] {
            copier.entry(entry)?;
        }
        copier.finish()
    }

    /// Writes a file that was given inline; mode 0644 unless told otherwise.
    pub(crate) fn place_text(&self, name: &OsStr, text: &[u8], destination: &str) -> Result<(), CopyError> {
        let place = self.file_place(name, destination)?;
        let whole = place.path.join(&place.name);
        let fail = |source: io::Error| CopyError::io(&whole, source);
        let dir = place.dir.as_fd();
        let mut file = self.replace(dir, &place.name, &whole, || create_file(dir, &place.name))?;
        file.write_all(text).map_err(fail)?;
        set_owner(place.dir.as_fd(), &place.name, self.folder_owner()).map_err(fail)?;
        let mode = Mode::from_raw_mode(self.mode_of(0o644, false));
        rustix::fs::fchmod(&file, mode).map_err(|e| fail(e.into()))
    }

    /// Copies a file that was fetched; mode 0600 unless told otherwise.
    pub(crate) fn place_file(
        &self,
        name: &OsStr,
        from: &File,
        modified: Option<i64>,
        destination: &str,
    ) -> Result<(), CopyError> {
        let place = self.file_place(name, destination)?;
        let whole = place.path.join(&place.name);
        let fail = |source: io::Error| CopyError::io(&whole, source);
        let dir = place.dir.as_fd();
        let mut file = self.replace(dir, &place.name, &whole, || create_file(dir, &place.name))?;
        io::copy(&mut &*from, &mut file).map_err(fail)?;
        set_owner(dir, &place.name, self.folder_owner()).map_err(fail)?;
        let mode = Mode::from_raw_mode(self.mode_of(0o600, false));
        rustix::fs::fchmod(&file, mode).map_err(|e| fail(e.into()))?;
        if let Some(seconds) = modified {
            let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
            let times = Timestamps { last_access: time, last_modification: time };
            rustix::fs::futimens(&file, &times).map_err(|e| fail(e.into()))?;
        }
        Ok(())
    }

    /// Where a file named `name` goes, its folders made.
    fn file_place(&self, name: &OsStr, destination: &str) -> Result<Place, CopyError> {
        let into_folder = destination.ends_with('/') || destination.is_empty();
        let path = Path::new(destination);
        if !into_folder {
            let (dir, last) = self
                .root
                .target(path, self.folder_owner())
                .map_err(|source| dir_error(path.parent().unwrap_or(path), source))?;
            if let Some(last) = last {
                let is_dir = stat_kind(dir.fd.as_fd(), &last) == Some(FileType::Directory);
                if !is_dir {
                    return Ok(Place { dir: dir.fd, path: dir.path, name: last });
                }
            }
        }
        let dir = self.ensure_dir(path)?;
        Ok(Place { dir: dir.fd, path: dir.path, name: name.to_owned() })
    }

    /// The folder that a folder's contents go to, made like the source where it is missing.
    fn folder_place(&self, top: &Entry, destination: &str) -> Result<Found, CopyError> {
        let path = Path::new(destination);
        if !destination.ends_with('/') {
            let (dir, last) = self
                .root
                .target(path, self.folder_owner())
                .map_err(|source| dir_error(path.parent().unwrap_or(path), source))?;
            if let Some(last) = last
                && stat_kind(dir.fd.as_fd(), &last).is_none()
            {
                let owner = self.owner.unwrap_or(top.owner);
                let mode = self.mode_of(top.mode, true);
                make_dir(dir.fd.as_fd(), &last, owner, mode)
                    .map_err(|source| CopyError::io(&dir.path.join(&last), source))?;
            }
        }
        self.ensure_dir(path)
    }

    /// Makes something at `name`; what is there already is taken away, unless it is a folder. Looking first would
    /// cost a system call for every file.
    fn replace<T>(
        &self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        whole: &Path,
        mut make: impl FnMut() -> io::Result<T>,
    ) -> Result<T, CopyError> {
        match make() {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.clear(dir, name, whole)?;
                make().map_err(|source| CopyError::io(whole, source))
            }
            result => result.map_err(|source| CopyError::io(whole, source)),
        }
    }

    /// Takes away what is at `name`, so that a file can be made there.
    fn clear(&self, dir: BorrowedFd<'_>, name: &OsStr, whole: &Path) -> Result<(), CopyError> {
        match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(Errno::ISDIR) => Err(CopyError::IsAFolder(Path::new("/").join(whole))),
            Err(error) => Err(CopyError::io(whole, error)),
        }
    }
}

/// Copies the entries of one tree below a folder.
struct TreeCopier<'a> {
    writer: &'a Writer<'a>,
    from: &'a Root,
    tree: &'a Tree,
    /// Path inside of the folder that receives the tree.
    base: PathBuf,
    top: OwnedFd,
    /// Open folders below the top, the current one last; each with the entry whose times it gets when left.
    open: Vec<(&'a Entry, OwnedFd)>,
    /// First path of a file that has several names.
    linked: HashMap<(u64, u64), PathBuf>,
}

impl<'a> TreeCopier<'a> {
    fn new(writer: &'a Writer<'a>, from: &'a Root, tree: &'a Tree, top: OwnedFd, base: PathBuf) -> Self {
        Self { writer, from, tree, base, top, open: Vec::new(), linked: HashMap::new() }
    }

    fn current(&self) -> BorrowedFd<'_> {
        self.open.last().map_or(self.top.as_fd(), |(_, fd)| fd.as_fd())
    }

    fn entry(&mut self, entry: &'a Entry) -> Result<(), CopyError> {
        if self.writer.cancel.is_cancelled() {
            return Err(TreeError::Cancelled.into());
        }
        let parent = entry.path.parent().unwrap_or(Path::new(""));
        while self.open.last().is_some_and(|(folder, _)| folder.path != parent) {
            self.leave()?;
        }
        let name = entry.path.file_name().unwrap_or_default();
        if entry.kind != EntryKind::Directory {
            return self.put(entry, name);
        }
        let whole = self.base.join(&entry.path);
        let fail = |source: io::Error| CopyError::io(&whole, source);
        let owner = self.writer.owner.unwrap_or(entry.owner);
        let mode = self.writer.mode_of(entry.mode, true);
        match rustix::fs::mkdirat(self.current(), name, Mode::from_raw_mode(0o700)) {
            Ok(()) => {}
            Err(Errno::EXIST) if stat_kind(self.current(), name) == Some(FileType::Directory) => {}
            Err(Errno::EXIST) => return Err(CopyError::NotAFolder(Path::new("/").join(&whole))),
            Err(error) => return Err(fail(error.into())),
        }
        set_owner(self.current(), name, owner).map_err(fail)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd =
            rustix::fs::openat(self.current(), name, flags, Mode::empty()).map_err(|e| fail(e.into()))?;
        rustix::fs::fchmod(&fd, Mode::from_raw_mode(mode)).map_err(|e| fail(e.into()))?;
        self.xattrs(entry, fd.as_fd(), &whole)?;
        self.open.push((entry, fd));
        Ok(())
    }

    /// Leaves the current folder: its times are set last, since what is written into it changes them.
    fn leave(&mut self) -> Result<(), CopyError> {
        if let Some((entry, fd)) = self.open.pop() {
            rustix::fs::futimens(&fd, &times(entry))
                .map_err(|error| CopyError::io(&self.base.join(&entry.path), error))?;
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), CopyError> {
        while !self.open.is_empty() {
            self.leave()?;
        }
        Ok(())
    }

    /// Writes anything but a folder into the current folder.
    fn put(&mut self, entry: &Entry, name: &OsStr) -> Result<(), CopyError> {
        let whole = if entry.path.as_os_str().is_empty() {
            self.base.join(name)
        } else {
            self.base.join(&entry.path)
        };
        let fail = |source: io::Error| CopyError::io(&whole, source);
        let writer = self.writer;
        if let Some(first) = entry.shared.and_then(|id| self.linked.get(&id)) {
            // Every folder on the way was made or checked above, so no link is followed here.
            let link = || rustix::fs::linkat(&self.top, first, self.current(), name, AtFlags::empty());
            return writer.replace(self.current(), name, &whole, || Ok(link()?));
        }
        let owner = self.writer.owner.unwrap_or(entry.owner);
        let mode = Mode::from_raw_mode(self.writer.mode_of(entry.mode, false));
        match &entry.kind {
            EntryKind::Directory => return Ok(()),
            EntryKind::File(_) => {
                let file =
                    writer.replace(self.current(), name, &whole, || create_file(self.current(), name))?;
                self.contents(entry, &file, &whole)?;
                set_owner(self.current(), name, owner).map_err(fail)?;
                // After the owner, whose change takes the set-id bits away.
                rustix::fs::fchmod(&file, mode).map_err(|e| fail(e.into()))?;
                self.xattrs(entry, file.as_fd(), &whole)?;
                rustix::fs::futimens(&file, &times(entry)).map_err(|e| fail(e.into()))?;
            }
            other => {
                writer.replace(self.current(), name, &whole, || {
                    Ok(match other {
                        EntryKind::Symlink(target) => rustix::fs::symlinkat(target, self.current(), name),
                        EntryKind::Device { character, number } => {
                            let kind =
                                if *character { FileType::CharacterDevice } else { FileType::BlockDevice };
                            rustix::fs::mknodat(self.current(), name, kind, mode, *number)
                        }
                        _ => rustix::fs::mknodat(self.current(), name, FileType::Fifo, mode, 0),
                    }?)
                })?;
                set_owner(self.current(), name, owner).map_err(fail)?;
                if !matches!(other, EntryKind::Symlink(_)) {
                    rustix::fs::chmodat(self.current(), name, mode, AtFlags::empty())
                        .map_err(|e| fail(e.into()))?;
                }
                let flags = AtFlags::SYMLINK_NOFOLLOW;
                rustix::fs::utimensat(self.current(), name, &times(entry), flags)
                    .map_err(|e| fail(e.into()))?;
            }
        }
        if let Some(id) = entry.shared {
            let path = if entry.path.as_os_str().is_empty() { name.into() } else { entry.path.clone() };
            self.linked.entry(id).or_insert(path);
        }
        Ok(())
    }

    /// Copies a file's data and makes sure that it is what was hashed.
    fn contents(&self, entry: &Entry, to: &File, whole: &Path) -> Result<(), CopyError> {
        let at = if entry.path.as_os_str().is_empty() {
            self.tree.at.clone()
        } else {
            self.tree.at.join(&entry.path)
        };
        let from = File::from(self.from.open_file(&at).map_err(|source| TreeError::io(&at, source))?);
        let stat = || rustix::fs::fstat(&from).map_err(|source| TreeError::io(&at, source));
        let before = stat()?;
        if stamp_of(&before) != entry.stamp {
            return Err(TreeError::Changed(at).into());
        }
        data::copy(&from, to, &before).map_err(|error| match error {
            data::DataError::Read(source) => TreeError::io(&at, source).into(),
            data::DataError::Write(source) => CopyError::io(whole, source),
        })?;
        if stamp_of(&stat()?) != entry.stamp {
            return Err(TreeError::Changed(at).into());
        }
        Ok(())
    }

    fn xattrs(&self, entry: &Entry, fd: BorrowedFd<'_>, whole: &Path) -> Result<(), CopyError> {
        for (name, value) in &entry.xattrs {
            match rustix::fs::fsetxattr(fd, name, value, rustix::fs::XattrFlags::empty()) {
                // A file system without attributes of users loses nothing that a program needs.
                Ok(()) | Err(Errno::NOTSUP) => {}
                Err(error) => return Err(CopyError::io(whole, error)),
            }
        }
        Ok(())
    }
}

/// Makes a new file for writing, not yet readable by others.
fn create_file(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(0o600))?))
}

/// What is at `name` itself; `None` when nothing is or it cannot be known.
fn stat_kind(dir: BorrowedFd<'_>, name: &OsStr) -> Option<FileType> {
    let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
    Some(FileType::from_raw_mode(stat.st_mode))
}

fn times(entry: &Entry) -> Timestamps {
    let time = Timespec { tv_sec: entry.mtime.0, tv_nsec: entry.mtime.1 as _ };
    Timestamps { last_access: time, last_modification: time }
}

fn dir_error(path: &Path, source: io::Error) -> CopyError {
    match super::root::errno(&source) {
        Some(Errno::NOTDIR | Errno::EXIST) => CopyError::NotAFolder(Path::new("/").join(path)),
        _ => CopyError::io(path, source),
    }
}
