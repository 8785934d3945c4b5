//! Tells whether the files that a training run depends on changed since the last one.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use slipway_types::run::{Launcher, RunSpec};
use slipway_types::{ApiError, Digest};

use super::workspace;
use crate::project_file::FILE_NAME;

/// What a model version was trained from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// Image, command and settings.
    pub settings: Digest,
    /// Names, sizes, times and inodes: when equal, no file is read.
    pub stats: Digest,
    /// Names and contents.
    pub content: Digest,
}

/// A listed file.
struct Entry {
    path: std::path::PathBuf,
    stat: [i64; 6],
}

impl Fingerprint {
    /// The fingerprint of a run; the contents are read only when the stats differ from those of `last`.
    pub fn of(spec: &RunSpec, image: &Digest, last: Option<&Self>) -> Result<Self, ApiError> {
        let settings =
            serde_json::to_vec(&(image, &spec.command, &spec.env, &spec.format, &spec.entry, &spec.network))
                .map_err(|e| ApiError::new(slipway_types::ErrorCode::Internal, e.to_string()))?;
        let mut files = BTreeMap::new();
        list(&spec.workspace, "workspace", true, &mut files)?;
        if let Some(data) = &spec.data {
            list(data, "data", false, &mut files)?;
        }
        let mut stats = Sha256::new();
        for (name, entry) in &files {
            stats.update((name.len() as u64).to_le_bytes());
            stats.update(name.as_bytes());
            entry.stat.iter().for_each(|n| stats.update(n.to_le_bytes()));
        }
        let stats = digest(stats);
        let content = match last {
            Some(last) if last.stats == stats => last.content.clone(),
            _ => contents(&files)?,
        };
        let mut hash = Sha256::new();
        hash.update(&settings);
        let gang = (spec.gang.ranks, spec.gang.processes, spec.gang.launcher);
        if gang != (1, 1, Launcher::None) {
            let text = serde_json::to_vec(&gang);
            hash.update(text.map_err(|e| ApiError::new(slipway_types::ErrorCode::Internal, e.to_string()))?);
        }
        // A token that was renewed changes no model.
        for name in spec.secrets.0.keys() {
            hash.update(format!("secret {name}\0"));
        }
        Ok(Self { settings: digest(hash), stats, content })
    }

    /// Whether a run of `self` would do what the run of `other` did.
    pub fn same_work(&self, other: &Self) -> bool {
        self.settings == other.settings && self.content == other.content
    }
}

fn digest(hash: Sha256) -> Digest {
    Digest::from_sha256(hash.finalize().into())
}

fn list(
    folder: &Path,
    label: &str,
    project: bool,
    files: &mut BTreeMap<String, Entry>,
) -> Result<(), ApiError> {
    workspace::each(folder, project, |inner, entry| {
        // What of it matters to training is among the settings; `[serve]` does not.
        if project && inner == FILE_NAME {
            return Ok(());
        }
        let path = entry.into_path();
        let metadata = std::fs::symlink_metadata(&path).map_err(|e| io("read", &path, &e))?;
        if metadata.is_dir() {
            return Ok(());
        }
        let stat = [
            i64::from(metadata.mode()),
            metadata.size().cast_signed(),
            metadata.mtime(),
            metadata.mtime_nsec(),
            metadata.ctime() ^ metadata.ctime_nsec(),
            metadata.ino().cast_signed(),
        ];
        files.insert(format!("{label}/{inner}"), Entry { path, stat });
        Ok(())
    })
}

fn contents(files: &BTreeMap<String, Entry>) -> Result<Digest, ApiError> {
    let mut whole = Sha256::new();
    for (name, entry) in files {
        whole.update((name.len() as u64).to_le_bytes());
        whole.update(name.as_bytes());
        let metadata = std::fs::symlink_metadata(&entry.path).map_err(|e| io("read", &entry.path, &e))?;
        let mut one = Sha256::new();
        if metadata.is_symlink() {
            let target = std::fs::read_link(&entry.path).map_err(|e| io("read", &entry.path, &e))?;
            one.update(target.as_os_str().as_encoded_bytes());
        } else if metadata.is_file() {
            let mut file = std::fs::File::open(&entry.path).map_err(|e| io("read", &entry.path, &e))?;
            std::io::copy(&mut file, &mut HashWriter(&mut one)).map_err(|e| io("read", &entry.path, &e))?;
        }
        whole.update(metadata.mode().to_le_bytes());
        whole.update(one.finalize());
    }
    Ok(digest(whole))
}

/// Hashes what is written to it.
struct HashWriter<'a>(&'a mut Sha256);

impl std::io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn io(what: &str, path: &Path, error: &std::io::Error) -> ApiError {
    crate::failure::io(what, path, error)
        .error
        .unwrap_or_else(|| ApiError::new(slipway_types::ErrorCode::Internal, error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_touched_file_is_no_change_and_an_edited_one_is() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("train.py");
        std::fs::write(&file, "one").unwrap();
        std::fs::write(dir.path().join(".slipwayignore"), "*.log\n").unwrap();
        // Of the image's build, and nothing to training.
        std::fs::write(dir.path().join(".dockerignore"), "*\n").unwrap();
        let spec =
            RunSpec { workspace: dir.path().to_owned(), command: vec!["x".into()], ..RunSpec::default() };
        let image = Digest::from_sha256([1; 32]);
        let first = Fingerprint::of(&spec, &image, None).unwrap();
        std::fs::write(dir.path().join("noise.log"), "ignored").unwrap();
        std::fs::create_dir(dir.path().join("__pycache__")).unwrap();
        std::fs::write(dir.path().join("__pycache__/x.pyc"), "ignored").unwrap();
        std::fs::write(dir.path().join("slipway.toml"), "[serve]\nreplicas = 2\n").unwrap();
        assert_eq!(Fingerprint::of(&spec, &image, Some(&first)).unwrap(), first);

        std::fs::remove_file(&file).unwrap();
        std::fs::write(&file, "one").unwrap();
        let touched = Fingerprint::of(&spec, &image, Some(&first)).unwrap();
        assert!(touched.stats != first.stats && touched.same_work(&first));

        std::fs::write(&file, "two").unwrap();
        assert!(!Fingerprint::of(&spec, &image, Some(&touched)).unwrap().same_work(&first));
        let mut gang = spec.clone();
        gang.gang.retries = 3;
        gang.engine = Some("kubernetes".into());
        let last = Fingerprint::of(&spec, &image, None).unwrap();
        assert!(Fingerprint::of(&gang, &image, None).unwrap().same_work(&last), "how, not what");
        gang.gang.ranks = 2;
        assert!(!Fingerprint::of(&gang, &image, None).unwrap().same_work(&last));
        let other_image = Fingerprint::of(&spec, &Digest::from_sha256([2; 32]), Some(&touched)).unwrap();
        assert!(!other_image.same_work(&touched));
    }
}
