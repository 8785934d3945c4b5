//! Images from a registry into the store.

use std::collections::HashSet;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt};
use slipway_types::image::{BlobState, Platform};
use slipway_types::{Digest, Reference};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Progress;
use super::download::{Download, DownloadError};
use super::error::{IMAGE, MODEL, PullError, RequestError};
use super::fetch::{RawDocument, fetch_config, fetch_manifest};
use super::ingest::{IngestError, ingest_blob, ingest_layer};
use super::manifest::{
    ConfigHead, Descriptor, Document, DocumentError, MAX_LAYERS, Manifest, is_layer_type, platform_rank,
    read_document,
};
use super::shared::{BlobProgress, Shared};
use super::sources::Sources;
use crate::store::{Store, StoreError};

/// Blobs that move at once.
pub(crate) const PARALLEL: usize = 4;
/// Pieces that wait for the disk, each of at most some hundred KiB.
const QUEUE: usize = 16;

/// What a pull brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulled {
    /// The image's id: digest of its configuration.
    pub image: Digest,
    /// Digest of the image's manifest.
    pub manifest: Digest,
    /// Digest of what the reference named: the manifest, or the index that it was chosen from.
    pub resolved: Digest,
}

/// One pull on its way.
pub(crate) struct Pull<'a> {
    pub store: &'a Store,
    pub name: String,
    pub sources: Sources,
    pub progress: Progress,
}

impl<'a> Pull<'a> {
    pub fn new(
        shared: &Arc<Shared>,
        store: &'a Store,
        reference: &Reference,
        progress: Progress,
    ) -> Result<Self, PullError> {
        let name = reference.to_string();
        let sources = Sources::new(shared, reference.registry(), reference.repository()).map_err(|e| {
            PullError::Request { reference: name.clone(), mirrors: Vec::new(), source: Box::new(e) }
        })?;
        Ok(Self { store, name, sources, progress })
    }

    pub async fn image(mut self, reference: &Reference, platform: &Platform) -> Result<Pulled, PullError> {
        let lease_of = self.store.clone();
        let _lease = self.blocking(move || lease_of.lease()).await?;
        let top = self.named(reference).await?;
        let (document, manifest) = match self.read(&top)? {
            Document::Manifest(manifest) => (None, manifest),
            Document::Index(index) => {
                let entry =
                    index.choose(platform).ok_or_else(|| self.no_platform(platform, index.platforms()))?;
                let document =
                    self.manifest(entry.descriptor.digest.as_str(), Some(&entry.descriptor)).await?;
                match self.read(&document)? {
                    Document::Manifest(manifest) => (Some(document), manifest),
                    Document::Index(_) => return Err(self.invalid("index", "it holds another index")),
                }
            }
        };
        let raw = document.as_ref().unwrap_or(&top);
        if is_model(&manifest) {
            return Err(PullError::OtherKind { reference: self.name, found: MODEL, wanted: IMAGE });
        }
        self.check_layers(&manifest)?;
        let config = self.config(&manifest.config).await?;
        let head = self.check_config(&config, &manifest, platform)?;
        self.layers(&manifest.layers, &head.rootfs.diff_ids).await?;

        let pulled = Pulled {
            image: manifest.config.digest.clone(),
            manifest: raw.digest.clone(),
            resolved: top.digest.clone(),
        };
        let (store, wanted, reference) = (self.store.clone(), pulled.clone(), reference.clone());
        let (manifest, layers) = (raw.bytes.clone(), head.rootfs.diff_ids);
        self.blocking(move || record_image(&store, &wanted, &reference, &manifest, &config, &layers))
            .await?
            .map_err(|e| self.store_error(e))?;
        Ok(pulled)
    }

    /// What the reference names. The source that has it is asked first from now on.
    pub async fn named(&mut self, reference: &Reference) -> Result<RawDocument, PullError> {
        let pinned = reference.digest();
        let target = pinned.map_or_else(|| reference.tag().unwrap_or("latest"), Digest::as_str).to_owned();
        let repository = &self.sources.repository;
        let (document, index) = self
            .sources
            .first(|session| {
                let target = target.clone();
                async move { fetch_manifest(&session, repository, &target, pinned).await }
            })
            .await
            .map_err(|e| e.pulling(&self.name))?;
        self.sources.prefer(index);
        Ok(document)
    }

    async fn manifest(&self, digest: &str, listed: Option<&Descriptor>) -> Result<RawDocument, PullError> {
        let repository = &self.sources.repository;
        let (document, _) = self
            .sources
            .first(|session| async move {
                let document =
                    fetch_manifest(&session, repository, digest, listed.map(|l| &l.digest)).await?;
                match listed {
                    Some(listed) if listed.size != document.bytes.len() as u64 => Err(RequestError::Size {
                        host: session.endpoint.name.clone(),
                        what: "manifest",
                        digest: listed.digest.clone(),
                        promised: listed.size,
                        received: document.bytes.len() as u64,
                    }),
                    _ => Ok(document),
                }
            })
            .await
            .map_err(|e| e.pulling(&self.name))?;
        Ok(document)
    }

    pub fn read(&self, raw: &RawDocument) -> Result<Document, PullError> {
        read_document(&raw.bytes, raw.content_type.as_deref()).map_err(|e| match e {
            DocumentError::MediaType(media_type) => {
                PullError::MediaType { reference: self.name.clone(), what: "manifest", media_type }
            }
            DocumentError::Invalid(reason) => self.invalid("manifest", reason),
        })
    }

    pub async fn config(&self, config: &Descriptor) -> Result<Vec<u8>, PullError> {
        let (store, digest) = (self.store.clone(), config.digest.clone());
        let known = self.blocking(move || store.read_blob(&digest, super::manifest::MAX_CONFIG)).await?;
        if let Ok(bytes) = known
            && bytes.len() as u64 == config.size
        {
            return Ok(bytes);
        }
        let repository = &self.sources.repository;
        let (bytes, _) = self
            .sources
            .first(|session| async move { fetch_config(&session, repository, config).await })
            .await
            .map_err(|e| e.pulling(&self.name))?;
        Ok(bytes.to_vec())
    }

    fn check_layers(&self, manifest: &Manifest) -> Result<(), PullError> {
        if manifest.layers.len() > MAX_LAYERS {
            let reason = format!("it has {} layers, more than {MAX_LAYERS}", manifest.layers.len());
            return Err(self.invalid("manifest", reason));
        }
        match manifest.layers.iter().find(|layer| !is_layer_type(&layer.media_type)) {
            Some(layer) => Err(PullError::MediaType {
                reference: self.name.clone(),
                what: "layer",
                media_type: layer.media_type.clone(),
            }),
            None => Ok(()),
        }
    }

    fn check_config(
        &self,
        config: &[u8],
        manifest: &Manifest,
        platform: &Platform,
    ) -> Result<ConfigHead, PullError> {
        let media_type = manifest.config.media_type.as_str();
        if !matches!(media_type, super::manifest::OCI_CONFIG | super::manifest::DOCKER_CONFIG) {
            return Err(PullError::MediaType {
                reference: self.name.clone(),
                what: "configuration",
                media_type: media_type.to_owned(),
            });
        }
        let head: ConfigHead =
            serde_json::from_slice(config).map_err(|e| self.invalid("configuration", e.to_string()))?;
        if head.rootfs.diff_ids.len() != manifest.layers.len() {
            let reason = format!(
                "it lists {} layers, the manifest {}",
                head.rootfs.diff_ids.len(),
                manifest.layers.len()
            );
            return Err(self.invalid("configuration", reason));
        }
        let variant = head.variant.as_deref();
        // Very old images name no platform; whether they run shows when they do.
        if !head.architecture.is_empty()
            && platform_rank(platform, &head.os, &head.architecture, variant).is_none()
        {
            let mut have = format!("{}/{}", head.os, head.architecture);
            if let Some(variant) = variant.filter(|v| !v.is_empty()) {
                have = format!("{have}/{variant}");
            }
            return Err(self.no_platform(platform, vec![have]));
        }
        Ok(head)
    }

    async fn layers(&self, layers: &[Descriptor], diff_ids: &[Digest]) -> Result<(), PullError> {
        let mut seen = HashSet::new();
        let cancel = CancellationToken::new();
        let mut work = Vec::with_capacity(layers.len());
        for (layer, diff_id) in layers.iter().zip(diff_ids) {
            if seen.insert((&layer.digest, diff_id)) {
                work.push(self.layer(layer, diff_id, &cancel).boxed());
            }
        }
        self.together(work, &cancel).await
    }

    /// Runs some at a time. When one fails the others are stopped and waited for: nothing goes on behind the
    /// caller's back. Returns the first failure.
    async fn together(
        &self,
        work: Vec<BoxFuture<'_, Result<(), PullError>>>,
        cancel: &CancellationToken,
    ) -> Result<(), PullError> {
        let mut running = futures_util::stream::iter(work).buffer_unordered(PARALLEL);
        let mut first = Ok(());
        while let Some(result) = running.next().await {
            if first.is_ok() && result.is_err() {
                cancel.cancel();
                first = result;
            }
        }
        first
    }

    async fn layer(
        &self,
        blob: &Descriptor,
        diff_id: &Digest,
        cancel: &CancellationToken,
    ) -> Result<(), PullError> {
        let (store, id, digest) = (self.store.clone(), diff_id.clone(), blob.digest.clone());
        let (have_layer, have_blob) = self
            .blocking(move || store.layer(&id).map(|layer| (layer.is_some(), store.has(&digest))))
            .await?
            .map_err(|e| self.store_error(e))?;
        if have_layer && have_blob {
            self.exists(blob);
            let (store, id, source) = (self.store.clone(), diff_id.clone(), layer_blob(blob));
            return self
                .blocking(move || store.record_layer_blob(&id, &source))
                .await?
                .map_err(|e| self.store_error(e));
        }
        if have_blob {
            return self.unpack_stored(blob, diff_id).await;
        }
        let (store, layer, id) = (self.store.clone(), blob.clone(), diff_id.clone());
        self.transfer(blob, "layer", cancel, move |pieces| {
            ingest_layer(&store, pieces, &layer, &id, have_layer)
        })
        .await
    }

    /// The blob is there and its layer is not: an earlier pull was cut off in between, or the layer was pruned.
    async fn unpack_stored(&self, blob: &Descriptor, diff_id: &Digest) -> Result<(), PullError> {
        let mut progress = self.blob_progress(blob, BlobState::Unpacking);
        let (store, id, source) = (self.store.clone(), diff_id.clone(), layer_blob(blob));
        self.blocking(move || {
            store.unpack_blob(&source, Some(&id), &crate::store::UnpackLimits::default()).map(|_| ())
        })
        .await?
        .map_err(|source| self.unpack_error(blob, source))?;
        progress.enter(BlobState::Done, blob.size);
        Ok(())
    }

    /// Raw blobs, for artifacts.
    pub async fn blobs(&self, blobs: &[Descriptor]) -> Result<(), PullError> {
        let mut seen = HashSet::new();
        let cancel = CancellationToken::new();
        let mut work = Vec::with_capacity(blobs.len());
        for blob in blobs {
            if seen.insert(&blob.digest) {
                work.push(self.raw(blob, &cancel).boxed());
            }
        }
        self.together(work, &cancel).await
    }

    async fn raw(&self, blob: &Descriptor, cancel: &CancellationToken) -> Result<(), PullError> {
        let (store, digest) = (self.store.clone(), blob.digest.clone());
        let size = self.blocking(move || store.blob_size(&digest)).await?.map_err(|e| self.store_error(e))?;
        if let Some(size) = size {
            if size != blob.size {
                return Err(
                    self.invalid("manifest", format!("{} has {size} bytes, not {}", blob.digest, blob.size))
                );
            }
            self.exists(blob);
            return Ok(());
        }
        let (store, wanted) = (self.store.clone(), blob.clone());
        self.transfer(blob, "file", cancel, move |pieces| ingest_blob(&store, pieces, &wanted)).await
    }

    /// Joins a download to the blocking thread that takes it in.
    async fn transfer(
        &self,
        blob: &Descriptor,
        what: &'static str,
        cancel: &CancellationToken,
        ingest: impl FnOnce(mpsc::Receiver<super::download::Piece>) -> Result<(), IngestError> + Send + 'static,
    ) -> Result<(), PullError> {
        let (sink, pieces) = mpsc::channel(QUEUE);
        let worker = tokio::task::spawn_blocking(move || ingest(pieces));
        let mut progress = self.blob_progress(blob, BlobState::Moving);
        let downloaded = Download::new(&self.sources, blob, what, &sink, &mut progress, cancel).run().await;
        drop(sink);
        if downloaded.is_ok() && what == "layer" {
            progress.enter(BlobState::Unpacking, blob.size);
        }
        let interrupted = || PullError::Interrupted { reference: self.name.clone() };
        let ingested = worker.await.map_err(|_| interrupted())?;
        let host =
            downloaded.as_ref().ok().cloned().unwrap_or_else(|| self.sources.endpoints[0].name.clone());
        match (downloaded, ingested) {
            (_, Err(IngestError::Digest { received })) => Err(self.request(RequestError::Digest {
                host,
                what,
                promised: blob.digest.clone(),
                received,
            })),
            (Err(DownloadError::Request(e)), _) => Err(self.request(e)),
            (_, Err(IngestError::Store(source))) => Err(self.unpack_error(blob, source)),
            (Err(_), _) | (Ok(_), Err(IngestError::CutOff)) => Err(interrupted()),
            (Ok(_), Ok(())) => {
                progress.enter(BlobState::Done, blob.size);
                Ok(())
            }
        }
    }

    fn exists(&self, blob: &Descriptor) {
        let _ = self.blob_progress(blob, BlobState::Exists);
    }

    fn blob_progress(&self, blob: &Descriptor, state: BlobState) -> BlobProgress {
        BlobProgress::new(Arc::clone(&self.progress), blob.digest.clone(), state, Some(blob.size))
    }

    fn request(&self, error: RequestError) -> PullError {
        PullError::Request { reference: self.name.clone(), mirrors: Vec::new(), source: Box::new(error) }
    }

    fn unpack_error(&self, blob: &Descriptor, source: StoreError) -> PullError {
        PullError::Unpack {
            reference: self.name.clone(),
            layer: blob.digest.clone(),
            source: Box::new(source),
        }
    }

    pub fn store_error(&self, source: StoreError) -> PullError {
        PullError::Store { reference: self.name.clone(), source: Box::new(source) }
    }

    pub fn invalid(&self, what: &'static str, reason: impl Into<String>) -> PullError {
        PullError::Invalid { reference: self.name.clone(), what, reason: reason.into() }
    }

    fn no_platform(&self, wanted: &Platform, available: Vec<String>) -> PullError {
        PullError::NoPlatform { reference: self.name.clone(), wanted: wanted.clone(), available }
    }

    /// Runs something of the store's.
    pub async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, PullError> {
        tokio::task::spawn_blocking(work)
            .await
            .map_err(|_| PullError::Interrupted { reference: self.name.clone() })
    }
}

pub(crate) fn layer_blob(blob: &Descriptor) -> crate::store::LayerBlob {
    crate::store::LayerBlob {
        digest: blob.digest.clone(),
        media_type: blob.media_type.clone(),
        size: blob.size,
    }
}

pub(crate) fn is_model(manifest: &Manifest) -> bool {
    manifest.artifact_type.as_deref() == Some(crate::model::ARTIFACT_TYPE)
        || manifest.config.media_type == crate::model::CONFIG_TYPE
}

fn record_image(
    store: &Store,
    pulled: &Pulled,
    reference: &Reference,
    manifest: &[u8],
    config: &[u8],
    layers: &[Digest],
) -> Result<(), StoreError> {
    store.put_blob(manifest)?;
    store.put_image(config, layers, Some(&pulled.manifest))?;
    store.record_repo_digest(&pulled.image, reference, &pulled.resolved)?;
    // Like Docker: a pull by digest gives no name.
    if reference.digest().is_none() {
        store.tag(&pulled.image, reference)?;
    }
    Ok(())
}
