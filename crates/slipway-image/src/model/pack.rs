//! A model folder into the store.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use slipway_types::model::{Lineage, ModelFormat};
use slipway_types::{Digest, ErrorCode};

use super::manifest::{ConfigDocument, ConfigPart, DescriptorPart, ENTRY, FORMAT, LINEAGE, METRICS, ModelFs};
use super::path::{InvalidPath, MAX_FILES, check_paths};
use super::tree::{FileKind, Links, Tree, TreeError};
use super::{ARTIFACT_TYPE, CONFIG_TYPE, FILE_PATH, ModelFile};
use crate::registry::{Descriptor, MAX_MANIFEST, Manifest, OCI_MANIFEST, store_code};
use crate::store::{Store, StoreError};

/// The most bytes of a model.
const MAX_BYTES: u64 = 4 << 40;

/// What a model version says about itself.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelMeta {
    /// Model name.
    pub model: String,
    /// Version number.
    pub version: u64,
    /// Format.
    pub format: ModelFormat,
    /// Class of the user's, as `module:Class`.
    pub entry: Option<String>,
    /// Where it came from.
    pub lineage: Lineage,
    /// Metrics of its training run. JSON has no infinities: values that are not finite are left out.
    pub metrics: BTreeMap<String, f64>,
    /// When it was made.
    pub created_at: jiff::Timestamp,
}

/// A packed model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedModel {
    /// Digest of the manifest.
    pub manifest: Digest,
    /// Bytes of all files.
    pub size: u64,
    /// The files, sorted by path.
    pub files: Vec<ModelFile>,
}

/// Why a model folder was not packed.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// The folder cannot be listed or read.
    #[error("cannot pack the model folder")]
    Tree(#[source] TreeError),
    /// A path is not allowed.
    #[error("cannot pack the model folder")]
    Path(#[source] InvalidPath),
    /// There is nothing in it.
    #[error("the model folder `{}` is empty", path.display())]
    Empty {
        /// The folder.
        path: PathBuf,
    },
    /// More bytes than are accepted.
    #[error("the model folder `{}` holds more than {MAX_BYTES} bytes", path.display())]
    TooLarge {
        /// The folder.
        path: PathBuf,
    },
    /// A file was written to while it was packed.
    #[error("`{}` changed while it was packed", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// A file cannot be copied into the store.
    #[error("cannot copy `{}` into the store", path.display())]
    Copy {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The store failed.
    #[error("cannot keep the model in the store")]
    Store(#[source] StoreError),
    /// The manifest does not fit.
    #[error(
        "the model's manifest would have {size} bytes, more than the {MAX_MANIFEST} that registries accept"
    )]
    Manifest {
        /// Its size.
        size: usize,
    },
    /// What is said about the model cannot be written as JSON.
    #[error("cannot write the model's manifest")]
    Json(#[source] serde_json::Error),
}

impl PackError {
    /// The kind.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Store(source) => store_code(source),
            Self::Copy { source, .. }
                if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) =>
            {
                ErrorCode::ResourceExhausted
            }
            Self::Copy { .. } | Self::Json(_) => ErrorCode::Internal,
            Self::Changed { .. } => ErrorCode::Conflict,
            _ => ErrorCode::InvalidArgument,
        }
    }
}

/// Stores every file of a folder as a blob and writes the model's manifest and configuration. The same folder and `meta` give
/// the same digest. Symbolic links inside the folder are stored as what they point to. Nothing keeps the
/// model in the store but a lease that the caller holds, until the caller pins the manifest.
///
/// # Errors
/// A link that leads out of the folder, something that is no file, limits, or a failure of the store.
pub fn pack(store: &Store, dir: &Path, meta: &ModelMeta) -> Result<PackedModel, PackError> {
    let tree = Tree::open(dir, Links::Follow).map_err(PackError::Tree)?;
    let listed = tree.files(MAX_FILES).map_err(PackError::Tree)?;
    if listed.is_empty() {
        return Err(PackError::Empty { path: dir.to_owned() });
    }
    check_paths(listed.iter().map(|f| f.path.as_str())).map_err(PackError::Path)?;
    let mut files = Vec::with_capacity(listed.len());
    let mut total = 0_u64;
    for file in listed {
        let size = match file.kind {
            FileKind::Regular { size, .. } => size,
            FileKind::Link { .. } => 0,
        };
        total = total.saturating_add(size);
        if total > MAX_BYTES {
            return Err(PackError::TooLarge { path: dir.to_owned() });
        }
        let digest = store_file(store, &tree, dir, &file.path, size)?;
        let media_type = media_type(&file.path).to_owned();
        files.push(ModelFile { path: file.path, digest, size, media_type });
    }
    let config = put_json(store, &config_of(meta, &files))?;
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(OCI_MANIFEST.to_owned()),
        artifact_type: Some(ARTIFACT_TYPE.to_owned()),
        config: Descriptor { media_type: CONFIG_TYPE.to_owned(), ..config },
        layers: files.iter().map(layer_of).collect(),
        annotations: annotations_of(meta)?,
    };
    let manifest = put_json(store, &manifest)?.digest;
    Ok(PackedModel { manifest, size: total, files })
}

fn store_file(store: &Store, tree: &Tree, dir: &Path, path: &str, size: u64) -> Result<Digest, PackError> {
    let mut reader = tree.read(path).map_err(PackError::Tree)?;
    let mut writer = store.blob_writer().map_err(PackError::Store)?;
    let mut buffer = vec![0; 256 << 10];
    let mut copied = 0_u64;
    loop {
        let failed = |source| PackError::Copy { path: dir.join(path), source };
        let n = match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(failed(e)),
        };
        writer.write_all(&buffer[..n]).map_err(failed)?;
        copied += n as u64;
        if copied > size {
            break;
        }
    }
    if copied != size {
        return Err(PackError::Changed { path: dir.join(path) });
    }
    writer.commit(None).map_err(PackError::Store)
}

fn put_json(store: &Store, document: &impl serde::Serialize) -> Result<Descriptor, PackError> {
    let bytes = serde_json::to_vec(document).map_err(PackError::Json)?;
    if bytes.len() as u64 > MAX_MANIFEST {
        return Err(PackError::Manifest { size: bytes.len() });
    }
    let digest = store.put_blob(&bytes).map_err(PackError::Store)?;
    Ok(Descriptor {
        media_type: String::new(),
        digest,
        size: bytes.len() as u64,
        annotations: BTreeMap::new(),
    })
}

fn config_of(meta: &ModelMeta, files: &[ModelFile]) -> ConfigDocument {
    ConfigDocument {
        descriptor: DescriptorPart {
            created_at: Some(meta.created_at),
            name: Some(meta.model.clone()),
            version: Some(meta.version.to_string()),
            revision: meta.lineage.git_commit.clone(),
        },
        config: ConfigPart { format: Some(meta.format.as_str().to_owned()) },
        modelfs: ModelFs {
            kind: "layers".to_owned(),
            diff_ids: files.iter().map(|f| f.digest.clone()).collect(),
        },
    }
}

fn layer_of(file: &ModelFile) -> Descriptor {
    Descriptor {
        media_type: file.media_type.clone(),
        digest: file.digest.clone(),
        size: file.size,
        annotations: BTreeMap::from([(FILE_PATH.to_owned(), file.path.clone())]),
    }
}

fn annotations_of(meta: &ModelMeta) -> Result<BTreeMap<String, String>, PackError> {
    let finite: BTreeMap<_, _> = meta.metrics.iter().filter(|(_, v)| v.is_finite()).collect();
    let mut notes = BTreeMap::from([
        (FORMAT.to_owned(), meta.format.as_str().to_owned()),
        (LINEAGE.to_owned(), serde_json::to_string(&meta.lineage).map_err(PackError::Json)?),
        (METRICS.to_owned(), serde_json::to_string(&finite).map_err(PackError::Json)?),
    ]);
    if let Some(entry) = &meta.entry {
        notes.insert(ENTRY.to_owned(), entry.clone());
    }
    Ok(notes)
}

/// The specification's type for a file, by its name.
fn media_type(path: &str) -> &'static str {
    let name = path.rsplit('/').next().unwrap_or(path).to_ascii_lowercase();
    let extension = name.rsplit_once('.').map_or("", |(_, e)| e);
    match extension {
        _ if name.starts_with("readme") || name.starts_with("license") || name.starts_with("notice") => {
            "application/vnd.cncf.model.doc.v1.raw"
        }
        "md" | "rst" | "pdf" => "application/vnd.cncf.model.doc.v1.raw",
        "py" | "pyi" | "ipynb" | "sh" => "application/vnd.cncf.model.code.v1.raw",
        "json" | "yaml" | "yml" | "toml" | "txt" | "ini" | "cfg" => {
            "application/vnd.cncf.model.weight.config.v1.raw"
        }
        _ => "application/vnd.cncf.model.weight.v1.raw",
    }
}
