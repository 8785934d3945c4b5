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

/// What an image runs on, written `os/architecture[/variant]` with the names of Go's GOOS and GOARCH.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Platform {
    /// Operating system, for example `linux`.
    pub os: String,
    /// Processor architecture, for example `amd64`.
    pub architecture: String,
    /// Variant of the architecture, for example `v7`.
    pub variant: Option<String>,
}

/// Why a text is no platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a platform: expected `os/architecture` or `os/architecture/variant`, such as `linux/arm64`"
)]
pub struct InvalidPlatform(pub String);

impl Platform {
    /// The platform that this program was built for.
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86" => "386",
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "loongarch64" => "loong64",
            "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
            "powerpc64" => "ppc64",
            other => other,
        };
        Self { os: std::env::consts::OS.to_owned(), architecture: architecture.to_owned(), variant: None }
    }
}

impl std::str::FromStr for Platform {
    type Err = InvalidPlatform;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts: Vec<_> = text.split('/').collect();
        let valid = |p: &&str| {
            (1..=32).contains(&p.len())
                && !p.starts_with('.')
                && p.bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-'))
        };
        if !(2..=3).contains(&parts.len()) || !parts.iter().all(valid) {
            return Err(InvalidPlatform(text.to_owned()));
        }
        Ok(Self {
            os: parts[0].to_owned(),
            architecture: parts[1].to_owned(),
            variant: parts.get(2).map(|v| (*v).to_owned()),
        })
    }
}

impl TryFrom<String> for Platform {
    type Error = InvalidPlatform;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Platform> for String {
    fn from(platform: Platform) -> Self {
        platform.to_string()
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_platforms() {
        for text in ["linux/amd64", "linux/arm/v7", "linux/arm64/v8"] {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), text);
        }
        for bad in ["", "linux", "linux/", "/amd64", "linux/arm/v7/x", "Linux/amd64", "linux/../x"] {
            assert!(bad.parse::<Platform>().is_err(), "{bad}");
        }
        assert_eq!(Platform::host().to_string().parse::<Platform>().unwrap(), Platform::host());
    }
}
