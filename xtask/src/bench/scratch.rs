//! The temporary folder of a benchmark.

use std::path::{Path, PathBuf};

use rustix::mount::{UnmountFlags, unmount};

use super::error::Error;

/// A folder that is removed when dropped, once nothing is mounted in it any more.
#[derive(Debug)]
pub struct Scratch(Option<tempfile::TempDir>, PathBuf);

impl Scratch {
    /// A new folder. Its name is short, since the paths of Unix sockets are.
    pub fn new(parent: Option<&Path>) -> Result<Self, Error> {
        let parent = parent.map_or_else(std::env::temp_dir, Path::to_owned);
        let parent = parent.canonicalize().map_err(Error::io("open", &parent))?;
        let folder = tempfile::Builder::new()
            .prefix("sb-")
            .tempdir_in(&parent)
            .map_err(Error::io("create a folder in", &parent))?;
        let path = folder.path().to_owned();
        Ok(Self(Some(folder), path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.1
    }

    /// A new folder in it.
    pub fn folder(&self, name: &str) -> Result<PathBuf, Error> {
        let path = self.1.join(name);
        std::fs::create_dir_all(&path).map_err(Error::io("create", &path))?;
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        for mount in mounts_below(&self.1) {
            eprintln!("warning: {} was still mounted", mount.display());
            let _ = unmount(&mount, UnmountFlags::DETACH);
        }
        let folder = self.0.take();
        // Removing files through a mount that stayed would remove somebody else's.
        if !mounts_below(&self.1).is_empty() {
            eprintln!("warning: {} is kept, since something is mounted in it", self.1.display());
            folder.map(tempfile::TempDir::keep);
        } else if let Some(Err(error)) = folder.map(tempfile::TempDir::close) {
            eprintln!("warning: {} is not removed: {error}", self.1.display());
        }
    }
}

/// Mounts below a folder, the innermost first.
fn mounts_below(folder: &Path) -> Vec<PathBuf> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    below(&table, folder)
}

fn below(table: &str, folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|path| PathBuf::from(path.replace("\\040", " ")))
        .filter(|path| path.starts_with(folder))
        .collect();
    found.reverse();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_mounts_below() {
        let table = "1 0 8:1 / / rw - ext4 a rw\n2 1 0:5 / /tmp/sb-1/x rw - tmpfs t rw\n\
                     3 2 0:6 / /tmp/sb-1/x/y\\040z rw - tmpfs t rw\n4 1 0:7 / /tmp/sb-11 rw - tmpfs t rw\n";
        let expected = ["/tmp/sb-1/x/y z", "/tmp/sb-1/x"].map(PathBuf::from);
        assert_eq!(below(table, Path::new("/tmp/sb-1")), expected);
    }

    #[test]
    fn is_removed() {
        let scratch = Scratch::new(None).unwrap();
        let path = scratch.path().to_owned();
        std::fs::write(scratch.folder("a").unwrap().join("b"), "c").unwrap();
        drop(scratch);
        assert!(!path.exists());
    }
}
