//! Layers: unpacked trees, named by the digest of their uncompressed archive.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension, params};
use rustix::fs::{Timespec, Timestamps};
use sha2::{Digest as _, Sha256};
use slipway_types::Digest;

use super::archive::{self, ArchiveError, Overlay, Tree, UnpackLimits, Unpacked, WriteError, Written};
use super::error::{During, Result, StoreError};
use super::index::{Column, integer, now};
use super::{Staging, Store, codec, sync_directory, trash};

/// Up to this many entries are flushed one by one; flushing a whole file system waits for everything else on it.
const FEW_ENTRIES: u64 = 64;

/// What is known of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerInfo {
    /// Digest of the uncompressed archive.
    pub diff_id: Digest,
    /// Bytes of file contents.
    pub size: u64,
    /// Bytes of the uncompressed archive.
    pub tar_size: u64,
    /// Files, directories, links and deletions. 0: the layer changes nothing.
    pub entries: u64,
}

/// A compressed form of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerBlob {
    /// Digest of the compressed bytes.
    pub digest: Digest,
    /// As in manifests, for example `application/vnd.oci.image.layer.v1.tar+zstd`.
    pub media_type: String,
    /// Length in bytes.
    pub size: u64,
}

/// Where the archive of a layer comes from when it is written out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LayerSource {
    /// It is the canonical archive of the layer's files.
    Canonical,
    /// It is in a blob, which stays as long as the layer does.
    Blob(LayerBlob),
    /// It was unpacked from a stream that nobody kept.
    Unrecorded,
}

impl Store {
    /// What is known of a layer; `None` if the store does not have it.
    pub fn layer(&self, diff_id: &Digest) -> Result<Option<LayerInfo>> {
        let _collecting = self.inner.gc_shared();
        let found = self.known_layer(diff_id)?;
        if found.is_some() {
            self.inner.touch(diff_id);
        }
        Ok(found)
    }

    /// Unpacks an uncompressed tar as a layer. Nothing stays of it if it is refused, or has another digest than
    /// `expected`. No archive is kept, so the layer cannot be written out until a blob is recorded for it.
    pub fn unpack_layer(
        &self,
        reader: impl Read,
        expected: Option<&Digest>,
        limits: &UnpackLimits,
    ) -> Result<LayerInfo> {
        self.unpack_from(reader, expected, limits, &LayerSource::Unrecorded)
    }

    /// Unpacks a blob of the store (a tar: gzip, zstd, or uncompressed, whatever its media type says) as a layer, and
    /// keeps the blob as the layer's archive. A layer that is there already is not unpacked again.
    pub fn unpack_blob(
        &self,
        blob: &LayerBlob,
        expected: Option<&Digest>,
        limits: &UnpackLimits,
    ) -> Result<LayerInfo> {
        let _lease = self.lease();
        let file = self.open_blob(&blob.digest)?;
        if let Some(expected) = expected
            && let Some(info) = self.layer(expected)?
        {
            self.record_layer_blob(expected, blob)?;
            return Ok(info);
        }
        let decoder = codec::decoder(file).map_err(StoreError::Archive)?;
        self.unpack_from(decoder, expected, limits, &LayerSource::Blob(blob.clone()))
    }

    /// Makes a layer of the directory `fs` in `staging`: the upper directory of an overlay that is not mounted any more,
    /// or any tree. `None` if it has no entries. `created_by` is for people.
    pub fn commit_upper(&self, staging: Staging, created_by: &str) -> Result<Option<LayerInfo>> {
        let fs = staging.fs()?;
        let tree = archive::scan(&fs, Overlay::Strip).map_err(StoreError::Tree)?;
        if tree.is_empty() {
            return Ok(None);
        }
        self.commit_tree(&fs, &tree, created_by).map(Some)
    }

    /// Writes the uncompressed archive of a layer, bit for bit. It is verified as it is written: on an error (at the end,
    /// [`StoreError::LayerChanged`]) what was written is worth nothing.
    pub fn write_layer_tar(&self, diff_id: &Digest, w: &mut impl Write) -> Result<()> {
        let source = self.layer_source(diff_id)?;
        let output = |source| StoreError::Output { diff_id: diff_id.clone(), source };
        let actual = match source {
            LayerSource::Unrecorded => {
                return Err(StoreError::LayerWithoutSource { diff_id: diff_id.clone() });
            }
            LayerSource::Canonical => {
                let tree =
                    archive::scan(&self.layer_path(diff_id), Overlay::Keep).map_err(StoreError::Tree)?;
                match archive::write_tree(&tree, w) {
                    Ok(written) => written.diff_id,
                    Err(WriteError::Output(e)) => return Err(output(e)),
                    Err(WriteError::Tree(e)) => return Err(StoreError::Tree(e)),
                }
            }
            LayerSource::Blob(blob) => {
                let mut decoder =
                    codec::decoder(self.open_blob(&blob.digest)?).map_err(StoreError::Archive)?;
                let mut sha = Sha256::new();
                let mut buffer = vec![0; 256 * 1024];
                loop {
                    let n = match decoder.read(&mut buffer) {
                        Ok(0) => break,
                        Ok(n) => n,
                        Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                        Err(e) => return Err(StoreError::Archive(ArchiveError::Read(e))),
                    };
                    sha.update(&buffer[..n]);
                    w.write_all(&buffer[..n]).map_err(output)?;
                }
                Digest::from_sha256(sha.finalize().into())
            }
        };
        if actual != *diff_id {
            return Err(StoreError::LayerChanged { diff_id: diff_id.clone() });
        }
        Ok(())
    }

    /// Where the archive of a layer comes from.
    pub fn layer_source(&self, diff_id: &Digest) -> Result<LayerSource> {
        let _collecting = self.inner.gc_shared();
        self.inner.touch(diff_id);
        self.inner.index.read(|index| {
            source(index, diff_id)?.ok_or_else(|| StoreError::LayerNotFound { diff_id: diff_id.clone() })
        })
    }

    /// The compressed forms that were recorded for a layer. The blobs need not be there ([`Self::has`]): what is in a
    /// registry already need not be compressed again to know its digest.
    pub fn layer_blobs(&self, diff_id: &Digest) -> Result<Vec<LayerBlob>> {
        let _collecting = self.inner.gc_shared();
        self.inner.touch(diff_id);
        self.inner.index.read(|index| {
            let mut statement = index
                .prepare_cached(
                    "SELECT digest, media_type, size FROM layer_blobs WHERE diff_id = ?1 ORDER BY size, digest",
                )
                .during("look up the blobs of a layer")?;
            let rows = statement.query_map([diff_id.as_str()], read_blob).during("look up the blobs of a layer")?;
            rows.collect::<rusqlite::Result<_>>().during("look up the blobs of a layer")
        })
    }

    /// Remembers a compressed form of a layer. For a layer without a known archive it becomes that, if it is in the store.
    pub fn record_layer_blob(&self, diff_id: &Digest, blob: &LayerBlob) -> Result<()> {
        let _collecting = self.inner.gc_shared();
        if self.known_layer(diff_id)?.is_none() {
            return Err(StoreError::LayerNotFound { diff_id: diff_id.clone() });
        }
        let present = self.known_blob_size(&blob.digest)?.is_some();
        self.inner.index.write(|index| record_blob(index, diff_id, blob, present))?;
        self.inner.touch(diff_id);
        self.inner.touch(&blob.digest);
        Ok(())
    }

    /// The directory with a layer's files, whether or not it is there.
    pub fn layer_path(&self, diff_id: &Digest) -> PathBuf {
        self.inner.root.join("layers").join(diff_id.hex()).join("fs")
    }

    pub(super) fn known_layer(&self, diff_id: &Digest) -> Result<Option<LayerInfo>> {
        let row = self.inner.index.read(|index| {
            index
                .prepare_cached("SELECT size, tar_size, entries FROM layers WHERE diff_id = ?1")
                .and_then(|mut s| {
                    s.query_row([diff_id.as_str()], |row| {
                        let number = |at| row.get::<_, i64>(at).map(|n| n as u64);
                        Ok(LayerInfo {
                            diff_id: diff_id.clone(),
                            size: number(0)?,
                            tar_size: number(1)?,
                            entries: number(2)?,
                        })
                    })
                    .optional()
                })
                .during("look up a layer")
        })?;
        // A record whose files are gone counts for nothing, so that what fetches the layer repairs the store.
        Ok(row.filter(|_| self.layer_path(diff_id).is_dir()))
    }

    pub(super) fn commit_tree(&self, fs: &Path, tree: &Tree, created_by: &str) -> Result<LayerInfo> {
        let written = digest_tree(tree)?;
        let info = LayerInfo {
            diff_id: written.diff_id,
            size: written.size,
            tar_size: written.tar_size,
            entries: written.entries,
        };
        self.adopt(fs, info, &LayerSource::Canonical, created_by)
    }

    fn unpack_from(
        &self,
        reader: impl Read,
        expected: Option<&Digest>,
        limits: &UnpackLimits,
        source: &LayerSource,
    ) -> Result<LayerInfo> {
        let staging = self.staging("unpack")?;
        let fs = staging.fs()?;
        let unpacked: Unpacked = archive::unpack(reader, &fs, limits).map_err(StoreError::Archive)?;
        if let Some(expected) = expected
            && *expected != unpacked.diff_id
        {
            return Err(StoreError::DigestMismatch { expected: expected.clone(), actual: unpacked.diff_id });
        }
        let info = LayerInfo {
            diff_id: unpacked.diff_id,
            size: unpacked.size,
            tar_size: unpacked.tar_size,
            entries: unpacked.entries,
        };
        self.adopt(&fs, info, source, "")
    }

    /// Moves a finished tree to its place and records it. If the layer is there already the tree is left where it is.
    fn adopt(&self, fs: &Path, info: LayerInfo, source: &LayerSource, created_by: &str) -> Result<LayerInfo> {
        normalise_root(fs)?;
        flush(fs, info.entries)?;
        let diff_id = &info.diff_id;
        let place = self.inner.root.join("layers").join(diff_id.hex());
        let layers = self.inner.root.join("layers");
        // What may have to go is taken aside under the lock and removed after it.
        let aside = self.staging("layer")?;
        let _collecting = self.inner.gc_shared();
        let _committing = self.inner.commit_lock();
        self.inner.touch(diff_id);
        let known = self.known_layer(diff_id)?;
        if known.is_none() {
            let shell = aside.path().join("new");
            fs::DirBuilder::new().mode(0o755).create(&shell).map_err(StoreError::io("create", &shell))?;
            fs::rename(fs, shell.join("fs")).map_err(StoreError::io("rename", fs))?;
            sync_directory(&shell)?;
            let old = aside.path().join("old");
            match fs::rename(&place, &old) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                result => result.map_err(StoreError::io("move away", &place))?,
            }
            fs::rename(&shell, &place).map_err(StoreError::io("rename into the store", &shell))?;
            sync_directory(&layers)?;
        }
        let recorded = self.inner.index.write(|index| {
            if known.is_none() {
                insert(index, &info, source, created_by)?;
            }
            match source {
                LayerSource::Blob(blob) => record_blob(index, diff_id, blob, true),
                LayerSource::Canonical => index
                    .execute(
                        "UPDATE layers SET source = 'canonical' WHERE diff_id = ?1 AND source = 'unrecorded'",
                        [diff_id.as_str()],
                    )
                    .map(drop)
                    .during("record a layer"),
                LayerSource::Unrecorded => Ok(()),
            }
        });
        if let (Err(_), None) = (&recorded, &known) {
            // Unrecorded it would only be garbage; should this fail, too, `check` finds it.
            let _ = fs::rename(&place, aside.path().join("unrecorded"));
        }
        recorded?;
        Ok(known.unwrap_or(info))
    }
}

/// Hashes the canonical archive of a tree.
pub(super) fn digest_tree(tree: &Tree) -> Result<Written> {
    archive::write_tree(tree, &mut io::sink()).map_err(|e| match e {
        WriteError::Tree(e) => StoreError::Tree(e),
        WriteError::Output(e) => StoreError::Tree(ArchiveError::Read(e)),
    })
}

pub(super) fn source(index: &Connection, diff_id: &Digest) -> Result<Option<LayerSource>> {
    let row = index
        .prepare_cached(
            "SELECT l.source, b.digest, b.media_type, b.size FROM layers l
             LEFT JOIN layer_blobs b ON b.diff_id = l.diff_id AND b.digest = l.source_blob WHERE l.diff_id = ?1",
        )
        .and_then(|mut s| {
            s.query_row([diff_id.as_str()], |row| {
                let kind: String = row.get(0)?;
                let blob = match row.get::<_, Option<Column>>(1)? {
                    None => None,
                    Some(Column(digest)) => Some(LayerBlob {
                        digest,
                        media_type: row.get(2)?,
                        size: row.get::<_, i64>(3)? as u64,
                    }),
                };
                Ok((kind, blob))
            })
            .optional()
        })
        .during("look up a layer")?;
    Ok(row.map(|(kind, blob)| match (kind.as_str(), blob) {
        ("canonical", _) => LayerSource::Canonical,
        ("blob", Some(blob)) => LayerSource::Blob(blob),
        _ => LayerSource::Unrecorded,
    }))
}

fn read_blob(row: &rusqlite::Row<'_>) -> rusqlite::Result<LayerBlob> {
    let Column(digest) = row.get(0)?;
    Ok(LayerBlob { digest, media_type: row.get(1)?, size: row.get::<_, i64>(2)? as u64 })
}

fn insert(index: &Connection, info: &LayerInfo, source: &LayerSource, created_by: &str) -> Result<()> {
    let (kind, blob) = match source {
        LayerSource::Canonical => ("canonical", None),
        LayerSource::Blob(blob) => ("blob", Some(blob.digest.as_str())),
        LayerSource::Unrecorded => ("unrecorded", None),
    };
    // An earlier record is replaced in place: images refer to it.
    index
        .execute(
            "INSERT INTO layers (diff_id, size, tar_size, entries, source, source_blob, created_by, created)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
             ON CONFLICT (diff_id) DO UPDATE SET size = ?2, tar_size = ?3, entries = ?4, source = ?5, source_blob = ?6",
            params![
                info.diff_id.as_str(),
                integer(info.size),
                integer(info.tar_size),
                integer(info.entries),
                kind,
                blob,
                created_by,
                now()
            ],
        )
        .map(drop)
        .during("record a layer")
}

fn record_blob(index: &Connection, diff_id: &Digest, blob: &LayerBlob, present: bool) -> Result<()> {
    const RECORD: &str = "record a blob of a layer";
    index
        .execute(
            "INSERT OR REPLACE INTO layer_blobs (diff_id, digest, media_type, size) VALUES (?1, ?2, ?3, ?4)",
            params![diff_id.as_str(), blob.digest.as_str(), blob.media_type, integer(blob.size)],
        )
        .during(RECORD)?;
    if present {
        index
            .execute(
                "UPDATE layers SET source = 'blob', source_blob = ?2 WHERE diff_id = ?1 AND source = 'unrecorded'",
                params![diff_id.as_str(), blob.digest.as_str()],
            )
            .during(RECORD)?;
    }
    Ok(())
}

/// The root of every layer has the same owner, mode and time: it is no entry of the canonical archive.
fn normalise_root(fs: &Path) -> Result<()> {
    let epoch = Timespec { tv_sec: 0, tv_nsec: 0 };
    let dir = File::open(fs).map_err(StoreError::io("open", fs))?;
    dir.set_permissions(fs::Permissions::from_mode(0o755)).map_err(StoreError::io("set the mode of", fs))?;
    std::os::unix::fs::fchown(&dir, Some(0), Some(0)).map_err(StoreError::io("set the owner of", fs))?;
    rustix::fs::futimens(&dir, &Timestamps { last_access: epoch, last_modification: epoch })
        .map_err(StoreError::os("set the time of", fs))
}

/// Makes a tree durable.
fn flush(fs: &Path, entries: u64) -> Result<()> {
    if entries <= FEW_ENTRIES && flush_each(fs).is_ok() {
        return Ok(());
    }
    let dir = File::open(fs).map_err(StoreError::io("open", fs))?;
    rustix::fs::syncfs(&dir).map_err(StoreError::os("flush", fs))
}

fn flush_each(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            flush_each(&entry.path())?;
        } else if kind.is_file() {
            File::open(entry.path())?.sync_all()?;
        }
    }
    File::open(dir)?.sync_all()
}

/// Removes what lies at a path of the store, whatever it is.
pub(super) fn remove_tree(path: &Path) -> Result<()> {
    trash::remove(path).map_err(StoreError::os("remove", path))
}
