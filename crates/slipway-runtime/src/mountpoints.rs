//! Places to mount on, where an image has none, without a trace in the upper folder.
//!
//! A missing mount point made inside the container's root would be copied into the upper folder, and so into a layer
//! that a build step makes. Instead, what is missing is made in a folder of its own, which is stacked between the
//! image's layers and the upper folder; folders on the way copy owner, mode, times and attributes of the image's, so
//! that a later copy into the upper folder is what it would have been without.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

/// As the kernel: so many symbolic links make a loop.
const MAX_LINKS: usize = 40;
/// Largest extended attribute that is copied, the kernel's own limit.
const MAX_ATTRIBUTE: usize = 64 << 10;

/// A place that something will be mounted on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MountPoint {
    /// Absolute path inside.
    pub(crate) path: PathBuf,
    /// Whether a folder is needed, or a file.
    pub(crate) folder: bool,
}

/// How far a path exists inside a root.
#[derive(Debug)]
pub(crate) struct Located {
    /// Folders from the root on, free of symbolic links, each opened with `O_PATH`; the last may be another file.
    pub(crate) found: Vec<(OsString, OwnedFd)>,
    /// What does not exist below.
    pub(crate) missing: Vec<OsString>,
}

/// Follows `path` inside `root`, as a process with that root would; `..` and links cannot leave it. Nobody else may
/// change the tree meanwhile.
pub(crate) fn locate(root: BorrowedFd<'_>, path: &Path) -> io::Result<Located> {
    let mut pending = parts(path);
    let mut found: Vec<(OsString, OwnedFd)> = Vec::new();
    let mut links = 0;
    while let Some(name) = pending.pop() {
        if name == ".." {
            found.pop();
            continue;
        }
        let at = found.last().map_or(root, |(_, fd)| fd.as_fd());
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = match rustix::fs::openat(at, &name, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => {
                let mut missing = vec![name];
                while let Some(name) = pending.pop() {
                    if name == ".." {
                        // Back out of what does not exist; `a/../b` with no `a` is `b` to a mount's target.
                        if missing.pop().is_none() {
                            found.pop();
                        }
                    } else {
                        missing.push(name);
                    }
                }
                return Ok(Located { found, missing });
            }
            Err(errno) => return Err(errno.into()),
        };
        match FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode) {
            FileType::Symlink => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(Errno::LOOP.into());
                }
                let target = rustix::fs::readlinkat(&fd, "", Vec::new())?;
                let target = Path::new(OsStr::from_bytes(target.as_bytes()));
                if target.is_absolute() {
                    found.clear();
                }
                pending.extend(parts(target));
            }
            FileType::Directory => found.push((name, fd)),
            _ if pending.is_empty() => found.push((name, fd)),
            _ => return Err(Errno::NOTDIR.into()),
        }
    }
    Ok(Located { found, missing: Vec::new() })
}

/// Components in reverse order.
fn parts(path: &Path) -> Vec<OsString> {
    path.components()
        .rev()
        .filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir))
        .map(|part| part.as_os_str().to_owned())
        .collect()
}

/// Opens a folder or file inside `root`, and makes it if it is missing, with the folders on the way.
pub(crate) fn open_or_make(root: BorrowedFd<'_>, place: &MountPoint) -> io::Result<OwnedFd> {
    let located = locate(root, &place.path)?;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut at = match located.found.into_iter().next_back() {
        Some((_, fd)) => fd,
        None => rustix::fs::openat(root, ".", flags, Mode::empty())?,
    };
    for (number, name) in located.missing.iter().enumerate() {
        if place.folder || number + 1 < located.missing.len() {
            rustix::fs::mkdirat(&at, name, Mode::from_raw_mode(0o755))?;
        } else {
            let create = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            rustix::fs::openat(&at, name, create, Mode::from_raw_mode(0o644))?;
        }
        at = rustix::fs::openat(&at, name, flags, Mode::empty())?;
    }
    match (is_folder(&at)?, place.folder) {
        (true, false) => Err(Errno::ISDIR.into()),
        (false, true) => Err(Errno::NOTDIR.into()),
        _ => Ok(at),
    }
}

fn is_folder(fd: &OwnedFd) -> io::Result<bool> {
    Ok(FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode) == FileType::Directory)
}

/// Makes in `stubs` (an empty folder) what `wanted` misses in `root`; whether that was anything.
///
/// A place below another wanted place is left out: it will be looked for in what is mounted there.
///
/// # Errors
/// Names the place: a file where a folder is wanted, or the reverse; what cannot be read or made.
pub(crate) fn make_stubs(
    root: BorrowedFd<'_>,
    wanted: &[MountPoint],
    stubs: &Path,
) -> Result<bool, (PathBuf, io::Error)> {
    let mut copied = BTreeMap::new();
    for place in wanted {
        let below = |other: &&MountPoint| other.path != place.path && place.path.starts_with(&other.path);
        if wanted.iter().any(|other| below(&other)) {
            continue;
        }
        make_stub(root, place, stubs, &mut copied).map_err(|error| (place.path.clone(), error))?;
    }
    if copied.is_empty() {
        return Ok(false);
    }
    // Deepest first, and after everything is made: each entry made changes the times of its folder.
    for (path, stat) in copied.iter().rev() {
        set_times(path, stat).map_err(|error| (path.clone(), error))?;
    }
    Ok(true)
}

fn make_stub(
    root: BorrowedFd<'_>,
    place: &MountPoint,
    stubs: &Path,
    copied: &mut BTreeMap<PathBuf, Stat>,
) -> io::Result<()> {
    let located = locate(root, &place.path)?;
    let Some((last, folders)) = located.missing.split_last() else {
        let folder = located.found.last().map_or(Ok(true), |(_, fd)| is_folder(fd))?;
        return match (folder, place.folder) {
            (true, false) => Err(Errno::ISDIR.into()),
            (false, true) => Err(Errno::NOTDIR.into()),
            _ => Ok(()),
        };
    };
    if !copied.contains_key(stubs) {
        copied.insert(stubs.to_owned(), copy_attributes(root, stubs)?);
    }
    let mut path = stubs.to_owned();
    for (name, fd) in &located.found {
        path.push(name);
        if !copied.contains_key(&path) {
            if !is_folder(fd)? {
                return Err(Errno::NOTDIR.into());
            }
            std::fs::create_dir(&path)?;
            copied.insert(path.clone(), copy_attributes(fd.as_fd(), &path)?);
        }
    }
    for name in folders {
        path.push(name);
        make_folder(&path)?;
    }
    path.push(last);
    if place.folder { make_folder(&path) } else { std::fs::File::create(&path).map(drop) }
}

/// Another place may have made it already.
fn make_folder(path: &Path) -> io::Result<()> {
    match std::fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// Owner, mode and extended attributes; the times are for later.
fn copy_attributes(from: BorrowedFd<'_>, to: &Path) -> io::Result<Stat> {
    let stat = rustix::fs::fstat(from)?;
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    rustix::fs::chownat(CWD, to, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    rustix::fs::chmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    // A descriptor made with O_PATH has no attributes; its link in /proc has.
    let link = format!("/proc/self/fd/{}", from.as_raw_fd());
    let mut names = vec![0; MAX_ATTRIBUTE];
    let count = match rustix::fs::listxattr(&link, &mut names) {
        Ok(count) => count,
        Err(Errno::NOTSUP) => 0,
        Err(errno) => return Err(errno.into()),
    };
    let mut value = vec![0; MAX_ATTRIBUTE];
    for name in names[..count].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        if name.starts_with(b"trusted.overlay.") {
            continue;
        }
        let count = rustix::fs::getxattr(&link, name, &mut value)?;
        match rustix::fs::setxattr(to, name, &value[..count], XattrFlags::empty()) {
            // tmpfs has no `user.` attributes before Linux 6.6.
            Ok(()) | Err(Errno::NOTSUP) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(stat)
}

fn set_times(path: &Path, stat: &Stat) -> io::Result<()> {
    #[expect(clippy::unnecessary_cast, reason = "the types differ between architectures")]
    let times = Timestamps {
        last_access: Timespec { tv_sec: stat.st_atime as i64, tv_nsec: stat.st_atime_nsec as _ },
        last_modification: Timespec { tv_sec: stat.st_mtime as i64, tv_nsec: stat.st_mtime_nsec as _ },
    };
    Ok(rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    fn shown(located: &Located) -> (String, String) {
        let found: Vec<_> = located.found.iter().map(|(name, _)| name.to_str().unwrap()).collect();
        let missing: Vec<_> = located.missing.iter().map(|name| name.to_str().unwrap()).collect();
        (found.join("/"), missing.join("/"))
    }

    #[test]
    fn paths_stay_inside() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir_all(root.join("usr/etc")).unwrap();
        std::fs::write(root.join("file"), "").unwrap();
        symlink("/usr/etc", root.join("etc")).unwrap();
        symlink("../../../../usr", root.join("up")).unwrap();
        symlink("/run/gone/resolv.conf", root.join("usr/etc/resolv.conf")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        let base = crate::files::open_dir(&root).unwrap();
        for (path, found, missing) in [
            ("/", "", ""),
            ("/usr/etc", "usr/etc", ""),
            ("/etc/hosts", "usr/etc", "hosts"),
            ("/up/etc", "usr/etc", ""),
            ("/../../usr", "usr", ""),
            ("/etc/resolv.conf", "", "run/gone/resolv.conf"),
            ("/file", "file", ""),
            ("/none/../usr/x", "", "usr/x"),
            ("/a/b/../c", "", "a/c"),
        ] {
            let located = locate(base.as_fd(), Path::new(path)).unwrap();
            assert_eq!(shown(&located), (found.to_owned(), missing.to_owned()), "{path}");
        }
        assert!(locate(base.as_fd(), Path::new("/loop")).is_err());
        assert!(locate(base.as_fd(), Path::new("/file/x")).is_err());
    }

    #[test]
    fn stubs_look_like_the_image() {
        let dir = tempfile::tempdir().unwrap();
        let (root, stubs) = (dir.path().join("root"), dir.path().join("stubs"));
        std::fs::create_dir_all(root.join("etc")).unwrap();
        std::fs::create_dir_all(&stubs).unwrap();
        std::fs::create_dir(root.join("proc")).unwrap();
        std::fs::set_permissions(root.join("etc"), std::fs::Permissions::from_mode(0o750)).unwrap();
        std::os::unix::fs::chown(root.join("etc"), Some(3), Some(4)).unwrap();
        let base = crate::files::open_dir(&root).unwrap();
        let place = |path: &str, folder| MountPoint { path: path.into(), folder };
        let wanted = [
            place("/proc", true),
            place("/etc/hosts", false),
            place("/dev", true),
            place("/dev/pts", true),
            place("/a/b/c", true),
            place("/a/b/d", false),
        ];
        assert!(make_stubs(base.as_fd(), &wanted, &stubs).unwrap());
        let etc = std::fs::metadata(stubs.join("etc")).unwrap();
        let image = std::fs::metadata(root.join("etc")).unwrap();
        assert_eq!((etc.mode() & 0o7777, etc.uid(), etc.gid()), (0o750, 3, 4));
        assert_eq!((etc.mtime(), etc.mtime_nsec()), (image.mtime(), image.mtime_nsec()));
        assert!(
            stubs.join("etc/hosts").is_file()
                && stubs.join("a/b/c").is_dir()
                && stubs.join("a/b/d").is_file()
        );
        assert!(!stubs.join("proc").exists(), "the image has it");
        assert!(
            stubs.join("dev").is_dir() && !stubs.join("dev/pts").exists(),
            "made in what is mounted on /dev"
        );
    }

    #[test]
    fn nothing_missing_makes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (root, stubs) = (dir.path().join("root"), dir.path().join("stubs"));
        std::fs::create_dir_all(root.join("proc")).unwrap();
        std::fs::create_dir_all(&stubs).unwrap();
        let base = crate::files::open_dir(&root).unwrap();
        let wanted = [MountPoint { path: "/proc".into(), folder: true }];
        assert!(!make_stubs(base.as_fd(), &wanted, &stubs).unwrap());
        assert_eq!(std::fs::read_dir(&stubs).unwrap().count(), 0);
        let wanted = [MountPoint { path: "/proc".into(), folder: false }];
        let (path, _) = make_stubs(base.as_fd(), &wanted, &stubs).unwrap_err();
        assert_eq!(path, Path::new("/proc"));
    }

    #[test]
    fn what_is_missing_is_made_inside() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir_all(root.join("srv")).unwrap();
        symlink("/srv", root.join("link")).unwrap();
        let base = crate::files::open_dir(&root).unwrap();
        let make = |path: &str, folder| open_or_make(base.as_fd(), &MountPoint { path: path.into(), folder });
        make("/link/a/b", true).unwrap();
        assert!(root.join("srv/a/b").is_dir());
        make("/srv/a", true).unwrap();
        make("/link/c/file", false).unwrap();
        assert!(root.join("srv/c/file").is_file());
        make("/", true).unwrap();
        assert!(make("/srv/c/file", true).is_err() && make("/srv", false).is_err());
    }
}
