//! `slipway up`: build, train, package and deploy as one request.

use serde::{Deserialize, Serialize};

use crate::ApiError;
use crate::build::{BuildEvent, BuildRequest};
use crate::digest::Digest;
use crate::run::{RunEvent, RunSpec};
use crate::service::ServiceSpec;

/// Body of `POST /v1/up`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UpRequest {
    /// How the image is made.
    pub build: BuildRequest,
    /// How the model is trained; the daemon fills in the image.
    pub train: RunSpec,
    /// What is served; the daemon fills in the image and the version.
    pub serve: ServiceSpec,
    /// Trains again though nothing changed.
    pub retrain: bool,
    /// Takes over what others own of the service's objects in a cluster.
    pub take_over: bool,
}

/// One line of the progress of `up`, as newline-delimited JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "phase", content = "data", rename_all = "snake_case")]
pub enum UpEvent {
    /// The image is being built.
    Build(BuildEvent),
    /// The model is being trained.
    Train(RunEvent),
    /// An earlier `up` left a run of the same inputs that is still going; its events follow.
    TrainAttached {
        /// The run.
        run: String,
    },
    /// Nothing changed since this version was trained.
    TrainSkipped {
        /// The version.
        version: u64,
    },
    /// Replicas start or are replaced.
    Deploy {
        /// What is waited for.
        message: String,
    },
    /// Done.
    Finished(UpOutcome),
    /// Ended before that.
    Failed(ApiError),
}

/// What `up` made, or found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UpOutcome {
    /// Whether anything was built, trained or deployed.
    pub changed: bool,
    /// Digest of the image's configuration.
    pub image: Digest,
    /// Model version that is served.
    pub version: u64,
    /// Service name.
    pub service: String,
    /// Ready replicas.
    pub ready: u32,
    /// Address of the gateway; empty where a cluster has not given the service one yet.
    pub url: String,
}
