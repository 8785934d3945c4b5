//! Requests to tensors to replies, and the text of every error.

mod oip;
mod tfs;

use std::sync::Arc;

use bytes::Bytes;
use slipway_types::model::{DataType, TensorSpec};

use crate::model::Prediction;
use crate::signature::{DEFAULT_SIGNATURE, ModelSignature};
use crate::tensor::{NamedTensor, Tensor, TensorData};

fn spec(name: &str, datatype: DataType, shape: &[i64]) -> TensorSpec {
    TensorSpec { name: name.into(), datatype, shape: shape.to_vec() }
}

fn signature(inputs: Vec<TensorSpec>, outputs: Vec<TensorSpec>, batched: bool) -> ModelSignature {
    let signature = ModelSignature {
        name: DEFAULT_SIGNATURE.into(),
        platform: "test".into(),
        free_form: inputs.is_empty(),
        inputs,
        outputs,
        batched,
    };
    signature.check().unwrap();
    signature
}

/// One input `x` of FP32 `[-1,2]`.
fn single() -> ModelSignature {
    signature(vec![spec("x", DataType::Fp32, &[-1, 2])], vec![spec("y", DataType::Fp32, &[-1])], true)
}

/// Inputs `a`, FP32 `[-1,2]`, and `b`, INT64 `[-1]`.
fn double() -> ModelSignature {
    signature(vec![spec("a", DataType::Fp32, &[-1, 2]), spec("b", DataType::Int64, &[-1])], vec![], true)
}

fn words() -> ModelSignature {
    signature(vec![spec("t", DataType::Bytes, &[-1])], vec![], true)
}

fn free() -> ModelSignature {
    signature(vec![], vec![], false)
}

fn floats(shape: &[usize], values: &[f32]) -> Tensor {
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    Tensor { datatype: DataType::Fp32, shape: shape.to_vec(), data: TensorData::Fixed(bytes.into()) }
}

fn longs(shape: &[usize], values: &[i64]) -> Tensor {
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    Tensor { datatype: DataType::Int64, shape: shape.to_vec(), data: TensorData::Fixed(bytes.into()) }
}

fn strings(shape: &[usize], values: &[&[u8]]) -> Tensor {
    let mut offsets = vec![0];
    for value in values {
        offsets.push(offsets[offsets.len() - 1] + value.len() as u64);
    }
    let data = TensorData::Strings { offsets, bytes: values.concat().into() };
    Tensor { datatype: DataType::Bytes, shape: shape.to_vec(), data }
}

fn prediction(outputs: Vec<(&str, Tensor)>, rows: Option<(usize, usize)>) -> Prediction {
    let outputs = outputs.into_iter().map(|(name, tensor)| NamedTensor { name: name.into(), tensor });
    Prediction::Tensors { outputs: Arc::new(outputs.collect()), rows }
}

fn body(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}
