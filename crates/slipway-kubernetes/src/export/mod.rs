//! Writes objects as files that people keep: plain YAML, a kustomization, or a chart.
//!
//! Nothing in them needs Slipway. What is written is a list of relative paths and texts; the caller puts them on disk.

mod helm;
mod kustomize;
mod plain;
pub mod yaml;

use crate::object::Object;

pub use helm::{ChartName, helm};
pub use kustomize::kustomize;
pub use plain::{plain, stream};

/// One file of an export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportedFile {
    /// Path relative to the folder of the export.
    pub path: String,
    /// Content.
    pub text: String,
}

/// `NN-kind-name.yaml`: in the order in which the objects are applied.
fn file_name(at: usize, object: &Object) -> String {
    format!("{:02}-{}-{}.yaml", at + 1, object.kind().to_ascii_lowercase(), object.name())
}
