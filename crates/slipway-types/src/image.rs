//! Images as listings and transfers show them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// One image as `slipway images` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageSummary {
    /// Digest of the configuration: the image's identity on this machine.
    pub id: Digest,
    /// Full references that name it.
    pub names: Vec<String>,
    /// `repository@digest` under which registries know it.
    pub repo_digests: Vec<String>,
    /// When it was made, by its own word.
    pub created: Option<jiff::Timestamp>,
    /// Bytes of its unpacked layers, shared ones included.
    pub size: u64,
    /// `os/architecture[/variant]`.
    pub platform: String,
}

/// One image as `slipway inspect` shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImageDetails {
    /// The summary.
    #[serde(flatten)]
    pub summary: ImageSummary,
    /// Layer diff ids, lowest first.
    pub layers: Vec<Digest>,
    /// The OCI image configuration, whole.
    pub config: serde_json::Value,
}

/// Progress of a pull or a push, as newline-delimited JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum TransferEvent {
    /// A blob moved on.
    Blob {
        /// Which.
        digest: Digest,
        /// What happens to it.
        state: BlobState,
        /// Bytes done.
        done: u64,
        /// Bytes in all, when known.
        total: Option<u64>,
    },
    /// Done.
    Finished {
        /// The reference, normalised.
        reference: String,
        /// Digest of the manifest in the registry.
        manifest: Digest,
        /// Digest of the configuration.
        image: Digest,
    },
    /// Ended without a result.
    Failed(crate::ApiError),
}

/// What happens to a blob of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BlobState {
    /// It is there already.
    Exists,
    /// Bytes move.
    Moving,
    /// It is being compressed for the registry.
    Compressing,
    /// It is being unpacked.
    Unpacking,
    /// It is complete and checked.
    Done,
}

/// How registries are reached. Keys of the maps are registry names as references have them (`docker.io`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegistrySettings {
    /// Settings by registry.
    pub registries: BTreeMap<String, Registry>,
}

/// One registry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Registry {
    /// Registries that are asked first, in order, as `host[:port]` with an optional path prefix.
    pub mirrors: Vec<String>,
    /// Speak plain HTTP. Loopback addresses are tried over HTTP without it.
    pub plain_http: bool,
    /// PEM file with more trusted certificates.
    pub ca_file: Option<std::path::PathBuf>,
}

/// Credentials of one registry. `Debug` hides them.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Credentials {
    /// User name and password (or access token in its place).
    Basic {
        /// User name.
        username: String,
        /// Password.
        password: String,
    },
    /// A bearer token used as it is.
    Token(String),
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials(hidden)")
    }
}
