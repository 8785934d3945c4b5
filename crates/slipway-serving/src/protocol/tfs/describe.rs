//! Status and metadata of a model.

use bytes::Bytes;
use serde_json::{Map, Value, json};
use slipway_types::model::{DataType, TensorSpec};

use crate::model::Readiness;
use crate::signature::ModelSignature;

/// Body of `GET /v1/models/M`.
pub fn status(version: u64, readiness: &Readiness) -> Bytes {
    let (state, code, message) = match readiness {
        Readiness::Ready => ("AVAILABLE", "OK", String::new()),
        Readiness::Starting { reason: None } => ("LOADING", "OK", String::new()),
        Readiness::Starting { reason: Some(reason) } => ("LOADING", "UNAVAILABLE", reason.clone()),
        Readiness::Stopped => ("UNLOADING", "OK", String::new()),
    };
    let status = json!({
        "version": version.to_string(),
        "state": state,
        "status": { "error_code": code, "error_message": message },
    });
    json!({ "model_version_status": [status] }).to_string().into()
}

/// Body of `GET /v1/models/M/metadata`.
pub fn metadata(model: &str, version: u64, signature: &ModelSignature) -> Bytes {
    let definition = json!({
        "inputs": tensors(&signature.inputs),
        "outputs": tensors(&signature.outputs),
        "method_name": "tensorflow/serving/predict",
    });
    json!({
        "model_spec": { "name": model, "signature_name": "", "version": version.to_string() },
        "metadata": { "signature_def": { "signature_def": { signature.name.as_str(): definition } } },
    })
    .to_string()
    .into()
}

fn tensors(specs: &[TensorSpec]) -> Value {
    let mut tensors = Map::new();
    for spec in specs {
        let dims: Vec<_> = spec.shape.iter().map(|d| json!({ "size": d.to_string(), "name": "" })).collect();
        let tensor = json!({
            "dtype": type_name(spec.datatype),
            "tensor_shape": { "dim": dims, "unknown_rank": false },
            "name": format!("{}:0", spec.name),
        });
        tensors.insert(spec.name.clone(), tensor);
    }
    Value::Object(tensors)
}

/// The names of TensorFlow's `DataType` enum.
fn type_name(datatype: DataType) -> &'static str {
    match datatype {
        DataType::Bool => "DT_BOOL",
        DataType::Uint8 => "DT_UINT8",
        DataType::Uint16 => "DT_UINT16",
        DataType::Uint32 => "DT_UINT32",
        DataType::Uint64 => "DT_UINT64",
        DataType::Int8 => "DT_INT8",
        DataType::Int16 => "DT_INT16",
        DataType::Int32 => "DT_INT32",
        DataType::Int64 => "DT_INT64",
        DataType::Fp16 => "DT_HALF",
        DataType::Fp32 => "DT_FLOAT",
        DataType::Fp64 => "DT_DOUBLE",
        DataType::Bf16 => "DT_BFLOAT16",
        DataType::Bytes => "DT_STRING",
    }
}
