//! `POST …/infer`: the reply.

use http::StatusCode;
use slipway_types::model::DataType;

use super::request::Wanted;
use crate::json::write::{self, Strings};
use crate::model::Prediction;
use crate::protocol::ProtocolError;
use crate::protocol::tfs::shorten;
use crate::signature::type_name;
use crate::tensor::TensorView;

/// A reply, written.
#[derive(Debug, PartialEq, Eq)]
pub struct InferReply {
    /// JSON, and raw tensors behind it where some were asked for.
    pub body: Vec<u8>,
    /// Bytes of the JSON, where raw tensors follow it.
    pub json_len: Option<usize>,
}

/// Writes a reply.
pub fn write(
    prediction: &Prediction,
    model: &str,
    version: u64,
    id: Option<&str>,
    wanted: &Wanted,
) -> Result<InferReply, ProtocolError> {
    if matches!(prediction, Prediction::Json(_)) {
        // Requests of this protocol are tensors, so the worker has no reason to answer in JSON.
        return Err(ProtocolError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the worker answered with JSON, not tensors",
        ));
    }
    let all = prediction.tensors();
    let mut chosen: Vec<(&str, TensorView<'_>, bool)> = Vec::with_capacity(all.len());
    if wanted.outputs.is_empty() {
        chosen.extend(all.map(|(name, view)| (name, view, wanted.binary)));
    } else {
        for (name, binary) in &wanted.outputs {
            let found = all.clone().find(|(n, _)| n == name);
            let (name, view) = found.ok_or_else(|| unknown_output(name, all.clone().map(|(n, _)| n)))?;
            chosen.push((name, view, binary.unwrap_or(wanted.binary)));
        }
    }
    let mut out = Vec::with_capacity(256);
    out.extend_from_slice(b"{\"model_name\":");
    write::string(&mut out, model);
    out.extend_from_slice(b",\"model_version\":\"");
    write::integer(&mut out, version);
    out.push(b'"');
    if let Some(id) = id {
        out.extend_from_slice(b",\"id\":");
        write::string(&mut out, id);
    }
    out.extend_from_slice(b",\"outputs\":[");
    let mut raw = Vec::new();
    for (i, (name, view, binary)) in chosen.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        output(&mut out, &mut raw, name, view, *binary)?;
    }
    out.extend_from_slice(b"]}");
    let json_len = chosen.iter().any(|(_, _, binary)| *binary).then_some(out.len());
    out.append(&mut raw);
    Ok(InferReply { body: out, json_len })
}

pub(super) fn unknown_output<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> ProtocolError {
    let known: Vec<_> = known.map(|n| format!("\"{n}\"")).collect();
    let name = shorten(name);
    ProtocolError::invalid(format!("the model has no output \"{name}\", it has {}", known.join(", ")))
}

fn output(
    out: &mut Vec<u8>,
    raw: &mut Vec<u8>,
    name: &str,
    view: &TensorView<'_>,
    binary: bool,
) -> Result<(), ProtocolError> {
    out.extend_from_slice(b"{\"name\":");
    write::string(out, name);
    out.extend_from_slice(b",\"datatype\":\"");
    out.extend_from_slice(type_name(view.datatype).as_bytes());
    out.extend_from_slice(b"\",\"shape\":[");
    for (i, dim) in view.dims().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        write::integer(out, dim);
    }
    out.push(b']');
    if binary {
        let before = raw.len();
        put_raw(raw, view)?;
        out.extend_from_slice(b",\"parameters\":{\"binary_data_size\":");
        write::integer(out, raw.len() - before);
        out.extend_from_slice(b"}}");
        return Ok(());
    }
    if view.datatype == DataType::Bytes
        && let Some(bad) = (0..view.elements()).find(|&i| std::str::from_utf8(view.string(i)).is_err())
    {
        return Err(ProtocolError::invalid(format!(
            "element {bad} of output \"{name}\" is not UTF-8: ask for it with the parameter \"binary_data\": true"
        )));
    }
    out.extend_from_slice(b",\"data\":");
    write::flat(out, view, Strings::Text);
    out.push(b'}');
    Ok(())
}

fn put_raw(raw: &mut Vec<u8>, view: &TensorView<'_>) -> Result<(), ProtocolError> {
    if view.datatype != DataType::Bytes {
        raw.extend_from_slice(view.bytes);
        return Ok(());
    }
    for i in 0..view.elements() {
        let element = view.string(i);
        let len = u32::try_from(element.len()).map_err(|_| {
            ProtocolError::new(StatusCode::INTERNAL_SERVER_ERROR, "an element has more than 4 GiB")
        })?;
        raw.extend_from_slice(&len.to_le_bytes());
        raw.extend_from_slice(element);
    }
    Ok(())
}
