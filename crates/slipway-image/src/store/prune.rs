//! Garbage collection.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::PathBuf;

use rusqlite::Transaction;
use slipway_types::Digest;

use super::error::{During, Result, StoreError};
use super::layers::remove_tree;
use super::reach::{Forms, Holdings, Kept, keep, keep_layer};
use super::{Staging, Store, with_reserve};

/// What [`Store::prune`] removes beside what nothing refers to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PruneOptions {
    /// Every image that no pin and no lease keeps, not only those without a name; and compressed forms of layers that
    /// can be made again.
    pub all: bool,
    /// The build cache, with the layers that only it keeps, and the file hashes of build contexts.
    pub build_cache: bool,
}

/// What was removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PruneReport {
    /// Images.
    pub images: Vec<Digest>,
    /// Layers.
    pub layers: Vec<Digest>,
    /// Blobs.
    pub blobs: Vec<Digest>,
    /// Build steps.
    pub cache_entries: u64,
    /// Files and directories that no record named.
    pub strays: u64,
    /// Bytes that layers and blobs had by the index.
    pub bytes: u64,
}

/// What the store holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Number of images.
    pub images: u64,
    /// Number of layers.
    pub layers: u64,
    /// Bytes of file contents in layers.
    pub layer_bytes: u64,
    /// Number of blobs.
    pub blobs: u64,
    /// Bytes of blobs.
    pub blob_bytes: u64,
    /// Number of build steps.
    pub cache_entries: u64,
    /// Bytes that [`Store::prune`] of everything would free.
    pub reclaimable_bytes: u64,
}

/// What is to go.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) images: Vec<Digest>,
    pub(super) layers: Vec<(Digest, u64)>,
    pub(super) blobs: Vec<(Digest, u64)>,
    steps: Vec<Digest>,
}

impl Plan {
    pub(super) fn bytes(&self) -> u64 {
        self.layers.iter().chain(&self.blobs).map(|(_, size)| size).sum()
    }
}

impl Store {
    /// Removes what neither an image that stays, nor a pin, nor a lease, nor the build cache reaches. Safe beside every
    /// other operation; those under way hold a [`super::Lease`].
    pub fn prune(&self, options: &PruneOptions) -> Result<PruneReport> {
        with_reserve(self.root(), || self.collect(options))
    }

    fn collect(&self, options: &PruneOptions) -> Result<PruneReport> {
        let trash = self.staging("trash")?;
        let collecting = self.inner.gc_exclusive();
        let plan = self.inner.index.write(|index| {
            let plan = self.plan(&Holdings::load(index)?, options);
            forget(index, &plan)?;
            Ok(plan)
        })?;
        self.take_away(&plan, &trash)?;
        let mut strays = 0;
        for path in self.stray_files()? {
            fs::rename(&path, trash.path().join(format!("stray-{strays}")))
                .map_err(StoreError::io("move away", &path))?;
            strays += 1;
        }
        drop(collecting);
        for path in self.stale_temporaries()? {
            remove_tree(&path)?;
            strays += 1;
        }
        if options.build_cache {
            self.forget_contexts()?;
        }
        Ok(PruneReport {
            bytes: plan.bytes(),
            images: plan.images,
            layers: plan.layers.into_iter().map(|(digest, _)| digest).collect(),
            blobs: plan.blobs.into_iter().map(|(digest, _)| digest).collect(),
            cache_entries: plan.steps.len() as u64,
            strays,
        })
    }

    /// Counts and sizes of what the store holds, by its index.
    pub fn usage(&self) -> Result<Usage> {
        let _collecting = self.inner.gc_shared();
        let holdings = self.inner.index.read(Holdings::load)?;
        let plan = self.plan(&holdings, &PruneOptions { all: true, build_cache: true });
        Ok(Usage {
            images: holdings.images.len() as u64,
            layers: holdings.layers.len() as u64,
            layer_bytes: holdings.layers.values().map(|(size, _)| size).sum(),
            blobs: holdings.blobs.len() as u64,
            blob_bytes: holdings.blobs.values().sum(),
            cache_entries: holdings.steps.len() as u64,
            reclaimable_bytes: plan.bytes(),
        })
    }

    fn plan(&self, holdings: &Holdings, options: &PruneOptions) -> Plan {
        let forms = if options.all { Forms::Drop } else { Forms::Keep };
        let mut kept = self.kept_by_others(holdings, forms);
        let mut plan = Plan::default();
        for id in holdings.images.keys() {
            if kept.images.contains(id) {
                continue;
            }
            if options.all || !holdings.named.contains(id) {
                plan.images.push(id.clone());
            } else {
                keep(id, holdings, forms, &mut kept);
            }
        }
        for (key, layer) in &holdings.steps {
            let gone = layer.as_ref().is_some_and(|layer| !holdings.layers.contains_key(layer));
            if options.build_cache || gone {
                plan.steps.push(key.clone());
            } else if let Some(layer) = layer {
                keep_layer(layer, holdings, forms, &mut kept);
            }
        }
        rest(holdings, &kept, &mut plan);
        plan
    }

    /// What goes with an image that was just taken out of the index: of its layers and blobs those that nothing reaches.
    pub(super) fn plan_after_removal(&self, holdings: &Holdings, candidates: &HashSet<Digest>) -> Plan {
        let mut kept = self.kept_by_others(holdings, Forms::Keep);
        for id in holdings.images.keys() {
            keep(id, holdings, Forms::Keep, &mut kept);
        }
        for layer in holdings.steps.iter().filter_map(|(_, layer)| layer.as_ref()) {
            keep_layer(layer, holdings, Forms::Keep, &mut kept);
        }
        let mut plan = Plan::default();
        rest(holdings, &kept, &mut plan);
        plan.layers.retain(|(digest, _)| candidates.contains(digest));
        plan.blobs.retain(|(digest, _)| candidates.contains(digest));
        plan
    }

    /// Moves the files of a plan to `trash`, which is removed when it is dropped. The index has forgotten them: what is
    /// left by a crash here is found by [`Self::stray_files`].
    pub(super) fn take_away(&self, plan: &Plan, trash: &Staging) -> Result<()> {
        let gone = |result: io::Result<()>| match result {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        };
        for (diff_id, _) in &plan.layers {
            let place = self.inner.root.join("layers").join(diff_id.hex());
            gone(fs::rename(&place, trash.path().join(diff_id.hex())))
                .map_err(StoreError::io("move away", &place))?;
        }
        for (digest, _) in &plan.blobs {
            let path = self.blob_path(digest);
            gone(fs::remove_file(&path)).map_err(StoreError::io("remove", &path))?;
        }
        Ok(())
    }

    /// Layer directories and blobs on disk that the index does not name. Called with the collection lock held
    /// exclusively: otherwise a commit may be about to record them.
    pub(super) fn stray_files(&self) -> Result<Vec<PathBuf>> {
        let holdings = self.inner.index.read(Holdings::load)?;
        let layers: HashSet<&str> = holdings.layers.keys().map(Digest::hex).collect();
        let blobs: HashSet<&str> = holdings.blobs.keys().map(Digest::hex).collect();
        let mut strays = Vec::new();
        for (directory, known) in [("layers", layers), ("blobs/sha256", blobs)] {
            let directory = self.inner.root.join(directory);
            for entry in fs::read_dir(&directory).map_err(StoreError::io("list", &directory))? {
                let path = entry.map_err(StoreError::io("list", &directory))?.path();
                if !path.file_name().and_then(OsStr::to_str).is_some_and(|name| known.contains(name)) {
                    strays.push(path);
                }
            }
        }
        strays.sort();
        Ok(strays)
    }
}

fn rest(holdings: &Holdings, kept: &Kept, plan: &mut Plan) {
    for (digest, (size, _)) in &holdings.layers {
        if !kept.layers.contains(digest) {
            plan.layers.push((digest.clone(), *size));
        }
    }
    for (digest, size) in &holdings.blobs {
        if !kept.blobs.contains(digest) {
            plan.blobs.push((digest.clone(), *size));
        }
    }
    plan.images.sort_unstable();
    plan.layers.sort_unstable();
    plan.blobs.sort_unstable();
}

/// Takes a plan out of the index.
pub(super) fn forget(index: &Transaction<'_>, plan: &Plan) -> Result<()> {
    let delete = |sql: &str, digest: &Digest| {
        index
            .prepare_cached(sql)
            .and_then(|mut s| s.execute([digest.as_str()]))
            .during("forget what is removed")
    };
    for id in &plan.images {
        delete("DELETE FROM images WHERE id = ?1", id)?;
    }
    for key in &plan.steps {
        delete("DELETE FROM steps WHERE key = ?1", key)?;
    }
    for (diff_id, _) in &plan.layers {
        delete("DELETE FROM layers WHERE diff_id = ?1", diff_id)?;
    }
    for (digest, _) in &plan.blobs {
        delete("DELETE FROM blobs WHERE digest = ?1", digest)?;
    }
    Ok(())
}
