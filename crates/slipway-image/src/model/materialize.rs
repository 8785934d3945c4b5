//! A model from the store as a folder.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use slipway_types::{Digest, ErrorCode};

use super::manifest::{ManifestError, ModelFile, ModelManifest, read_manifest};
use crate::registry::store_code;
use crate::store::{Store, StoreError};

/// Why a model was not laid out. Nothing is left of it then.
#[derive(Debug, thiserror::Error)]
pub enum MaterializeError {
    /// The model cannot be read.
    #[error("cannot lay out model {manifest}")]
    Manifest {
        /// Which.
        manifest: Digest,
        /// Why.
        source: ManifestError,
    },
    /// A file's content is not in the store.
    #[error("cannot lay out `{path}` of the model")]
    Blob {
        /// Path in the model.
        path: String,
        /// Why.
        source: StoreError,
    },
    /// A file's content in the store is damaged.
    #[error("`{path}` of the model is damaged in the store: blob {digest} has other content")]
    Damaged {
        /// Path in the model.
        path: String,
        /// Its blob.
        digest: Digest,
    },
    /// Something else is there already.
    #[error("`{}` exists and is not this model", path.display())]
    Exists {
        /// The folder.
        path: PathBuf,
    },
    /// A file or folder cannot be made.
    #[error("cannot make `{}`", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl MaterializeError {
    /// The kind.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Manifest { source, .. } => source.code(),
            Self::Blob { source, .. } => store_code(source),
            Self::Damaged { .. } => ErrorCode::DataLoss,
            Self::Exists { .. } => ErrorCode::Conflict,
            Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                ErrorCode::ResourceExhausted
            }
            Self::Io { .. } => ErrorCode::Internal,
        }
    }
}

/// Makes `target` a folder with the model's files, as hard links to the store's blobs, or copies where the file
/// system does not link. Files have mode 0444, folders 0555: whoever needs more takes a copy. The folder appears whole
/// or not at all; one that is there already and has the same files is left as it is.
///
/// # Errors
/// The model or one of its files is not in the store, the target is something else, or it cannot be written.
pub fn materialize(
    store: &Store,
    manifest: &Digest,
    target: &Path,
) -> Result<ModelManifest, MaterializeError> {
    let model = read_manifest(store, manifest)
        .map_err(|source| MaterializeError::Manifest { manifest: manifest.clone(), source })?;
    if target.symlink_metadata().is_ok() {
        return existing(store, model, target);
    }
    let parent = match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(parent).map_err(|source| MaterializeError::Io { path: parent.to_owned(), source })?;
    let aside = tempfile::Builder::new()
        .prefix(".model-")
        .tempdir_in(parent)
        .map_err(|source| MaterializeError::Io { path: parent.to_owned(), source })?;
    let laid_out = lay_out(store, &model, aside.path())
        .and_then(|()| set_folder_modes(aside.path(), 0o555))
        .and_then(|()| match fs::rename(aside.path(), target) {
            Ok(()) => Ok(true),
            // Somebody was faster.
            Err(e) if matches!(e.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists) => {
                Ok(false)
            }
            Err(source) => Err(MaterializeError::Io { path: target.to_owned(), source }),
        });
    match laid_out {
        Ok(true) => {
            // Moved away; there is nothing to remove.
            let _ = aside.keep();
            File::open(parent)
                .and_then(|folder| folder.sync_all())
                .map_err(|source| MaterializeError::Io { path: parent.to_owned(), source })?;
            Ok(model)
        }
        other => {
            // Folders without write permission cannot be emptied by everybody.
            let _ = set_folder_modes(aside.path(), 0o755);
            drop(aside);
            other.and_then(|_| existing(store, model, target))
        }
    }
}

fn lay_out(store: &Store, model: &ModelManifest, root: &Path) -> Result<(), MaterializeError> {
    for file in &model.files {
        // The path was checked when the manifest was read: it stays below `root`, which nobody else knows yet.
        let path = root.join(&file.path);
        if let Some(folder) = path.parent() {
            DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(folder)
                .map_err(|source| MaterializeError::Io { path: folder.to_owned(), source })?;
        }
        place(store, file, &path)?;
    }
    Ok(())
}

fn place(store: &Store, file: &ModelFile, path: &Path) -> Result<(), MaterializeError> {
    let blob = |source| MaterializeError::Blob { path: file.path.clone(), source };
    let damaged = || MaterializeError::Damaged { path: file.path.clone(), digest: file.digest.clone() };
    let size = store.blob_size(&file.digest).map_err(blob)?;
    match size {
        None => return Err(blob(StoreError::BlobNotFound { digest: file.digest.clone() })),
        Some(size) if size != file.size => return Err(damaged()),
        Some(_) => {}
    }
    if fs::hard_link(store.blob_path(&file.digest), path).is_ok() {
        return Ok(());
    }
    // Another file system, or too many links to one file (an empty one in every model).
    let io = |source| MaterializeError::Io { path: path.to_owned(), source };
    let mut from = store.open_blob(&file.digest).map_err(blob)?;
    let mut to = OpenOptions::new().write(true).create_new(true).mode(0o444).open(path).map_err(io)?;
    let mut sha = Sha256::new();
    copy_hashed(&mut from, &mut to, &mut sha).map_err(io)?;
    to.sync_all().map_err(io)?;
    if Digest::from_sha256(sha.finalize().into()) != file.digest {
        return Err(damaged());
    }
    Ok(())
}

fn set_folder_modes(folder: &Path, mode: u32) -> Result<(), MaterializeError> {
    let io = |source| MaterializeError::Io { path: folder.to_owned(), source };
    let change = || fs::set_permissions(folder, Permissions::from_mode(mode)).map_err(io);
    // Outermost first when it opens, last when it closes.
    if mode & 0o200 != 0 {
        change()?;
    }
    for entry in fs::read_dir(folder).map_err(io)? {
        let entry = entry.map_err(io)?;
        if entry.file_type().map_err(io)?.is_dir() {
            set_folder_modes(&entry.path(), mode)?;
        }
    }
    if mode & 0o200 == 0 {
        change()?;
    }
    Ok(())
}

/// Accepts a folder that holds exactly the model's files: the store's own, or equal copies.
fn existing(store: &Store, model: ModelManifest, target: &Path) -> Result<ModelManifest, MaterializeError> {
    let other = || MaterializeError::Exists { path: target.to_owned() };
    for file in &model.files {
        let path = target.join(&file.path);
        let there = path.symlink_metadata().map_err(|_| other())?;
        let linked = store
            .blob_path(&file.digest)
            .symlink_metadata()
            .is_ok_and(|blob| (blob.dev(), blob.ino()) == (there.dev(), there.ino()));
        let same = there.is_file() && (linked || (there.len() == file.size && holds(&path, &file.digest)));
        if !same {
            return Err(other());
        }
    }
    match count_files(target, model.files.len()) {
        Some(count) if count == model.files.len() => Ok(model),
        _ => Err(other()),
    }
}

fn holds(path: &Path, digest: &Digest) -> bool {
    let mut sha = Sha256::new();
    let hashed = File::open(path).and_then(|mut file| copy_hashed(&mut file, &mut io::sink(), &mut sha));
    hashed.is_ok() && Digest::from_sha256(sha.finalize().into()) == *digest
}

fn copy_hashed(from: &mut File, to: &mut impl Write, sha: &mut Sha256) -> io::Result<()> {
    let mut buffer = vec![0; 256 << 10];
    loop {
        let n = from.read(&mut buffer)?;
        if n == 0 {
            return Ok(());
        }
        sha.update(&buffer[..n]);
        to.write_all(&buffer[..n])?;
    }
}

/// The number of entries that are no folders; `None` when there are more than `limit` or they cannot be listed.
fn count_files(folder: &Path, limit: usize) -> Option<usize> {
    let mut count = 0;
    for entry in fs::read_dir(folder).ok()? {
        let entry = entry.ok()?;
        count += if entry.file_type().ok()?.is_dir() { count_files(&entry.path(), limit)? } else { 1 };
        if count > limit {
            return None;
        }
    }
    Some(count)
}
