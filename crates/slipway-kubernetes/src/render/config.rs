//! ConfigMaps and Secrets that are named by their content: a change makes another, so pods never see half of one, and a
//! rollback finds the old one.

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine as _;
use serde_json::json;
use slipway_types::service::{DEFAULT_MAX_BODY, PREDICTION_LIMIT_MS, RunnerConfig};

use super::labels::Identity;
use super::pod::HTTP_PORT;
use super::volumes::{RUN, TOOLS, model_dir, way};
use super::{RenderError, Rendered};
use crate::Capabilities;
use crate::names::hash;
use crate::spec::{Environment, ModelContent, ServiceDeployment};
use crate::validate;

/// Largest request body of a service, in bytes.
pub(super) fn max_body(spec: &ServiceDeployment) -> u64 {
    spec.spec.max_body.unwrap_or(DEFAULT_MAX_BODY)
}

/// The runner's configuration; returns the name of its ConfigMap.
pub(super) fn runner_config(
    spec: &ServiceDeployment,
    model: &ModelContent,
    caps: &Capabilities,
    id: &Identity,
    out: &mut Rendered,
) -> Result<String, RenderError> {
    let way = way(model, caps);
    let config = RunnerConfig {
        service: spec.spec.name.clone(),
        model: spec.spec.model.clone(),
        version: spec.spec.version,
        labels: model.labels.clone(),
        format: model.format,
        model_dir: model_dir(way).into(),
        entry: spec.spec.entry.clone(),
        socket: Path::new(RUN).join("http.sock"),
        listen: Some(format!("{}:{HTTP_PORT}", caps.any_address())),
        python_dir: Path::new(TOOLS).join("python"),
        batch: spec.spec.batch,
        max_body: max_body(spec),
        timeout_ms: PREDICTION_LIMIT_MS,
    };
    let text = serde_json::to_string_pretty(&config)
        .map_err(|error| RenderError::Contradiction { what: "runner.json", reason: error.to_string() })?;
    config_map("runner", "runner.json", &text, "What the runner in each pod serves, and how.", id, out)
}

/// A ConfigMap with one file; returns its name.
pub(super) fn config_map(
    role: &str,
    file: &str,
    text: &str,
    why: &str,
    id: &Identity,
    out: &mut Rendered,
) -> Result<String, RenderError> {
    if text.len() > validate::MAX_CONFIG {
        let reason = format!("it has {} bytes, more than a ConfigMap holds", text.len());
        return Err(RenderError::Contradiction { what: "configuration", reason });
    }
    let name = id.derived(role, text.as_bytes())?;
    out.add(
        format!("{why} Named by its content and never changed."),
        json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": id.metadata_as(&name),
            "immutable": true,
            "data": {file: text},
        }),
    );
    Ok(name)
}

/// The secret part of the environment; returns the name of its Secret, or `None` where there is nothing secret.
pub(super) fn secret(
    environment: &Environment,
    id: &Identity,
    out: &mut Rendered,
) -> Result<Option<String>, RenderError> {
    for reference in &environment.secret_refs {
        validate::dns_1123_subdomain(&reference.secret)
            .and_then(|()| validate::config_key(&reference.key))
            .map_err(|source| RenderError::Invalid { what: "secret", source })?;
    }
    if environment.secrets.is_empty() {
        return Ok(None);
    }
    let mut content = String::new();
    let mut data: BTreeMap<&str, String> = BTreeMap::new();
    for (key, value) in &environment.secrets {
        validate::env_name(key).map_err(|source| RenderError::Invalid { what: "environment", source })?;
        content.push_str(&format!("{key}={}\n", hash(value.as_bytes())));
        data.insert(key, base64::engine::general_purpose::STANDARD.encode(value));
    }
    if data.values().map(String::len).sum::<usize>() > validate::MAX_CONFIG {
        let reason = "they are larger than 1 MiB together".to_owned();
        return Err(RenderError::Contradiction { what: "secrets", reason });
    }
    let name = id.derived("env", content.as_bytes())?;
    out.add(
        "The secret part of the environment. Keep this file as you keep passwords.",
        json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": id.metadata_as(&name),
            "type": "Opaque",
            "immutable": true,
            "data": data,
        }),
    );
    Ok(Some(name))
}
