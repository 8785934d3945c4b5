//! What a declaration would do on an engine, told before it is done.

use serde::{Deserialize, Serialize};

/// Who is asked what would happen, and how it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PreviewKind {
    /// Nobody: what would be sent is shown.
    Client,
    /// The cluster, which tries and keeps nothing.
    Server,
    /// The cluster, and what differs from what it has is shown.
    Diff,
}

/// What would happen.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Preview {
    /// What is served, for people: `model@version`, or an image.
    pub content: String,
    /// Whether a model is served.
    pub has_model: bool,
    /// Number of the revision.
    pub revision: u64,
    /// What would be sent, as YAML; only of [`PreviewKind::Client`].
    #[serde(default)]
    pub yaml: String,
    /// The objects; of [`PreviewKind::Diff`] those that differ.
    #[serde(default)]
    pub objects: Vec<PreviewedObject>,
    /// What the cluster cannot give, in a sentence each.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// One object of a preview.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreviewedObject {
    /// Kind, in lower case.
    pub kind: String,
    /// Name.
    pub name: String,
    /// What would become of it.
    pub outcome: PreviewOutcome,
    /// Why it would be refused, or who owns fields of it.
    #[serde(default)]
    pub reason: Option<String>,
    /// How it differs, as a unified diff.
    #[serde(default)]
    pub diff: String,
}

/// What would become of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PreviewOutcome {
    /// It would be new.
    Created,
    /// It would be another than it is.
    Configured,
    /// It is as it shall be.
    Unchanged,
    /// It would go.
    Removed,
    /// The cluster would not take it.
    Refused,
}
