//! A folder that acts as `/`: no path, link or `..` leads out of it.
//!
//! Paths are walked one component at a time, each opened without following links; links are read and walked from
//! inside. So a dangling link resolves to where it points, as Docker has it, and nothing outside is ever touched.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Uid};
use rustix::io::Errno;

/// As many links as Linux follows in one path.
const MAX_LINKS: u32 = 40;
/// Deepest path; far beyond what any image holds.
const MAX_DEPTH: usize = 1024;

/// Owner of what is created: user and group id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// A folder that acts as `/`.
pub(crate) struct Root {
    fd: OwnedFd,
}

/// Where a path led to.
pub(crate) struct Found {
    /// The file, opened with `O_PATH`.
    pub(crate) fd: OwnedFd,
    pub(crate) stat: Stat,
    /// Path below the root, without links in it.
    pub(crate) path: PathBuf,
}

impl Found {
    pub(crate) fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }

    pub(crate) fn is_dir(&self) -> bool {
        self.kind() == FileType::Directory
    }
}

/// Whether missing folders are made on the way.
#[derive(Clone, Copy)]
enum Missing {
    Fail,
    Create(Owner),
}

impl Root {
    pub(crate) fn new(fd: OwnedFd) -> Self {
        Self { fd }
    }

    /// Opens a folder of this host.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { fd: rustix::fs::open(path, flags, Mode::empty())? })
    }

    /// Resolves a path, links in its last component included. `None` when it does not exist.
    pub(crate) fn find(&self, path: &Path) -> io::Result<Option<Found>> {
        match self.walk(path, Missing::Fail) {
            Ok(found) => Ok(Some(found)),
            Err(error) if matches!(errno(&error), Some(Errno::NOENT | Errno::NOTDIR)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The folder at `path`, made with mode 0755 where it or a parent is missing. Existing ones stay as they are.
    pub(crate) fn ensure_dir(&self, path: &Path, owner: Owner) -> io::Result<Found> {
        let found = self.walk(path, Missing::Create(owner))?;
        if found.is_dir() { Ok(found) } else { Err(Errno::NOTDIR.into()) }
    }

    /// Resolves a path whose last component may be missing: its folder (made where missing) and its final name,
    /// with links followed. The name is `None` for the root itself.
    pub(crate) fn target(&self, path: &Path, owner: Owner) -> io::Result<(Found, Option<OsString>)> {
        let mut path = path.to_path_buf();
        for _ in 0..MAX_LINKS {
            let Some(name) = last_name(&path) else {
                return Ok((self.ensure_dir(&path, owner)?, None));
            };
            let parent = path.parent().map(Path::to_path_buf).unwrap_or_default();
            let dir = self.ensure_dir(&parent, owner)?;
            match rustix::fs::readlinkat(&dir.fd, &name, Vec::new()) {
                Ok(link) => path = dir.path.join_in_root(OsStr::from_bytes(link.as_bytes())),
                Err(Errno::INVAL | Errno::NOENT) => return Ok((dir, Some(name))),
                Err(error) => return Err(error.into()),
            }
        }
        Err(Errno::LOOP.into())
    }

    /// Reads a whole file; `None` when it is missing or no regular file. More than `max` bytes are an error.
    pub(crate) fn read(&self, path: &Path, max: u64) -> io::Result<Option<Vec<u8>>> {
        use std::io::Read;
        let Some(found) = self.find(path)?.filter(|found| found.kind() == FileType::RegularFile) else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        let file = std::fs::File::from(self.open_file(&found.path)?);
        file.take(max + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > max {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {max} bytes")));
        }
        Ok(Some(bytes))
    }

    /// Opens a regular file for reading. `resolved` holds no links, as [`Found::path`].
    pub(crate) fn open_file(&self, resolved: &Path) -> io::Result<OwnedFd> {
        self.open_resolved(resolved, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK)
    }

    /// Opens a folder for listing. `resolved` holds no links, as [`Found::path`].
    pub(crate) fn open_dir(&self, resolved: &Path) -> io::Result<OwnedFd> {
        self.open_resolved(resolved, OFlags::RDONLY | OFlags::DIRECTORY)
    }

    fn open_resolved(&self, resolved: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let path = if resolved.as_os_str().is_empty() { Path::new(".") } else { resolved };
        let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        loop {
            match rustix::fs::openat2(&self.fd, path, flags | OFlags::CLOEXEC, Mode::empty(), how) {
                // A rename elsewhere on the machine raced with the walk.
                Err(Errno::AGAIN | Errno::INTR) => {}
                result => return Ok(result?),
            }
        }
    }

    fn walk(&self, path: &Path, missing: Missing) -> io::Result<Found> {
        let mut queue: VecDeque<OsString> = components(path);
        let mut at = PathBuf::new();
        let mut fd = self.open_resolved(&at, OFlags::PATH | OFlags::DIRECTORY)?;
        let mut depth = 0;
        let mut links = 0;
        while let Some(name) = queue.pop_front() {
            if name == ".." {
                if at.pop() {
                    depth -= 1;
                    fd = self.open_resolved(&at, OFlags::PATH | OFlags::DIRECTORY)?;
                }
                continue;
            }
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let next = match rustix::fs::openat(&fd, &name, flags, Mode::empty()) {
                Ok(next) => next,
                Err(Errno::NOENT) => match missing {
                    Missing::Fail => return Err(Errno::NOENT.into()),
                    Missing::Create(owner) => {
                        make_dir(fd.as_fd(), &name, owner, 0o755)?;
                        rustix::fs::openat(&fd, &name, flags | OFlags::DIRECTORY, Mode::empty())?
                    }
                },
                Err(error) => return Err(error.into()),
            };
            let stat = rustix::fs::fstat(&next)?;
            if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
                links += 1;
                if links > MAX_LINKS {
                    return Err(Errno::LOOP.into());
                }
                let link = rustix::fs::readlinkat(&next, "", Vec::new())?;
                let link = Path::new(OsStr::from_bytes(link.as_bytes()));
                if link.is_absolute() {
                    at.clear();
                    depth = 0;
                    fd = self.open_resolved(&at, OFlags::PATH | OFlags::DIRECTORY)?;
                }
                for part in components(link).into_iter().rev() {
                    queue.push_front(part);
                }
                continue;
            }
            depth += 1;
            if depth > MAX_DEPTH || queue.len() > 4 * MAX_DEPTH {
                return Err(Errno::NAMETOOLONG.into());
            }
            at.push(&name);
            fd = next;
        }
        let stat = rustix::fs::fstat(&fd)?;
        Ok(Found { fd, stat, path: at })
    }
}

/// Makes a folder with exactly this owner and mode, whatever the umask.
pub(crate) fn make_dir(dir: BorrowedFd<'_>, name: &OsStr, owner: Owner, mode: u32) -> io::Result<()> {
    rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(0o700))?;
    set_owner(dir, name, owner)?;
    rustix::fs::chmodat(dir, name, Mode::from_raw_mode(mode), AtFlags::empty())?;
    Ok(())
}

/// Changes the owner of `name` itself, never of what it links to.
pub(crate) fn set_owner(dir: BorrowedFd<'_>, name: &OsStr, owner: Owner) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
    Ok(rustix::fs::chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Components without `/`, `.` and empty ones.
pub(crate) fn components(path: &Path) -> VecDeque<OsString> {
    path.as_os_str()
        .as_bytes()
        .split(|&b| b == b'/')
        .filter(|part| !part.is_empty() && *part != b".")
        .map(|part| OsString::from_vec(part.to_vec()))
        .collect()
}

/// A path's last component, when it names something (not `/`, `.` or `..`).
fn last_name(path: &Path) -> Option<OsString> {
    path.file_name().map(OsStr::to_owned)
}

trait JoinInRoot {
    fn join_in_root(&self, link: &OsStr) -> PathBuf;
}

impl JoinInRoot for PathBuf {
    /// Where a link in this folder points to, before its own links are resolved.
    fn join_in_root(&self, link: &OsStr) -> PathBuf {
        // `join` replaces the whole path for absolute links, which is what they mean inside.
        self.join(link)
    }
}

pub(crate) fn errno(error: &io::Error) -> Option<Errno> {
    Errno::from_io_error(error)
}

/// Cleans an absolute or relative path as Go's `path.Clean` does, for absolute results: no `.`, `..` or `//`, and a
/// leading `/`.
pub(crate) fn clean_absolute(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    fn root() -> (tempfile::TempDir, Root) {
        let outer = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(outer.path().join("root/a/b")).unwrap();
        std::fs::write(outer.path().join("secret"), "outside").unwrap();
        std::fs::write(outer.path().join("root/a/file"), "inside").unwrap();
        let root = Root::open(&outer.path().join("root")).unwrap();
        (outer, root)
    }

    #[test]
    fn nothing_leads_out() {
        let (outer, root) = root();
        let at = outer.path().join("root");
        symlink("../../secret", at.join("up")).unwrap();
        symlink(outer.path().join("secret"), at.join("absolute")).unwrap();
        symlink("/a", at.join("inside")).unwrap();
        symlink("loop", at.join("loop")).unwrap();
        for path in ["../secret", "up", "absolute", "a/../../secret"] {
            assert!(root.find(Path::new(path)).unwrap().is_none(), "{path}");
            assert!(root.read(Path::new(path), 100).unwrap().is_none(), "{path}");
        }
        assert_eq!(root.read(Path::new("/inside/file"), 100).unwrap().unwrap(), b"inside");
        assert_eq!(root.find(Path::new("/inside/b/../file")).unwrap().unwrap().path, Path::new("a/file"));
        assert!(root.find(Path::new("loop")).is_err());
        assert!(root.read(Path::new("a/file"), 3).is_err());
    }

    #[test]
    fn folders_are_made_where_dangling_links_point() {
        let (outer, root) = root();
        let at = outer.path().join("root");
        symlink("/not/there", at.join("dangling")).unwrap();
        let found = root.ensure_dir(Path::new("dangling/deep"), Owner { uid: 7, gid: 8 }).unwrap();
        assert_eq!(found.path, Path::new("not/there/deep"));
        let made = std::fs::metadata(at.join("not/there/deep")).unwrap();
        assert_eq!((made.uid(), made.gid(), made.mode() & 0o7777), (7, 8, 0o755));
        assert!(root.ensure_dir(Path::new("a/file/x"), Owner::default()).is_err());

        symlink("../../../a/new", at.join("a/b/link")).unwrap();
        let (dir, name) = root.target(Path::new("a/b/link"), Owner::default()).unwrap();
        assert_eq!((dir.path.as_path(), name.unwrap().as_os_str()), (Path::new("a"), OsStr::new("new")));
        assert!(root.target(Path::new("/"), Owner::default()).unwrap().1.is_none());
    }

    #[test]
    fn cleans_as_go_does() {
        for (path, clean) in [("", "/"), ("a/./b//c", "/a/b/c"), ("/../x", "/x"), ("/a/b/..", "/a")] {
            assert_eq!(clean_absolute(path), clean);
        }
    }
}
