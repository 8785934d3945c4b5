//! Which files of a project folder a training run depends on, and takes to a cluster.

use std::collections::BTreeSet;
use std::path::Path;

use ignore::{DirEntry, WalkBuilder};
use slipway_types::{ApiError, ErrorCode};

/// Names what training does not need, in the syntax of `.gitignore`; its rules come after those of `.gitignore`.
const RULES: &str = ".slipwayignore";
/// Folders that never matter to a training run.
const NEVER: [&str; 3] = [".git", "__pycache__", ".venv"];
/// Files beyond this many are a mistake, such as a data set inside of a project.
pub const MAX_FILES: usize = 200_000;

/// Files and folders of a project that neither `.gitignore` nor `.slipwayignore` names.
pub struct Workspace(BTreeSet<String>);

impl Workspace {
    /// Those of a folder, as it is now.
    pub fn of(folder: &Path) -> Result<Self, ApiError> {
        let mut paths = BTreeSet::new();
        each(folder, true, |path, _| {
            paths.insert(path);
            Ok(())
        })?;
        Ok(Self(paths))
    }

    /// Whether a path in the folder, with `/` between its parts, is one of them.
    pub fn has(&self, path: &str) -> bool {
        self.0.contains(path)
    }
}

/// Calls `each` with the files and folders below a folder and their paths in it; those of a project without what its rules name.
pub fn each(
    folder: &Path,
    project: bool,
    mut each: impl FnMut(String, DirEntry) -> Result<(), ApiError>,
) -> Result<(), ApiError> {
    let mut walk = WalkBuilder::new(folder);
    walk.standard_filters(false).follow_links(false);
    if project {
        walk.git_ignore(true).require_git(false).add_custom_ignore_filename(RULES);
        walk.filter_entry(|entry| {
            entry.depth() == 0 || !NEVER.iter().any(|never| entry.file_name() == *never)
        });
    }
    let mut count = 0;
    for entry in walk.build() {
        let entry = entry.map_err(|error| {
            ApiError::new(ErrorCode::InvalidArgument, format!("cannot list {}: {error}", folder.display()))
        })?;
        if let Some(error) = entry.error() {
            let text = format!("{}: {error}", entry.path().display());
            return Err(ApiError::new(ErrorCode::InvalidArgument, text)
                .with_hint(format!("mend the rule in .gitignore or {RULES}")));
        }
        let Ok(inner) = entry.path().strip_prefix(folder) else { continue };
        if entry.depth() == 0 {
            continue;
        }
        count += 1;
        if count > MAX_FILES {
            let text = format!("{} has more than {MAX_FILES} files", folder.display());
            let error = ApiError::new(ErrorCode::InvalidArgument, text);
            return Err(error.with_hint(format!("name what does not matter to training in {RULES}")));
        }
        let inner = inner.to_string_lossy().into_owned();
        each(inner, entry)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_git_ignores_stays_unless_the_project_says_otherwise() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        for name in
            ["train.py", "data/rows.csv", "data/raw/all.csv", ".env", ".config/x", "pkg/__pycache__/a.pyc"]
        {
            write(name, "x");
        }
        write(".git/HEAD", "x");
        write(".dockerignore", "*");
        write(".gitignore", "/data/\n.env\n");
        let of = |path: &str| Workspace::of(dir.path()).unwrap().has(path);
        assert!(of("train.py") && of("pkg") && of(".config/x") && of(".dockerignore"));
        assert!(!of("data") && !of("data/rows.csv") && !of(".env") && !of(".git/HEAD"));
        assert!(!of("pkg/__pycache__") && !of("pkg/__pycache__/a.pyc"));
        write(".slipwayignore", "!/data/\n/data/raw\n*.log\n");
        write("noise.log", "x");
        assert!(of("data/rows.csv") && !of("data/raw/all.csv") && !of("noise.log") && !of(".env"));
        write("pkg/.slipwayignore", "[z-a]\n");
        let error = Workspace::of(dir.path()).err().unwrap();
        assert!(error.message.contains("pkg") && error.hint.unwrap().contains(".slipwayignore"));
    }
}
