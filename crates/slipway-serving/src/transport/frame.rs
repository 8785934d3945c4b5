//! Control frames. All numbers are little-endian.
//!
//! ```text
//! to the worker
//!   hello    u8 1, 7 × 0, JSON text; the arena's descriptor comes with it
//!   predict  u8 3, u8 mode, u16 tensors, u32 rows, u64 id, tensors
//!            mode 0: tensors in the signature's order, without names; 1: named tensors;
//!            2: JSON of `instances`, 3: JSON of `inputs`, each as one UINT8 tensor
//! from the worker
//!   ready    u8 2, u8 0, u16 0, u32 length, u64 0, u64 0; the signature's JSON is at the output region's start
//!   result   u8 4, u8 mode, u16 tensors, u32 0, u64 id, u64 nanoseconds, tensors; mode 0: tensors, 1: JSON
//!   error    u8 5, u8 0, u16 HTTP status or 0, u32 length, u64 id, u64 0, text
//!   failed   u8 6, u8 0, u16 0, u32 length, u64 0, u64 0, text
//! a tensor   u8 type, u8 rank, u16 length of the name, u32 0, u64 offset in the region, u64 bytes,
//!            rank × u64 dimension, name
//! ```
//!
//! The type is the position in [`ALL_TYPES`].

use slipway_types::model::DataType;

use super::arena::{Arena, Layout, OutOfBounds};
use crate::signature::{ALL_TYPES, MAX_NAME, MAX_RANK, MAX_TENSORS};
use crate::tensor::{NamedTensor, Tensor, TensorData};

/// Longest frame, in bytes; below what a socket buffer holds by default.
pub const MAX_FRAME: usize = 64 * 1024;
/// Largest JSON of a signature, in bytes.
const MAX_SIGNATURE: u64 = 1 << 20;

const HELLO: u8 = 1;
const READY: u8 = 2;
const PREDICT: u8 = 3;
const RESULT: u8 = 4;
const ERROR: u8 = 5;
const FAILED: u8 = 6;

/// A reply that breaks the rules of this module: the worker is at fault and is replaced.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the texts say it")]
pub enum BadReply {
    #[error("a frame that is too short")]
    Short,
    #[error("a frame of the unknown kind {0}")]
    Kind(u8),
    #[error("a reply to batch {0}, which is not under way")]
    Id(u64),
    #[error("{0} tensors, at most {MAX_TENSORS} are allowed")]
    Count(u16),
    #[error("a tensor of the unknown type {0}")]
    Type(u8),
    #[error("a tensor of rank {0}, at most {MAX_RANK} is allowed")]
    Rank(u8),
    #[error("a tensor whose name is not UTF-8 or is too long")]
    Name,
    #[error("a tensor of {bytes} bytes, its type and shape need {needed}")]
    Size { bytes: u64, needed: u64 },
    #[error("a tensor whose shape is too large")]
    Shape,
    #[error(transparent)]
    Bounds(#[from] OutOfBounds),
    #[error("byte strings whose offsets are not in order")]
    Offsets,
    #[error("tensors that together are larger than the output region")]
    Total,
    #[error("a text that is not UTF-8 JSON")]
    Json,
    #[error("a signature of {0} bytes, at most {MAX_SIGNATURE} are allowed")]
    Signature(u64),
}

/// A tensor in the arena, as a frame describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// Name; empty where the order tells.
    pub name: String,
    /// Element type.
    pub datatype: DataType,
    /// Dimensions.
    pub shape: Vec<usize>,
    /// Offset in its region.
    pub offset: u64,
    /// Bytes.
    pub bytes: u64,
}

/// A frame from the worker, its descriptors already within the output region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The model is loaded and warm; the signature's JSON is at the start of the output region.
    Ready {
        /// Bytes of the JSON.
        len: u64,
    },
    /// A batch is done.
    Result {
        /// The batch.
        id: u64,
        /// How long the model took, in nanoseconds, by the worker's clock.
        nanos: u64,
        /// Where the outputs are.
        outputs: Vec<Descriptor>,
        /// Whether they are one JSON text instead of tensors.
        json: bool,
    },
    /// The model refused a batch.
    Error {
        /// The batch.
        id: u64,
        /// HTTP status that the user's class asked for; 0 for none.
        status: u16,
        /// Why.
        text: String,
    },
    /// The model cannot be loaded.
    Failed {
        /// Why.
        text: String,
    },
}

/// The frame that starts a worker.
pub fn hello(json: &[u8]) -> Vec<u8> {
    let mut frame = vec![HELLO, 0, 0, 0, 0, 0, 0, 0];
    frame.extend_from_slice(json);
    frame
}

/// Starts a predict frame in `frame`, whose former content is dropped.
pub fn predict(frame: &mut Vec<u8>, mode: u8, tensors: u16, rows: u32, id: u64) {
    frame.clear();
    frame.extend_from_slice(&[PREDICT, mode]);
    frame.extend_from_slice(&tensors.to_le_bytes());
    frame.extend_from_slice(&rows.to_le_bytes());
    frame.extend_from_slice(&id.to_le_bytes());
}

/// Appends a tensor to a predict frame. The rank must be at most [`MAX_RANK`], the name at most [`MAX_NAME`] bytes.
pub fn tensor(
    frame: &mut Vec<u8>,
    datatype: DataType,
    dims: impl ExactSizeIterator<Item = usize>,
    name: &str,
    offset: u64,
    bytes: u64,
) {
    let code = ALL_TYPES.iter().position(|t| *t == datatype).unwrap_or_default();
    frame.extend_from_slice(&[code as u8, dims.len() as u8]);
    frame.extend_from_slice(&(name.len() as u16).to_le_bytes());
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(&offset.to_le_bytes());
    frame.extend_from_slice(&bytes.to_le_bytes());
    for dim in dims {
        frame.extend_from_slice(&(dim as u64).to_le_bytes());
    }
    frame.extend_from_slice(name.as_bytes());
}

/// Reads a frame of the worker's and checks it against the arena's layout.
pub fn reply(frame: &[u8], layout: Layout) -> Result<Reply, BadReply> {
    let mut reader = Reader(frame);
    let [kind, mode] = reader.take::<2>()?;
    let count = u16::from_le_bytes(reader.take()?);
    let len = u32::from_le_bytes(reader.take()?);
    let id = u64::from_le_bytes(reader.take()?);
    let nanos = u64::from_le_bytes(reader.take()?);
    match kind {
        READY if u64::from(len) > MAX_SIGNATURE => Err(BadReply::Signature(len.into())),
        READY => Ok(Reply::Ready { len: len.into() }),
        RESULT => {
            if usize::from(count) > MAX_TENSORS {
                return Err(BadReply::Count(count));
            }
            let mut outputs = Vec::with_capacity(count.into());
            let mut total = 0_u64;
            for _ in 0..count {
                let output = descriptor(&mut reader, layout.output)?;
                total = total.saturating_add(output.bytes);
                outputs.push(output);
            }
            if total > layout.output as u64 {
                return Err(BadReply::Total);
            }
            let json = mode == 1;
            if json && (count != 1 || outputs[0].datatype != DataType::Uint8) {
                return Err(BadReply::Json);
            }
            Ok(Reply::Result { id, nanos, outputs, json })
        }
        ERROR | FAILED => {
            let text = reader.slice(len as usize)?;
            let text = String::from_utf8_lossy(text).into_owned();
            Ok(if kind == ERROR { Reply::Error { id, status: count, text } } else { Reply::Failed { text } })
        }
        kind => Err(BadReply::Kind(kind)),
    }
}

fn descriptor(reader: &mut Reader<'_>, region: usize) -> Result<Descriptor, BadReply> {
    let [code, rank] = reader.take::<2>()?;
    let name_len = usize::from(u16::from_le_bytes(reader.take()?));
    reader.take::<4>()?;
    let offset = u64::from_le_bytes(reader.take()?);
    let bytes = u64::from_le_bytes(reader.take()?);
    let datatype = *ALL_TYPES.get(usize::from(code)).ok_or(BadReply::Type(code))?;
    if usize::from(rank) > MAX_RANK {
        return Err(BadReply::Rank(rank));
    }
    let mut shape = Vec::with_capacity(rank.into());
    let mut elements = 1_u64;
    for _ in 0..rank {
        let dim = u64::from_le_bytes(reader.take()?);
        elements = elements.checked_mul(dim).ok_or(BadReply::Shape)?;
        shape.push(usize::try_from(dim).map_err(|_| BadReply::Shape)?);
    }
    // A zero hides the other dimensions from the product; none may be beyond what could be indexed.
    if shape.iter().any(|&d| d > region) {
        return Err(BadReply::Shape);
    }
    let needed = match datatype.size() {
        Some(size) => elements.checked_mul(size as u64).ok_or(BadReply::Shape)?,
        None => elements.checked_add(1).and_then(|n| n.checked_mul(8)).ok_or(BadReply::Shape)?,
    };
    let fits = if datatype == DataType::Bytes { bytes >= needed } else { bytes == needed };
    if !fits {
        return Err(BadReply::Size { bytes, needed });
    }
    if offset.checked_add(bytes).is_none_or(|end| end > region as u64) {
        return Err(OutOfBounds { offset, len: bytes, region }.into());
    }
    if name_len > MAX_NAME {
        return Err(BadReply::Name);
    }
    let name = std::str::from_utf8(reader.slice(name_len)?).map_err(|_| BadReply::Name)?.to_owned();
    Ok(Descriptor { name, datatype, shape, offset, bytes })
}

/// Copies outputs out of the arena and checks their byte strings.
pub fn collect(arena: &Arena, outputs: Vec<Descriptor>) -> Result<Vec<NamedTensor>, BadReply> {
    outputs
        .into_iter()
        .map(|output| {
            let copy = arena.read(output.offset, output.bytes)?;
            let Descriptor { name, datatype, shape, .. } = output;
            let data = if datatype == DataType::Bytes {
                strings(&copy, shape.iter().product())?
            } else {
                TensorData::Fixed(copy.into())
            };
            Ok(NamedTensor { name, tensor: Tensor { datatype, shape, data } })
        })
        .collect()
}

fn strings(copy: &[u8], elements: usize) -> Result<TensorData, BadReply> {
    let table = (elements + 1) * 8;
    let (offsets, bytes) = copy.split_at_checked(table).ok_or(BadReply::Short)?;
    let offsets: Vec<u64> = offsets.as_chunks().0.iter().map(|c| u64::from_le_bytes(*c)).collect();
    let ordered = offsets.is_sorted()
        && offsets.first() == Some(&0)
        && offsets.last().is_some_and(|&last| last == bytes.len() as u64);
    if !ordered {
        return Err(BadReply::Offsets);
    }
    Ok(TensorData::Strings { offsets, bytes: bytes.to_vec().into() })
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], BadReply> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(BadReply::Short)?;
        self.0 = rest;
        Ok(*head)
    }

    fn slice(&mut self, len: usize) -> Result<&'a [u8], BadReply> {
        let (head, rest) = self.0.split_at_checked(len).ok_or(BadReply::Short)?;
        self.0 = rest;
        Ok(head)
    }
}
