//! What is reachable from images, pins and leases, and so must stay.

use std::collections::{HashMap, HashSet};

use rusqlite::Connection;
use serde_json::Value;
use slipway_types::Digest;

use super::Store;
use super::error::{During, Result};
use super::index::{Column, digests};

/// Blobs longer than this are no manifests. The distribution specification asks registries to take 4 MiB.
const MAX_MANIFEST: u64 = 4 << 20;

/// The index, as far as reachability needs it.
#[derive(Debug, Default)]
pub(super) struct Holdings {
    /// Layers of each image.
    pub(super) images: HashMap<Digest, Vec<Digest>>,
    /// Images that have a name or a digest in a registry.
    pub(super) named: HashSet<Digest>,
    manifests: HashMap<Digest, Vec<Digest>>,
    /// Size and source blob of each layer.
    pub(super) layers: HashMap<Digest, (u64, Option<Digest>)>,
    forms: HashMap<Digest, Vec<Digest>>,
    pub(super) blobs: HashMap<Digest, u64>,
    pins: Vec<Digest>,
    /// Key and layer of each cached build step.
    pub(super) steps: Vec<(Digest, Option<Digest>)>,
}

/// What stays.
#[derive(Debug, Default)]
pub(super) struct Kept {
    pub(super) images: HashSet<Digest>,
    pub(super) layers: HashSet<Digest>,
    pub(super) blobs: HashSet<Digest>,
}

impl Holdings {
    pub(super) fn load(index: &Connection) -> Result<Self> {
        let mut holdings = Self::default();
        holdings.read(index).during("be read")?;
        Ok(holdings)
    }

    fn read(&mut self, index: &Connection) -> rusqlite::Result<()> {
        for id in digests(index, "SELECT id FROM images", [])? {
            self.images.insert(id, Vec::new());
        }
        for (image, layer) in pairs(index, "SELECT image, diff_id FROM image_layers ORDER BY position")? {
            self.images.entry(image).or_default().push(layer);
        }
        for (image, manifest) in pairs(index, "SELECT image, manifest FROM image_manifests")? {
            self.manifests.entry(image).or_default().push(manifest);
        }
        self.named = digests(index, "SELECT image FROM names UNION SELECT image FROM repo_digests", [])?
            .into_iter()
            .collect();
        let mut statement = index.prepare_cached("SELECT diff_id, size, source_blob FROM layers")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let Column(diff_id) = row.get(0)?;
            let source: Option<Column> = row.get(2)?;
            self.layers.insert(diff_id, (row.get::<_, i64>(1)? as u64, source.map(|Column(blob)| blob)));
        }
        for (layer, blob) in pairs(index, "SELECT diff_id, digest FROM layer_blobs")? {
            self.forms.entry(layer).or_default().push(blob);
        }
        let mut statement = index.prepare_cached("SELECT digest, size FROM blobs")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let Column(digest) = row.get(0)?;
            self.blobs.insert(digest, row.get::<_, i64>(1)? as u64);
        }
        self.pins = digests(index, "SELECT digest FROM pins", [])?;
        let mut statement = index.prepare_cached("SELECT key, layer FROM steps")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let Column(key) = row.get(0)?;
            let layer: Option<Column> = row.get(1)?;
            self.steps.push((key, layer.map(|Column(layer)| layer)));
        }
        Ok(())
    }
}

/// Which compressed forms of layers stay beside their archives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Forms {
    Keep,
    /// Only those that cannot be made again.
    Drop,
}

impl Store {
    /// What pins and leases keep.
    pub(super) fn kept_by_others(&self, holdings: &Holdings, forms: Forms) -> Kept {
        let mut kept = Kept::default();
        let mut work: Vec<Digest> = holdings.pins.iter().cloned().chain(self.inner.leased()).collect();
        let mut seen: HashSet<Digest> = work.iter().cloned().collect();
        while let Some(digest) = work.pop() {
            keep(&digest, holdings, forms, &mut kept);
            let Some(size) = holdings.blobs.get(&digest) else { continue };
            if *size > MAX_MANIFEST || holdings.images.contains_key(&digest) {
                continue;
            }
            for named in self.named_by_manifest(&digest) {
                if seen.insert(named.clone()) {
                    work.push(named);
                }
            }
        }
        kept
    }

    /// The digests that a blob names, if it is an OCI manifest or index.
    fn named_by_manifest(&self, digest: &Digest) -> Vec<Digest> {
        let Ok(bytes) = std::fs::read(self.blob_path(digest)) else { return Vec::new() };
        if bytes.first() != Some(&b'{') {
            return Vec::new();
        }
        let Ok(manifest) = serde_json::from_slice::<Value>(&bytes) else { return Vec::new() };
        let lists = ["layers", "manifests", "blobs"];
        let listed = lists.iter().filter_map(|key| manifest.get(key)?.as_array()).flatten();
        let single = ["config", "subject"].iter().filter_map(|key| manifest.get(key));
        listed
            .chain(single)
            .filter_map(|descriptor| descriptor.get("digest")?.as_str()?.parse().ok())
            .collect()
    }
}

/// Keeps a digest in every meaning that it has, and what that needs.
pub(super) fn keep(digest: &Digest, holdings: &Holdings, forms: Forms, kept: &mut Kept) {
    if let Some(layers) = holdings.images.get(digest)
        && kept.images.insert(digest.clone())
    {
        kept.blobs.extend(holdings.manifests.get(digest).into_iter().flatten().cloned());
        for layer in layers {
            keep_layer(layer, holdings, forms, kept);
        }
    }
    if holdings.layers.contains_key(digest) {
        keep_layer(digest, holdings, forms, kept);
    }
    if holdings.blobs.contains_key(digest) {
        kept.blobs.insert(digest.clone());
    }
}

pub(super) fn keep_layer(layer: &Digest, holdings: &Holdings, forms: Forms, kept: &mut Kept) {
    if !kept.layers.insert(layer.clone()) {
        return;
    }
    if let Some((_, Some(source))) = holdings.layers.get(layer) {
        kept.blobs.insert(source.clone());
    }
    if forms == Forms::Keep {
        kept.blobs.extend(holdings.forms.get(layer).into_iter().flatten().cloned());
    }
}

fn pairs(index: &Connection, sql: &str) -> rusqlite::Result<Vec<(Digest, Digest)>> {
    let mut statement = index.prepare_cached(sql)?;
    let pair = |row: &rusqlite::Row<'_>| {
        let (Column(a), Column(b)) = (row.get(0)?, row.get(1)?);
        Ok((a, b))
    };
    statement.query_map([], pair)?.collect()
}
