//! The files of a build context, as the checks see them.

use std::path::{Path, PathBuf};

use crate::build::ignore::Ignore;

/// Most entries of one folder that are looked at.
const MAX_LISTED: usize = 2000;

/// What the checks may ask about a build context. Paths are relative, slash-separated and clean; the context itself
/// is the empty path.
pub trait ContextFiles {
    /// What lies at a path; nothing when nothing does.
    fn entry(&self, path: &str) -> Option<Entry>;

    /// Names and entries of a folder, in any order; may leave some out of a very large one.
    fn list(&self, folder: &str) -> Vec<(String, Entry)>;
}

/// Something in the context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub kind: FileKind,
    /// The pattern that hides it from the build. A folder is hidden only when everything inside is.
    pub ignored_by: Option<IgnoredBy>,
}

/// A file or a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A file, or anything else that is no folder.
    File,
    /// A folder.
    Folder,
}

/// A pattern of `.dockerignore`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IgnoredBy {
    /// As written.
    pub pattern: String,
    /// 1-based line.
    pub line: u32,
}

/// A context that lies on disk.
pub struct OnDisk<'a> {
    /// Its folder.
    pub root: &'a Path,
    /// Its `.dockerignore`.
    pub ignore: &'a Ignore,
}

impl OnDisk<'_> {
    fn path(&self, path: &str) -> PathBuf {
        if path.is_empty() { self.root.to_owned() } else { self.root.join(path) }
    }

    fn describe(&self, path: &str, kind: FileKind) -> Entry {
        let hidden = match kind {
            FileKind::File => self.ignore.is_ignored(path),
            FileKind::Folder => self.ignore.may_skip_folder(path),
        };
        let pattern = if hidden { self.ignore.ignored_by(path) } else { None };
        let ignored_by =
            pattern.map(|pattern| IgnoredBy { pattern: pattern.text.clone(), line: pattern.line });
        Entry { kind, ignored_by }
    }
}

impl ContextFiles for OnDisk<'_> {
    fn entry(&self, path: &str) -> Option<Entry> {
        if path.split('/').any(|part| part == "..") {
            return None;
        }
        let full = self.path(path);
        let metadata = full.metadata().or_else(|_| full.symlink_metadata()).ok()?;
        Some(self.describe(path, if metadata.is_dir() { FileKind::Folder } else { FileKind::File }))
    }

    fn list(&self, folder: &str) -> Vec<(String, Entry)> {
        let Ok(entries) = std::fs::read_dir(self.path(folder)) else {
            return Vec::new();
        };
        entries
            .take(MAX_LISTED)
            .filter_map(|entry| {
                let entry = entry.ok()?;
                let name = entry.file_name().into_string().ok()?;
                let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
                let kind = if entry.path().is_dir() { FileKind::Folder } else { FileKind::File };
                Some((name, self.describe(&path, kind)))
            })
            .collect()
    }
}
