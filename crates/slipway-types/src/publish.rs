//! What a service needs in a registry so that it can run elsewhere, and its way there.

use serde::{Deserialize, Serialize};

use crate::ApiError;
use crate::image::TransferEvent;
use crate::model::ModelFormat;
use crate::reference::Reference;
use crate::service::ServiceSpec;

/// Body of `POST /v1/services/publish`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PublishRequest {
    /// Name of a declared service.
    pub service: String,
    /// Registry, with a path if need be: `host[:port][/path]`.
    pub registry: String,
    /// Compression of layers that were built here, `gzip` or `zstd`; `gzip` when absent.
    pub compression: Option<String>,
    /// Finds out the digests and sends nothing.
    pub no_push: bool,
    /// Publishes the gateway's image as well, where the service serves a model.
    pub gateway: bool,
}

/// One line of the progress of a publication, as newline-delimited JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "phase", content = "data", rename_all = "snake_case")]
pub enum PublishEvent {
    /// One of the images begins.
    Image {
        /// What it holds, such as `model`.
        what: String,
        /// Where it goes.
        reference: String,
    },
    /// It moves on.
    Transfer(TransferEvent),
    /// Done.
    Finished(Box<PublishedService>),
    /// Ended before that.
    Failed(ApiError),
}

/// A service whose parts are named by digest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishedService {
    /// The declared service.
    pub spec: ServiceSpec,
    /// Number of its revision.
    pub revision: u64,
    /// Its image.
    pub image: Reference,
    /// User and group of the image, by number.
    pub uid: u32,
    /// See `uid`.
    pub gid: u32,
    /// Architecture of the image, such as `amd64`.
    pub architecture: String,
    /// Port that the image listens on, where it is run as it is and one is known.
    #[serde(default)]
    pub port: Option<u16>,
    /// Its model; absent where the image is run as it is.
    pub model: Option<PublishedModel>,
    /// Image with the gateway, `/slipway`, where it was asked for.
    #[serde(default)]
    pub gateway: Option<Reference>,
}

/// A model version, and what serves it, named by digest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishedModel {
    /// Image whose only layer has the model's files below `/model`.
    pub reference: Reference,
    /// Format of the model.
    pub format: ModelFormat,
    /// Aliases of the model version.
    pub labels: Vec<String>,
    /// Image with `/slipway/slipway-runner` and `/slipway/python`.
    pub tools: Reference,
}
