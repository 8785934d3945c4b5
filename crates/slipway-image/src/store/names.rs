//! Names of images, and finding an image by what a user types.

use rusqlite::{Connection, params};
use slipway_types::{Digest, Reference};

use super::Store;
use super::error::{During, Result, StoreError};
use super::images::{exists, one, require};
use super::index::digests;

/// Digits that a shortened id needs, as Docker has it.
const MIN_PREFIX: usize = 4;
/// Ambiguous ids that an error lists.
const MAX_MATCHES: i64 = 10;

impl Store {
    /// Finds an image by its id, a name, `repository@manifest`, a manifest's digest, or the beginning of its id (at least
    /// four digits, with or without `sha256:`), in this order. A beginning of several ids is an error.
    pub fn resolve(&self, text: &str) -> Result<Option<Digest>> {
        let _collecting = self.inner.gc_shared();
        let found = self.inner.index.read(|index| find(index, text))?;
        if let Some((id, _)) = &found {
            self.inner.touch(id);
        }
        Ok(found.map(|(id, _)| id))
    }

    /// Gives an image a name. If another image has it the name moves; that image is returned.
    pub fn tag(&self, id: &Digest, name: &Reference) -> Result<Option<Digest>> {
        let key = name_key(name)?;
        let _collecting = self.inner.gc_shared();
        self.inner.touch(id);
        self.inner.index.write(|index| {
            require(index, id)?;
            let before = one(index, "SELECT image FROM names WHERE name = ?1", [&key])?;
            index
                .execute(
                    "INSERT OR REPLACE INTO names (name, repository, image) VALUES (?1, ?2, ?3)",
                    [&key, &repository(name), id.as_str()],
                )
                .during("name an image")?;
            Ok(before.filter(|before| before != id))
        })
    }

    /// Takes a name away and nothing else. The image that had it.
    pub fn untag(&self, name: &Reference) -> Result<Option<Digest>> {
        let key = name_key(name)?;
        let _collecting = self.inner.gc_shared();
        self.inner.index.write(|index| {
            let before = one(index, "SELECT image FROM names WHERE name = ?1", [&key])?;
            index.execute("DELETE FROM names WHERE name = ?1", [&key]).during("take away a name")?;
            Ok(before)
        })
    }

    /// Remembers that a registry knows the image as `repository@manifest`. Tag and digest of `in_repository` do not matter.
    pub fn record_repo_digest(
        &self,
        id: &Digest,
        in_repository: &Reference,
        manifest: &Digest,
    ) -> Result<()> {
        let _collecting = self.inner.gc_shared();
        self.inner.touch(id);
        self.inner.index.write(|index| {
            require(index, id)?;
            index
                .execute(
                    "INSERT OR REPLACE INTO repo_digests (repository, manifest, image) VALUES (?1, ?2, ?3)",
                    params![repository(in_repository), manifest.as_str(), id.as_str()],
                )
                .map(drop)
                .during("record a digest of a registry")
        })
    }
}

/// By what an image was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum FoundBy {
    Id,
    Name(Reference),
    RepoDigest(Reference),
}

pub(super) fn find(index: &Connection, text: &str) -> Result<Option<(Digest, FoundBy)>> {
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    let is_hex = hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let full = if hex.len() == 64 && is_hex { format!("sha256:{hex}").parse::<Digest>().ok() } else { None };
    if let Some(id) = &full
        && exists(index, id)?
    {
        return Ok(Some((id.clone(), FoundBy::Id)));
    }
    if let Ok(reference) = text.parse::<Reference>() {
        if let Some(manifest) = reference.digest() {
            let sql = "SELECT image FROM repo_digests WHERE repository = ?1 AND manifest = ?2";
            if let Some(id) = one(index, sql, [&repository(&reference), manifest.as_str()])? {
                return Ok(Some((id, FoundBy::RepoDigest(reference))));
            }
        } else if let Some(id) =
            one(index, "SELECT image FROM names WHERE name = ?1", [&name_key(&reference)?])?
        {
            return Ok(Some((id, FoundBy::Name(reference))));
        }
    }
    if let Some(manifest) = &full {
        let sql = "SELECT image FROM image_manifests WHERE manifest = ?1 LIMIT 1";
        return Ok(one(index, sql, [manifest.as_str()])?.map(|id| (id, FoundBy::Id)));
    }
    if !is_hex || !(MIN_PREFIX..64).contains(&hex.len()) {
        return Ok(None);
    }
    // `g` sorts after every hexadecimal digit.
    let mut matches = digests(
        index,
        "SELECT id FROM images WHERE id >= ?1 AND id < ?1 || 'g' LIMIT ?2",
        params![format!("sha256:{hex}"), MAX_MATCHES],
    )
    .during("look up an image")?;
    if matches.len() > 1 {
        return Err(StoreError::AmbiguousId { prefix: text.to_owned(), matches });
    }
    Ok(matches.pop().map(|id| (id, FoundBy::Id)))
}

/// `registry/repository`.
pub(super) fn repository(reference: &Reference) -> String {
    format!("{}/{}", reference.registry(), reference.repository())
}

/// `registry/repository:tag`.
fn name_key(name: &Reference) -> Result<String> {
    match (name.tag(), name.digest()) {
        (Some(tag), None) => Ok(format!("{}:{tag}", repository(name))),
        _ => Err(StoreError::NotAName { name: name.clone() }),
    }
}
