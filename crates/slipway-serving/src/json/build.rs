//! JSON arrays into the bytes of a tensor, with every dimension and element checked on the way.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use slipway_types::model::DataType;

use super::cursor::{Cursor, Kind, SyntaxError};
use super::number::Number;
use crate::half::{f32_to_bf16, f32_to_f16};
use crate::signature::type_name;
use crate::tensor::{Tensor, TensorData};

/// Why a text is not the tensor that was expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// It is not JSON.
    Syntax(SyntaxError),
    /// It is JSON of the wrong type or shape.
    Value {
        /// Offset in the text, in bytes.
        at: usize,
        /// What is wrong, without the place and the name of the tensor.
        message: String,
    },
}

impl From<SyntaxError> for Fault {
    fn from(error: SyntaxError) -> Self {
        Self::Syntax(error)
    }
}

impl Fault {
    /// A fault of the value at `at`.
    pub fn value(at: usize, message: impl Into<String>) -> Self {
        Self::Value { at, message: message.into() }
    }
}

/// Base64 with or without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Builds one tensor from nested JSON arrays.
#[derive(Debug)]
pub struct TensorBuilder<'s> {
    datatype: DataType,
    /// What is accepted; -1 for any size.
    accepted: &'s [i64],
    /// What was found so far; -1 where nothing was yet.
    found: Vec<i64>,
    data: Vec<u8>,
    offsets: Vec<u64>,
}

impl<'s> TensorBuilder<'s> {
    /// For a tensor of `datatype` whose dimensions are `accepted`; -1 accepts any size.
    pub fn new(datatype: DataType, accepted: &'s [i64]) -> Self {
        let offsets = if datatype == DataType::Bytes { vec![0] } else { Vec::new() };
        Self { datatype, accepted, found: accepted.to_vec(), data: Vec::new(), offsets }
    }

    /// Makes room for the elements of a text of `text_len` bytes in `rows` rows, as far as the shape tells.
    pub fn reserve(&mut self, rows: usize, text_len: usize) {
        let row: i64 = self.accepted.iter().skip(1).map(|&d| d.max(1)).fold(1, i64::saturating_mul);
        let elements = usize::try_from(row).unwrap_or(usize::MAX).saturating_mul(rows);
        let size = self.datatype.size().unwrap_or(8);
        // An element takes at least two bytes of text.
        self.data.reserve(elements.min(text_len / 2 + 1) * size);
    }

    /// Reads the whole tensor.
    pub fn whole(&mut self, cursor: &mut Cursor<'_>) -> Result<(), Fault> {
        self.value(cursor, 0)
    }

    /// Reads one row: the dimensions after the first.
    pub fn row(&mut self, cursor: &mut Cursor<'_>) -> Result<(), Fault> {
        if self.accepted.is_empty() {
            let message = "the row format adds a batch dimension, which a scalar input does not have: \
                           send it in the column format, as `inputs`";
            return Err(Fault::value(cursor.position(), message));
        }
        self.value(cursor, 1)
    }

    /// Reads elements as one flat array, in row-major order; all dimensions must be fixed.
    pub fn flat(&mut self, cursor: &mut Cursor<'_>) -> Result<(), Fault> {
        cursor.peek();
        let at = cursor.position();
        cursor.expect(b'[')?;
        let count = self.elements(cursor)?;
        let needed: i64 = self.accepted.iter().fold(1, |n, &d| n.saturating_mul(d));
        if i64::try_from(count) != Ok(needed) {
            return Err(Fault::value(at, format!("`data` has {count} elements, its shape needs {needed}")));
        }
        Ok(())
    }

    /// The tensor. `rows` is the number of rows that were read by [`Self::row`]; `at` is where they began.
    pub fn finish(mut self, rows: Option<(usize, usize)>) -> Result<Tensor, Fault> {
        if let Some((rows, at)) = rows {
            self.close(at, 0, rows)?;
        }
        let shape = self.found.iter().map(|&d| usize::try_from(d).unwrap_or(0)).collect();
        let bytes = Bytes::from(self.data);
        let data = if self.datatype == DataType::Bytes {
            TensorData::Strings { offsets: self.offsets, bytes }
        } else {
            TensorData::Fixed(bytes)
        };
        Ok(Tensor { datatype: self.datatype, shape, data })
    }

    fn value(&mut self, cursor: &mut Cursor<'_>, level: usize) -> Result<(), Fault> {
        let rank = self.accepted.len();
        let kind = cursor.kind()?;
        let at = cursor.position();
        if level == rank {
            if kind == Kind::Array {
                return Err(Fault::value(at, format!("an array with more than {rank} dimensions")));
            }
            return self.element(cursor);
        }
        if kind != Kind::Array {
            let found = if level == 0 { String::new() } else { format!(" in dimension {level}") };
            let message = format!("expected an array{found}, found {} ({})", excerpt(cursor), kind.name());
            return Err(Fault::value(at, message));
        }
        cursor.expect(b'[')?;
        let count = if level + 1 == rank {
            self.elements(cursor)?
        } else if cursor.accept(b']') {
            0
        } else {
            let mut count = 0;
            loop {
                self.value(cursor, level + 1)?;
                count += 1;
                if !cursor.more(b']')? {
                    break count;
                }
            }
        };
        self.close(at, level, count)
    }

    /// Compares the size of a dimension with what is accepted and with what was found before.
    fn close(&mut self, at: usize, level: usize, count: usize) -> Result<(), Fault> {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        match self.found[level] {
            -1 => self.found[level] = count,
            size if size == count => {}
            size if self.accepted[level] == -1 => {
                let message = format!(
                    "ragged: an array of {count} in dimension {level}, where those before it have {size}"
                );
                return Err(Fault::value(at, message));
            }
            size => {
                let message =
                    format!("wrong shape: {count} elements in dimension {level}, {size} are needed");
                return Err(Fault::value(at, message));
            }
        }
        Ok(())
    }

    fn element(&mut self, cursor: &mut Cursor<'_>) -> Result<(), Fault> {
        let out = &mut self.data;
        match self.datatype {
            DataType::Bool => bool::read(cursor)?.put(out),
            DataType::Uint8 => u8::read(cursor)?.put(out),
            DataType::Uint16 => u16::read(cursor)?.put(out),
            DataType::Uint32 => u32::read(cursor)?.put(out),
            DataType::Uint64 => u64::read(cursor)?.put(out),
            DataType::Int8 => i8::read(cursor)?.put(out),
            DataType::Int16 => i16::read(cursor)?.put(out),
            DataType::Int32 => i32::read(cursor)?.put(out),
            DataType::Int64 => i64::read(cursor)?.put(out),
            DataType::Fp16 => Fp16::read(cursor)?.put(out),
            DataType::Fp32 => f32::read(cursor)?.put(out),
            DataType::Fp64 => f64::read(cursor)?.put(out),
            DataType::Bf16 => Bf16::read(cursor)?.put(out),
            DataType::Bytes => {
                let bytes = byte_string(cursor)?;
                out.extend_from_slice(&bytes);
                self.offsets.push(out.len() as u64);
            }
        }
        Ok(())
    }

    /// Reads elements up to the closing bracket; gives their number.
    fn elements(&mut self, cursor: &mut Cursor<'_>) -> Result<usize, Fault> {
        let out = &mut self.data;
        match self.datatype {
            DataType::Bool => run::<bool>(cursor, out),
            DataType::Uint8 => run::<u8>(cursor, out),
            DataType::Uint16 => run::<u16>(cursor, out),
            DataType::Uint32 => run::<u32>(cursor, out),
            DataType::Uint64 => run::<u64>(cursor, out),
            DataType::Int8 => run::<i8>(cursor, out),
            DataType::Int16 => run::<i16>(cursor, out),
            DataType::Int32 => run::<i32>(cursor, out),
            DataType::Int64 => run::<i64>(cursor, out),
            DataType::Fp16 => run::<Fp16>(cursor, out),
            DataType::Fp32 => run::<f32>(cursor, out),
            DataType::Fp64 => run::<f64>(cursor, out),
            DataType::Bf16 => run::<Bf16>(cursor, out),
            DataType::Bytes => {
                if cursor.accept(b']') {
                    return Ok(0);
                }
                let mut count = 0;
                loop {
                    self.element(cursor)?;
                    count += 1;
                    if !cursor.more(b']')? {
                        return Ok(count);
                    }
                }
            }
        }
    }
}

/// A JSON string, or `{"b64": "…"}`.
fn byte_string<'a>(cursor: &mut Cursor<'a>) -> Result<Cow<'a, [u8]>, Fault> {
    let kind = cursor.kind()?;
    match kind {
        Kind::String => Ok(match cursor.string()? {
            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        }),
        Kind::Object => {
            let at = cursor.position();
            let odd = || Fault::value(at, "expected a string or an object with the one key `b64`");
            cursor.expect(b'{')?;
            if cursor.peek() == b'}' || cursor.key()? != "b64" || cursor.kind()? != Kind::String {
                return Err(odd());
            }
            let text = cursor.string()?;
            if cursor.more(b'}')? {
                return Err(odd());
            }
            let bytes = BASE64.decode(text.as_bytes());
            bytes.map(Cow::Owned).map_err(|e| Fault::value(at, format!("`b64` is not base64: {e}")))
        }
        kind => Err(mismatch(cursor, kind, DataType::Bytes)),
    }
}

fn run<E: Element>(cursor: &mut Cursor<'_>, out: &mut Vec<u8>) -> Result<usize, Fault> {
    if cursor.accept(b']') {
        return Ok(0);
    }
    let mut count = 0;
    loop {
        E::read(cursor)?.put(out);
        count += 1;
        if !cursor.more(b']')? {
            return Ok(count);
        }
    }
}

trait Element: Sized {
    fn read(cursor: &mut Cursor<'_>) -> Result<Self, Fault>;
    fn put(self, out: &mut Vec<u8>);
}

struct Fp16(u16);
struct Bf16(u16);

macro_rules! integer_elements {
    ($($type:ty => $datatype:ident),*) => {$(
        impl Element for $type {
            #[inline]
            fn read(cursor: &mut Cursor<'_>) -> Result<Self, Fault> {
                let (number, at) = number(cursor, DataType::$datatype)?;
                let value = match number {
                    Number::Integer { negative, magnitude, .. } => magnitude.and_then(|m| {
                        let value = i128::from(m);
                        Self::try_from(if negative { -value } else { value }).ok()
                    }),
                    _ => return Err(mismatch_at(cursor, at, Kind::Number, DataType::$datatype)),
                };
                value.ok_or_else(|| out_of_range(cursor, at, DataType::$datatype))
            }

            #[inline]
            fn put(self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
        }
    )*};
}

integer_elements!(
    u8 => Uint8, u16 => Uint16, u32 => Uint32, u64 => Uint64, i8 => Int8, i16 => Int16, i32 => Int32, i64 => Int64
);

macro_rules! float_elements {
    ($($type:ty, $datatype:ident, $convert:expr, $infinite:expr, $bytes:expr;)*) => {$(
        impl Element for $type {
            #[inline]
            fn read(cursor: &mut Cursor<'_>) -> Result<Self, Fault> {
                let (number, at) = number(cursor, DataType::$datatype)?;
                let value: Self = $convert(number);
                if $infinite(&value) && !number.is_special() {
                    return Err(out_of_range(cursor, at, DataType::$datatype));
                }
                Ok(value)
            }

            #[inline]
            fn put(self, out: &mut Vec<u8>) {
                out.extend_from_slice(&$bytes(self));
            }
        }
    )*};
}

float_elements! {
    f32, Fp32, Number::to_f32, |v: &f32| v.is_infinite(), f32::to_le_bytes;
    f64, Fp64, Number::to_f64, |v: &f64| v.is_infinite(), f64::to_le_bytes;
    Fp16, Fp16, |n: Number<'_>| Fp16(f32_to_f16(n.to_f32())), |v: &Fp16| v.0 & 0x7fff == 0x7c00,
        |v: Fp16| v.0.to_le_bytes();
    Bf16, Bf16, |n: Number<'_>| Bf16(f32_to_bf16(n.to_f32())), |v: &Bf16| v.0 & 0x7fff == 0x7f80,
        |v: Bf16| v.0.to_le_bytes();
}

impl Element for bool {
    fn read(cursor: &mut Cursor<'_>) -> Result<Self, Fault> {
        match cursor.kind()? {
            Kind::Bool => Ok(cursor.boolean()?),
            kind => Err(mismatch(cursor, kind, DataType::Bool)),
        }
    }

    fn put(self, out: &mut Vec<u8>) {
        out.push(u8::from(self));
    }
}

#[inline]
fn number<'a>(cursor: &mut Cursor<'a>, datatype: DataType) -> Result<(Number<'a>, usize), Fault> {
    match cursor.kind()? {
        Kind::Number => {
            let at = cursor.position();
            Ok((cursor.number()?, at))
        }
        kind => Err(mismatch(cursor, kind, datatype)),
    }
}

#[cold]
fn mismatch(cursor: &mut Cursor<'_>, kind: Kind, datatype: DataType) -> Fault {
    let at = cursor.position();
    mismatch_at(cursor, at, kind, datatype)
}

/// In the words of TensorFlow Serving, which its users' tests match.
#[cold]
fn mismatch_at(cursor: &Cursor<'_>, at: usize, kind: Kind, datatype: DataType) -> Fault {
    let mut value = Cursor::at(cursor.text(), at);
    if let Err(error) = value.clone().skip() {
        return Fault::Syntax(error);
    }
    let text = excerpt(&mut value);
    let expected = expected_name(datatype);
    Fault::value(at, format!("JSON Value: {text} Type: {} is not of expected type: {expected}", kind.name()))
}

#[cold]
fn out_of_range(cursor: &Cursor<'_>, at: usize, datatype: DataType) -> Fault {
    let text = excerpt(&mut Cursor::at(cursor.text(), at));
    Fault::value(at, format!("{text} is out of the range of {}", type_name(datatype)))
}

/// The next value's text, cut after 40 characters.
fn excerpt(cursor: &mut Cursor<'_>) -> String {
    let mut look = cursor.clone();
    let start = {
        look.peek();
        look.position()
    };
    let text = look.skip().unwrap_or(&cursor.text()[start.min(cursor.text().len())..]);
    let cut = &text[..text.len().min(160)];
    let cut = String::from_utf8_lossy(cut);
    let mut short: String = cut.chars().take(40).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

fn expected_name(datatype: DataType) -> &'static str {
    match datatype {
        DataType::Bool => "bool",
        DataType::Uint8 => "uint8",
        DataType::Uint16 => "uint16",
        DataType::Uint32 => "uint32",
        DataType::Uint64 => "uint64",
        DataType::Int8 => "int8",
        DataType::Int16 => "int16",
        DataType::Int32 => "int32",
        DataType::Int64 => "int64",
        DataType::Fp16 => "half",
        DataType::Fp32 => "float",
        DataType::Fp64 => "double",
        DataType::Bf16 => "bfloat16",
        DataType::Bytes => "string",
    }
}
