//! Health and metadata.

use bytes::Bytes;
use serde_json::json;

use crate::signature::ModelSignature;

/// Body of `GET /v2/health/live`.
pub fn live() -> Bytes {
    Bytes::from_static(b"{\"live\":true}")
}

/// Body of `GET /v2/health/ready`; `reason` says why it is not, `load_failed` that the last try to load failed.
pub fn ready(reason: Option<&str>, load_failed: bool) -> Bytes {
    match reason {
        None => Bytes::from_static(b"{\"ready\":true}"),
        Some(reason) => {
            json!({ "ready": false, "reason": reason, "load_failed": load_failed }).to_string().into()
        }
    }
}

/// Body of `GET /v2/models/M/ready`.
pub fn model_ready(model: &str, reason: Option<&str>) -> Bytes {
    match reason {
        None => json!({ "name": model, "ready": true }).to_string().into(),
        Some(reason) => json!({ "name": model, "ready": false, "reason": reason }).to_string().into(),
    }
}

/// Body of `GET /v2`.
pub fn server_metadata() -> Bytes {
    json!({ "name": "slipway", "version": env!("CARGO_PKG_VERSION"), "extensions": ["binary_tensor_data"] })
        .to_string()
        .into()
}

/// Body of `GET /v2/models/M`.
pub fn model_metadata(model: &str, version: u64, signature: &ModelSignature) -> Bytes {
    json!({
        "name": model,
        "versions": [version.to_string()],
        "platform": signature.platform,
        "inputs": signature.inputs,
        "outputs": signature.outputs,
    })
    .to_string()
    .into()
}
