//! Images that carry files and nothing that runs by itself: models and tools on their way to a cluster.
//!
//! Each has one layer, which is not compressed: weights hardly shrink, nodes unpack it faster, and it can be written again from
//! its files whenever it is needed, so that nothing of it lies in the store. The same files give the same bytes on every
//! machine: names sorted, owner root, time 0, and two kinds of modes.

mod layer;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;
use slipway_types::image::Platform;
use slipway_types::{Digest, ErrorCode};

pub(crate) use self::layer::Layer;
use self::layer::{Content, Entry, Rules};
use crate::model::{self, ManifestError};
use crate::registry::{Descriptor, Manifest, OCI_CONFIG, OCI_MANIFEST, digest_of, store_code};
use crate::store::{Store, StoreError};

/// Most files of one folder.
const MAX_FILES: usize = 1_000_000;

/// An image of files, known by its digest and not yet anywhere.
#[derive(Clone, Debug)]
pub struct Carrier {
    manifest: Vec<u8>,
    digest: Digest,
    config: Vec<u8>,
    config_descriptor: Descriptor,
    layer_descriptor: Descriptor,
    layer: Arc<Layer>,
}

/// Why an image of files was not made.
#[derive(Debug, thiserror::Error)]
pub enum CarrierError {
    /// The model cannot be read.
    #[error("cannot make an image of model {manifest}")]
    Model {
        /// Which.
        manifest: Digest,
        /// Why.
        source: ManifestError,
    },
    /// A file's content is not in the store.
    #[error("cannot read `{path}` of the model")]
    Blob {
        /// Path in the model.
        path: String,
        /// Why.
        source: StoreError,
    },
    /// A file or folder cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Something that no such image holds, or a name that is no text.
    #[error("`{}` is neither a file nor a folder with a readable name", .0.display())]
    Special(PathBuf),
    /// More files than are listed.
    #[error("the folder holds more than {limit} files")]
    TooMany {
        /// The limit.
        limit: usize,
    },
    /// A file is not as long as it was, or was said to be.
    #[error("`{path}` changed while it was read")]
    Changed {
        /// Path in the image.
        path: String,
    },
    /// The layer cannot be written.
    #[error("cannot write the layer of the image")]
    Layer(#[source] std::io::Error),
}

impl CarrierError {
    /// The kind.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Model { source, .. } => source.code(),
            Self::Blob { source, .. } => store_code(source),
            Self::Changed { .. } => ErrorCode::Conflict,
            Self::TooMany { .. } => ErrorCode::InvalidArgument,
            Self::Read { .. } | Self::Special(_) | Self::Layer(_) => ErrorCode::Internal,
        }
    }
}

impl Carrier {
    /// The files of a folder of this host, below `at` in the image. Whoever may run a file here may run it there.
    ///
    /// # Errors
    /// Links and special files are refused; something cannot be read.
    pub fn of_folder(folder: &Path, at: &str, platform: &Platform) -> Result<Self, CarrierError> {
        Self::of_listed(folder, at, &Rules { wanted: &|_| true, links: false, most: MAX_FILES }, platform)
    }

    /// A folder of a user's as a container here would see it, below `at` in the image: of what is in it, the paths that are
    /// `wanted`. Links are kept as they are; sockets, pipes and devices are no content.
    ///
    /// # Errors
    /// Something cannot be read, has a name that is no text, or is too much.
    pub fn of_tree(
        folder: &Path,
        at: &str,
        wanted: &dyn Fn(&str) -> bool,
        platform: &Platform,
    ) -> Result<Self, CarrierError> {
        Self::of_listed(folder, at, &Rules { wanted, links: true, most: MAX_FILES }, platform)
    }

    fn of_listed(
        folder: &Path,
        at: &str,
        rules: &Rules<'_>,
        platform: &Platform,
    ) -> Result<Self, CarrierError> {
        let mut entries = BTreeMap::new();
        entries.insert(format!("{at}/"), Entry { mode: 0o755, content: Content::Folder });
        layer::list(folder, at, "", rules, &mut entries)?;
        Self::of(entries, platform)
    }

    /// The files of a model version, below `at` in the image, with the modes that they have where a model is mounted.
    ///
    /// # Errors
    /// The model, or one of its files, is not in the store.
    pub fn of_model(
        store: &Store,
        manifest: &Digest,
        at: &str,
        platform: &Platform,
    ) -> Result<Self, CarrierError> {
        let model = model::read_manifest(store, manifest)
            .map_err(|source| CarrierError::Model { manifest: manifest.clone(), source })?;
        let mut entries = BTreeMap::new();
        entries.insert(format!("{at}/"), Entry { mode: 0o555, content: Content::Folder });
        for file in model.files {
            let blob = |source| CarrierError::Blob { path: file.path.clone(), source };
            match store.blob_size(&file.digest).map_err(blob)? {
                None => return Err(blob(StoreError::BlobNotFound { digest: file.digest.clone() })),
                Some(size) if size != file.size => return Err(CarrierError::Changed { path: file.path }),
                Some(_) => {}
            }
            for (end, _) in file.path.match_indices('/') {
                let folder = format!("{at}/{}/", &file.path[..end]);
                entries.entry(folder).or_insert(Entry { mode: 0o555, content: Content::Folder });
            }
            let content = Content::File { size: file.size, path: store.blob_path(&file.digest) };
            entries.insert(format!("{at}/{}", file.path), Entry { mode: 0o444, content });
        }
        Self::of(entries, platform)
    }

    fn of(entries: BTreeMap<String, Entry>, platform: &Platform) -> Result<Self, CarrierError> {
        let layer = Layer { entries };
        let layer_descriptor = layer.measure()?;
        let mut config = json!({
            "architecture": platform.architecture,
            "os": platform.os,
            "variant": platform.variant,
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [layer_descriptor.digest]},
            "history": [{"created_by": "slipway"}],
        });
        if let Some(fields) = config.as_object_mut() {
            // An absent variant is no field, not an empty one.
            fields.retain(|_, value| !value.is_null());
        }
        let config = config.to_string().into_bytes();
        let config_descriptor = Descriptor {
            media_type: OCI_CONFIG.to_owned(),
            digest: digest_of(&config),
            size: config.len() as u64,
            annotations: BTreeMap::new(),
        };
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(OCI_MANIFEST.to_owned()),
            artifact_type: None,
            config: config_descriptor.clone(),
            layers: vec![layer_descriptor.clone()],
            annotations: BTreeMap::new(),
        };
        let manifest = serde_json::to_vec(&manifest)
            .map_err(|error| CarrierError::Layer(std::io::Error::other(error)))?;
        Ok(Self {
            digest: digest_of(&manifest),
            manifest,
            config,
            config_descriptor,
            layer_descriptor,
            layer: Arc::new(layer),
        })
    }

    /// Digest of the manifest.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Length of the layer in bytes.
    pub fn size(&self) -> u64 {
        self.layer_descriptor.size
    }

    pub(crate) fn manifest(&self) -> &[u8] {
        &self.manifest
    }

    pub(crate) fn config(&self) -> (&Descriptor, &[u8]) {
        (&self.config_descriptor, &self.config)
    }

    pub(crate) fn layer(&self) -> (&Descriptor, Arc<Layer>) {
        (&self.layer_descriptor, Arc::clone(&self.layer))
    }
}
