//! Finding what a source of COPY names: a path, or all that a pattern matches.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Dir, FileType};

use super::glob::{Glob, has_wildcard};
use crate::build::root::Root;
use crate::build::tree::{Rules, Verdict};

/// One match of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Selected {
    /// Path below the root, without links.
    pub(crate) at: PathBuf,
    /// Name that it gets in a folder: the last component as written or matched, empty for the root.
    pub(crate) name: OsString,
}

/// Why a source names nothing.
#[derive(Debug, thiserror::Error)]
pub enum SelectError {
    /// It starts outside.
    #[error("`{0}` lies outside the build context")]
    Outside(String),
    /// Nothing is there.
    #[error("`{path}` does not exist in {place}")]
    Missing {
        /// The source as expanded.
        path: String,
        /// Where it was looked for.
        place: String,
    },
    /// The ignore file hides it.
    #[error("`{0}` is excluded by the ignore file")]
    Ignored(String),
    /// A malformed pattern.
    #[error("`{0}` is not a valid pattern")]
    Pattern(String),
    /// The build was cancelled.
    #[error("the build was cancelled")]
    Cancelled,
    /// Something could not be read.
    #[error("cannot read `{path}` in {place}")]
    Io {
        /// The source as expanded.
        path: String,
        /// Where it was looked for.
        place: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Resolves one source. A pattern may match nothing; a plain path must exist. `place` is for messages; `contained`
/// refuses paths that climb out of the root instead of stopping there.
pub(crate) fn select(
    root: &Root,
    rules: &dyn Rules,
    source: &str,
    place: &str,
    contained: bool,
) -> Result<Vec<Selected>, SelectError> {
    let parts = normal(source, source, contained)?;
    let fail = |error| SelectError::Io { path: source.to_owned(), place: place.to_owned(), source: error };
    let missing = || SelectError::Missing { path: source.to_owned(), place: place.to_owned() };
    let first_wild = parts.iter().position(|part| has_wildcard(part)).unwrap_or(parts.len());
    let (plain, patterns) = parts.split_at(first_wild);
    let base: PathBuf = plain.iter().collect();
    let found = root.find(&base).map_err(fail)?;
    if patterns.is_empty() {
        let found = found.ok_or_else(missing)?;
        if !admitted(rules, &found.path, found.is_dir()) {
            return Err(SelectError::Ignored(source.to_owned()));
        }
        let name = plain.last().map(OsString::from).unwrap_or_default();
        return Ok(vec![Selected { at: found.path, name }]);
    }
    let mut folders = match found {
        Some(found) if found.is_dir() => vec![found.path],
        _ => Vec::new(),
    };
    let mut selected = Vec::new();
    for (depth, pattern) in patterns.iter().enumerate() {
        let glob = Glob::new(pattern).map_err(|_| SelectError::Pattern(source.to_owned()))?;
        let last = depth + 1 == patterns.len();
        let mut next = Vec::new();
        for folder in &folders {
            for (name, kind) in list(root, folder).map_err(fail)? {
                if !glob.matches(&name.to_string_lossy()) {
                    continue;
                }
                let path = folder.join(&name);
                if !last {
                    if kind == FileType::Directory {
                        next.push(path);
                    }
                    continue;
                }
                if !admitted(rules, &path, kind == FileType::Directory) {
                    continue;
                }
                // The match itself is followed, as a plain path would be.
                let Some(found) = root.find(&path).map_err(fail)? else { return Err(missing()) };
                if admitted(rules, &found.path, found.is_dir()) {
                    selected.push(Selected { at: found.path, name });
                }
            }
        }
        folders = next;
    }
    Ok(selected)
}

/// The components of a path, `..` resolved. `source` is for messages.
pub(super) fn normal<'p>(path: &'p str, source: &str, contained: bool) -> Result<Vec<&'p str>, SelectError> {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/').filter(|part| !part.is_empty() && *part != ".") {
        if part == ".." {
            if parts.pop().is_none() && contained {
                return Err(SelectError::Outside(source.to_owned()));
            }
        } else {
            parts.push(part);
        }
    }
    Ok(parts)
}

/// Whether a path may be named: its own verdict, and no skipped folder above it.
pub(super) fn admitted(rules: &dyn Rules, path: &Path, is_dir: bool) -> bool {
    if path.as_os_str().is_empty() {
        return true;
    }
    let above = path.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty());
    if above.into_iter().any(|above| rules.verdict(above, true) == Verdict::Skip) {
        return false;
    }
    match rules.verdict(path, is_dir) {
        Verdict::Keep => true,
        Verdict::Skip => false,
        Verdict::Descend => is_dir,
    }
}

/// Names and kinds in a folder, sorted by name.
pub(super) fn list(root: &Root, folder: &Path) -> io::Result<Vec<(OsString, FileType)>> {
    let mut dir = Dir::new(root.open_dir(folder)?)?;
    let mut names = Vec::new();
    while let Some(next) = dir.read() {
        let next = next?;
        let name = std::ffi::OsStr::from_bytes(next.file_name().to_bytes());
        if name == "." || name == ".." {
            continue;
        }
        let mut kind = next.file_type();
        if kind == FileType::Unknown {
            let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
            kind = FileType::from_raw_mode(rustix::fs::statat(dir.fd()?, name, flags)?.st_mode);
        }
        names.push((name.to_owned(), kind));
    }
    names.sort_unstable_by(|a: &(OsString, FileType), b| a.0.cmp(&b.0));
    Ok(names)
}
