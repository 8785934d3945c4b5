//! The build cache: results of build steps by the digest of their inputs.

use rusqlite::{OptionalExtension, params};
use serde_json::Value;
use slipway_types::Digest;

use super::Store;
use super::error::{During, Result, StoreError};
use super::index::{Column, now};

/// Bytes of a payload as JSON.
const MAX_PAYLOAD: u64 = 1 << 20;

/// What a build step gave.
#[derive(Clone, Debug, PartialEq)]
pub struct CachedStep {
    /// The layer that it made, if it made one.
    pub layer: Option<Digest>,
    /// Whatever else the builder wants back, at most 1 MiB of JSON.
    pub payload: Value,
}

impl Store {
    /// The result of a step with these inputs. One whose layer is gone, or that cannot be read, is none.
    pub fn cache_get(&self, key: &Digest) -> Result<Option<CachedStep>> {
        let _collecting = self.inner.gc_shared();
        let row = self.inner.index.read(|index| {
            index
                .prepare_cached("SELECT layer, payload FROM steps WHERE key = ?1")
                .and_then(|mut s| {
                    s.query_row([key.as_str()], |row| {
                        let layer: Option<Column> = row.get(0)?;
                        Ok((layer.map(|Column(digest)| digest), row.get::<_, String>(1)?))
                    })
                    .optional()
                })
                .during("look up a build step")
        })?;
        let Some((layer, payload)) = row else { return Ok(None) };
        let Ok(payload) = serde_json::from_str(&payload) else { return Ok(None) };
        if let Some(layer) = &layer {
            if self.known_layer(layer)?.is_none() {
                return Ok(None);
            }
            self.inner.touch(layer);
        }
        Ok(Some(CachedStep { layer, payload }))
    }

    /// Remembers the result of a step. Its layer must be in the store.
    pub fn cache_put(&self, key: &Digest, step: &CachedStep) -> Result<()> {
        let payload = step.payload.to_string();
        let size = payload.len() as u64;
        if size > MAX_PAYLOAD {
            return Err(StoreError::TooLong { what: "the result of a build step", size, limit: MAX_PAYLOAD });
        }
        let _collecting = self.inner.gc_shared();
        if let Some(layer) = &step.layer {
            if self.known_layer(layer)?.is_none() {
                return Err(StoreError::LayerNotFound { diff_id: layer.clone() });
            }
            self.inner.touch(layer);
        }
        self.inner.index.write(|index| {
            index
                .execute(
                    "INSERT OR REPLACE INTO steps (key, layer, payload, created) VALUES (?1, ?2, ?3, ?4)",
                    params![key.as_str(), step.layer.as_ref().map(Digest::as_str), payload, now()],
                )
                .map(drop)
                .during("record a build step")
        })
    }
}
