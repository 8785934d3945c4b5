//! Pins: names by which others keep things in the store (a container its image, a model version its manifest).

use rusqlite::{Connection, params};
use slipway_types::Digest;

use super::Store;
use super::error::{During, Result, StoreError};
use super::images::exists;
use super::index::Column;

impl Store {
    /// Keeps an image (by its id), a layer (by its diff id) or a blob until it is unpinned. A blob that is an OCI manifest
    /// or index keeps everything that it names. A name holds one digest; pinning another moves it.
    pub fn pin(&self, kind: &str, name: &str, digest: &Digest) -> Result<()> {
        let _collecting = self.inner.gc_shared();
        let known = self.inner.index.read(|index| exists(index, digest))?
            || self.known_layer(digest)?.is_some()
            || self.known_blob_size(digest)?.is_some();
        if !known {
            return Err(StoreError::NothingToPin { digest: digest.clone() });
        }
        self.inner.index.write(|index| {
            index
                .execute(
                    "INSERT OR REPLACE INTO pins (kind, name, digest) VALUES (?1, ?2, ?3)",
                    params![kind, name, digest.as_str()],
                )
                .map(drop)
                .during("record a pin")
        })
    }

    /// Takes a pin away; whether there was one.
    pub fn unpin(&self, kind: &str, name: &str) -> Result<bool> {
        let _collecting = self.inner.gc_shared();
        self.inner.index.write(|index| {
            index
                .execute("DELETE FROM pins WHERE kind = ?1 AND name = ?2", [kind, name])
                .map(|rows| rows > 0)
                .during("take away a pin")
        })
    }

    /// The pins of a kind, sorted by name.
    pub fn pins(&self, kind: &str) -> Result<Vec<(String, Digest)>> {
        self.inner.index.read(|index| {
            let mut statement = index
                .prepare_cached("SELECT name, digest FROM pins WHERE kind = ?1 ORDER BY name")
                .during("list the pins")?;
            let rows = statement
                .query_map([kind], |row| Ok((row.get(0)?, row.get(1).map(|Column(digest)| digest)?)))
                .during("list the pins")?;
            rows.collect::<rusqlite::Result<_>>().during("list the pins")
        })
    }

    /// Names of the pins of a kind that begin with `prefix`, sorted. The others are not looked through.
    pub fn pins_below(&self, kind: &str, prefix: &str) -> Result<Vec<String>> {
        self.inner.index.read(|index| {
            let mut statement = index
                .prepare_cached(
                    "SELECT name FROM pins WHERE kind = ?1 AND name >= ?2 AND name < ?2 || char(0x10FFFF)
                     ORDER BY name",
                )
                .during("list the pins")?;
            let rows = statement.query_map([kind, prefix], |row| row.get(0)).during("list the pins")?;
            rows.collect::<rusqlite::Result<_>>().during("list the pins")
        })
    }
}

/// What pins an image itself, as `kind name`.
pub(super) fn users(index: &Connection, image: &Digest) -> Result<Vec<String>> {
    let mut statement = index
        .prepare_cached("SELECT kind || ' ' || name FROM pins WHERE digest = ?1 ORDER BY 1")
        .during("list the pins")?;
    let rows = statement.query_map([image.as_str()], |row| row.get(0)).during("list the pins")?;
    rows.collect::<rusqlite::Result<_>>().during("list the pins")
}
