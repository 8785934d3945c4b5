//! Model artifacts from a registry into the store.

use slipway_types::{Digest, Reference};

use super::error::{IMAGE, MODEL, PullError};
use super::manifest::Document;
use super::pull::{Pull, is_model};
use crate::model;

impl Pull<'_> {
    /// Brings a model's manifest and every blob that it names; returns the manifest's digest.
    pub async fn artifact(mut self, reference: &Reference) -> Result<Digest, PullError> {
        let lease_of = self.store.clone();
        let _lease = self.blocking(move || lease_of.lease()).await?;
        let raw = self.named(reference).await?;
        let manifest = match self.read(&raw)? {
            Document::Manifest(manifest) if is_model(&manifest) => manifest,
            Document::Manifest(_) | Document::Index(_) => {
                return Err(PullError::OtherKind { reference: self.name, found: IMAGE, wanted: MODEL });
            }
        };
        // Before any file moves: a manifest that could never be laid out is refused whole.
        model::ModelManifest::check(&raw.bytes).map_err(|e| self.invalid("manifest", e.to_string()))?;
        let config = self.config(&manifest.config).await?;
        model::ModelManifest::read(&raw.bytes, &config)
            .map_err(|e| self.invalid("configuration", e.to_string()))?;
        self.blobs(&manifest.layers).await?;
        let store = self.store.clone();
        let stored = self
            .blocking(move || {
                store.put_blob(&config)?;
                store.put_blob(&raw.bytes)
            })
            .await?;
        stored.map_err(|e| self.store_error(e))
    }
}
