//! Removing directory trees that may be hostile, deep, or have something mounted in them.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, Dir, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;

/// Levels that are walked before a directory is moved up: the walk holds a descriptor for each.
const LEVELS: usize = 64;

/// Removes a path and all below it; a missing one is fine. What is mounted inside is detached, never emptied.
pub(super) fn remove(path: &Path) -> Result<(), Errno> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Errno::INVAL);
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match rustix::fs::openat(rustix::fs::CWD, parent, flags, Mode::empty()) {
        Err(Errno::NOENT) => Ok(()),
        Err(e) => Err(e),
        Ok(parent) => remove_at(&parent, std::os::unix::ffi::OsStrExt::as_bytes(name)),
    }
}

/// Removes a name in a directory, and all below it; a missing one is fine.
pub(super) fn remove_at(parent: impl AsFd, name: &[u8]) -> Result<(), Errno> {
    let parent = parent.as_fd();
    match unlink(parent, name) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(e) => return Err(e),
    }
    let top = open_directory(parent, name)?;
    loop {
        let mut moved = Vec::new();
        empty(&top, &top, LEVELS, &mut moved)?;
        if moved.is_empty() {
            break;
        }
        // They lie in `top` now; the next round meets them at the first level.
    }
    drop(top);
    retry_unmounted(parent, name, || rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR))
}

fn empty(top: &OwnedFd, dir: &OwnedFd, levels: usize, moved: &mut Vec<u64>) -> Result<(), Errno> {
    // Names are collected first: a directory must not change under its listing.
    let names: Vec<Vec<u8>> = Dir::read_from(dir)?
        .filter_map(|entry| match entry {
            Ok(entry) => {
                let name = entry.file_name().to_bytes();
                (!matches!(name, b"." | b"..")).then(|| Ok(name.to_vec()))
            }
            Err(e) => Some(Err(e)),
        })
        .collect::<Result<_, _>>()?;
    for name in names {
        match unlink(dir, &name) {
            Ok(()) | Err(Errno::NOENT) => continue,
            Err(Errno::ISDIR | Errno::PERM) => {}
            Err(e) => return Err(e),
        }
        if levels == 0 {
            let fresh = fresh_number();
            rustix::fs::renameat(dir, &name[..], top, format!("deep-{}-{fresh}", std::process::id()))?;
            moved.push(fresh);
            continue;
        }
        let child = open_directory(dir, &name)?;
        empty(top, &child, levels - 1, moved)?;
        drop(child);
        retry_unmounted(dir, &name, || rustix::fs::unlinkat(dir, &name[..], AtFlags::REMOVEDIR))?;
    }
    Ok(())
}

fn unlink(dir: impl AsFd, name: &[u8]) -> Result<(), Errno> {
    let dir = dir.as_fd();
    retry_unmounted(dir, name, || rustix::fs::unlinkat(dir, name, AtFlags::empty()))
}

fn open_directory(dir: impl AsFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let dir = dir.as_fd();
    loop {
        match rustix::fs::openat2(dir, name, flags, Mode::empty(), resolve) {
            // Something is mounted there: a bind mount of a user's files, say, that a dead process left.
            Err(Errno::XDEV) => detach(dir, name)?,
            Err(Errno::AGAIN | Errno::INTR) => {}
            result => return result,
        }
    }
}

/// A mount point cannot be removed (EBUSY): detaches what is mounted, as often as it is stacked, and tries again.
fn retry_unmounted(
    dir: impl AsFd,
    name: &[u8],
    attempt: impl Fn() -> Result<(), Errno>,
) -> Result<(), Errno> {
    loop {
        match attempt() {
            Err(Errno::BUSY) => detach(dir.as_fd(), name)?,
            result => return result,
        }
    }
}

fn detach(dir: impl AsFd, name: &[u8]) -> Result<(), Errno> {
    let mut path = format!("/proc/self/fd/{}/", dir.as_fd().as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    rustix::mount::unmount(&path[..], UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).map_err(|e| match e {
        Errno::INVAL => Errno::BUSY, // busy, but not mounted in this namespace
        e => e,
    })
}

fn fresh_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn removes_deep_trees_and_follows_no_links() {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("kept"), "x").unwrap();
        let top = dir.path().join("top");
        fs::create_dir(&top).unwrap();
        symlink(&outside, top.join("link")).unwrap();
        // Deeper than a path can name, made a level at a time.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let mut at = rustix::fs::openat(rustix::fs::CWD, &top, flags, Mode::empty()).unwrap();
        for _ in 0..1500 {
            rustix::fs::mkdirat(&at, "deep", Mode::from_raw_mode(0o755)).unwrap();
            rustix::fs::openat(&at, "file", OFlags::CREATE | OFlags::WRONLY, Mode::empty()).unwrap();
            at = rustix::fs::openat(&at, "deep", flags, Mode::empty()).unwrap();
        }
        drop(at);
        remove(&top).unwrap();
        assert!(!top.exists());
        assert!(outside.join("kept").exists());
        remove(&top).unwrap();
        remove(&dir.path().join("missing/also")).unwrap();
    }
}
