//! The trait behind which services run: this host, a cluster.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use slipway_types::Digest;
use slipway_types::container::{ContainerId, LogNext, LogOptions};
use slipway_types::model::ModelFormat;
use slipway_types::service::{ReplicaState, ReplicaUsage, ServiceSpec};

use crate::plan::{Desired, Notice, Rollout};

/// Keeps declared services running, wherever its replicas are.
///
/// It is told the whole of what shall be, again and again, and takes a step towards it each time. What it remembers
/// between passes makes it patient (back-off, what it has asked for); nothing that must outlive the process is kept
/// there: a new engine, in a new daemon, adopts what runs.
///
/// The calls block, and never wait for a model to load, a process to end or a rollout to come to its end. They take
/// `&self`, because people ask for logs and addresses while a pass is under way; passes do not overlap. The suite in
/// the module `contract::engine` (feature `contract`) states this trait's meaning in tests.
pub trait Engine: Send + Sync {
    /// One pass: looks at everything, lets the caller publish where requests may go, then does what is due.
    ///
    /// `desired` names every service that is declared to run here, or that is being deleted. Services that the engine
    /// has and `desired` does not name are leftovers: they are removed too, and not told as forgotten.
    ///
    /// `publish` is called once, with what was seen and before anything is done: a replica that a pass marks as draining
    /// is published as such by a later one before it is stopped, and so loses its traffic first. When it fails,
    /// so does the pass, and nothing is done.
    ///
    /// `now` is the time since a fixed moment of the caller's, which must not run backwards.
    ///
    /// # Errors
    /// When the engine cannot look, or `publish` failed. What fails for one service is told in its notices and tried
    /// again, and never keeps a pass from the other services.
    fn pass(
        &self,
        desired: &[Desired],
        now: Duration,
        publish: &mut dyn FnMut(&[ObservedReplica]) -> Result<(), EngineError>,
    ) -> Result<Pass, EngineError>;

    /// A user asked for a service again, perhaps after mending what was outside of it: what failed before counts no more
    /// and waits for nothing. The next pass tries, and tells anew whether it fails.
    fn try_again(&self, service: &str);

    /// As [`Engine::try_again`], and where others own parts of what the service consists of, the next pass makes these
    /// the engine's own, once. An engine that shares nothing has nothing to take over.
    fn take_over(&self, service: &str) {
        self.try_again(service);
    }

    /// Looks at everything and does nothing: what [`Pass::replicas`] would be now.
    fn observe(&self) -> Result<Vec<ObservedReplica>, EngineError>;

    /// Where a service answers, as the last pass found; asks nobody. May be called while a pass publishes.
    fn endpoint(&self, service: &str) -> Endpoint;

    /// The log of a replica that [`Engine::observe`] shows, also of a stopped one.
    fn log(&self, replica: &ContainerId, options: &LogOptions) -> Result<Box<dyn LogLines>, EngineError>;

    /// What the replicas use now, measured for up to a second. Those of which nothing is known are missing.
    ///
    /// # Errors
    /// When nothing measures replicas here; the error says what would.
    fn usage(&self) -> Result<Vec<ReplicaUsage>, EngineError>;

    /// Removes what the engine keeps besides services, such as a gateway of its own. Called when no service is left and
    /// the engine is used no more.
    fn retire(&self) -> Result<(), EngineError>;
}

/// What a pass found and did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pass {
    /// Every replica that the engine had when the pass began, also ended ones that are not removed.
    pub replicas: Vec<ObservedReplica>,
    /// What happened since the pass before, and what was done.
    pub notices: Vec<Notice>,
    /// Each service that shall run.
    pub services: BTreeMap<String, Progress>,
    /// Services, with the number of their declared revision, that have all their replicas available and no older ones
    /// that serve: record these revisions as stable. Told again by every pass until [`Desired`] says so.
    pub completed: Vec<(String, u64)>,
    /// Services that shall not run any more, and of which nothing is left: their records can go. Told again by every
    /// pass that [`Desired`] names them in.
    pub forgotten: Vec<String>,
    /// Something is under way: pass again in tens of milliseconds, not when it is convenient.
    pub busy: bool,
    /// When to pass again at the latest if nothing changes before; `None` when only a change can give work.
    pub wake_at: Option<Duration>,
}

/// How one service comes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Replicas that were started again after they crashed: those that [`Desired`] knew of, and those since.
    pub restarts: u64,
    /// How far it is from its declared revision.
    pub rollout: Rollout,
    /// Why its declared revision does not come up, once several of its replicas failed before any was ready.
    pub failing: Option<String>,
}

/// Where a service answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// At the gateway of this host, which reaches ready replicas by [`ObservedReplica::socket`]. Whether the service is
    /// reachable, the gateway knows.
    Gateway,
    /// At an address of the engine's own: a node port, a load balancer, an ingress.
    Url {
        /// The address, with its scheme.
        url: String,
        /// Whether a request would be answered there.
        reachable: bool,
    },
    /// Nowhere, and that is how it shall be: it offers no port.
    Nowhere,
    /// Nowhere yet.
    Pending {
        /// Why, in one sentence.
        reason: String,
    },
}

/// Lines of a log, oldest first.
pub trait LogLines: Send {
    /// The next line, waiting for it no longer than `wait`.
    fn next_within(&mut self, wait: Duration) -> Result<LogNext, EngineError>;
}

/// Why an engine, or the replicas below it, could not do what was asked.
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
    /// The engine works, and has not what this needs; one sentence says what.
    #[error("{0}")]
    Lacks(String),
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

/// One revision of a service, with everything that it names resolved to content.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Revision {
    /// Number, growing with every change of the specification but the replica count.
    pub number: u64,
    /// The specification.
    pub spec: ServiceSpec,
    /// Digest of the configuration of the image.
    pub image_id: Digest,
    /// The model version; absent where the image is run as it is.
    pub model: Option<ModelPin>,
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
