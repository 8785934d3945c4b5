//! The trait behind which replicas run: this host, Kubernetes, a Docker daemon.

use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use slipway_types::Digest;
use slipway_types::container::ContainerId;
use slipway_types::model::ModelFormat;
use slipway_types::service::{ReplicaState, ServiceSpec};

/// Runs replicas.
///
/// The calls block and are quick: they begin something or look, and never wait for a model to load or a process to
/// end. They are not `async`, because the native engine's work is system calls that block anyway; the daemon calls
/// them on blocking threads, an engine with an asynchronous client blocks on its own runtime's handle, and the
/// reconciler's simulation stays deterministic.
///
/// Every call may be repeated: a daemon that was killed between a call and its record makes it again.
/// The suite in the module `contract` (feature `contract`) states this trait's meaning in tests.
pub trait Engine: Send + Sync {
    /// Begins to start one replica and returns its id, by which [`Engine::list`] shows it from then on.
    ///
    /// While a replica of the same service, revision and slot lives, its id is returned and nothing new begins.
    /// Service, revision and slot are kept with the replica, so that another daemon finds them again.
    fn start(&self, replica: &StartReplica) -> Result<ContainerId, EngineError>;

    /// Every replica that this engine holds, of any service, also those that ended and are not removed.
    ///
    /// States come from the container and from the replica's own readiness answer: `Starting` until it was ready
    /// once, then `Ready` or `Unready`; `Draining` after [`Engine::drain`]; `Stopped` once the container ended.
    fn list(&self) -> Result<Vec<ObservedReplica>, EngineError>;

    /// Marks a replica as draining. It keeps running and finishes the requests that it has; the mark stays until it
    /// ends, also when the daemon restarts. Does nothing to one that is draining or stopped.
    fn drain(&self, container: &ContainerId) -> Result<(), EngineError>;

    /// Asks a replica to end (`SIGTERM`), and ends it by force once `grace` has passed. Marks it as draining too, so
    /// that it never shows as ready again. Returns at once; that it ended shows in [`Engine::list`]. Does nothing to
    /// one that is stopped.
    fn stop(&self, container: &ContainerId, grace: Duration) -> Result<(), EngineError>;

    /// Removes what is left of a stopped replica. Does nothing when there is no such replica.
    fn remove(&self, container: &ContainerId) -> Result<(), EngineError>;
}

/// Why an engine could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// There is no such replica.
    #[error("no replica `{0}`")]
    NotFound(ContainerId),
    /// Only stopped replicas can be removed.
    #[error("replica `{0}` is not stopped")]
    NotStopped(ContainerId),
    /// The image that the replica needs is not in the store.
    #[error("image {0} is not in the store")]
    ImageMissing(Digest),
    /// The model version that the replica needs is not in the store.
    #[error("model {0} is not in the store")]
    ModelMissing(Digest),
    /// The engine cannot be reached or cannot work now; the same call may succeed later.
    #[error("the engine is not available")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The engine tried and failed.
    #[error("could not {operation}")]
    Failed {
        /// What was attempted, as a verb phrase: `start replica 0 of digits`.
        operation: String,
        /// Why it failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// One replica to start: a revision and the slot that it fills.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StartReplica {
    /// What to run; the service's name is in its specification.
    pub revision: Revision,
    /// Number of the replica within its revision, from 0; free again once the replica stopped.
    pub slot: u32,
}

/// One revision of a service, with everything that it names resolved to content.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Revision {
    /// Number, growing with every change of the specification but the replica count.
    pub number: u64,
    /// The specification.
    pub spec: ServiceSpec,
    /// Digest of the configuration of the image.
    pub image_id: Digest,
    /// The model version.
    pub model: ModelPin,
}

/// A model version, resolved to content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelPin {
    /// Digest of its ModelPack manifest.
    pub manifest: Digest,
    /// Format of its files.
    pub format: ModelFormat,
    /// Aliases of the version, which requests may name as labels.
    #[serde(default)]
    pub labels: Vec<String>,
}

/// One replica as an engine sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedReplica {
    /// Its container.
    pub container: ContainerId,
    /// Service that it was started for.
    pub service: String,
    /// Revision of the service.
    pub revision: u64,
    /// Slot within the revision.
    pub slot: u32,
    /// State.
    pub state: ReplicaState,
    /// When its container started.
    pub started_at: Option<Timestamp>,
    /// Why it is not ready, or how it ended: `exited with code 1`, `killed: out of memory`.
    pub reason: Option<String>,
    /// It tried to load its model and could not; `reason` says why. It may be trying again.
    #[serde(default)]
    pub load_failed: bool,
    /// Unix socket on this host where it answers HTTP; only passed on to the routing table.
    pub socket: Option<PathBuf>,
}
