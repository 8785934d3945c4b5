//! Listing a folder that somebody else may be changing: no path is ever resolved outside of it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Dir, FileType, Mode, OFlags, ResolveFlags, fstat, open, openat2};
use rustix::io::Errno;

const MAX_DEPTH: usize = 32;

/// Why a folder cannot be listed.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// The system refused.
    #[error("cannot read `{}`", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A symbolic link leads out of the folder, to an absolute path, or round in circles.
    #[error("`{}` is a symbolic link that leads out of the folder or nowhere", path.display())]
    EscapingLink {
        /// The link.
        path: PathBuf,
    },
    /// A device, socket or pipe.
    #[error("`{}` is a {kind}, not a file", path.display())]
    NotAFile {
        /// Where.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// A name that is not UTF-8.
    #[error("the name of `{}` is not UTF-8", path.display())]
    Name {
        /// Where.
        path: PathBuf,
    },
    /// More files than are accepted.
    #[error("`{}` holds more than {limit} files", path.display())]
    TooManyFiles {
        /// The folder.
        path: PathBuf,
        /// The limit.
        limit: usize,
    },
    /// Folders in folders without end: also what a link to a folder above it makes.
    #[error("`{}` is more than {MAX_DEPTH} folders deep", path.display())]
    TooDeep {
        /// Where.
        path: PathBuf,
    },
}

/// What symbolic links stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Links {
    /// What they point to; out of the folder is an error.
    Follow,
    /// Themselves.
    Keep,
}

/// A listed file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TreeFile {
    /// Path below the folder, parts separated by `/`.
    pub path: String,
    pub kind: FileKind,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum FileKind {
    Regular { size: u64, executable: bool },
    Link { target: Vec<u8> },
}

/// An open folder.
pub(super) struct Tree {
    root: PathBuf,
    fd: OwnedFd,
    links: Links,
}

impl Tree {
    /// Opens a folder, which must be one itself: whoever can write its parent could put a link to anywhere in its place.
    pub fn open(root: &Path, links: Links) -> Result<Self, TreeError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = open(root, flags, Mode::empty())
            .map_err(|e| TreeError::Io { path: root.to_owned(), source: e.into() })?;
        Ok(Self { root: root.to_owned(), fd, links })
    }

    /// Every file, sorted by the bytes of its path.
    pub fn files(&self, limit: usize) -> Result<Vec<TreeFile>, TreeError> {
        let mut files = Vec::new();
        self.list("", 0, limit, &mut files)?;
        files.sort();
        Ok(files)
    }

    fn list(
        &self,
        folder: &str,
        depth: usize,
        limit: usize,
        files: &mut Vec<TreeFile>,
    ) -> Result<(), TreeError> {
        if depth >= MAX_DEPTH {
            return Err(TreeError::TooDeep { path: self.root.join(folder) });
        }
        let at = if folder.is_empty() { "." } else { folder };
        let fd = self.resolve(at, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let entries = Dir::new(fd).map_err(|e| self.io(folder, e))?;
        for entry in entries {
            let entry = entry.map_err(|e| self.io(folder, e))?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let Ok(name) = std::str::from_utf8(name) else {
                let name = String::from_utf8_lossy(name).into_owned();
                return Err(TreeError::Name { path: self.root.join(folder).join(name) });
            };
            let path = if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
            let found = self.resolve(&path, OFlags::PATH)?;
            let stat = fstat(&found).map_err(|e| self.io(&path, e))?;
            let kind = match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => {
                    self.list(&path, depth + 1, limit, files)?;
                    continue;
                }
                FileType::RegularFile => FileKind::Regular {
                    size: u64::try_from(stat.st_size).unwrap_or(0),
                    executable: stat.st_mode & 0o111 != 0,
                },
                FileType::Symlink => FileKind::Link {
                    target: rustix::fs::readlinkat(&found, "", Vec::new())
                        .map_err(|e| self.io(&path, e))?
                        .into_bytes(),
                },
                other => {
                    return Err(TreeError::NotAFile { path: self.root.join(&path), kind: name_of(other) });
                }
            };
            if files.len() >= limit {
                return Err(TreeError::TooManyFiles { path: self.root.clone(), limit });
            }
            files.push(TreeFile { path, kind });
        }
        Ok(())
    }

    /// Opens a listed file for reading. It may have been replaced since: what is no file now is refused.
    pub fn read(&self, path: &str) -> Result<File, TreeError> {
        // Not blocking: a pipe in a file's place must not hold the caller.
        let fd = self.resolve(path, OFlags::RDONLY | OFlags::NONBLOCK)?;
        let stat = fstat(&fd).map_err(|e| self.io(path, e))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Ok(File::from(fd)),
            other => Err(TreeError::NotAFile { path: self.root.join(path), kind: name_of(other) }),
        }
    }

    fn resolve(&self, path: &str, flags: OFlags) -> Result<OwnedFd, TreeError> {
        let (own, resolve) = match self.links {
            Links::Follow => (OFlags::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS),
            Links::Keep => (OFlags::NOFOLLOW, ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS),
        };
        // With O_PATH and O_NOFOLLOW a link in the last place is opened itself, which NO_SYMLINKS would refuse.
        let resolve = if self.links == Links::Keep && flags.contains(OFlags::PATH) {
            ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS
        } else {
            resolve
        };
        let mut tries = 0;
        loop {
            match openat2(self.fd.as_fd(), path, flags | own | OFlags::CLOEXEC, Mode::empty(), resolve) {
                Ok(fd) => return Ok(fd),
                // A rename elsewhere on the system at the same moment: the kernel asks to try again.
                Err(Errno::AGAIN) if tries < 100 => tries += 1,
                Err(Errno::XDEV | Errno::LOOP | Errno::NOENT) if self.is_link(path) => {
                    return Err(TreeError::EscapingLink { path: self.root.join(path) });
                }
                Err(e) => return Err(self.io(path, e)),
            }
        }
    }

    /// Whether a part of the path is a link. Only for the message.
    fn is_link(&self, path: &str) -> bool {
        let mut at = self.root.clone();
        path.split('/').any(|part| {
            at.push(part);
            at.is_symlink()
        })
    }

    fn io(&self, path: &str, error: Errno) -> TreeError {
        TreeError::Io { path: self.root.join(path), source: error.into() }
    }
}

fn name_of(kind: FileType) -> &'static str {
    match kind {
        FileType::BlockDevice | FileType::CharacterDevice => "device",
        FileType::Fifo => "pipe",
        FileType::Socket => "socket",
        FileType::Directory => "folder",
        FileType::Symlink => "symbolic link",
        FileType::RegularFile | FileType::Unknown => "thing of an unknown kind",
    }
}
