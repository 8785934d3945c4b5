//! The interpreter of the image.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The first `python3`, else the first `python`, in a `PATH`; the bare name where there is none, so that the failure to
/// execute it becomes the reason why the model is not ready.
pub(crate) fn find(search: &OsStr) -> PathBuf {
    ["python3", "python"]
        .into_iter()
        .flat_map(|name| std::env::split_paths(search).map(move |folder| folder.join(name)))
        .find(|path| is_executable(path))
        .unwrap_or_else(|| PathBuf::from("python3"))
}

fn is_executable(path: &Path) -> bool {
    path.is_absolute()
        && std::fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefers_python3_wherever_it_is() {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let search = std::env::join_paths([first.path(), second.path()]).unwrap();
        assert_eq!(find(&search), Path::new("python3"));
        let add = |path: PathBuf, mode| {
            std::fs::write(&path, "").unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            path
        };
        add(first.path().join("python3"), 0o644);
        let python = add(first.path().join("python"), 0o755);
        assert_eq!(find(&search), python);
        let python3 = add(second.path().join("python3"), 0o755);
        assert_eq!(find(&search), python3);
    }
}
