//! The commit that a project folder is at.

use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// The commit of the repository that holds `folder`, with `-dirty` when files below it differ from it; nothing where
/// there is no repository or no git.
pub fn commit(folder: &Path) -> Option<String> {
    let head = git(folder, &["rev-parse", "--verify", "HEAD"])?;
    let changed = git(folder, &["status", "--porcelain", "--untracked-files=normal", "--", "."])?;
    Some(if changed.is_empty() { head } else { format!("{head}-dirty") })
}

fn git(folder: &Path, arguments: &[&str]) -> Option<String> {
    // A repository's own configuration may name programs (filters, monitors): they get no more than its owner has.
    let owner = std::fs::metadata(folder).ok()?;
    let output = Command::new("git")
        .uid(owner.uid())
        .gid(owner.gid())
        .env("HOME", "/nonexistent")
        .args(["-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null"])
        .arg("-C")
        .arg(folder)
        .args(arguments)
        .env("GIT_OPTIONAL_LOCKS", "0")
        .env_remove("GIT_DIR")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_clean_from_dirty() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(commit(dir.path()), None);
        std::fs::write(dir.path().join("a"), "1").unwrap();
        for arguments in [
            &["init", "-q"][..],
            &["add", "a"],
            &["-c", "user.name=t", "-c", "user.email=t@example.com", "commit", "-qm", "x"],
        ] {
            assert!(git(dir.path(), arguments).is_some(), "{arguments:?}");
        }
        let clean = commit(dir.path()).unwrap();
        assert_eq!(clean.len(), 40);
        std::fs::write(dir.path().join("a"), "2").unwrap();
        assert_eq!(commit(dir.path()).unwrap(), format!("{clean}-dirty"));
    }
}
