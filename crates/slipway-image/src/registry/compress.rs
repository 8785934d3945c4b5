//! Layers as registries take them: compressed, the same bytes every time.

use std::io::{self, Write};

use flate2::{Compression as Level, GzBuilder};
use slipway_types::Digest;

use super::manifest::{OCI_LAYER_GZIP, OCI_LAYER_ZSTD};
use crate::store::{LayerBlob, Store, StoreError};

/// How layers that were built here are compressed for a registry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Every registry and runtime reads it.
    #[default]
    Gzip,
    /// Smaller and several times faster; Docker reads it since version 23.
    Zstd,
}

/// The trade-off of Docker's own pushes, on zlib-rs.
const GZIP_LEVEL: u32 = 6;
const ZSTD_LEVEL: i32 = 3;
/// The output of zstd depends on whether there are threads, not on how many.
const ZSTD_THREADS: u32 = 2;

impl Compression {
    /// Type of a layer compressed so.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Gzip => OCI_LAYER_GZIP,
            Self::Zstd => OCI_LAYER_ZSTD,
        }
    }
}

/// Compresses a layer into a blob of the store and records it as one of the layer's forms.
/// `written` gets the number of uncompressed bytes now and then; its error ends the work.
pub(crate) fn compress_layer(
    store: &Store,
    diff_id: &Digest,
    compression: Compression,
    written: impl FnMut(u64) -> io::Result<()>,
) -> Result<LayerBlob, StoreError> {
    let blob = store.blob_writer()?;
    let failed = |source| StoreError::Output { diff_id: diff_id.clone(), source };
    let blob = match compression {
        Compression::Gzip => {
            // Neither time nor name, and no operating system: nothing of this machine.
            let encoder = GzBuilder::new().mtime(0).operating_system(255).write(blob, Level::new(GZIP_LEVEL));
            let mut counted = Counted { inner: encoder, bytes: 0, written };
            store.write_layer_tar(diff_id, &mut counted)?;
            counted.inner.finish().map_err(failed)?
        }
        Compression::Zstd => {
            let mut encoder = zstd::stream::write::Encoder::new(blob, ZSTD_LEVEL).map_err(failed)?;
            encoder.multithread(ZSTD_THREADS).map_err(failed)?;
            let mut counted = Counted { inner: encoder, bytes: 0, written };
            store.write_layer_tar(diff_id, &mut counted)?;
            counted.inner.finish().map_err(failed)?
        }
    };
    let size = blob.size();
    let digest = blob.commit(None)?;
    let form = LayerBlob { digest, media_type: compression.media_type().to_owned(), size };
    store.record_layer_blob(diff_id, &form)?;
    Ok(form)
}

struct Counted<W, F> {
    inner: W,
    bytes: u64,
    written: F,
}

impl<W: Write, F: FnMut(u64) -> io::Result<()>> Write for Counted<W, F> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(buf)?;
        self.bytes += n as u64;
        (self.written)(self.bytes)?;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
