//! Files that a command writes into a folder of the user's, and may replace and remove later: those, and no others.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Component, Path, PathBuf};

use sha2::{Digest as _, Sha256};
use slipway_types::{ApiError, Digest, ErrorCode};

use crate::failure::{self, Failure};

/// Says what was written: lines of a digest and a path. No tool that reads such folders looks at it.
const RECORD: &str = ".slipway-export";
/// Largest record that is read.
const MAX_RECORD: u64 = 4 << 20;
/// Most files that are named in a refusal.
const SHOWN: usize = 5;

/// A folder and what was written to it before.
#[derive(Debug)]
pub struct OwnedFolder {
    path: PathBuf,
    /// Contents that were written to a path; more than one after a write that was cut off.
    record: BTreeMap<String, Vec<Digest>>,
}

/// What a write changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Files that are new or have other content, in the order that they were given in.
    pub changed: Vec<String>,
    /// Files that were written before and are wanted no more.
    pub removed: Vec<String>,
}

impl OwnedFolder {
    /// Makes the folder if need be, and reads what was written to it.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        fs::create_dir_all(path).map_err(|e| failure::io("create the folder", path, &e))?;
        let mut record: BTreeMap<String, Vec<Digest>> = BTreeMap::new();
        let file = path.join(RECORD);
        let text = match read(&file, MAX_RECORD)? {
            Some(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            None => String::new(),
        };
        for line in text.lines() {
            // Whoever can write the record must not make us remove a file elsewhere.
            if let Some((digest, name)) = line.split_once(' ')
                && let Ok(digest) = digest.parse()
                && is_inside(name)
            {
                record.entry(name.to_owned()).or_default().push(digest);
            }
        }
        Ok(Self { path: path.to_owned(), record })
    }

    /// Writes these files and removes those of former writes that are not among them. A file that was not written by
    /// us, or was changed since, is left and refused, before anything else happens, unless `force` is set.
    pub fn replace(mut self, files: &[(&str, &[u8])], force: bool) -> Result<Written, Failure> {
        let mut written = Written::default();
        let mut foreign = Vec::new();
        for (name, content) in files {
            match self.state(name)? {
                State::Absent => written.changed.push((*name).to_owned()),
                State::Holds(found) if found == digest(content) => {}
                State::Holds(found) if force || self.is_ours(name, &found) => {
                    written.changed.push((*name).to_owned());
                }
                State::Other if force => written.changed.push((*name).to_owned()),
                State::Holds(_) | State::Other => foreign.push((*name).to_owned()),
            }
        }
        if !foreign.is_empty() {
            return Err(self.refusal(&foreign));
        }
        // First what may come, then what is: a write that is cut off leaves no file that seems a stranger's.
        let new: BTreeMap<String, Vec<Digest>> =
            files.iter().map(|(name, content)| ((*name).to_owned(), vec![digest(content)])).collect();
        let mut both = self.record.clone();
        for (name, digests) in &new {
            both.entry(name.clone()).or_default().extend(digests.iter().cloned());
        }
        self.write_record(&both)?;
        for (name, content) in files.iter().filter(|(name, _)| written.changed.iter().any(|c| c == name)) {
            let path = self.path.join(name);
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent).map_err(|e| failure::io("create the folder", parent, &e))?;
            }
            write(&path, content)?;
        }
        let stale: Vec<String> =
            self.record.keys().filter(|name| !new.contains_key(*name)).cloned().collect();
        for name in stale {
            if let State::Holds(found) = self.state(&name)?
                && self.is_ours(&name, &found)
            {
                let path = self.path.join(&name);
                fs::remove_file(&path).map_err(|e| failure::io("remove", &path, &e))?;
                written.removed.push(name);
            }
        }
        self.write_record(&new)?;
        self.record = new;
        Ok(written)
    }

    fn is_ours(&self, name: &str, content: &Digest) -> bool {
        self.record.get(name).is_some_and(|known| known.contains(content))
    }

    fn state(&self, name: &str) -> Result<State, Failure> {
        let path = self.path.join(name);
        match fs::symlink_metadata(&path) {
            Ok(about) if about.is_file() => {
                let bytes = fs::read(&path).map_err(|e| failure::io("read", &path, &e))?;
                Ok(State::Holds(digest(&bytes)))
            }
            Ok(_) => Ok(State::Other),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(State::Absent),
            Err(e) => Err(failure::io("look at", &path, &e)),
        }
    }

    fn refusal(&self, foreign: &[String]) -> Failure {
        let mut names = foreign.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
        if foreign.len() > SHOWN {
            names = format!("{names} and {} more", foreign.len() - SHOWN);
        }
        let reason = format!(
            "{} has files that no export wrote, or that were changed since: {names}",
            self.path.display()
        );
        Failure::from(ApiError::new(ErrorCode::Conflict, reason))
            .hint("choose another folder, keep your changes elsewhere (an overlay of `--kustomize`), or replace them with `--force`")
    }

    fn write_record(&self, record: &BTreeMap<String, Vec<Digest>>) -> Result<(), Failure> {
        let mut text = String::new();
        for (name, digests) in record {
            for digest in digests {
                text.push_str(&format!("{digest} {name}\n"));
            }
        }
        write(&self.path.join(RECORD), text.as_bytes())
    }
}

enum State {
    Absent,
    Holds(Digest),
    /// A folder, a link, or something else.
    Other,
}

fn digest(bytes: &[u8]) -> Digest {
    Digest::from_sha256(Sha256::digest(bytes).into())
}

fn is_inside(name: &str) -> bool {
    !name.is_empty() && Path::new(name).components().all(|part| matches!(part, Component::Normal(_)))
}

fn read(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, Failure> {
    use std::io::Read;
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failure::io("open", path, &e)),
    };
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes).map_err(|e| failure::io("read", path, &e))?;
    Ok(Some(bytes))
}

/// Writes aside, syncs, and renames into place.
pub fn write(path: &Path, content: &[u8]) -> Result<(), Failure> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let failed = |e: &std::io::Error| failure::io("write", path, e);
    let mut aside = tempfile::Builder::new()
        .prefix(".slipway-")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(folder)
        .map_err(|e| failed(&e))?;
    aside.write_all(content).and_then(|()| aside.as_file().sync_all()).map_err(|e| failed(&e))?;
    aside.persist(path).map_err(|e| failed(&e.error))?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|e| failed(&e))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replace(folder: &Path, files: &[(&str, &str)], force: bool) -> Result<Written, Failure> {
        let files: Vec<(&str, &[u8])> = files.iter().map(|(name, text)| (*name, text.as_bytes())).collect();
        OwnedFolder::open(folder).unwrap().replace(&files, force)
    }

    #[test]
    fn replaces_and_removes_its_own_files_only() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("out/k8s");
        let first = replace(&folder, &[("01-a.yaml", "a"), ("base/02-b.yaml", "b")], false).unwrap();
        assert_eq!(first.changed, ["01-a.yaml", "base/02-b.yaml"]);
        assert_eq!(
            replace(&folder, &[("01-a.yaml", "a"), ("base/02-b.yaml", "b")], false).unwrap(),
            Written::default()
        );

        fs::write(folder.join("mine.yaml"), "mine").unwrap();
        let second = replace(&folder, &[("01-a.yaml", "a2"), ("03-c.yaml", "c")], false).unwrap();
        assert_eq!(second.changed, ["01-a.yaml", "03-c.yaml"]);
        assert_eq!(second.removed, ["base/02-b.yaml"]);
        assert!(!folder.join("base/02-b.yaml").exists());
        assert_eq!(fs::read_to_string(folder.join("mine.yaml")).unwrap(), "mine");

        // What somebody changed is theirs, whether it would be replaced or removed.
        fs::write(folder.join("01-a.yaml"), "edited").unwrap();
        let failure = replace(&folder, &[("01-a.yaml", "a3"), ("04-d.yaml", "d")], false).unwrap_err();
        assert!(failure.error.unwrap().message.contains("01-a.yaml"));
        assert!(!folder.join("04-d.yaml").exists(), "nothing is written when something is refused");
        let third = replace(&folder, &[("04-d.yaml", "d")], false).unwrap();
        assert_eq!(third.removed, ["03-c.yaml"]);
        assert_eq!(fs::read_to_string(folder.join("01-a.yaml")).unwrap(), "edited");
        assert!(replace(&folder, &[("mine.yaml", "ours")], false).is_err());
        assert_eq!(replace(&folder, &[("mine.yaml", "ours")], true).unwrap().changed, ["mine.yaml"]);
    }

    #[test]
    fn links_are_not_followed_and_records_lead_nowhere_else() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("out");
        fs::create_dir(&folder).unwrap();
        let outside = dir.path().join("outside");
        fs::write(&outside, "x").unwrap();
        std::os::unix::fs::symlink(&outside, folder.join("a")).unwrap();
        assert!(replace(&folder, &[("a", "new")], false).is_err());
        replace(&folder, &[("a", "new")], true).unwrap();
        assert_eq!(fs::read_to_string(&outside).unwrap(), "x");
        let line = format!("{} ../outside\n", digest(b"x"));
        fs::write(folder.join(RECORD), line).unwrap();
        replace(&folder, &[], false).unwrap();
        assert!(outside.exists());
    }

    #[test]
    fn a_write_that_was_cut_off_is_done_again() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path();
        replace(folder, &[("a", "1")], false).unwrap();
        // As after a crash between the files and the last record: the new file, both contents in the record.
        fs::write(folder.join("a"), "2").unwrap();
        fs::write(folder.join(RECORD), format!("{} a\n{} a\n", digest(b"1"), digest(b"2"))).unwrap();
        assert_eq!(replace(folder, &[("a", "3")], false).unwrap().changed, ["a"]);
    }
}
