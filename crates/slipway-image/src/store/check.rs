//! Checking the store: what the index says against what is on disk.

use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use slipway_types::Digest;

use super::archive::{self, Overlay, UnpackLimits};
use super::error::{During, Result, StoreError};
use super::index::Column;
use super::layers::{LayerSource, digest_tree};
use super::reach::Holdings;
use super::{Store, blobs, codec};

/// Something in the store that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The index has a layer whose files are gone. Pulling or building its image again repairs it.
    #[error("the files of layer {diff_id} are missing")]
    MissingLayer {
        /// Which.
        diff_id: Digest,
    },
    /// The index has a blob whose file is gone or has another length.
    #[error("blob {digest} is missing or has the wrong length")]
    MissingBlob {
        /// Which.
        digest: Digest,
    },
    /// Something refers to a blob that the index does not have.
    #[error("{by} needs blob {digest}, which is not in the store")]
    DanglingBlob {
        /// What refers to it.
        by: String,
        /// The blob.
        digest: Digest,
    },
    /// A pin keeps something that is not there.
    #[error("the pin `{kind} {name}` keeps {digest}, which is not in the store")]
    DanglingPin {
        /// Kind of the pin.
        kind: String,
        /// Its name.
        name: String,
        /// What it keeps.
        digest: Digest,
    },
    /// Something in `layers/` or `blobs/` that the index does not name; a process died before it recorded it. Pruning
    /// removes it.
    #[error("`{}` is not in the index", path.display())]
    Stray {
        /// Where.
        path: PathBuf,
    },
    /// Something in `tmp/` that no running operation owns. Pruning removes it.
    #[error("`{}` is left over from an operation that ended", path.display())]
    StaleStaging {
        /// Where.
        path: PathBuf,
    },
    /// The bytes of a blob are not what its digest says.
    #[error("blob {digest} is damaged: its bytes have digest {actual}")]
    DamagedBlob {
        /// Which.
        digest: Digest,
        /// Digest of what is there.
        actual: Digest,
    },
    /// The files of a layer are not what its archive says.
    #[error("the files of layer {diff_id} were changed")]
    DamagedLayer {
        /// Which.
        diff_id: Digest,
    },
    /// A layer or blob could not be read.
    #[error("{digest} cannot be read: {reason}")]
    Unreadable {
        /// Which.
        digest: Digest,
        /// Why.
        reason: String,
    },
}

impl Store {
    /// Looks for problems. `deep` reads everything and verifies it: blobs against their digests, layers against their
    /// archives (for which a pulled layer is unpacked once more, into `tmp/`).
    pub fn check(&self, deep: bool) -> Result<Vec<Problem>> {
        let _lease = self.lease();
        let mut problems = Vec::new();
        let holdings = {
            let _collecting = self.inner.gc_exclusive();
            let holdings = self.inner.index.read(|index| {
                let holdings = Holdings::load(index)?;
                dangling(index, &mut problems).during("be read")?;
                Ok(holdings)
            })?;
            for diff_id in holdings.layers.keys().filter(|id| !self.layer_path(id).is_dir()) {
                problems.push(Problem::MissingLayer { diff_id: diff_id.clone() });
            }
            for (digest, size) in &holdings.blobs {
                if !fs::metadata(self.blob_path(digest)).is_ok_and(|m| m.len() == *size) {
                    problems.push(Problem::MissingBlob { digest: digest.clone() });
                }
            }
            problems.extend(self.stray_files()?.into_iter().map(|path| Problem::Stray { path }));
            // What is verified below must not be collected meanwhile.
            if deep {
                holdings
                    .layers
                    .keys()
                    .chain(holdings.blobs.keys())
                    .for_each(|digest| self.inner.touch(digest));
            }
            holdings
        };
        problems.extend(self.stale_temporaries()?.into_iter().map(|path| Problem::StaleStaging { path }));
        if deep {
            for digest in holdings.blobs.keys() {
                self.verify(digest, &mut problems, |store| store.verify_blob(digest))?;
            }
            for diff_id in holdings.layers.keys() {
                self.verify(diff_id, &mut problems, |store| store.verify_layer(diff_id))?;
            }
        }
        problems.sort_by_key(ToString::to_string);
        Ok(problems)
    }

    fn verify(
        &self,
        digest: &Digest,
        problems: &mut Vec<Problem>,
        f: impl FnOnce(&Self) -> Result<Option<Problem>>,
    ) -> Result<()> {
        match f(self) {
            Ok(found) => problems.extend(found),
            // No finding about the store: there was no room for the check.
            Err(e) if e.is_out_of_space() => return Err(e),
            Err(e) => problems.push(Problem::Unreadable { digest: digest.clone(), reason: chain(&e) }),
        }
        Ok(())
    }

    fn verify_blob(&self, digest: &Digest) -> Result<Option<Problem>> {
        if self.blob_size(digest)?.is_none() {
            return Ok(None); // reported as missing
        }
        let actual = blobs::hash_file(&self.blob_path(digest))?;
        Ok((actual != *digest).then(|| Problem::DamagedBlob { digest: digest.clone(), actual }))
    }

    fn verify_layer(&self, diff_id: &Digest) -> Result<Option<Problem>> {
        if self.layer(diff_id)?.is_none() {
            return Ok(None); // reported as missing
        }
        let expected = match self.layer_source(diff_id)? {
            LayerSource::Unrecorded => return Ok(None),
            LayerSource::Canonical => diff_id.clone(),
            LayerSource::Blob(blob) => {
                if self.blob_size(&blob.digest)?.is_none() {
                    return Ok(None); // reported as missing
                }
                let staging = self.staging("check")?;
                let fs = staging.fs()?;
                let decoder = codec::decoder(self.open_blob(&blob.digest)?).map_err(StoreError::Archive)?;
                let again =
                    archive::unpack(decoder, &fs, &UnpackLimits::default()).map_err(StoreError::Archive)?;
                if again.diff_id != *diff_id {
                    return Ok(Some(Problem::DamagedBlob { digest: blob.digest, actual: again.diff_id }));
                }
                canonical_digest(&fs)?
            }
        };
        let actual = canonical_digest(&self.layer_path(diff_id))?;
        Ok((actual != expected).then(|| Problem::DamagedLayer { diff_id: diff_id.clone() }))
    }
}

fn canonical_digest(fs: &Path) -> Result<Digest> {
    let tree = archive::scan(fs, Overlay::Keep).map_err(StoreError::Tree)?;
    Ok(digest_tree(&tree)?.diff_id)
}

/// References in the index to what the index does not have.
fn dangling(index: &Connection, problems: &mut Vec<Problem>) -> rusqlite::Result<()> {
    let mut statement = index.prepare(
        "SELECT 'image ' || id, id FROM images WHERE id NOT IN (SELECT digest FROM blobs)
         UNION ALL SELECT 'image ' || image, manifest FROM image_manifests
            WHERE manifest NOT IN (SELECT digest FROM blobs)
         UNION ALL SELECT 'layer ' || diff_id, source_blob FROM layers
            WHERE source_blob IS NOT NULL AND source_blob NOT IN (SELECT digest FROM blobs)",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let Column(digest) = row.get(1)?;
        problems.push(Problem::DanglingBlob { by: row.get(0)?, digest });
    }
    let mut statement = index.prepare(
        "SELECT kind, name, digest FROM pins WHERE digest NOT IN
            (SELECT digest FROM blobs UNION SELECT diff_id FROM layers UNION SELECT id FROM images)",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let Column(digest) = row.get(2)?;
        problems.push(Problem::DanglingPin { kind: row.get(0)?, name: row.get(1)?, digest });
    }
    Ok(())
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
