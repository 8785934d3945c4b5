//! Tensors as JSON text, appended to a byte vector.

use base64::Engine;
use slipway_types::model::DataType;

use crate::half::{bf16_to_f32, f16_to_f32};
use crate::signature::MAX_RANK;
use crate::tensor::TensorView;

/// How byte strings are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strings {
    /// As JSON strings where they are UTF-8, else as `{"b64": "…"}`.
    Text,
    /// Always as `{"b64": "…"}`.
    Base64,
}

/// Appends a JSON string.
pub fn string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut plain = 0;
    for (i, &byte) in bytes.iter().enumerate() {
        let escape: &[u8] = match byte {
            b'"' => b"\\\"",
            b'\\' => b"\\\\",
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            b'\t' => b"\\t",
            0..=0x1f => {
                out.extend_from_slice(&bytes[plain..i]);
                let digit = |n: u8| b"0123456789abcdef"[usize::from(n)];
                out.extend_from_slice(&[b'\\', b'u', b'0', b'0', digit(byte >> 4), digit(byte & 15)]);
                plain = i + 1;
                continue;
            }
            _ => continue,
        };
        out.extend_from_slice(&bytes[plain..i]);
        out.extend_from_slice(escape);
        plain = i + 1;
    }
    out.extend_from_slice(&bytes[plain..]);
    out.push(b'"');
}

/// Appends an integer.
pub fn integer(out: &mut Vec<u8>, value: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Appends the tensor as nested arrays; a scalar as a bare value.
pub fn nested(out: &mut Vec<u8>, view: &TensorView<'_>, strings: Strings) {
    let mut dims = [0; MAX_RANK];
    let rank = copy_dims(view, &mut dims);
    level(out, view, &dims[..rank], 0, strings);
}

/// Appends row `row` of the first dimension as nested arrays; the tensor must have that dimension.
pub fn nested_row(out: &mut Vec<u8>, view: &TensorView<'_>, row: usize, strings: Strings) {
    let mut dims = [0; MAX_RANK];
    let rank = copy_dims(view, &mut dims);
    let inner = &dims[1..rank];
    level(out, view, inner, row * inner.iter().product::<usize>(), strings);
}

/// Appends all elements as one array, in row-major order.
pub fn flat(out: &mut Vec<u8>, view: &TensorView<'_>, strings: Strings) {
    list(out, view, 0, view.elements(), strings);
}

fn copy_dims(view: &TensorView<'_>, dims: &mut [usize; MAX_RANK]) -> usize {
    for (slot, dim) in dims.iter_mut().zip(view.dims()) {
        *slot = dim;
    }
    view.rank().min(MAX_RANK)
}

fn level(out: &mut Vec<u8>, view: &TensorView<'_>, dims: &[usize], start: usize, strings: Strings) {
    match dims {
        [] => elements(out, view, start, 1, strings),
        [count] => list(out, view, start, *count, strings),
        [count, inner @ ..] => {
            let step: usize = inner.iter().product();
            out.push(b'[');
            for i in 0..*count {
                if i > 0 {
                    out.push(b',');
                }
                level(out, view, inner, start + i * step, strings);
            }
            out.push(b']');
        }
    }
}

fn list(out: &mut Vec<u8>, view: &TensorView<'_>, start: usize, count: usize, strings: Strings) {
    out.push(b'[');
    elements(out, view, start, count, strings);
    out.push(b']');
}

/// Appends `count` elements from `start`, with commas between them.
fn elements(out: &mut Vec<u8>, view: &TensorView<'_>, start: usize, count: usize, strings: Strings) {
    let b = view.bytes;
    match view.datatype {
        DataType::Bool => each::<1>(out, b, start, count, |out, [v]| {
            out.extend_from_slice(if v != 0 { b"true" } else { b"false" });
        }),
        DataType::Uint8 => each(out, b, start, count, |out, v| integer(out, u8::from_le_bytes(v))),
        DataType::Uint16 => each(out, b, start, count, |out, v| integer(out, u16::from_le_bytes(v))),
        DataType::Uint32 => each(out, b, start, count, |out, v| integer(out, u32::from_le_bytes(v))),
        DataType::Uint64 => each(out, b, start, count, |out, v| integer(out, u64::from_le_bytes(v))),
        DataType::Int8 => each(out, b, start, count, |out, v| integer(out, i8::from_le_bytes(v))),
        DataType::Int16 => each(out, b, start, count, |out, v| integer(out, i16::from_le_bytes(v))),
        DataType::Int32 => each(out, b, start, count, |out, v| integer(out, i32::from_le_bytes(v))),
        DataType::Int64 => each(out, b, start, count, |out, v| integer(out, i64::from_le_bytes(v))),
        DataType::Fp16 => each(out, b, start, count, |out, v| single(out, f16_to_f32(u16::from_le_bytes(v)))),
        DataType::Bf16 => {
            each(out, b, start, count, |out, v| single(out, bf16_to_f32(u16::from_le_bytes(v))))
        }
        DataType::Fp32 => each(out, b, start, count, |out, v| single(out, f32::from_le_bytes(v))),
        DataType::Fp64 => each(out, b, start, count, |out, v| double(out, f64::from_le_bytes(v))),
        DataType::Bytes => {
            for i in start..start + count {
                if i > start {
                    out.push(b',');
                }
                byte_string(out, view.string(i), strings);
            }
        }
    }
}

fn each<const N: usize>(
    out: &mut Vec<u8>,
    bytes: &[u8],
    start: usize,
    count: usize,
    write: impl Fn(&mut Vec<u8>, [u8; N]),
) {
    let (elements, _) = bytes[start * N..(start + count) * N].as_chunks::<N>();
    for (i, element) in elements.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        write(out, *element);
    }
}

fn single(out: &mut Vec<u8>, value: f32) {
    if value.is_finite() {
        out.extend_from_slice(zmij::Buffer::new().format_finite(value).as_bytes());
    } else {
        special(out, value.is_nan(), value < 0.0);
    }
}

fn double(out: &mut Vec<u8>, value: f64) {
    if value.is_finite() {
        out.extend_from_slice(zmij::Buffer::new().format_finite(value).as_bytes());
    } else {
        special(out, value.is_nan(), value < 0.0);
    }
}

fn special(out: &mut Vec<u8>, nan: bool, negative: bool) {
    out.extend_from_slice(match (nan, negative) {
        (true, _) => b"NaN",
        (false, false) => b"Infinity",
        (false, true) => b"-Infinity",
    });
}

fn byte_string(out: &mut Vec<u8>, bytes: &[u8], strings: Strings) {
    match std::str::from_utf8(bytes) {
        Ok(text) if strings == Strings::Text => string(out, text),
        _ => {
            out.extend_from_slice(b"{\"b64\":\"");
            out.extend_from_slice(base64::engine::general_purpose::STANDARD.encode(bytes).as_bytes());
            out.extend_from_slice(b"\"}");
        }
    }
}
