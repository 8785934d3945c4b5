//! Images: a configuration and the layers that it lists.

use std::collections::HashSet;
use std::path::PathBuf;

use oci_spec::image::ImageConfiguration;
use rusqlite::{Connection, OptionalExtension, params};
use slipway_types::image::{ImageDetails, ImageSummary};
use slipway_types::{Digest, Reference};

use super::error::{During, Result, StoreError};
use super::index::{Column, digests, now};
use super::{Store, archive};

/// Bytes of a configuration. The largest in the wild have some hundred KiB (labels).
const MAX_CONFIG: u64 = 8 << 20;

/// An image of the store.
#[derive(Clone, Debug)]
pub struct StoredImage {
    /// Digest of the configuration.
    pub id: Digest,
    /// The configuration.
    pub config: ImageConfiguration,
    /// Its bytes as they were stored.
    pub raw_config: Vec<u8>,
    /// Diff ids of its layers, lowest first.
    pub layers: Vec<Digest>,
    /// Manifests under which it was pulled or pushed.
    pub manifests: Vec<Digest>,
    /// Its names, sorted.
    pub names: Vec<Reference>,
    /// `repository@manifest` as registries know it, sorted.
    pub repo_digests: Vec<Reference>,
}

impl Store {
    /// Stores an image. `config` is kept byte for byte, and its digest is the image's id; its `rootfs.diff_ids` must be
    /// `layers`. Layers and manifest must be in the store. An image that is there already gets the manifest added.
    pub fn put_image(&self, config: &[u8], layers: &[Digest], manifest: Option<&Digest>) -> Result<Digest> {
        check_length(config)?;
        let parsed: ImageConfiguration = serde_json::from_slice(config).map_err(StoreError::InvalidConfig)?;
        let listed = parsed.rootfs().diff_ids();
        if !listed.iter().map(String::as_str).eq(layers.iter().map(Digest::as_str)) {
            return Err(StoreError::LayersDiffer { listed: listed.len(), given: layers.len() });
        }
        let _lease = self.lease();
        let id = self.put_blob(config)?;
        let _collecting = self.inner.gc_shared();
        for diff_id in layers {
            if self.known_layer(diff_id)?.is_none() {
                return Err(StoreError::LayerNotFound { diff_id: diff_id.clone() });
            }
            self.inner.touch(diff_id);
        }
        if let Some(manifest) = manifest {
            if self.known_blob_size(manifest)?.is_none() {
                return Err(StoreError::BlobNotFound { digest: manifest.clone() });
            }
            self.inner.touch(manifest);
        }
        self.inner
            .index
            .write(|index| insert(index, &id, &parsed, layers, manifest).during("record an image"))?;
        Ok(id)
    }

    /// Stores an image whose configuration was made here. It is written with sorted keys: the same configuration has
    /// the same id in every process.
    pub fn put_image_config(
        &self,
        config: &ImageConfiguration,
        layers: &[Digest],
        manifest: Option<&Digest>,
    ) -> Result<Digest> {
        let mut value = serde_json::to_value(config).map_err(StoreError::InvalidConfig)?;
        value.sort_all_objects();
        let bytes = serde_json::to_vec(&value).map_err(StoreError::InvalidConfig)?;
        self.put_image(&bytes, layers, manifest)
    }

    /// An image by its id.
    pub fn image(&self, id: &Digest) -> Result<StoredImage> {
        let _lease = self.lease();
        let image = {
            let _collecting = self.inner.gc_shared();
            self.inner.touch(id);
            self.inner.index.read(|index| {
                require(index, id)?;
                const LOOK_UP: &str = "look up an image";
                Ok((
                    layers_of(index, id).during(LOOK_UP)?,
                    digests(
                        index,
                        "SELECT manifest FROM image_manifests WHERE image = ?1 ORDER BY 1",
                        [id.as_str()],
                    )
                    .during(LOOK_UP)?,
                    references(index, NAMES, id)?,
                    references(index, REPO_DIGESTS, id)?,
                ))
            })?
        };
        let raw_config = self.read_blob(id, MAX_CONFIG)?;
        let config = serde_json::from_slice(&raw_config).map_err(StoreError::InvalidConfig)?;
        let (layers, manifests, names, repo_digests) = image;
        Ok(StoredImage { id: id.clone(), config, raw_config, layers, manifests, names, repo_digests })
    }

    /// The image that was pulled or pushed with this manifest.
    pub fn image_by_manifest(&self, manifest: &Digest) -> Result<Option<Digest>> {
        let _collecting = self.inner.gc_shared();
        let found = self.inner.index.read(|index| {
            digests(
                index,
                "SELECT image FROM image_manifests WHERE manifest = ?1 LIMIT 1",
                [manifest.as_str()],
            )
            .during("look up a manifest")
        })?;
        let found = found.into_iter().next();
        if let Some(id) = &found {
            self.inner.touch(id);
        }
        Ok(found)
    }

    /// As [`Self::layer_stack`], for the layers of an image.
    pub fn layer_paths(&self, image: &Digest) -> Result<Vec<PathBuf>> {
        let _collecting = self.inner.gc_shared();
        self.inner.touch(image);
        let layers = self.inner.index.read(|index| {
            require(index, image)?;
            layers_of(index, image).during("look up the layers of an image")
        })?;
        self.stack(&layers)
    }

    /// The directories that overlayfs stacks to one file system, lowest first, for layers given lowest first. Layers that
    /// change nothing are left out, and of one that comes twice the lower (overlayfs takes a directory once, and the upper
    /// has the last word on all that it holds); so are those below a layer that hides everything. May be empty.
    pub fn layer_stack(&self, layers: &[Digest]) -> Result<Vec<PathBuf>> {
        let _collecting = self.inner.gc_shared();
        self.stack(layers)
    }

    fn stack(&self, layers: &[Digest]) -> Result<Vec<PathBuf>> {
        let mut seen = HashSet::new();
        let mut paths = Vec::new();
        for diff_id in layers.iter().rev() {
            let info = self
                .known_layer(diff_id)?
                .ok_or_else(|| StoreError::LayerNotFound { diff_id: diff_id.clone() })?;
            self.inner.touch(diff_id);
            if info.entries == 0 || !seen.insert(diff_id) {
                continue;
            }
            let path = self.layer_path(diff_id);
            // Overlayfs merges the roots of its layers whatever their attributes say.
            let hides_all = archive::is_opaque(&path);
            paths.push(path);
            if hides_all {
                break;
            }
        }
        paths.reverse();
        Ok(paths)
    }

    /// All images, newest first by their own word.
    pub fn list(&self) -> Result<Vec<ImageSummary>> {
        let _collecting = self.inner.gc_shared();
        let mut images = self.inner.index.read(|index| {
            let ids = digests(index, "SELECT id FROM images", []).during("list the images")?;
            ids.iter().map(|id| summary(index, id)).collect::<Result<Vec<_>>>()
        })?;
        images.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.id.cmp(&b.id)));
        Ok(images)
    }

    /// One image with its configuration.
    pub fn details(&self, id: &Digest) -> Result<ImageDetails> {
        let image = self.image(id)?;
        let _collecting = self.inner.gc_shared();
        let summary = self.inner.index.read(|index| summary(index, id))?;
        let config = serde_json::from_slice(&image.raw_config).map_err(StoreError::InvalidConfig)?;
        Ok(ImageDetails { summary, layers: image.layers, config })
    }
}

/// Fails if there is no such image.
pub(super) fn require(index: &Connection, id: &Digest) -> Result<()> {
    let found = index
        .prepare_cached("SELECT 1 FROM images WHERE id = ?1")
        .and_then(|mut s| s.exists([id.as_str()]))
        .during("look up an image")?;
    if found { Ok(()) } else { Err(StoreError::ImageNotFound { text: id.to_string() }) }
}

pub(super) fn layers_of(index: &Connection, id: &Digest) -> rusqlite::Result<Vec<Digest>> {
    digests(index, "SELECT diff_id FROM image_layers WHERE image = ?1 ORDER BY position", [id.as_str()])
}

pub(super) const NAMES: &str = "SELECT name FROM names WHERE image = ?1 ORDER BY name";
pub(super) const REPO_DIGESTS: &str =
    "SELECT repository || '@' || manifest FROM repo_digests WHERE image = ?1 ORDER BY repository, manifest";

/// Names of an image: `query` is [`NAMES`] or [`REPO_DIGESTS`].
pub(super) fn references(index: &Connection, query: &str, id: &Digest) -> Result<Vec<Reference>> {
    let mut statement = index.prepare_cached(query).during("look up the names of an image")?;
    let texts = statement
        .query_map([id.as_str()], |row| row.get::<_, String>(0))
        .and_then(Iterator::collect::<rusqlite::Result<Vec<_>>>)
        .during("look up the names of an image")?;
    texts
        .into_iter()
        .map(|text| {
            text.parse().map_err(|_| StoreError::DamagedIndex { what: format!("`{text}` is no reference") })
        })
        .collect()
}

fn check_length(config: &[u8]) -> Result<()> {
    let size = config.len() as u64;
    if size > MAX_CONFIG {
        return Err(StoreError::TooLong { what: "the image configuration", size, limit: MAX_CONFIG });
    }
    Ok(())
}

fn insert(
    index: &Connection,
    id: &Digest,
    config: &ImageConfiguration,
    layers: &[Digest],
    manifest: Option<&Digest>,
) -> rusqlite::Result<()> {
    let mut platform = format!("{}/{}", config.os(), config.architecture());
    if let Some(variant) = config.variant().as_deref().filter(|v| !v.is_empty()) {
        platform = format!("{platform}/{variant}");
    }
    let added = index.execute(
        "INSERT OR IGNORE INTO images (id, created, platform, stored) VALUES (?1, ?2, ?3, ?4)",
        params![id.as_str(), config.created(), platform, now()],
    )?;
    if added > 0 {
        for (position, diff_id) in layers.iter().enumerate() {
            index.execute(
                "INSERT INTO image_layers (image, position, diff_id) VALUES (?1, ?2, ?3)",
                params![id.as_str(), position as i64, diff_id.as_str()],
            )?;
        }
    }
    if let Some(manifest) = manifest {
        index.execute(
            "INSERT OR IGNORE INTO image_manifests (image, manifest) VALUES (?1, ?2)",
            [id.as_str(), manifest.as_str()],
        )?;
    }
    Ok(())
}

fn summary(index: &Connection, id: &Digest) -> Result<ImageSummary> {
    let row = index
        .prepare_cached(
            "SELECT i.created, i.platform, (SELECT coalesce(sum(size), 0) FROM layers WHERE diff_id IN
                (SELECT diff_id FROM image_layers WHERE image = i.id)) FROM images i WHERE i.id = ?1",
        )
        .and_then(|mut s| {
            s.query_row([id.as_str()], |row| {
                Ok((row.get::<_, Option<String>>(0)?, row.get::<_, String>(1)?, row.get::<_, i64>(2)?))
            })
            .optional()
        })
        .during("look up an image")?;
    let (created, platform, size) = row.ok_or_else(|| StoreError::ImageNotFound { text: id.to_string() })?;
    let texts = |query| Ok(references(index, query, id)?.iter().map(ToString::to_string).collect());
    Ok(ImageSummary {
        id: id.clone(),
        names: texts(NAMES)?,
        repo_digests: texts(REPO_DIGESTS)?,
        // A foreign configuration may say anything here; what is no time is shown as unknown.
        created: created.and_then(|text| text.parse().ok()),
        size: size as u64,
        platform,
    })
}

/// The image with an id, for those that only need to know whether there is one.
pub(super) fn exists(index: &Connection, id: &Digest) -> Result<bool> {
    match require(index, id) {
        Ok(()) => Ok(true),
        Err(StoreError::ImageNotFound { .. }) => Ok(false),
        Err(e) => Err(e),
    }
}

/// One digest, where a query gives one.
pub(super) fn one(
    index: &Connection,
    sql: &str,
    parameters: impl rusqlite::Params,
) -> Result<Option<Digest>> {
    index
        .prepare_cached(sql)
        .and_then(|mut s| s.query_row(parameters, |row| row.get(0).map(|Column(digest)| digest)).optional())
        .during("look up an image")
}
