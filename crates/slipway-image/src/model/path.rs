//! Paths of files in a model: relative, plain, and without two that cannot both exist.

use std::collections::BTreeMap;

/// The most files of a model; their manifest stays below the registries' 4 MiB.
pub const MAX_FILES: usize = 8000;
const MAX_PATH: usize = 1024;
const MAX_NAME: usize = 255;
const MAX_DEPTH: usize = 32;

/// Why a path cannot be part of a model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path:?} cannot be the path of a model's file: {reason}")]
pub struct InvalidPath {
    /// The path.
    pub path: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

/// Checks one path.
pub(super) fn check_path(path: &str) -> Result<(), InvalidPath> {
    let fail = |reason| Err(InvalidPath { path: path.chars().take(200).collect(), reason });
    if path.is_empty() {
        return fail("it is empty");
    }
    if path.len() > MAX_PATH {
        return fail("it is longer than 1024 bytes");
    }
    if path.starts_with('/') {
        return fail("it is absolute");
    }
    if path.chars().any(char::is_control) {
        return fail("it holds a control character");
    }
    let mut depth = 0;
    for part in path.split('/') {
        depth += 1;
        match part {
            "" | "." => return fail("it has an empty part or `.`"),
            ".." => return fail("it has `..`"),
            _ if part.len() > MAX_NAME => return fail("a part of it is longer than 255 bytes"),
            _ => {}
        }
    }
    if depth > MAX_DEPTH {
        return fail("it is more than 32 folders deep");
    }
    Ok(())
}

/// Checks the paths of a whole model: each valid, none twice, and none a folder of another.
pub(super) fn check_paths<'a>(paths: impl IntoIterator<Item = &'a str>) -> Result<(), InvalidPath> {
    let mut known: BTreeMap<&str, ()> = BTreeMap::new();
    for path in paths {
        check_path(path)?;
        if known.insert(path, ()).is_some() {
            return Err(InvalidPath { path: path.to_owned(), reason: "it is there twice" });
        }
    }
    for path in known.keys() {
        let parents = path.match_indices('/').map(|(i, _)| &path[..i]);
        for parent in parents {
            if known.contains_key(parent) {
                return Err(InvalidPath {
                    path: parent.to_owned(),
                    reason: "it is a file and a folder at once",
                });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn refuses_what_leaves_the_folder() {
        for good in ["a", "a/b.txt", "..a/b..", "variables/variables.data-00000-of-00001", "ü/ b"] {
            assert_eq!(check_path(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "/a",
            "a//b",
            "a/",
            "./a",
            "a/.",
            "..",
            "a/../b",
            "a\0b",
            "a\nb",
            &"a/".repeat(40),
            &"x".repeat(300),
        ] {
            assert!(check_path(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn refuses_paths_that_cannot_both_exist() {
        assert!(check_paths(["a", "b/c", "b/d"]).is_ok());
        for bad in [&["a", "a"][..], &["a", "a-b", "a/b"], &["x/y/z", "x"]] {
            assert!(check_paths(bad.iter().copied()).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_accepted_stays_inside(path in "[a-z./]{0,12}") {
            if check_path(&path).is_ok() {
                let joined = std::path::Path::new("/root").join(&path);
                prop_assert!(joined.starts_with("/root"));
                prop_assert!(joined.components().all(|c| c != std::path::Component::ParentDir));
                prop_assert_eq!(joined.strip_prefix("/root").unwrap().to_str().unwrap(), &path);
            }
        }
    }
}
