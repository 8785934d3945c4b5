//! Places where things are written before they are complete.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use super::error::{Result, StoreError};
use super::{Store, trash};

/// A directory in `tmp/`, removed when it is dropped. It keeps the store open.
#[derive(Debug)]
pub struct Staging {
    store: Store,
    path: PathBuf,
}

impl Staging {
    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory `fs` in it, which [`Store::commit_upper`] takes; made when it is first asked for.
    pub fn fs(&self) -> Result<PathBuf> {
        let fs = self.path.join("fs");
        match fs::DirBuilder::new().mode(0o755).create(&fs) {
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(fs),
            Err(e) => Err(StoreError::io("create", &fs)(e)),
            Ok(()) => Ok(fs),
        }
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if let Err(error) = trash::remove(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "a staging directory could not be removed");
        }
        self.store.inner.active.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.path);
    }
}

impl Store {
    /// An empty directory on the store's file system (mode 0700), for whatever is not complete yet. `prefix` shows
    /// people what it was for; letters, digits and dashes of it are used.
    pub fn staging(&self, prefix: &str) -> Result<Staging> {
        let path = self.reserve_temporary(prefix);
        let staging = Staging { store: self.clone(), path };
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&staging.path)
            .map_err(StoreError::io("create", &staging.path))?;
        Ok(staging)
    }

    /// A fresh path in `tmp/` that garbage collection takes for live until [`Self::release_temporary`].
    pub(super) fn reserve_temporary(&self, prefix: &str) -> PathBuf {
        let prefix: String =
            prefix.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(64).collect();
        let path = self.inner.root.join("tmp").join(format!("{prefix}.{}", self.fresh_number()));
        self.inner.active.lock().unwrap_or_else(PoisonError::into_inner).insert(path.clone());
        path
    }

    pub(super) fn release_temporary(&self, path: &Path) {
        self.inner.active.lock().unwrap_or_else(PoisonError::into_inner).remove(path);
    }

    /// What lies in `tmp/` and belongs to no running operation.
    pub(super) fn stale_temporaries(&self) -> Result<Vec<PathBuf>> {
        let tmp = self.inner.root.join("tmp");
        let list = StoreError::io;
        let mut stale = Vec::new();
        for entry in fs::read_dir(&tmp).map_err(list("list", &tmp))? {
            let path = entry.map_err(list("list", &tmp))?.path();
            // Asked after listing: whatever is listed was reserved before it was made.
            if !self.inner.active.lock().unwrap_or_else(PoisonError::into_inner).contains(&path) {
                stale.push(path);
            }
        }
        stale.sort();
        Ok(stale)
    }
}
