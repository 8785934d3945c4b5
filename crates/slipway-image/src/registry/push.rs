//! Images from the store to a registry.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, TryStreamExt};
use slipway_types::image::BlobState;
use slipway_types::{Digest, Reference};
use tokio_util::sync::CancellationToken;

use super::Progress;
use super::compress::{Compression, compress_layer};
use super::error::{PushError, RequestError};
use super::fetch::digest_of;
use super::manifest::{
    Descriptor, Document, MAX_MANIFEST, Manifest, OCI_CONFIG, OCI_MANIFEST, oci_layer_type, read_document,
};
use super::pull::PARALLEL;
use super::shared::{BlobProgress, Shared};
use super::upload::{Content, Uploader};
use crate::store::{LayerBlob, LayerSource, Store, StoreError, StoredImage};

/// The most images that are looked through for repositories to mount from.
const MAX_MOUNT_CANDIDATES: usize = 200;

/// One push on its way.
pub(crate) struct Push<'a> {
    store: &'a Store,
    name: String,
    registry: String,
    uploader: Uploader,
}

/// A manifest, ready to be sent.
pub(super) struct Ready {
    pub bytes: Bytes,
    pub media_type: String,
    pub digest: Digest,
}

impl<'a> Push<'a> {
    pub async fn new(
        shared: &Arc<Shared>,
        store: &'a Store,
        reference: &Reference,
        progress: Progress,
    ) -> Result<Self, PushError> {
        let name = reference.to_string();
        let uploader = Uploader::open(shared, reference, progress)
            .await
            .map_err(|e| PushError::Request { reference: name.clone(), source: Box::new(e) })?;
        Ok(Self { store, name, registry: reference.registry().to_owned(), uploader })
    }

    pub async fn image(
        self,
        id: &Digest,
        reference: &Reference,
        compression: Compression,
    ) -> Result<Digest, PushError> {
        let lease_of = self.store.clone();
        let _lease = self.blocking(move || Ok(lease_of.lease())).await?;
        let (store, wanted) = (self.store.clone(), id.clone());
        let image = self.blocking(move || store.image(&wanted)).await?;
        let mounts = self.mounts().await?;
        let ready = match self.original(&image).await? {
            Some((manifest, ready)) => {
                check_pin(reference, &ready.digest)?;
                self.blobs(&manifest.layers, &mounts).await?;
                self.config(&manifest.config, &image).await?;
                ready
            }
            None => self.built(&image, compression, &mounts).await?,
        };
        check_pin(reference, &ready.digest)?;
        self.manifest(&ready, reference).await?;
        let (store, id, reference, digest) =
            (self.store.clone(), id.clone(), reference.clone(), ready.digest.clone());
        self.blocking(move || store.record_repo_digest(&id, &reference, &digest)).await?;
        Ok(ready.digest)
    }

    pub async fn artifact(self, digest: &Digest, reference: &Reference) -> Result<Digest, PushError> {
        let lease_of = self.store.clone();
        let _lease = self.blocking(move || Ok(lease_of.lease())).await?;
        check_pin(reference, digest)?;
        let (manifest, ready) = self.stored_manifest(digest).await?;
        let mounts = HashMap::new();
        self.blobs(&manifest.layers, &mounts).await?;
        self.blobs(std::slice::from_ref(&manifest.config), &mounts).await?;
        self.manifest(&ready, reference).await?;
        Ok(ready.digest)
    }

    /// The manifest that the image came with, if all of it can be sent again. Its digest never changes.
    async fn original(&self, image: &StoredImage) -> Result<Option<(Manifest, Ready)>, PushError> {
        'manifests: for digest in &image.manifests {
            if !self.stored(digest).await? {
                continue;
            }
            let (manifest, ready) = self.stored_manifest(digest).await?;
            for layer in &manifest.layers {
                if !self.stored(&layer.digest).await? && !self.has(layer).await? {
                    continue 'manifests;
                }
            }
            return Ok(Some((manifest, ready)));
        }
        Ok(None)
    }

    async fn stored(&self, digest: &Digest) -> Result<bool, PushError> {
        let (store, digest) = (self.store.clone(), digest.clone());
        self.blocking(move || Ok(store.has(&digest))).await
    }

    async fn has(&self, blob: &Descriptor) -> Result<bool, PushError> {
        let retries = self.uploader.session.shared.retries;
        retries.run(|| self.uploader.has(blob)).await.map_err(|e| self.request(e))
    }

    async fn stored_manifest(&self, digest: &Digest) -> Result<(Manifest, Ready), PushError> {
        let (store, wanted) = (self.store.clone(), digest.clone());
        let bytes = self.blocking(move || store.read_blob(&wanted, MAX_MANIFEST)).await?;
        read_stored(digest, bytes)
    }

    /// An image that was built here: its layers are compressed, its manifest is written now. Both come out the same
    /// every time, so a second push has the same digest.
    async fn built(
        &self,
        image: &StoredImage,
        compression: Compression,
        mounts: &HashMap<Digest, String>,
    ) -> Result<Ready, PushError> {
        let mut unique = HashSet::new();
        let cancel = CancellationToken::new();
        let _guard = cancel.clone().drop_guard();
        let mut work = Vec::new();
        for diff_id in &image.layers {
            if unique.insert(diff_id) {
                work.push(self.built_layer(diff_id, compression, mounts, &cancel).boxed());
            }
        }
        let sent: HashMap<Digest, Descriptor> =
            futures_util::stream::iter(work).buffer_unordered(PARALLEL).try_collect().await?;
        let ready = manifest_of_built(image, &sent)?;
        self.config(&config_of(image), image).await?;
        Ok(ready)
    }

    async fn built_layer(
        &self,
        diff_id: &Digest,
        compression: Compression,
        mounts: &HashMap<Digest, String>,
        cancel: &CancellationToken,
    ) -> Result<(Digest, Descriptor), PushError> {
        let (store, id) = (self.store.clone(), diff_id.clone());
        let known = self.blocking(move || known_forms(&store, &id, compression)).await?;
        for form in &known {
            let blob = descriptor(form);
            if self.stored(&form.digest).await? {
                self.blob(&blob, mounts).await?;
                return Ok((diff_id.clone(), blob));
            }
            if self.has(&blob).await? {
                return Ok((diff_id.clone(), blob));
            }
        }
        let (store, id, cancel) = (self.store.clone(), diff_id.clone(), cancel.clone());
        let mut progress = BlobProgress::new(
            Arc::clone(&self.uploader.progress),
            diff_id.clone(),
            BlobState::Compressing,
            None,
        );
        let form = tokio::task::spawn_blocking(move || {
            compress_layer(&store, &id, compression, |done| {
                progress.at(done);
                if cancel.is_cancelled() {
                    return Err(std::io::Error::other("the push ended"));
                }
                Ok(())
            })
        })
        .await
        .map_err(|_| self.interrupted())?
        .map_err(|e| PushError::Compress { layer: diff_id.clone(), source: Box::new(e) })?;
        let blob = descriptor(&form);
        self.blob(&blob, mounts).await?;
        Ok((diff_id.clone(), blob))
    }

    async fn blobs(&self, blobs: &[Descriptor], mounts: &HashMap<Digest, String>) -> Result<(), PushError> {
        let mut unique = HashSet::new();
        let mut work = Vec::new();
        for blob in blobs {
            if unique.insert(&blob.digest) {
                work.push(self.blob(blob, mounts).boxed());
            }
        }
        futures_util::stream::iter(work).buffer_unordered(PARALLEL).try_collect().await
    }

    async fn blob(&self, blob: &Descriptor, mounts: &HashMap<Digest, String>) -> Result<(), PushError> {
        let from = mounts.get(&blob.digest).map(String::as_str);
        let content = Content::Store(self.store.clone());
        self.uploader.blob(blob, &content, from).await.map_err(|e| self.request(e))
    }

    async fn config(&self, config: &Descriptor, image: &StoredImage) -> Result<(), PushError> {
        let content = Content::Memory(image.raw_config.clone().into());
        self.uploader.blob(config, &content, None).await.map_err(|e| self.request(e))
    }

    async fn manifest(&self, ready: &Ready, reference: &Reference) -> Result<(), PushError> {
        let target = reference.tag().unwrap_or(ready.digest.as_str());
        // Some registries let a tag be written once only, even with the same content.
        let there = self.uploader.has_manifest(&ready.digest, &ready.media_type, target).await;
        if there.map_err(|e| self.request(e))? {
            return Ok(());
        }
        self.uploader.manifest(&ready.bytes, &ready.media_type, target).await.map_err(|e| self.request(e))
    }

    /// Repositories of the same registry that are known to have a blob.
    async fn mounts(&self) -> Result<HashMap<Digest, String>, PushError> {
        let (store, registry) = (self.store.clone(), self.registry.clone());
        let repository = self.uploader.repository.clone();
        self.blocking(move || {
            let mut mounts = HashMap::new();
            for summary in store.list()?.into_iter().take(MAX_MOUNT_CANDIDATES) {
                let elsewhere = summary
                    .repo_digests
                    .iter()
                    .filter_map(|text| text.parse::<Reference>().ok())
                    .find(|r| r.registry() == registry && r.repository() != repository);
                let Some(elsewhere) = elsewhere else { continue };
                for layer in store.image(&summary.id)?.layers {
                    for blob in store.layer_blobs(&layer)? {
                        mounts.insert(blob.digest, elsewhere.repository().to_owned());
                    }
                }
            }
            Ok(mounts)
        })
        .await
    }

    fn request(&self, error: RequestError) -> PushError {
        PushError::Request { reference: self.name.clone(), source: Box::new(error) }
    }

    fn interrupted(&self) -> PushError {
        PushError::Interrupted { reference: self.name.clone() }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, PushError> {
        tokio::task::spawn_blocking(work)
            .await
            .map_err(|_| self.interrupted())?
            .map_err(|e| PushError::Store { reference: self.name.clone(), source: Box::new(e) })
    }
}

/// That what a reference pins is what is sent to it.
pub(super) fn check_pin(reference: &Reference, manifest: &Digest) -> Result<(), PushError> {
    match reference.digest() {
        Some(pinned) if pinned != manifest => {
            Err(PushError::OtherDigest { reference: reference.to_string(), manifest: manifest.clone() })
        }
        _ => Ok(()),
    }
}

/// A manifest from the store.
pub(super) fn read_stored(digest: &Digest, bytes: Vec<u8>) -> Result<(Manifest, Ready), PushError> {
    let invalid = |reason: String| PushError::Invalid { manifest: digest.clone(), reason };
    match read_document(&bytes, None) {
        Ok(Document::Manifest(manifest)) => {
            let media_type = manifest.content_type().to_owned();
            Ok((manifest, Ready { bytes: bytes.into(), media_type, digest: digest.clone() }))
        }
        Ok(Document::Index(_)) => Err(invalid("it is an index".to_owned())),
        Err(super::manifest::DocumentError::MediaType(t)) => Err(invalid(format!("its type is `{t}`"))),
        Err(super::manifest::DocumentError::Invalid(reason)) => Err(invalid(reason)),
    }
}

fn config_of(image: &StoredImage) -> Descriptor {
    Descriptor {
        media_type: OCI_CONFIG.to_owned(),
        digest: image.id.clone(),
        size: image.raw_config.len() as u64,
        annotations: BTreeMap::new(),
    }
}

/// The manifest of an image whose layers are sent as these blobs.
pub(super) fn manifest_of_built(
    image: &StoredImage,
    sent: &HashMap<Digest, Descriptor>,
) -> Result<Ready, PushError> {
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(OCI_MANIFEST.to_owned()),
        artifact_type: None,
        config: config_of(image),
        layers: image.layers.iter().filter_map(|diff_id| sent.get(diff_id).cloned()).collect(),
        annotations: BTreeMap::new(),
    };
    let bytes: Bytes = serde_json::to_vec(&manifest)
        .map_err(|e| PushError::Invalid { manifest: image.id.clone(), reason: e.to_string() })?
        .into();
    Ok(Ready { digest: digest_of(&bytes), bytes, media_type: OCI_MANIFEST.to_owned() })
}

/// The compressed forms that a layer can be sent in, best first. What was pulled keeps its form, whatever was asked.
pub(super) fn known_forms(
    store: &Store,
    diff_id: &Digest,
    compression: Compression,
) -> Result<Vec<LayerBlob>, StoreError> {
    let mut forms = store.layer_blobs(diff_id)?;
    match store.layer_source(diff_id)? {
        LayerSource::Blob(source) => {
            forms.retain(|form| form.digest != source.digest && store.has(&form.digest));
            forms.insert(0, source);
        }
        LayerSource::Canonical | LayerSource::Unrecorded => {
            forms.retain(|form| oci_layer_type(&form.media_type) == compression.media_type());
            forms.sort_by_key(|form| !store.has(&form.digest));
        }
    }
    Ok(forms)
}

pub(super) fn descriptor(form: &LayerBlob) -> Descriptor {
    Descriptor {
        media_type: oci_layer_type(&form.media_type).to_owned(),
        digest: form.digest.clone(),
        size: form.size,
        annotations: BTreeMap::new(),
    }
}
