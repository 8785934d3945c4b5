//! The client of OCI registries: pulls into the store, pushes from it.
//!
//! It speaks the OCI distribution API 1.1 and Docker's older manifests. Three rules hold everywhere: content is
//! checked against its digest and size before anything uses it; credentials go to the registry they belong to and to
//! the token service which that registry names, never along a redirect, into an error or into a log; and
//! everything that a registry sends has a limit.

mod artifact;
mod auth;
mod carry;
mod challenge;
mod compress;
mod download;
mod endpoint;
mod error;
mod fetch;
mod http;
mod ingest;
mod login;
mod manifest;
mod offline;
mod pull;
mod push;
mod request_error;
mod shared;
mod sources;
mod upload;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use slipway_types::image::{Credentials, Platform, RegistrySettings, TransferEvent};
use slipway_types::{Digest, Reference};

pub use self::compress::Compression;
pub(crate) use self::error::store_code;
pub use self::error::{
    LoginError, NetworkCause, PullError, PushError, RegistryAnswer, RegistryAnswers, RequestError,
};
pub(crate) use self::fetch::digest_of;
use self::manifest::DOCKER_MANIFEST;
pub use self::manifest::Descriptor;
pub(crate) use self::manifest::{MAX_CONFIG, MAX_MANIFEST, Manifest, OCI_CONFIG, OCI_LAYER, OCI_MANIFEST};
pub use self::offline::manifest_of;
pub use self::pull::Pulled;

use self::http::RetryPolicy;
pub(crate) use self::http::{TlsFault, tls_fault};
use self::pull::Pull;
use self::push::Push;
use self::shared::Shared;
use self::upload::Uploader;
use crate::carrier::Carrier;
use crate::store::Store;

/// Gives the credentials of a registry (`docker.io`, `host:port`), if there are any. Asked when a registry wants them.
pub type CredentialsSource = Arc<dyn Fn(&str) -> Option<Credentials> + Send + Sync>;

/// Takes progress of blobs, some ten times a second for each. `Finished` and `Failed` are the caller's to send.
pub type Progress = Arc<dyn Fn(TransferEvent) + Send + Sync>;

/// Talks to registries. Cheap to clone; clones share connections and tokens.
#[derive(Clone)]
pub struct Registry {
    shared: Arc<Shared>,
}

impl Registry {
    /// A client under these settings. Nothing is read or sent yet.
    pub fn new(settings: RegistrySettings, credentials: CredentialsSource) -> Self {
        Self::with_retries(settings, credentials, RetryPolicy::default())
    }

    fn with_retries(
        settings: RegistrySettings,
        credentials: CredentialsSource,
        retries: RetryPolicy,
    ) -> Self {
        Self { shared: Arc::new(Shared::new(settings, credentials, retries)) }
    }

    /// Brings an image into the store, names it (unless it was asked for by digest) and records under which digest
    /// the registry knows it. The mirrors of the settings are asked before the registry itself. Layers
    /// that are there already are not moved again; an index gives its best image for `platform`.
    ///
    /// # Errors
    /// See [`PullError`]. Nothing that was not verified stays in the store.
    pub async fn pull(
        &self,
        store: &Store,
        reference: &Reference,
        platform: &Platform,
        progress: Progress,
    ) -> Result<Pulled, PullError> {
        Pull::new(&self.shared, store, reference, progress)?.image(reference, platform).await
    }

    /// Sends an image to its registry (never to a mirror); returns the manifest's digest. What was pulled is sent as it came, with the
    /// same digest. What was built here is compressed, once for each kind of compression.
    ///
    /// # Errors
    /// See [`PushError`]. Blobs that arrived stay at the registry and are found there by the next try.
    pub async fn push(
        &self,
        store: &Store,
        image: &Digest,
        reference: &Reference,
        compression: Compression,
        progress: Progress,
    ) -> Result<Digest, PushError> {
        Push::new(&self.shared, store, reference, progress).await?.image(image, reference, compression).await
    }

    /// Sends a model artifact whose manifest and blobs are in the store; returns the manifest's digest.
    ///
    /// # Errors
    /// See [`PushError`].
    pub async fn push_artifact(
        &self,
        store: &Store,
        manifest: &Digest,
        reference: &Reference,
        progress: Progress,
    ) -> Result<Digest, PushError> {
        Push::new(&self.shared, store, reference, progress).await?.artifact(manifest, reference).await
    }

    /// Sends an image of files; returns whether anything had to be sent. Its layer is written while it moves.
    ///
    /// # Errors
    /// See [`PushError`].
    pub async fn push_carrier(
        &self,
        carrier: &Carrier,
        reference: &Reference,
        progress: Progress,
    ) -> Result<bool, PushError> {
        carry::push(&self.shared, carrier, reference, progress).await
    }

    /// Whether the registry has the image that a reference names by digest. One that does not say so has not.
    ///
    /// # Errors
    /// The registry cannot be asked.
    pub async fn has(&self, reference: &Reference) -> Result<bool, PushError> {
        let Some(digest) = reference.digest() else { return Ok(false) };
        let failed = |e| PushError::Request { reference: reference.to_string(), source: Box::new(e) };
        let uploader = Uploader::open(&self.shared, reference, Arc::new(|_| ())).await.map_err(failed)?;
        let types = format!("{OCI_MANIFEST}, {DOCKER_MANIFEST}");
        uploader.has_manifest(digest, &types, digest.as_str()).await.map_err(failed)
    }

    /// Brings a model artifact into the store; returns the manifest's digest. Nothing keeps it there but a lease that the
    /// caller holds, until the caller pins it.
    ///
    /// # Errors
    /// See [`PullError`]. Nothing that was not verified stays in the store.
    pub async fn pull_artifact(
        &self,
        store: &Store,
        reference: &Reference,
        progress: Progress,
    ) -> Result<Digest, PullError> {
        Pull::new(&self.shared, store, reference, progress)?.artifact(reference).await
    }

    /// Tries credentials against a registry, without keeping them. A registry that asks for none accepts any.
    ///
    /// # Errors
    /// Refused, or the registry cannot be reached.
    pub async fn login_check(&self, registry: &str, credentials: &Credentials) -> Result<(), LoginError> {
        login::check(&self.shared, registry, credentials).await
    }
}
