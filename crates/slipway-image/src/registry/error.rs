//! What goes wrong in a pull, a push or a log-in.

use slipway_types::image::Platform;
use slipway_types::{Digest, ErrorCode};

pub use super::request_error::{NetworkCause, RegistryAnswer, RegistryAnswers, RequestError};
use crate::store::StoreError;

/// Why a pull failed. Nothing that was not verified stays in the store.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// No endpoint gave what was asked for; the source is the last one's word, which is the registry's own.
    #[error("cannot pull {reference}{}", tried_before(mirrors))]
    Request {
        /// What was pulled.
        reference: String,
        /// One line for each mirror that failed before.
        mirrors: Vec<String>,
        /// Why.
        source: Box<RequestError>,
    },
    /// The image does not exist for this platform.
    #[error("{reference} has no image for {wanted}; it has {}", listed(available))]
    NoPlatform {
        /// What was pulled.
        reference: String,
        /// The platform asked for.
        wanted: Platform,
        /// The platforms there are, as the registry writes them.
        available: Vec<String>,
    },
    /// Something has a type that Slipway does not read.
    #[error("{reference} has a {what} of type `{media_type}`, which is {}", media_type_fault(media_type))]
    MediaType {
        /// What was pulled.
        reference: String,
        /// `manifest`, `layer` or `configuration`.
        what: &'static str,
        /// Its type.
        media_type: String,
    },
    /// A manifest or configuration says something that cannot be.
    #[error("the {what} of {reference} is not valid: {reason}")]
    Invalid {
        /// What was pulled.
        reference: String,
        /// `manifest`, `index` or `configuration`.
        what: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// A model artifact was pulled as an image, or the other way round.
    #[error("{reference} is {found}, not {wanted}")]
    OtherKind {
        /// What was pulled.
        reference: String,
        /// What it is.
        found: &'static str,
        /// What was asked for.
        wanted: &'static str,
    },
    /// A layer could not be unpacked: it breaks a safety rule, is damaged, or the store failed.
    #[error("cannot unpack layer {layer} of {reference}")]
    Unpack {
        /// What was pulled.
        reference: String,
        /// Digest of the layer's blob.
        layer: Digest,
        /// Why.
        source: Box<StoreError>,
    },
    /// The store failed.
    #[error("cannot keep {reference} in the store")]
    Store {
        /// What was pulled.
        reference: String,
        /// Why.
        source: Box<StoreError>,
    },
    /// A task of the pull ended without a result: Slipway's fault, or its end.
    #[error("the pull of {reference} was cut off")]
    Interrupted {
        /// What was pulled.
        reference: String,
    },
}

fn tried_before(mirrors: &[String]) -> String {
    if mirrors.is_empty() {
        String::new()
    } else {
        format!(" (mirrors asked before: {})", mirrors.join("; "))
    }
}

fn listed(platforms: &[String]) -> String {
    if platforms.is_empty() { "none".to_owned() } else { platforms.join(", ") }
}

fn media_type_fault(media_type: &str) -> &'static str {
    if media_type.contains("foreign") || media_type.contains("nondistributable") {
        "kept outside of registries and cannot be pulled from one"
    } else if media_type.contains("manifest.v1") && media_type.contains("docker") {
        "Docker's first image format, out of use since 2017: push the image again with a current tool"
    } else {
        "not one that Slipway reads"
    }
}

impl PullError {
    /// The kind.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Request { source, .. } => source.code(),
            Self::NoPlatform { .. } => ErrorCode::NotFound,
            Self::MediaType { .. } | Self::OtherKind { .. } => ErrorCode::InvalidArgument,
            Self::Invalid { .. } => ErrorCode::DataLoss,
            Self::Unpack { source, .. } | Self::Store { source, .. } => store_code(source),
            Self::Interrupted { .. } => ErrorCode::Internal,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Request { source, .. } => source.hint(),
            Self::NoPlatform { .. } => Some("choose another with `--platform`".to_owned()),
            Self::OtherKind { wanted, .. } if *wanted == IMAGE => {
                Some("models are pulled with `slipway model import`".to_owned())
            }
            _ if self.is_out_of_space() => Some("free space with `slipway system prune`".to_owned()),
            _ => None,
        }
    }

    /// Whether the store's disk (or a quota) is full. The store is intact then.
    pub fn is_out_of_space(&self) -> bool {
        matches!(self, Self::Unpack { source, .. } | Self::Store { source, .. } if source.is_out_of_space())
    }
}

/// The kind of a failure of the store.
pub(crate) fn store_code(error: &StoreError) -> ErrorCode {
    match error {
        e if e.is_out_of_space() => ErrorCode::ResourceExhausted,
        e if e.is_not_found() => ErrorCode::NotFound,
        e if e.is_conflict() => ErrorCode::Conflict,
        StoreError::DigestMismatch { .. }
        | StoreError::Archive(_)
        | StoreError::InvalidConfig(_)
        | StoreError::LayersDiffer { .. }
        | StoreError::DamagedIndex { .. }
        | StoreError::LayerChanged { .. }
        | StoreError::LayerWithoutSource { .. } => ErrorCode::DataLoss,
        StoreError::BlobTooLarge { .. } | StoreError::TooLong { .. } => ErrorCode::ResourceExhausted,
        _ => ErrorCode::Internal,
    }
}

pub(crate) const IMAGE: &str = "an image";
pub(crate) const MODEL: &str = "a model artifact";

/// Why a push failed. Blobs that were sent stay at the registry and are not sent again.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The registry refused, or could not be reached.
    #[error("cannot push {reference}")]
    Request {
        /// Where to.
        reference: String,
        /// Why.
        source: Box<RequestError>,
    },
    /// What is pushed is not in the store, or the store failed.
    #[error("cannot read what is pushed to {reference}")]
    Store {
        /// Where to.
        reference: String,
        /// Why.
        source: Box<StoreError>,
    },
    /// A layer could not be compressed.
    #[error("cannot compress layer {layer}")]
    Compress {
        /// Its diff id.
        layer: Digest,
        /// Why.
        source: Box<StoreError>,
    },
    /// The manifest in the store cannot be read.
    #[error("the manifest {manifest} in the store is not valid: {reason}")]
    Invalid {
        /// Which.
        manifest: Digest,
        /// What is wrong.
        reason: String,
    },
    /// The reference pins a digest that is not the one of what is pushed.
    #[error("{reference} names another digest than the {manifest} of what is pushed")]
    OtherDigest {
        /// Where to.
        reference: String,
        /// Digest of the manifest.
        manifest: Digest,
    },
    /// A task of the push ended without a result: Slipway's fault, or its end.
    #[error("the push to {reference} was cut off")]
    Interrupted {
        /// Where to.
        reference: String,
    },
}

impl PushError {
    /// The kind.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Request { source, .. } => source.code(),
            Self::Store { source, .. } | Self::Compress { source, .. } => store_code(source),
            Self::Interrupted { .. } => ErrorCode::Internal,
            Self::Invalid { .. } => ErrorCode::DataLoss,
            Self::OtherDigest { .. } => ErrorCode::InvalidArgument,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Request { source, .. } => source.hint(),
            _ if self.is_out_of_space() => Some("free space with `slipway system prune`".to_owned()),
            Self::OtherDigest { .. } => Some("push to a tag".to_owned()),
            _ => None,
        }
    }

    /// Whether the store's disk (or a quota) is full. The store is intact then.
    pub fn is_out_of_space(&self) -> bool {
        matches!(self, Self::Store { source, .. } | Self::Compress { source, .. } if source.is_out_of_space())
    }
}

/// Why a log-in failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot log in to {registry}")]
pub struct LoginError {
    /// Registry.
    pub registry: String,
    /// Why.
    pub source: Box<RequestError>,
}

impl LoginError {
    /// The kind.
    pub fn code(&self) -> ErrorCode {
        self.source.code()
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match &*self.source {
            RequestError::Unauthorized { .. } | RequestError::Forbidden { .. } => Some(
                "check user name and password; where two-factor log-in is on, an access token takes the password's place"
                    .to_owned(),
            ),
            other => other.hint(),
        }
    }
}
