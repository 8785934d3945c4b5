//! Unpacking a layer's archive into a directory, in the form that overlayfs takes as a lower layer.

use std::collections::HashMap;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use slipway_types::Digest;

use super::entry_path::EntryPath;
use super::error::{ArchiveError, Refusal};
use super::members::{Member, MemberKind, Members};
use super::pax::Time;
use super::root::{Root, file_type, is_whiteout, set_opaque, stat};
use super::{AUFS, OPAQUE, WHITEOUT};
use crate::store::trash;

/// What an archive may cost. The default takes any image there is and ends what is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnpackLimits {
    /// Headers in the archive, those of extended attributes and long names included.
    pub max_entries: u64,
    /// Bytes of the uncompressed stream.
    pub max_bytes: u64,
}

impl Default for UnpackLimits {
    fn default() -> Self {
        Self { max_entries: 8_000_000, max_bytes: 512 << 30 }
    }
}

/// What was unpacked.
#[derive(Debug)]
pub(in crate::store) struct Unpacked {
    /// Digest of the whole stream.
    pub(in crate::store) diff_id: Digest,
    /// Its length.
    pub(in crate::store) tar_size: u64,
    /// Bytes of file contents.
    pub(in crate::store) size: u64,
    /// Files, directories, links and whiteouts.
    pub(in crate::store) entries: u64,
}

/// Unpacks an uncompressed tar into the empty directory `into`. Entries are made with their owners, modes, times and
/// attributes; later ones replace earlier ones. `into` itself keeps its owner and mode.
pub(in crate::store) fn unpack(
    reader: impl Read,
    into: &Path,
    limits: &UnpackLimits,
) -> Result<Unpacked, ArchiveError> {
    let root = Root::open(into).map_err(ArchiveError::write("open", b"."))?;
    let mut unpacker = Unpacker { root, directories: HashMap::new(), size: 0, entries: 0 };
    let mut members = Members::new(reader, limits);
    while let Some(member) = members.next()? {
        unpacker.place(member, &mut members)?;
    }
    unpacker.finish_directories()?;
    let (diff_id, tar_size) = members.finish()?;
    Ok(Unpacked { diff_id, tar_size, size: unpacker.size, entries: unpacker.entries })
}

struct Unpacker {
    root: Root,
    /// Times of directories, set at the end: making an entry in one changes it.
    directories: HashMap<Vec<u8>, Time>,
    size: u64,
    entries: u64,
}

impl Unpacker {
    fn place<R: Read>(&mut self, member: Member, members: &mut Members<R>) -> Result<(), ArchiveError> {
        if member.path.is_root() {
            return Ok(()); // the root of every layer has the same owner and mode
        }
        let (_, name) = member.path.split();
        if name.starts_with(WHITEOUT) {
            return self.place_whiteout(&member);
        }
        self.entries += 1;
        match &member.kind {
            MemberKind::Directory => self.place_directory(&member),
            MemberKind::File { size } => self.place_file(&member, *size, members),
            MemberKind::HardLink { target } => self.place_link(&member, target),
            MemberKind::Symlink { target } => {
                self.place_new(&member, |dir, name| rustix::fs::symlinkat(&target[..], dir, name))
            }
            // An archive of an overlay's upper directory has whiteouts in overlayfs's own form.
            MemberKind::Char { major: 0, minor: 0 } => self.hide(&member, name.to_vec()),
            MemberKind::Char { major, minor } => {
                self.place_node(&member, FileType::CharacterDevice, *major, *minor)
            }
            MemberKind::Block { major, minor } => {
                self.place_node(&member, FileType::BlockDevice, *major, *minor)
            }
            MemberKind::Fifo => self.place_node(&member, FileType::Fifo, 0, 0),
        }
    }

    fn place_whiteout(&mut self, member: &Member) -> Result<(), ArchiveError> {
        let path = member.path.as_bytes();
        let (parent, name) = member.path.split();
        if name == OPAQUE {
            self.entries += 1;
            let directories = &mut self.directories;
            let dir = self.root.directory(parent, path, |made| {
                directories.insert(made.to_vec(), Time::default());
            })?;
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            return rustix::fs::openat(dir, ".", flags, Mode::empty())
                .and_then(set_opaque)
                .map_err(ArchiveError::write("make opaque the directory of", path));
        }
        if name.starts_with(AUFS) {
            return Ok(());
        }
        let hidden = &name[WHITEOUT.len()..];
        if matches!(hidden, b"" | b"." | b"..") || !matches!(member.kind, MemberKind::File { .. }) {
            return Err(ArchiveError::refused(path, Refusal::BadWhiteout));
        }
        self.entries += 1;
        self.hide(member, hidden.to_vec())
    }

    /// Hides what lower layers have under a name. What this layer itself has there stays visible.
    fn hide(&mut self, member: &Member, name: Vec<u8>) -> Result<(), ArchiveError> {
        let path = member.path.as_bytes();
        let write = || ArchiveError::write("make the whiteout", path);
        let dir = self.parent(member)?;
        match stat(dir, &name).map_err(write())? {
            None => rustix::fs::mknodat(dir, &name[..], FileType::CharacterDevice, Mode::empty(), 0)
                .map_err(write()),
            Some(found) if file_type(&found) == FileType::Directory => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                rustix::fs::openat(dir, &name[..], flags, Mode::empty()).and_then(set_opaque).map_err(write())
            }
            Some(_) => Ok(()),
        }
    }

    fn place_directory(&mut self, member: &Member) -> Result<(), ArchiveError> {
        let path = member.path.as_bytes();
        let write = || ArchiveError::write("make the directory", path);
        let (_, name) = member.path.split();
        let found = stat(self.parent(member)?, name).map_err(write())?;
        let hides = found.as_ref().is_some_and(is_whiteout);
        if found.as_ref().is_none_or(|found| file_type(found) != FileType::Directory) {
            self.clear(member, found.is_some())?;
            rustix::fs::mkdirat(self.parent(member)?, name, Mode::from_raw_mode(0o700)).map_err(write())?;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(self.parent(member)?, name, flags, Mode::empty()).map_err(write())?;
        if hides {
            set_opaque(&fd).map_err(write())?;
        }
        set_attributes(fd.as_fd(), member)?;
        self.directories.insert(path.to_vec(), member.mtime);
        Ok(())
    }

    fn place_file<R: Read>(
        &mut self,
        member: &Member,
        size: u64,
        members: &mut Members<R>,
    ) -> Result<(), ArchiveError> {
        let path = member.path.as_bytes();
        let (_, name) = member.path.split();
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let create = |dir: BorrowedFd<'_>| rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(0o600));
        let fd = match create(self.parent(member)?) {
            Err(Errno::EXIST) => {
                self.clear(member, true)?;
                create(self.parent(member)?)
            }
            result => result,
        }
        .map_err(ArchiveError::write("make the file", path))?;
        loop {
            let chunk = members.data()?;
            if chunk.is_empty() {
                break;
            }
            let written = match rustix::io::write(&fd, chunk) {
                Err(Errno::INTR) => 0,
                result => result.map_err(ArchiveError::write("write the file", path))?,
            };
            members.consume(written);
        }
        set_attributes(fd.as_fd(), member)?;
        rustix::fs::futimens(&fd, &times(member.mtime))
            .map_err(ArchiveError::write("set the time of", path))?;
        self.size += size;
        Ok(())
    }

    fn place_link(&mut self, member: &Member, target: &EntryPath) -> Result<(), ArchiveError> {
        let path = member.path.as_bytes();
        let write = || ArchiveError::write("make the hard link", path);
        let refused = || ArchiveError::refused(path, Refusal::BadLinkTarget);
        let (target_dir, target_name) = target.split();
        let from = match self.root.resolve(target_dir, OFlags::PATH | OFlags::DIRECTORY) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Err(refused()),
            result => result.map_err(write())?,
        };
        let target = match stat(&from, target_name).map_err(write())? {
            Some(found) if file_type(&found) != FileType::Directory && !is_whiteout(&found) => found,
            _ => return Err(refused()),
        };
        let (_, name) = member.path.split();
        if let Some(found) = stat(self.parent(member)?, name).map_err(write())? {
            // tar writes a file that was named twice on its command line as a link to itself.
            if (found.st_dev, found.st_ino) == (target.st_dev, target.st_ino) {
                return Ok(());
            }
            self.clear(member, true)?;
        }
        // Without AT_SYMLINK_FOLLOW a link to a symbolic link is one to the link itself.
        match rustix::fs::linkat(&from, target_name, self.parent(member)?, name, AtFlags::empty()) {
            Err(Errno::NOENT) => Err(refused()), // the target was inside of what it replaces
            result => result.map_err(write()),
        }
    }

    fn place_node(
        &mut self,
        member: &Member,
        kind: FileType,
        major: u32,
        minor: u32,
    ) -> Result<(), ArchiveError> {
        let device = rustix::fs::makedev(major, minor);
        let mode = Mode::from_raw_mode(member.mode);
        self.place_new(member, |dir, name| {
            rustix::fs::mknodat(dir, name, kind, Mode::from_raw_mode(0o600), device)
        })?;
        let write = || ArchiveError::write("set the mode of", member.path.as_bytes());
        let (_, name) = member.path.split();
        let dir = self.parent(member)?;
        // The name is a node that was made just now, so there is no link to follow.
        rustix::fs::chmodat(dir, name, mode, AtFlags::empty()).map_err(write())?;
        rustix::fs::utimensat(dir, name, &times(member.mtime), AtFlags::SYMLINK_NOFOLLOW).map_err(write())
    }

    /// Makes something that is no file and no directory, with its owner and time.
    fn place_new(
        &mut self,
        member: &Member,
        make: impl Fn(BorrowedFd<'_>, &[u8]) -> Result<(), Errno>,
    ) -> Result<(), ArchiveError> {
        let write = || ArchiveError::write("make", member.path.as_bytes());
        let (_, name) = member.path.split();
        match make(self.parent(member)?, name) {
            Err(Errno::EXIST) => {
                self.clear(member, true)?;
                make(self.parent(member)?, name).map_err(write())?;
            }
            result => result.map_err(write())?,
        }
        let (uid, gid) = owner(member);
        let dir = self.parent(member)?;
        rustix::fs::chownat(dir, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW).map_err(write())?;
        rustix::fs::utimensat(dir, name, &times(member.mtime), AtFlags::SYMLINK_NOFOLLOW).map_err(write())
    }

    /// Removes what an earlier entry left at a member's place.
    fn clear(&mut self, member: &Member, exists: bool) -> Result<(), ArchiveError> {
        if !exists {
            return Ok(());
        }
        let (_, name) = member.path.split();
        trash::remove_at(self.parent(member)?, name)
            .map_err(ArchiveError::write("replace", member.path.as_bytes()))?;
        self.root.forget();
        Ok(())
    }

    fn parent(&mut self, member: &Member) -> Result<BorrowedFd<'_>, ArchiveError> {
        let directories = &mut self.directories;
        let (parent, _) = member.path.split();
        // Directories that the archive leaves out get a fixed time, so that the same archive gives the same tree.
        self.root.directory(parent, member.path.as_bytes(), |made| {
            directories.insert(made.to_vec(), Time::default());
        })
    }

    fn finish_directories(&mut self) -> Result<(), ArchiveError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        for (path, time) in &self.directories {
            let fd = match self.root.resolve(path, flags) {
                // A later entry replaced it, or a directory above it.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                result => result.map_err(ArchiveError::write("open the directory", path))?,
            };
            rustix::fs::futimens(&fd, &times(*time)).map_err(ArchiveError::write("set the time of", path))?;
        }
        let root = times(Time::default());
        rustix::fs::futimens(self.root.fd(), &root).map_err(ArchiveError::write("set the time of", b"."))
    }
}

fn set_attributes(fd: BorrowedFd<'_>, member: &Member) -> Result<(), ArchiveError> {
    let path = member.path.as_bytes();
    let (uid, gid) = owner(member);
    // In this order: a change of the owner clears set-id bits and capabilities, a change of the mode rewrites an ACL.
    rustix::fs::fchown(fd, uid, gid).map_err(ArchiveError::write("set the owner of", path))?;
    rustix::fs::fchmod(fd, Mode::from_raw_mode(member.mode))
        .map_err(ArchiveError::write("set the mode of", path))?;
    for (name, value) in &member.xattrs {
        match rustix::fs::fsetxattr(fd, &name[..], value, XattrFlags::empty()) {
            // The file system has no such attributes: as Docker does, go on without.
            Err(Errno::OPNOTSUPP) => {}
            Err(Errno::INVAL | Errno::RANGE | Errno::TOOBIG) => {
                return Err(ArchiveError::refused(path, Refusal::BadAttribute));
            }
            result => result.map_err(ArchiveError::write("set an attribute of", path))?,
        }
    }
    Ok(())
}

fn owner(member: &Member) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(member.uid)), Some(Gid::from_raw(member.gid)))
}

fn times(time: Time) -> Timestamps {
    let time = Timespec { tv_sec: time.seconds, tv_nsec: time.nanos.into() };
    Timestamps { last_access: time, last_modification: time }
}
