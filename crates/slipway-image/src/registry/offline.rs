//! What a push would give, found out without a registry.

use std::collections::HashMap;

use slipway_types::{Digest, Reference};

use super::compress::{Compression, compress_layer};
use super::error::PushError;
use super::manifest::MAX_MANIFEST;
use super::push::{descriptor, known_forms, manifest_of_built, read_stored};
use crate::store::{Store, StoreError};

/// The digest that [`push`](super::Registry::push) to `reference` gives an image. Layers whose compressed form nobody knows
/// yet are compressed into the store, where a push finds them. Blocks.
///
/// # Errors
/// The image is not in the store, or a layer cannot be compressed.
pub fn manifest_of(
    store: &Store,
    image: &Digest,
    reference: &Reference,
    compression: Compression,
) -> Result<Digest, PushError> {
    let _lease = store.lease();
    let failed =
        |source: StoreError| PushError::Store { reference: reference.to_string(), source: Box::new(source) };
    let image = store.image(image).map_err(failed)?;
    for digest in image.manifests.iter().filter(|digest| store.has(digest)) {
        let (manifest, _) = read_stored(digest, store.read_blob(digest, MAX_MANIFEST).map_err(failed)?)?;
        // With a layer that only the registry has, the image can be sent as it came only there.
        if manifest.layers.iter().all(|layer| store.has(&layer.digest)) {
            return Ok(digest.clone());
        }
    }
    let mut sent = HashMap::new();
    for diff_id in &image.layers {
        if sent.contains_key(diff_id) {
            continue;
        }
        let known = known_forms(store, diff_id, compression).map_err(failed)?;
        let form = match known.into_iter().next() {
            Some(form) => form,
            None => compress_layer(store, diff_id, compression, |_| Ok(()))
                .map_err(|e| PushError::Compress { layer: diff_id.clone(), source: Box::new(e) })?,
        };
        sent.insert(diff_id.clone(), descriptor(&form));
    }
    Ok(manifest_of_built(&image, &sent)?.digest)
}
