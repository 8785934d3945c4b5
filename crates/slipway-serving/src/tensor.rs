//! Tensors between the protocols and the transport.

use bytes::Bytes;
use slipway_types::model::DataType;

/// A tensor that owns its elements: little-endian, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Element type.
    pub datatype: DataType,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    /// Elements.
    pub data: TensorData,
}

/// Elements of a [`Tensor`].
#[derive(Clone, Debug, PartialEq)]
pub enum TensorData {
    /// Elements of one size, packed.
    Fixed(Bytes),
    /// Byte strings of varying length. `offsets` has one entry more than there are elements; it starts at 0 and
    /// never falls, and its last entry is the length of `bytes`.
    Strings {
        /// Where each element starts in `bytes`, and where the last one ends.
        offsets: Vec<u64>,
        /// All elements, one after another.
        bytes: Bytes,
    },
}

/// A tensor with its name.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedTensor {
    /// Name of the input or output.
    pub name: String,
    /// The tensor.
    pub tensor: Tensor,
}

impl Tensor {
    /// Elements in all.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// The first dimension; 1 for a scalar.
    pub fn rows(&self) -> usize {
        self.shape.first().copied().unwrap_or(1)
    }

    /// Bytes that it takes in the arena (see [`crate::transport`]).
    pub fn arena_len(&self) -> usize {
        match &self.data {
            TensorData::Fixed(bytes) => bytes.len(),
            TensorData::Strings { offsets, bytes } => offsets.len() * 8 + bytes.len(),
        }
    }

    /// All of it.
    pub fn view(&self) -> TensorView<'_> {
        match &self.data {
            TensorData::Fixed(bytes) => {
                TensorView { datatype: self.datatype, rows: None, shape: &self.shape, bytes, offsets: &[] }
            }
            TensorData::Strings { offsets, bytes } => {
                TensorView { datatype: self.datatype, rows: None, shape: &self.shape, bytes, offsets }
            }
        }
    }

    /// Rows `start .. start + count` of the first dimension, which must be within it.
    pub fn rows_view(&self, start: usize, count: usize) -> TensorView<'_> {
        let row: usize = self.shape.iter().skip(1).product();
        let (from, to) = (start * row, (start + count) * row);
        let shape = &self.shape[..];
        match &self.data {
            TensorData::Fixed(bytes) => {
                let size = self.datatype.size().unwrap_or(1);
                TensorView {
                    datatype: self.datatype,
                    rows: Some(count),
                    shape,
                    bytes: &bytes[from * size..to * size],
                    offsets: &[],
                }
            }
            TensorData::Strings { offsets, bytes } => TensorView {
                datatype: self.datatype,
                rows: Some(count),
                shape,
                bytes,
                offsets: &offsets[from..=to],
            },
        }
    }
}

/// Some rows of a tensor.
#[derive(Clone, Copy, Debug)]
pub struct TensorView<'a> {
    /// Element type.
    pub datatype: DataType,
    rows: Option<usize>,
    shape: &'a [usize],
    /// Elements of one size, packed; for strings, what `offsets` points into.
    pub bytes: &'a [u8],
    /// For strings: where each element starts in `bytes`, and where the last one ends.
    pub offsets: &'a [u64],
}

impl<'a> TensorView<'a> {
    /// Dimensions, outermost first.
    pub fn dims(&self) -> impl ExactSizeIterator<Item = usize> + '_ {
        let rows = self.rows;
        self.shape.iter().enumerate().map(move |(i, &d)| match (i, rows) {
            (0, Some(rows)) => rows,
            _ => d,
        })
    }

    /// Number of dimensions.
    pub fn rank(&self) -> usize {
        self.shape.len()
    }

    /// Elements in all.
    pub fn elements(&self) -> usize {
        self.dims().product()
    }

    /// Byte string number `index`; the datatype must be [`DataType::Bytes`].
    pub fn string(&self, index: usize) -> &'a [u8] {
        &self.bytes[self.offsets[index] as usize..self.offsets[index + 1] as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_numbers_and_strings() {
        let numbers = Tensor {
            datatype: DataType::Int16,
            shape: vec![3, 2],
            data: TensorData::Fixed(Bytes::from_static(&[0, 0, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0])),
        };
        let view = numbers.rows_view(1, 1);
        assert_eq!((view.bytes, view.dims().collect::<Vec<_>>()), (&[2, 0, 3, 0][..], vec![1, 2]));
        let strings = Tensor {
            datatype: DataType::Bytes,
            shape: vec![3],
            data: TensorData::Strings { offsets: vec![0, 1, 1, 3], bytes: Bytes::from_static(b"abc") },
        };
        let view = strings.rows_view(1, 2);
        assert_eq!((view.string(0), view.string(1), view.elements()), (&b""[..], &b"bc"[..], 2));
        assert_eq!(strings.arena_len(), 35);
    }
}
