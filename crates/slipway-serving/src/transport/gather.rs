//! Requests of one batch into the input region.

use bytes::Bytes;
use slipway_types::model::DataType;

use super::arena::{Arena, OutOfBounds};
use super::frame::{self, MAX_FRAME};
use crate::tensor::{NamedTensor, Tensor, TensorData};

/// What one request asks the model about.
#[derive(Clone, Debug, PartialEq)]
pub enum Inputs {
    /// One tensor for each input of the signature, in its order.
    Tensors(Vec<Tensor>),
    /// Tensors for a model without a signature.
    Named(Vec<NamedTensor>),
    /// Parsed by the user's class.
    Json {
        /// What the text is.
        form: JsonForm,
        /// One JSON value; may hold `NaN` and infinities.
        text: Bytes,
    },
}

/// What the JSON of [`Inputs::Json`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JsonForm {
    /// A list of instances; the reply must be a list of as many.
    Rows,
    /// Any value; the reply may be any value.
    Whole,
}

/// Why a batch cannot be sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GatherError {
    /// The tensors do not fit.
    #[error("the batch does not fit the shared memory")]
    TooLarge(#[from] OutOfBounds),
    /// The description of the tensors does not fit a frame.
    #[error("the names and shapes of {0} tensors are too long")]
    Description(usize),
}

impl Inputs {
    /// Bytes that it takes in the arena, at most.
    pub fn arena_len(&self) -> usize {
        let padded = |t: &Tensor| t.arena_len().next_multiple_of(ALIGN);
        match self {
            Self::Tensors(tensors) => tensors.iter().map(padded).sum(),
            Self::Named(tensors) => tensors.iter().map(|n| padded(&n.tensor)).sum(),
            Self::Json { text, .. } => text.len().next_multiple_of(ALIGN),
        }
    }
}

const ALIGN: usize = 64;

/// Writes the requests into the arena and the predict frame into `frame`. Gives the bytes of the region that are used.
///
/// `batch` holds one request, or several of [`Inputs::Tensors`] whose tensors differ only in their first dimension.
pub fn gather<'a>(
    arena: &mut Arena,
    frame: &mut Vec<u8>,
    batch: impl ExactSizeIterator<Item = &'a Inputs> + Clone,
    rows: usize,
    id: u64,
) -> Result<usize, GatherError> {
    let mut used = 0;
    let Some(first) = batch.clone().next() else { return Ok(0) };
    let merged = (batch.len() > 1).then_some(rows);
    let rows = u32::try_from(rows).unwrap_or(u32::MAX);
    match first {
        Inputs::Tensors(tensors) => {
            frame::predict(frame, 0, tensors.len() as u16, rows, id);
            for i in 0..tensors.len() {
                let parts = batch.clone().filter_map(|inputs| match inputs {
                    Inputs::Tensors(tensors) => tensors.get(i),
                    _ => None,
                });
                put(arena, frame, &mut used, "", parts, merged)?;
            }
        }
        Inputs::Named(tensors) => {
            frame::predict(frame, 1, tensors.len() as u16, rows, id);
            for named in tensors {
                put(arena, frame, &mut used, &named.name, std::iter::once(&named.tensor), None)?;
            }
        }
        Inputs::Json { form, text } => {
            frame::predict(frame, if *form == JsonForm::Rows { 2 } else { 3 }, 1, rows, id);
            arena.write(0, text)?;
            used = text.len();
            frame::tensor(frame, DataType::Uint8, [text.len()].into_iter(), "", 0, text.len() as u64);
        }
    }
    if frame.len() > MAX_FRAME {
        return Err(GatherError::Description(match first {
            Inputs::Tensors(tensors) => tensors.len(),
            Inputs::Named(tensors) => tensors.len(),
            Inputs::Json { .. } => 1,
        }));
    }
    Ok(used)
}

/// Writes one input of the batch: `parts` below each other, `rows` in all where they are several.
fn put<'a>(
    arena: &mut Arena,
    frame: &mut Vec<u8>,
    used: &mut usize,
    name: &str,
    parts: impl Iterator<Item = &'a Tensor> + Clone,
    rows: Option<usize>,
) -> Result<(), GatherError> {
    let Some(first) = parts.clone().next() else { return Ok(()) };
    let offset = *used;
    let mut end = offset;
    if first.datatype == DataType::Bytes {
        let elements: usize = parts.clone().map(Tensor::elements).sum();
        let table = offset + (elements + 1) * 8;
        let mut next_offset = offset;
        arena.write(next_offset, &0_u64.to_le_bytes())?;
        next_offset += 8;
        end = table;
        let mut encoded = Vec::new();
        for part in parts {
            let TensorData::Strings { offsets, bytes } = &part.data else { continue };
            let base = (end - table) as u64;
            encoded.clear();
            encoded.extend(offsets.iter().skip(1).flat_map(|o| (base + o).to_le_bytes()));
            arena.write(next_offset, &encoded)?;
            next_offset += encoded.len();
            arena.write(end, bytes)?;
            end += bytes.len();
        }
    } else {
        for part in parts {
            let TensorData::Fixed(bytes) = &part.data else { continue };
            arena.write(end, bytes)?;
            end += bytes.len();
        }
    }
    let dims = first.shape.iter().enumerate().map(|(i, &dim)| match rows {
        Some(rows) if i == 0 => rows,
        _ => dim,
    });
    frame::tensor(frame, first.datatype, dims, name, offset as u64, (end - offset) as u64);
    *used = end.next_multiple_of(ALIGN);
    Ok(())
}
