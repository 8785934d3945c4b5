//! What the annotation of a Service tells the gateway.

use serde::{Deserialize, Serialize};

/// What [`crate::render::ROUTE_ANNOTATION`] says, as JSON. Whoever writes one by hand needs `service` only.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RouteAnnotation {
    /// Name of the service, as the user wrote it.
    pub service: String,
    /// Name of the model; the service's when empty.
    pub model: String,
    /// Version of the model that is declared. Pods have it as a label; those of another one have none of `labels`.
    pub version: u64,
    /// Aliases of that version.
    pub labels: Vec<String>,
    /// Host names that are the service's.
    pub hosts: Vec<String>,
    /// Largest request body in bytes; the gateway's own limit when 0.
    pub max_body: u64,
    /// Longest time for one request, in milliseconds; the gateway's own limit when 0.
    pub timeout_ms: u64,
    /// Whether it may have no pod at all while nobody asks for it.
    pub to_zero: bool,
    /// Deployment that is scaled then.
    pub deployment: String,
}

impl RouteAnnotation {
    /// Reads one. Fields of newer versions of Slipway are left alone.
    pub fn read(text: &str) -> Result<Self, serde_json::Error> {
        let mut this: Self = serde_json::from_str(text)?;
        if this.model.is_empty() {
            this.model.clone_from(&this.service);
        }
        Ok(this)
    }
}
