//! `COPY --parents`: what a source names, with the folders that lead to it.

use std::collections::{BTreeSet, HashSet};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::FileType;

use super::glob::{Glob, has_wildcard};
use super::select::{SelectError, Selected, admitted, list, normal};
use crate::build::root::{Found, Root};
use crate::build::runner::CancelFlag;
use crate::build::tree::{Rules, Verdict};

/// One match of a source, and the folders that are made for it.
pub(crate) struct Kept {
    pub(crate) selected: Selected,
    /// Path below the destination.
    pub(crate) below: PathBuf,
    /// The folders above it, from the top: path below the destination, and the folder itself.
    pub(crate) folders: Vec<(PathBuf, Found)>,
}

/// Resolves one source. Folders before a `/./` in it are not kept; `**` is any number of folders.
pub(crate) fn select_with_parents(
    root: &Root,
    rules: &dyn Rules,
    source: &str,
    place: &str,
    contained: bool,
    cancel: &CancelFlag,
) -> Result<Vec<Kept>, SelectError> {
    let fail = |error| SelectError::Io { path: source.to_owned(), place: place.to_owned(), source: error };
    let missing = || SelectError::Missing { path: source.to_owned(), place: place.to_owned() };
    let (pivot, kept) = source.split_once("/./").unwrap_or(("", source));
    let pivot: PathBuf = normal(pivot, source, contained)?.into_iter().collect();
    let mut parts = normal(kept, source, contained)?;
    parts.dedup_by(|a, b| *a == "**" && *b == "**");
    let (found, seen) = (BTreeSet::new(), HashSet::new());
    let mut search = Search { root, rules, pivot: &pivot, source, cancel, found, seen };
    search.walk(Path::new(""), &parts).map_err(|error| match error {
        Failed::Cancelled => SelectError::Cancelled,
        Failed::Pattern => SelectError::Pattern(source.to_owned()),
        Failed::Io(error) => fail(error),
    })?;
    let plain = !parts.iter().any(|part| has_wildcard(part));
    let mut all = Vec::new();
    for below in search.found {
        let Some(found) = root.find(&pivot.join(&below)).map_err(fail)? else { return Err(missing()) };
        if !admitted(rules, &found.path, found.is_dir()) {
            if plain {
                return Err(SelectError::Ignored(source.to_owned()));
            }
            continue;
        }
        let mut folders = Vec::new();
        let above: Vec<&Path> = below.ancestors().skip(1).filter(|a| !a.as_os_str().is_empty()).collect();
        for folder in above.into_iter().rev() {
            let found = root.find(&pivot.join(folder)).map_err(fail)?.ok_or_else(missing)?;
            folders.push((folder.to_owned(), found));
        }
        let name = below.file_name().unwrap_or_default().to_owned();
        all.push(Kept { selected: Selected { at: found.path, name }, below, folders });
    }
    Ok(all)
}

struct Search<'s> {
    root: &'s Root,
    rules: &'s dyn Rules,
    pivot: &'s Path,
    source: &'s str,
    cancel: &'s CancelFlag,
    /// Paths below the pivot, as written or matched.
    found: BTreeSet<PathBuf>,
    /// Folders that were listed, with how many parts of the pattern were left: several `**` lead there by many ways.
    seen: HashSet<(PathBuf, usize, bool)>,
}

enum Failed {
    Cancelled,
    Pattern,
    Io(io::Error),
}

impl Search<'_> {
    fn walk(&mut self, at: &Path, parts: &[&str]) -> Result<(), Failed> {
        let Some((part, rest)) = parts.split_first() else {
            self.found.insert(at.to_owned());
            return Ok(());
        };
        if !has_wildcard(part) {
            // Without a pattern behind it, it must be there, which is for the caller to say.
            let next = at.join(part);
            let searched = self.source.contains(['*', '?', '[']);
            let there = !searched || self.root.find(&self.pivot.join(&next)).map_err(Failed::Io)?.is_some();
            return if there { self.walk(&next, rest) } else { Ok(()) };
        }
        if self.cancel.is_cancelled() {
            return Err(Failed::Cancelled);
        }
        if !self.seen.insert((at.to_owned(), parts.len(), *part == "**")) {
            return Ok(());
        }
        if *part == "**" {
            if rest.is_empty() {
                return self.walk(at, &["*"]);
            }
            self.walk(at, rest)?;
        }
        let glob = Glob::new(part).map_err(|_| Failed::Pattern)?;
        let folder = self.root.find(&self.pivot.join(at)).map_err(Failed::Io)?;
        let Some(folder) = folder.filter(Found::is_dir) else { return Ok(()) };
        for (name, kind) in list(self.root, &folder.path).map_err(Failed::Io)? {
            let is_dir = kind == FileType::Directory;
            let path = at.join(&name);
            if self.rules.verdict(&folder.path.join(&name), is_dir) == Verdict::Skip {
                continue;
            }
            if *part == "**" {
                if is_dir {
                    self.walk(&path, parts)?;
                }
            } else if glob.matches(&name.to_string_lossy()) && (is_dir || rest.is_empty()) {
                self.walk(&path, rest)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::context::Everything;

    fn found(root: &Root, source: &str, cancel: &CancelFlag) -> Result<Vec<PathBuf>, SelectError> {
        let kept = select_with_parents(root, &Everything, source, "here", true, cancel)?;
        Ok(kept.into_iter().map(|one| one.below).collect())
    }

    #[test]
    fn many_wildcards_look_at_each_folder_once() {
        let dir = tempfile::tempdir().unwrap();
        let deep: PathBuf = std::iter::repeat_n("a", 60).collect();
        std::fs::create_dir_all(dir.path().join(&deep)).unwrap();
        std::fs::write(dir.path().join(&deep).join("f"), "").unwrap();
        std::fs::write(dir.path().join("f"), "").unwrap();
        let (root, cancel) = (Root::open(dir.path()).unwrap(), CancelFlag::new());
        let both = [deep.join("f"), PathBuf::from("f")];
        for source in ["**/f", "**/**/**/f", "**/**/**/**/**/**/**/**/f"] {
            let mut all = found(&root, source, &cancel).unwrap();
            all.sort();
            assert_eq!(all, both, "{source}");
        }
        // Without a memory these would take for ever.
        let source = format!("{}f", "**/a/".repeat(12));
        assert_eq!(found(&root, &source, &cancel).unwrap(), both[..1]);
        cancel.cancel();
        assert!(matches!(found(&root, "**/f", &cancel), Err(SelectError::Cancelled)));
    }
}
