//! Blobs from the network into the store: digest, copy and unpacking in one pass, on a blocking thread.

use std::io::{self, BufReader, Cursor, Read, Write};

use bytes::Bytes;
use flate2::bufread::MultiGzDecoder;
use sha2::{Digest as _, Sha256};
use slipway_types::Digest;
use tokio::sync::mpsc;

use super::download::Piece;
use super::manifest::Descriptor;
use crate::store::{BlobWriter, LayerBlob, Store, StoreError, UnpackLimits};

/// Why a blob did not get into the store.
pub(crate) enum IngestError {
    /// It has another digest than promised.
    Digest { received: Digest },
    /// The download was given up; it knows why.
    CutOff,
    /// It could not be unpacked or stored.
    Store(StoreError),
}

/// A blob that arrives. Reading past its end fails unless its digest is the promised one, so that nothing that
/// reads to the end can take wrong content for good.
struct Incoming<'a> {
    pieces: mpsc::Receiver<Piece>,
    current: Bytes,
    hasher: Sha256,
    promised: &'a Digest,
    copy: Option<BlobWriter>,
    state: State,
}

#[derive(Clone, PartialEq, Eq)]
enum State {
    Open,
    Complete,
    Mismatch(Digest),
    CutOff,
}

impl<'a> Incoming<'a> {
    fn new(pieces: mpsc::Receiver<Piece>, promised: &'a Digest, copy: Option<BlobWriter>) -> Self {
        Self { pieces, current: Bytes::new(), hasher: Sha256::new(), promised, copy, state: State::Open }
    }

    /// Reads what the consumer left.
    fn drain(&mut self) -> io::Result<()> {
        let mut rest = [0; 16 << 10];
        while self.read(&mut rest)? > 0 {}
        Ok(())
    }
}

impl Read for Incoming<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match &self.state {
                State::Open => {}
                State::Complete => return Ok(0),
                State::Mismatch(_) => {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "the content has another digest"));
                }
                State::CutOff => {
                    return Err(io::Error::new(io::ErrorKind::BrokenPipe, "the transfer ended early"));
                }
            }
            match self.pieces.blocking_recv() {
                Some(Piece::Data(bytes)) => {
                    self.hasher.update(&bytes);
                    if let Some(copy) = &mut self.copy {
                        copy.write_all(&bytes)?;
                    }
                    self.current = bytes;
                }
                Some(Piece::End) => {
                    let received = Digest::from_sha256(std::mem::take(&mut self.hasher).finalize().into());
                    self.state =
                        if received == *self.promised { State::Complete } else { State::Mismatch(received) };
                }
                None => self.state = State::CutOff,
            }
        }
        let n = buf.len().min(self.current.len());
        buf[..n].copy_from_slice(&self.current.split_to(n));
        Ok(n)
    }
}

/// Unpacks a layer while it arrives, and keeps its blob as the layer's source. `have_layer`: keep the blob only.
pub(crate) fn ingest_layer(
    store: &Store,
    pieces: mpsc::Receiver<Piece>,
    blob: &Descriptor,
    diff_id: &Digest,
    have_layer: bool,
) -> Result<(), IngestError> {
    let mut incoming =
        Incoming::new(pieces, &blob.digest, Some(store.blob_writer().map_err(IngestError::Store)?));
    if !have_layer {
        let unpacked = unpack(store, &mut incoming, diff_id);
        if let Err(error) = unpacked {
            return Err(verdict(incoming, error));
        }
    }
    finish(incoming, blob)?;
    let source =
        LayerBlob { digest: blob.digest.clone(), media_type: blob.media_type.clone(), size: blob.size };
    store.record_layer_blob(diff_id, &source).map_err(IngestError::Store)
}

/// Stores a blob as it is.
pub(crate) fn ingest_blob(
    store: &Store,
    pieces: mpsc::Receiver<Piece>,
    blob: &Descriptor,
) -> Result<(), IngestError> {
    let copy = store.blob_writer().map_err(IngestError::Store)?;
    finish(Incoming::new(pieces, &blob.digest, Some(copy)), blob)
}

fn unpack(store: &Store, incoming: &mut Incoming<'_>, diff_id: &Digest) -> Result<(), StoreError> {
    let limits = UnpackLimits::default();
    let failed = |source| StoreError::Io { action: "read layer", path: diff_id.as_str().into(), source };
    let mut magic = Vec::with_capacity(4);
    incoming.by_ref().take(4).read_to_end(&mut magic).map_err(failed)?;
    let compressed = BufReader::with_capacity(64 << 10, Cursor::new(magic.clone()).chain(incoming));
    // By its first bytes, as other tools do: types of layers in the wild are not always true.
    let done = match magic.as_slice() {
        [0x1f, 0x8b, ..] => store.unpack_layer(MultiGzDecoder::new(compressed), Some(diff_id), &limits),
        [0x28, 0xb5, 0x2f, 0xfd] | [0x50..=0x5f, 0x2a, 0x4d, 0x18] => {
            let decoder = zstd::stream::read::Decoder::with_buffer(compressed).map_err(failed)?;
            store.unpack_layer(decoder, Some(diff_id), &limits)
        }
        _ => store.unpack_layer(compressed, Some(diff_id), &limits),
    };
    done.map(|_| ())
}

/// What an unpacking error means: bytes that differ from the promised ones often break the archive before their
/// digest is known, and the digest is then the better reason.
fn verdict(mut incoming: Incoming<'_>, error: StoreError) -> IngestError {
    incoming.copy = None;
    if !error.is_out_of_space() {
        let _ = incoming.drain();
    }
    match incoming.state {
        State::Mismatch(received) => IngestError::Digest { received },
        State::CutOff => IngestError::CutOff,
        State::Open | State::Complete => IngestError::Store(error),
    }
}

/// Reads to the end and makes the copy part of the store.
fn finish(mut incoming: Incoming<'_>, blob: &Descriptor) -> Result<(), IngestError> {
    if let Err(source) = incoming.drain() {
        let error = StoreError::Io { action: "write blob", path: blob.digest.as_str().into(), source };
        return Err(verdict(incoming, error));
    }
    match incoming.copy {
        Some(copy) => copy.commit(Some(&blob.digest)).map(|_| ()).map_err(IngestError::Store),
        None => Ok(()),
    }
}
