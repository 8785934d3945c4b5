//! Mount points that a runtime makes in the image for a step: found before, taken away after.

use std::ffi::OsStr;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Stat};
use rustix::io::Errno;

use crate::build::root::{Root, components};

/// What runtimes mount in every container.
const ALWAYS: [&str; 6] = ["/dev", "/proc", "/sys", "/etc/resolv.conf", "/etc/hosts", "/etc/hostname"];
/// Below these, mount points are made in another file system.
const FOREIGN: [&str; 3] = ["/dev", "/proc", "/sys"];
const OPAQUE: &str = "trusted.overlay.opaque";

/// Mount points that an image lacks before a step.
#[derive(Default)]
pub(super) struct Stubs {
    /// Paths that are missing, the deepest of each target last.
    missing: Vec<PathBuf>,
    /// Folders above them that exist: path, mode and owner.
    above: Vec<(PathBuf, (u32, u32, u32))>,
}

impl Stubs {
    /// Looks before a step which mount points are missing.
    pub(super) fn before<'t>(root: &Root, targets: impl IntoIterator<Item = &'t Path>) -> io::Result<Self> {
        let mut stubs = Self::default();
        let foreign =
            |path: &&Path| !FOREIGN.iter().any(|base| path.starts_with(base) && *path != Path::new(base));
        let all = ALWAYS.iter().map(Path::new).chain(targets).filter(foreign);
        for target in all {
            stubs.look(root, target)?;
        }
        Ok(stubs)
    }

    fn look(&mut self, root: &Root, target: &Path) -> io::Result<()> {
        let mut at = PathBuf::new();
        let mut parts = components(target).into_iter();
        while let Some(part) = parts.next() {
            let next = at.join(&part);
            if let Some(found) = root.find(&next)? {
                if found.is_dir() {
                    self.note_above(&found.path, &found.stat);
                }
                at = found.path;
                continue;
            }
            let mut path = next;
            self.note_missing(&path);
            for part in parts.by_ref() {
                path.push(part);
                self.note_missing(&path);
            }
        }
        Ok(())
    }

    fn note_missing(&mut self, path: &Path) {
        if !self.missing.iter().any(|known| known == path) {
            self.missing.push(path.to_owned());
        }
    }

    fn note_above(&mut self, path: &Path, stat: &Stat) {
        if !self.above.iter().any(|(known, _)| known == path) {
            self.above.push((path.to_owned(), identity(stat)));
        }
    }

    /// Takes the mount points out of the upper folder, where they are as empty as they were made, and folders that
    /// are there for their sake only.
    pub(super) fn clean(mut self, upper: &Path) -> io::Result<()> {
        if self.missing.is_empty() {
            return Ok(());
        }
        let root = Root::open(upper)?;
        self.missing.sort();
        for path in self.missing.iter().rev() {
            // A folder where none was may be opaque: overlayfs marks new ones so when it can.
            remove_empty(&root, path, true, |stat| match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => true,
                kind => kind == FileType::RegularFile && stat.st_size == 0,
            })?;
        }
        self.above.sort();
        for (path, before) in self.above.iter().rev() {
            remove_empty(&root, path, false, |stat| {
                FileType::from_raw_mode(stat.st_mode) == FileType::Directory && identity(stat) == *before
            })?;
        }
        Ok(())
    }
}

fn identity(stat: &Stat) -> (u32, u32, u32) {
    (stat.st_mode, stat.st_uid, stat.st_gid)
}

/// Removes what is at `path` if it is unwanted and holds nothing. An opaque folder stays unless `opaque`.
fn remove_empty(root: &Root, path: &Path, opaque: bool, unwanted: impl Fn(&Stat) -> bool) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
    let dir = match root.open_dir(parent) {
        Ok(dir) => dir,
        // Another kind of file, or nothing: not what a runtime made.
        Err(_) => return Ok(()),
    };
    let stat = match rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    if !unwanted(&stat) {
        return Ok(());
    }
    let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    if is_dir && !opaque && is_opaque(root, path)? {
        return Ok(());
    }
    let flags = if is_dir { AtFlags::REMOVEDIR } else { AtFlags::empty() };
    match rustix::fs::unlinkat(dir.as_fd(), name, flags) {
        Ok(()) | Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Whether the step replaced the folder of the layers below.
fn is_opaque(root: &Root, path: &Path) -> io::Result<bool> {
    let dir = root.open_dir(path)?;
    let mut value = [0_u8; 16];
    match rustix::fs::fgetxattr(&dir, OsStr::new(OPAQUE), &mut value[..]) {
        Ok(_) => Ok(true),
        Err(Errno::NODATA | Errno::NOTSUP) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn only_what_the_runtime_made_goes() {
        let dir = tempfile::tempdir().unwrap();
        let (image, upper) = (dir.path().join("image"), dir.path().join("upper"));
        for path in ["etc", "proc", "run"] {
            fs::create_dir_all(image.join(path)).unwrap();
            fs::create_dir_all(upper.join(path)).unwrap();
        }
        fs::write(image.join("etc/hosts"), "").unwrap();
        let targets = [Path::new("/run/secrets/token"), Path::new("/opt/cache"), Path::new("/dev/slipway")];
        let stubs = Stubs::before(&Root::open(&image).unwrap(), targets).unwrap();

        fs::create_dir_all(upper.join("run/secrets")).unwrap();
        fs::write(upper.join("run/secrets/token"), "").unwrap();
        fs::create_dir_all(upper.join("opt/cache")).unwrap();
        fs::write(upper.join("opt/kept"), "by the step").unwrap();
        fs::create_dir_all(upper.join("dev")).unwrap();
        fs::create_dir_all(upper.join("sys")).unwrap();
        fs::write(upper.join("etc/resolv.conf"), "").unwrap();
        fs::write(upper.join("etc/hostname"), "written by the step").unwrap();
        stubs.clean(&upper).unwrap();

        let mut left = Vec::new();
        for path in
            ["dev", "sys", "proc", "run", "opt", "opt/cache", "opt/kept", "etc/resolv.conf", "etc/hostname"]
        {
            if upper.join(path).exists() {
                left.push(path);
            }
        }
        // `proc`, `run` and `etc` are in the image: an empty one on top says nothing.
        assert_eq!(left, ["opt", "opt/kept", "etc/hostname"]);
    }
}
