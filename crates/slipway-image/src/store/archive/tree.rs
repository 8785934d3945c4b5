//! Walking a layer's directory: what a canonical archive of it contains, in order.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use super::error::{ArchiveError, Refusal};
use super::root::{file_type, is_whiteout};
use super::{MAX_DEPTH, MAX_NAME, MAX_PATH, OPAQUE, OPAQUE_XATTR, WHITEOUT, Xattrs, carries_xattr};

/// What becomes of the attributes that overlayfs leaves in an upper directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Overlay {
    /// They stay.
    Keep,
    /// Those that only the finished mount needed are removed.
    Strip,
}

/// A layer's directory and everything in it, sorted by the names that the archive gives.
#[derive(Debug)]
pub(in crate::store) struct Tree {
    pub(super) root: OwnedFd,
    pub(super) nodes: Vec<Node>,
}

impl Tree {
    /// Whether the archive has no entries.
    pub(in crate::store) fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }
}

#[derive(Debug)]
pub(super) struct Node {
    /// Name in the archive: directories end with `/`, deletions are `.wh.` names.
    pub(super) name: Vec<u8>,
    pub(super) kind: NodeKind,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: i64,
    pub(super) xattrs: Xattrs,
    /// Device and inode, where more than one name may lead to it.
    pub(super) shared: Option<(u64, u64)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NodeKind {
    File {
        size: u64,
    },
    Directory,
    Symlink {
        target: Vec<u8>,
    },
    Char {
        major: u32,
        minor: u32,
    },
    Block {
        major: u32,
        minor: u32,
    },
    Fifo,
    /// A whiteout or the mark of an opaque directory.
    Deletion,
}

/// Walks a layer's directory.
pub(in crate::store) fn scan(path: &Path, overlay: Overlay) -> Result<Tree, ArchiveError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let root = rustix::fs::openat(rustix::fs::CWD, path, flags, Mode::empty())
        .map_err(ArchiveError::write("open", b"."))?;
    let mut walk = Walk { overlay, nodes: Vec::new(), path: Vec::new() };
    walk.opaque_mark(&root)?;
    walk.directory(&root, 0)?;
    let mut nodes = walk.nodes;
    nodes.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(Tree { root, nodes })
}

/// Whether a layer's directory hides everything below it.
pub(in crate::store) fn is_opaque(path: &Path) -> bool {
    let mut value = [0; 2];
    rustix::fs::lgetxattr(path, OPAQUE_XATTR, &mut value).is_ok_and(|n| value[..n] == *b"y")
}

struct Walk {
    overlay: Overlay,
    nodes: Vec<Node>,
    /// Of the directory that is being read; ends with `/` unless it is the root.
    path: Vec<u8>,
}

impl Walk {
    fn directory(&mut self, dir: &OwnedFd, depth: usize) -> Result<(), ArchiveError> {
        if depth > MAX_DEPTH {
            return Err(ArchiveError::refused(&self.path, Refusal::PathTooLong));
        }
        let entries = Dir::read_from(dir).map_err(ArchiveError::write("list", &self.path))?;
        for entry in entries {
            let entry = entry.map_err(ArchiveError::write("list", &self.path))?;
            let name = entry.file_name().to_bytes();
            if !matches!(name, b"." | b"..") {
                self.entry(dir, name, depth)?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, dir: &OwnedFd, name: &[u8], depth: usize) -> Result<(), ArchiveError> {
        let parent_length = self.path.len();
        let mut path = [&self.path[..], name].concat();
        if path.len() > MAX_PATH {
            return Err(ArchiveError::refused(&path, Refusal::PathTooLong));
        }
        if name.starts_with(WHITEOUT) {
            return Err(ArchiveError::refused(&path, Refusal::ReservedName));
        }
        let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(ArchiveError::write("read", &path))?;
        if is_whiteout(&stat) {
            let hidden = [&self.path[..], WHITEOUT, name].concat();
            if name.len() + WHITEOUT.len() > MAX_NAME || hidden.len() > MAX_PATH {
                return Err(ArchiveError::refused(&path, Refusal::PathTooLong));
            }
            self.nodes.push(deletion(hidden));
            return Ok(());
        }
        let device = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
        let kind = match file_type(&stat) {
            FileType::RegularFile => NodeKind::File { size: stat.st_size as u64 },
            FileType::Directory => NodeKind::Directory,
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(dir, name, Vec::new())
                    .map_err(ArchiveError::write("read", &path))?;
                NodeKind::Symlink { target: target.into_bytes() }
            }
            FileType::CharacterDevice => NodeKind::Char { major: device.0, minor: device.1 },
            FileType::BlockDevice => NodeKind::Block { major: device.0, minor: device.1 },
            FileType::Fifo => NodeKind::Fifo,
            _ => return Ok(()), // a socket is nothing without the process that listens on it
        };
        let is_directory = kind == NodeKind::Directory;
        let xattrs = match kind {
            NodeKind::File { .. } | NodeKind::Directory => self.xattrs(dir, name, &path)?,
            _ => Vec::new(),
        };
        if is_directory {
            path.push(b'/');
        }
        let shared = (!is_directory && stat.st_nlink > 1).then_some((stat.st_dev, stat.st_ino));
        self.nodes.push(node(path.clone(), kind, &stat, xattrs, shared));
        if is_directory {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
            let child = open_beneath(dir, name, flags).map_err(ArchiveError::write("read", &path))?;
            self.path = path;
            self.opaque_mark(&child)?;
            self.directory(&child, depth + 1)?;
            self.path.truncate(parent_length);
        }
        Ok(())
    }

    fn opaque_mark(&mut self, dir: &OwnedFd) -> Result<(), ArchiveError> {
        let mut value = [0; 2];
        match rustix::fs::fgetxattr(dir, OPAQUE_XATTR, &mut value) {
            // Other values than `y` are hints for lookups, not deletions.
            Ok(n) if value[..n] == *b"y" => {
                self.nodes.push(deletion([&self.path[..], OPAQUE].concat()));
                Ok(())
            }
            Ok(_) | Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => Ok(()),
            Err(e) => Err(ArchiveError::write("read", &self.path)(e)),
        }
    }

    /// The attributes that layers carry, sorted by name.
    fn xattrs(&self, dir: &OwnedFd, name: &[u8], path: &[u8]) -> Result<Xattrs, ArchiveError> {
        let read = || ArchiveError::write("read the attributes of", path);
        // The calls that take a descriptor need the file opened, those that take a path do not.
        let at = [format!("/proc/self/fd/{}/", dir.as_raw_fd()).as_bytes(), name].concat();
        let mut list = [0; 512];
        let list = match rustix::fs::llistxattr(&at[..], &mut list[..]) {
            Ok(n) => list[..n].to_vec(),
            Err(Errno::RANGE) => {
                let mut list = vec![0; 64 * 1024]; // XATTR_LIST_MAX
                let n = rustix::fs::llistxattr(&at[..], &mut list[..]).map_err(read())?;
                list.truncate(n);
                list
            }
            Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
            Err(e) => return Err(read()(e)),
        };
        let mut xattrs = Vec::new();
        for key in list.split(|b| *b == 0).filter(|key| !key.is_empty()) {
            if let Some(own) = key.strip_prefix(b"trusted.overlay.") {
                match own {
                    b"redirect" | b"metacopy" => {
                        return Err(ArchiveError::refused(path, Refusal::OverlayReference));
                    }
                    b"opaque" => {}
                    _ if self.overlay == Overlay::Strip => {
                        rustix::fs::lremovexattr(&at[..], key).map_err(read())?;
                    }
                    _ => {}
                }
            } else if carries_xattr(key) {
                let mut value = vec![0; 64 * 1024]; // XATTR_SIZE_MAX
                let n = rustix::fs::lgetxattr(&at[..], key, &mut value[..]).map_err(read())?;
                xattrs.push((key.to_vec(), value[..n].to_vec()));
            }
        }
        xattrs.sort_unstable();
        Ok(xattrs)
    }
}

/// Opens a path below a directory; links and mounts on the way are refused.
pub(super) fn open_beneath(dir: impl AsFd, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::NO_XDEV;
    let dir = dir.as_fd();
    loop {
        match rustix::fs::openat2(dir, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            result => return result,
        }
    }
}

fn deletion(name: Vec<u8>) -> Node {
    Node {
        name,
        kind: NodeKind::Deletion,
        mode: 0,
        uid: 0,
        gid: 0,
        mtime: 0,
        xattrs: Vec::new(),
        shared: None,
    }
}

fn node(name: Vec<u8>, kind: NodeKind, stat: &Stat, xattrs: Xattrs, shared: Option<(u64, u64)>) -> Node {
    Node {
        name,
        // Every symbolic link has all bits on Linux.
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: stat.st_mtime,
        kind,
        xattrs,
        shared,
    }
}
