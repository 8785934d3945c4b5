//! Images of files to a registry, without a detour through the store.

use std::sync::Arc;

use bytes::Bytes;
use slipway_types::Reference;
use slipway_types::image::BlobState;

use super::Progress;
use super::error::{PushError, RequestError};
use super::manifest::OCI_MANIFEST;
use super::push::check_pin;
use super::shared::{BlobProgress, Shared};
use super::upload::{Content, Uploader};
use crate::carrier::Carrier;

/// Sends what the registry lacks; gives whether it lacked anything.
pub(super) async fn push(
    shared: &Arc<Shared>,
    carrier: &Carrier,
    reference: &Reference,
    progress: Progress,
) -> Result<bool, PushError> {
    check_pin(reference, carrier.digest())?;
    let failed =
        |e: RequestError| PushError::Request { reference: reference.to_string(), source: Box::new(e) };
    let (config, config_bytes) = carrier.config();
    let (layer, content) = carrier.layer();
    let told = Arc::clone(&progress);
    let uploader = Uploader::open(shared, reference, progress).await.map_err(failed)?;
    let target = reference.tag().unwrap_or(carrier.digest().as_str());
    if uploader.has_manifest(carrier.digest(), OCI_MANIFEST, target).await.map_err(failed)? {
        BlobProgress::new(told, layer.digest.clone(), BlobState::Exists, Some(layer.size))
            .enter(BlobState::Exists, layer.size);
        return Ok(false);
    }
    uploader.blob(layer, &Content::Layer(content), None).await.map_err(failed)?;
    let config_bytes = Content::Memory(Bytes::copy_from_slice(config_bytes));
    uploader.blob(config, &config_bytes, None).await.map_err(failed)?;
    let manifest = Bytes::copy_from_slice(carrier.manifest());
    uploader.manifest(&manifest, OCI_MANIFEST, target).await.map_err(failed)?;
    Ok(true)
}
