//! Reading a model's manifest and configuration. Both may come from a registry: everything is checked.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use slipway_types::model::{Lineage, ModelFormat};
use slipway_types::{Digest, ErrorCode};

use super::path::{InvalidPath, MAX_FILES, check_paths};
use super::{ARTIFACT_TYPE, CONFIG_TYPE, FILE_PATH};
use crate::registry::{MAX_CONFIG, MAX_MANIFEST, Manifest, digest_of};
use crate::store::{Store, StoreError};

pub(super) const FORMAT: &str = "dev.slipway.model.format";
pub(super) const ENTRY: &str = "dev.slipway.model.entry";
pub(super) const LINEAGE: &str = "dev.slipway.model.lineage";
pub(super) const METRICS: &str = "dev.slipway.model.metrics";

/// Types of layers that are one file as it is; the kinds in between are the specification's.
const MODEL_TYPES: &str = "application/vnd.cncf.model.";

/// One file of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelFile {
    /// Path in the model folder, parts separated by `/`; checked.
    pub path: String,
    /// Digest of its content.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    /// Its type by the specification.
    pub media_type: String,
}

/// What a model's manifest and configuration say.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelManifest {
    /// Digest of the manifest.
    pub digest: Digest,
    /// Digest of the configuration.
    pub config: Digest,
    /// The model's name.
    pub model: Option<String>,
    /// The version, where it is a number.
    pub version: Option<u64>,
    /// The format, where it is one of Slipway's. Artifacts of other tools may need detection.
    pub format: Option<ModelFormat>,
    /// Class of the user's, as `module:Class`.
    pub entry: Option<String>,
    /// Where it came from.
    pub lineage: Lineage,
    /// Metrics of its training run.
    pub metrics: BTreeMap<String, f64>,
    /// When it was made.
    pub created_at: Option<jiff::Timestamp>,
    /// Its files, sorted by path.
    pub files: Vec<ModelFile>,
    /// Bytes of all files.
    pub size: u64,
}

/// Why a model's manifest cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The store failed, or does not have it.
    #[error("cannot read the model's manifest")]
    Store(#[source] StoreError),
    /// The bytes are no manifest or no configuration.
    #[error("the model's {what} is not valid")]
    Json {
        /// `manifest` or `configuration`.
        what: &'static str,
        /// Why.
        source: serde_json::Error,
    },
    /// It is something else than a model.
    #[error("the manifest is that of something else than a model: its type is `{found}`")]
    OtherKind {
        /// Its type.
        found: String,
    },
    /// A layer is an archive.
    #[error(
        "a layer of the model has type `{media_type}`: only models whose files are stored as they are can be used"
    )]
    MediaType {
        /// The layer's type.
        media_type: String,
    },
    /// A layer says not where it belongs.
    #[error("layer {layer} of the model has no `{FILE_PATH}`")]
    NoPath {
        /// Which.
        layer: Digest,
    },
    /// A path is not allowed.
    #[error("the model cannot be laid out")]
    Path(#[source] InvalidPath),
    /// No files, or too many.
    #[error("the model has {count} files: from 1 to {MAX_FILES} are accepted")]
    Files {
        /// How many.
        count: usize,
    },
}

impl ManifestError {
    /// The kind.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Store(source) => crate::registry::store_code(source),
            Self::OtherKind { .. } | Self::MediaType { .. } => ErrorCode::InvalidArgument,
            _ => ErrorCode::DataLoss,
        }
    }
}

/// The configuration (`docs/config.md` of the specification). Unknown fields are other tools' business.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct ConfigDocument {
    pub descriptor: DescriptorPart,
    pub config: ConfigPart,
    pub modelfs: ModelFs,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DescriptorPart {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<jiff::Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct ConfigPart {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct ModelFs {
    #[serde(rename = "type", default)]
    pub kind: String,
    // Drafts of the specification wrote it with an underscore.
    #[serde(rename = "diffIds", alias = "diff_ids", default)]
    pub diff_ids: Vec<Digest>,
}

impl ModelManifest {
    /// Reads a manifest and its configuration.
    ///
    /// # Errors
    /// They are no model's, or the files that they list cannot be laid out safely.
    pub fn read(manifest: &[u8], config: &[u8]) -> Result<Self, ManifestError> {
        let (document, files) = read_files(manifest)?;
        let config: ConfigDocument = serde_json::from_slice(config)
            .map_err(|source| ManifestError::Json { what: "configuration", source })?;
        let note = |name: &str| document.annotations.get(name);
        let format = note(FORMAT).cloned().or(config.config.format);
        // Annotations are words about the model: where they cannot be read the files still can.
        let lineage = note(LINEAGE).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        let metrics = note(METRICS).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        Ok(Self {
            digest: digest_of(manifest),
            config: document.config.digest.clone(),
            model: config.descriptor.name,
            version: config.descriptor.version.and_then(|text| text.parse().ok()),
            format: format.and_then(|text| text.parse().ok()),
            entry: note(ENTRY).cloned(),
            lineage,
            metrics,
            created_at: config.descriptor.created_at,
            size: files.iter().map(|f| f.size).fold(0, u64::saturating_add),
            files,
        })
    }

    /// Checks what the manifest alone tells.
    pub(crate) fn check(manifest: &[u8]) -> Result<(), ManifestError> {
        read_files(manifest).map(|_| ())
    }
}

fn read_files(bytes: &[u8]) -> Result<(Manifest, Vec<ModelFile>), ManifestError> {
    let manifest: Manifest =
        serde_json::from_slice(bytes).map_err(|source| ManifestError::Json { what: "manifest", source })?;
    if manifest.artifact_type.as_deref() != Some(ARTIFACT_TYPE) && manifest.config.media_type != CONFIG_TYPE {
        let found = manifest.artifact_type.unwrap_or(manifest.config.media_type);
        return Err(ManifestError::OtherKind { found });
    }
    if manifest.layers.is_empty() || manifest.layers.len() > MAX_FILES {
        return Err(ManifestError::Files { count: manifest.layers.len() });
    }
    let mut files = Vec::with_capacity(manifest.layers.len());
    for layer in &manifest.layers {
        if !layer.media_type.starts_with(MODEL_TYPES) || layer.media_type.contains(".tar") {
            return Err(ManifestError::MediaType { media_type: layer.media_type.clone() });
        }
        let path = layer.annotations.get(FILE_PATH);
        let path = path.ok_or_else(|| ManifestError::NoPath { layer: layer.digest.clone() })?;
        files.push(ModelFile {
            path: path.clone(),
            digest: layer.digest.clone(),
            size: layer.size,
            media_type: layer.media_type.clone(),
        });
    }
    check_paths(files.iter().map(|f| f.path.as_str())).map_err(ManifestError::Path)?;
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok((manifest, files))
}

/// Reads a model's manifest and configuration from the store.
///
/// # Errors
/// They are not there, damaged, or no model's.
pub fn read_manifest(store: &Store, manifest: &Digest) -> Result<ModelManifest, ManifestError> {
    let bytes = store.read_blob(manifest, MAX_MANIFEST).map_err(ManifestError::Store)?;
    let (document, _) = read_files(&bytes)?;
    let config = store.read_blob(&document.config.digest, MAX_CONFIG).map_err(ManifestError::Store)?;
    ModelManifest::read(&bytes, &config)
}
