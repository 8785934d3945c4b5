//! A directory in which an archive is unpacked. Nothing is ever looked up outside of it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat, XattrFlags};
use rustix::io::Errno;

use super::OPAQUE_XATTR;
use super::error::{ArchiveError, Refusal};

/// Permissions of directories that an archive needs but does not have.
const IMPLIED: Mode = Mode::from_raw_mode(0o755);

pub(super) struct Root {
    fd: OwnedFd,
    /// The directory that was asked for last: entries mostly follow each other in one directory.
    last: Option<(Vec<u8>, OwnedFd)>,
}

impl Root {
    pub(super) fn open(path: &Path) -> Result<Self, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(Self { fd: rustix::fs::openat(CWD, path, flags, Mode::empty())?, last: None })
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Opens a path below the root. Symbolic links in it are followed as they would be inside a container.
    pub(super) fn resolve(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let path = if path.is_empty() { &b"."[..] } else { path };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        // The kernel gives up with EAGAIN when anything on the machine is renamed while it resolves a `..`.
        for _ in 0..64 {
            match rustix::fs::openat2(&self.fd, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                result => return result,
            }
        }
        Err(Errno::AGAIN)
    }

    /// The directory in which an entry is made. Missing ones are made, too, and told to `made`.
    pub(super) fn directory(
        &mut self,
        path: &[u8],
        entry: &[u8],
        mut made: impl FnMut(&[u8]),
    ) -> Result<BorrowedFd<'_>, ArchiveError> {
        let known = matches!(&self.last, Some((last, _)) if last == path);
        if !known {
            let flags = OFlags::PATH | OFlags::DIRECTORY;
            let fd = match self.resolve(path, flags) {
                Err(Errno::NOENT | Errno::NOTDIR) => self.make_directories(path, entry, &mut made)?,
                Err(Errno::LOOP) => return Err(ArchiveError::refused(entry, Refusal::ParentNotDirectory)),
                result => result.map_err(ArchiveError::write("open the directory of", entry))?,
            };
            self.last = Some((path.to_vec(), fd));
        }
        match &self.last {
            Some((_, fd)) => Ok(fd.as_fd()),
            None => Ok(self.fd.as_fd()),
        }
    }

    /// Forgets the last directory. Needed after anything was removed: the path may lead elsewhere now.
    pub(super) fn forget(&mut self) {
        self.last = None;
    }

    fn make_directories(
        &self,
        path: &[u8],
        entry: &[u8],
        made: &mut impl FnMut(&[u8]),
    ) -> Result<OwnedFd, ArchiveError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let write = || ArchiveError::write("make the directory of", entry);
        let mut parent = self.resolve(b"", flags).map_err(write())?;
        let mut end = 0;
        while end < path.len() {
            let start = if end == 0 { 0 } else { end + 1 };
            end = path[start..].iter().position(|b| *b == b'/').map_or(path.len(), |slash| start + slash);
            let (prefix, name) = (&path[..end], &path[start..end]);
            parent = match self.resolve(prefix, flags) {
                Ok(fd) => fd,
                Err(Errno::NOENT | Errno::NOTDIR) => {
                    let hides = match stat(&parent, name).map_err(write())? {
                        None => false,
                        Some(found) if is_whiteout(&found) => {
                            rustix::fs::unlinkat(&parent, name, AtFlags::empty()).map_err(write())?;
                            true
                        }
                        // A file, or a symbolic link that leads nowhere within the layer.
                        Some(_) => return Err(ArchiveError::refused(entry, Refusal::ParentNotDirectory)),
                    };
                    rustix::fs::mkdirat(&parent, name, IMPLIED).map_err(write())?;
                    let fd = rustix::fs::openat(
                        &parent,
                        name,
                        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                        Mode::empty(),
                    )
                    .map_err(write())?;
                    // The umask of the process took part in mkdir.
                    rustix::fs::fchmod(&fd, IMPLIED).map_err(write())?;
                    if hides {
                        set_opaque(&fd).map_err(write())?;
                    }
                    made(prefix);
                    fd
                }
                Err(Errno::LOOP) => return Err(ArchiveError::refused(entry, Refusal::ParentNotDirectory)),
                Err(e) => return Err(write()(e)),
            };
        }
        Ok(parent)
    }
}

/// What a name in a directory is, itself and not what it may link to.
pub(super) fn stat(directory: impl AsFd, name: &[u8]) -> Result<Option<Stat>, Errno> {
    match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(e),
    }
}

pub(in crate::store) fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

pub(in crate::store) fn is_whiteout(stat: &Stat) -> bool {
    file_type(stat) == FileType::CharacterDevice && stat.st_rdev == 0
}

pub(super) fn set_opaque(directory: impl AsFd) -> Result<(), Errno> {
    rustix::fs::fsetxattr(directory, OPAQUE_XATTR, b"y", XattrFlags::empty())
}
