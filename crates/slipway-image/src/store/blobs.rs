//! Blobs: files named by the SHA-256 of their bytes.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rusqlite::{OptionalExtension, params};
use sha2::{Digest as _, Sha256};
use slipway_types::Digest;

use super::error::{During, Result, StoreError};
use super::index::{integer, now};
use super::{Store, sync_directory};

/// Takes the bytes of a blob and hashes them. Nothing is kept unless it is committed.
#[derive(Debug)]
pub struct BlobWriter {
    store: Store,
    path: PathBuf,
    file: File,
    sha: Sha256,
    size: u64,
}

impl BlobWriter {
    /// Bytes written so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Makes the blob part of the store, durably, and tells its digest. Where that is not the `expected` one nothing
    /// stays of it.
    pub fn commit(self, expected: Option<&Digest>) -> Result<Digest> {
        let actual = Digest::from_sha256(self.sha.clone().finalize().into());
        if let Some(expected) = expected
            && *expected != actual
        {
            return Err(StoreError::DigestMismatch { expected: expected.clone(), actual });
        }
        self.file
            .set_permissions(fs::Permissions::from_mode(0o444))
            .map_err(StoreError::io("protect", &self.path))?;
        self.file.sync_all().map_err(StoreError::io("write", &self.path))?;
        let inner = &self.store.inner;
        let _collecting = inner.gc_shared();
        let _committing = inner.commit_lock();
        inner.touch(&actual);
        if self.store.known_blob_size(&actual)?.is_some() {
            return Ok(actual);
        }
        let target = self.store.blob_path(&actual);
        fs::rename(&self.path, &target).map_err(StoreError::io("rename into the store", &self.path))?;
        sync_directory(target.parent().unwrap_or(&target))?;
        let recorded = inner.index.write(|index| {
            index
                .prepare_cached("INSERT OR REPLACE INTO blobs (digest, size, created) VALUES (?1, ?2, ?3)")
                .and_then(|mut s| s.execute(params![actual.as_str(), integer(self.size), now()]))
                .during("record a blob")
        });
        if let Err(error) = recorded {
            // Without a record it would only be garbage; a failure to remove it is found by `check`.
            let _ = fs::remove_file(&target);
            return Err(error);
        }
        Ok(actual)
    }
}

impl Write for BlobWriter {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = self.file.write(buf)?;
        self.sha.update(&buf[..n]);
        self.size += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        // Gone already when it was committed.
        let _ = fs::remove_file(&self.path);
        self.store.release_temporary(&self.path);
    }
}

impl Store {
    /// Whether a blob is in the store, whole.
    pub fn has(&self, digest: &Digest) -> bool {
        matches!(self.blob_size(digest), Ok(Some(_)))
    }

    /// The length of a blob; `None` if the store does not have it.
    pub fn blob_size(&self, digest: &Digest) -> Result<Option<u64>> {
        let _collecting = self.inner.gc_shared();
        let size = self.known_blob_size(digest)?;
        if size.is_some() {
            self.inner.touch(digest);
        }
        Ok(size)
    }

    /// Where a blob lies, whether or not it is there.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.inner.root.join("blobs/sha256").join(digest.hex())
    }

    /// Opens a blob. It was verified when it came in, and is not again.
    pub fn open_blob(&self, digest: &Digest) -> Result<File> {
        if self.blob_size(digest)?.is_none() {
            return Err(StoreError::BlobNotFound { digest: digest.clone() });
        }
        open_file(&self.blob_path(digest), digest)
    }

    /// Reads a blob whole and verifies it. One of more than `max_bytes` is refused unread.
    pub fn read_blob(&self, digest: &Digest, max_bytes: u64) -> Result<Vec<u8>> {
        let file = self.open_blob(digest)?;
        let path = self.blob_path(digest);
        let size = file.metadata().map_err(StoreError::io("read", &path))?.len();
        if size > max_bytes {
            return Err(StoreError::BlobTooLarge { digest: digest.clone(), size, limit: max_bytes });
        }
        let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
        file.take(size).read_to_end(&mut bytes).map_err(StoreError::io("read", &path))?;
        let actual = Digest::from_sha256(Sha256::digest(&bytes).into());
        if actual != *digest {
            return Err(StoreError::DigestMismatch { expected: digest.clone(), actual });
        }
        Ok(bytes)
    }

    /// Begins a blob.
    pub fn blob_writer(&self) -> Result<BlobWriter> {
        let path = self.reserve_temporary("blob");
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        match file {
            Ok(file) => Ok(BlobWriter { store: self.clone(), path, file, sha: Sha256::new(), size: 0 }),
            Err(e) => {
                self.release_temporary(&path);
                Err(StoreError::io("create", &path)(e))
            }
        }
    }

    /// Stores bytes as a blob.
    pub fn put_blob(&self, bytes: &[u8]) -> Result<Digest> {
        let mut writer = self.blob_writer()?;
        writer.write_all(bytes).map_err(StoreError::io("write", &writer.path))?;
        writer.commit(None)
    }

    /// As [`Self::blob_size`], for those who hold the collection lock.
    pub(super) fn known_blob_size(&self, digest: &Digest) -> Result<Option<u64>> {
        let known = self.inner.index.read(|index| {
            index
                .prepare_cached("SELECT size FROM blobs WHERE digest = ?1")
                .and_then(|mut s| s.query_row([digest.as_str()], |row| row.get::<_, i64>(0)).optional())
                .during("look up a blob")
        })?;
        // A record whose file is gone counts for nothing, so that what fetches the blob repairs the store.
        let present =
            |size: &i64| fs::metadata(self.blob_path(digest)).is_ok_and(|m| m.len() == *size as u64);
        Ok(known.filter(present).map(|size| size as u64))
    }
}

/// The digest of a file's bytes.
pub(super) fn hash_file(path: &Path) -> Result<Digest> {
    let mut file = File::open(path).map_err(StoreError::io("read", path))?;
    let mut sha = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(Digest::from_sha256(sha.finalize().into())),
            Ok(n) => sha.update(&buffer[..n]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(StoreError::io("read", path)(e)),
        }
    }
}

fn open_file(path: &Path, digest: &Digest) -> Result<File> {
    File::open(path).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => StoreError::BlobNotFound { digest: digest.clone() },
        _ => StoreError::io("read", path)(e),
    })
}
