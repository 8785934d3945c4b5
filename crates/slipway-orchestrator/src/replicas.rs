//! The trait behind which single replicas run: processes of this host, containers of a Docker daemon.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use slipway_types::container::{ContainerId, LogOptions};

use crate::engine::{EngineError, LogLines, ObservedReplica, Revision};

/// Runs single replicas, and decides nothing: [`crate::Reconciling`] makes an [`crate::Engine`] of it.
///
/// The calls block and are quick: they begin something or look, and never wait for a model to load or a process to
/// end. They are not `async`, because the native replicas' work is system calls that block anyway; the daemon calls
/// them on blocking threads, one with an asynchronous client blocks on its own runtime's handle, and the
/// reconciler's simulation stays deterministic.
///
/// Every call may be repeated: a daemon that was killed between a call and its record makes it again.
/// The suite in the module `contract::replicas` (feature `contract`) states this trait's meaning in tests.
pub trait Replicas: Send + Sync {
    /// Begins to start one replica and returns its id, by which [`Replicas::list`] shows it from then on.
    ///
    /// While a replica of the same service, revision and slot lives, its id is returned and nothing new begins.
    /// Service, revision and slot are kept with the replica, so that another daemon finds them again.
    fn start(&self, replica: &StartReplica) -> Result<ContainerId, EngineError>;

    /// Every replica that there is, of any service, also those that ended and are not removed.
    ///
    /// States come from the container and from the replica's own readiness answer: `Starting` until it was ready
    /// once, then `Ready` or `Unready`; `Draining` after [`Replicas::drain`]; `Stopped` once the container ended.
    fn list(&self) -> Result<Vec<ObservedReplica>, EngineError>;

    /// Marks a replica as draining. It keeps running and finishes the requests that it has; the mark stays until it
    /// ends, also when the daemon restarts. Does nothing to one that is draining or stopped.
    fn drain(&self, container: &ContainerId) -> Result<(), EngineError>;

    /// Asks a replica to end (`SIGTERM`), and ends it by force once `grace` has passed. Marks it as draining too, so
    /// that it never shows as ready again. Returns at once; that it ended shows in [`Replicas::list`]. Does nothing to
    /// one that is stopped.
    fn stop(&self, container: &ContainerId, grace: Duration) -> Result<(), EngineError>;

    /// Removes what is left of a stopped replica. Does nothing when there is no such replica.
    fn remove(&self, container: &ContainerId) -> Result<(), EngineError>;

    /// The log of a replica that [`Replicas::list`] shows, also of a stopped one.
    fn log(&self, container: &ContainerId, options: &LogOptions) -> Result<Box<dyn LogLines>, EngineError>;

    /// What a replica has used and uses; `None` of a stopped one.
    fn consumption(&self, container: &ContainerId) -> Result<Option<Consumption>, EngineError>;
}

/// What a replica has used since it started, and what it uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Consumption {
    /// CPU time since its start.
    pub cpu: Duration,
    /// Memory in bytes, without what the kernel would drop first.
    pub memory: u64,
    /// Most memory that it may use, in bytes.
    pub memory_limit: Option<u64>,
}

/// One replica to start: a revision and the slot that it fills.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StartReplica {
    /// What to run; the service's name is in its specification.
    pub revision: Revision,
    /// Number of the replica within its revision, from 0; free again once the replica stopped.
    pub slot: u32,
}

impl<R: Replicas + ?Sized> Replicas for Arc<R> {
    fn start(&self, replica: &StartReplica) -> Result<ContainerId, EngineError> {
        (**self).start(replica)
    }

    fn list(&self) -> Result<Vec<ObservedReplica>, EngineError> {
        (**self).list()
    }

    fn drain(&self, container: &ContainerId) -> Result<(), EngineError> {
        (**self).drain(container)
    }

    fn stop(&self, container: &ContainerId, grace: Duration) -> Result<(), EngineError> {
        (**self).stop(container, grace)
    }

    fn remove(&self, container: &ContainerId) -> Result<(), EngineError> {
        (**self).remove(container)
    }

    fn log(&self, container: &ContainerId, options: &LogOptions) -> Result<Box<dyn LogLines>, EngineError> {
        (**self).log(container, options)
    }

    fn consumption(&self, container: &ContainerId) -> Result<Option<Consumption>, EngineError> {
        (**self).consumption(container)
    }
}
