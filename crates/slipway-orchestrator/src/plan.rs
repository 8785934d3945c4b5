//! What goes into a decision and what comes out.

use std::time::Duration;

use slipway_types::container::ContainerId;

use crate::engine::Revision;
use crate::replicas::StartReplica;

/// What a service shall be.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "there is one per service")]
pub enum Desired {
    /// It runs.
    Present {
        /// The declared revision; its specification gives the replica count.
        target: Revision,
        /// The last revision that [`crate::Pass::completed`] named; `None` before the first.
        stable: Option<Revision>,
        /// Restarts that were counted before: a new engine goes on from there.
        restarts: u64,
    },
    /// It shall not run: its replicas drain, stop and are removed.
    Absent {
        /// Name of the service.
        service: String,
        /// Why.
        why: Absence,
    },
}

impl Desired {
    /// Name of the service.
    pub fn service(&self) -> &str {
        match self {
            Self::Present { target, .. } => &target.spec.name,
            Self::Absent { service, .. } => service,
        }
    }
}

/// Why a service shall not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absence {
    /// A user deleted it.
    Deleted,
    /// No such service is declared: replicas of a deletion or an installation that was cut short.
    Unknown,
}

/// Something to do. All but the last two are calls of [`crate::Replicas`]; when one of those fails, tell
/// [`crate::ServiceMemory::action_failed`]. The last two are for the caller of [`crate::Engine::pass`].
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Start a replica.
    Start(Box<StartReplica>),
    /// Mark a replica as draining, then write the routing table without it.
    Drain {
        /// Which.
        container: ContainerId,
    },
    /// Ask a replica to end.
    Stop {
        /// Which.
        container: ContainerId,
        /// Time until it is ended by force.
        grace: Duration,
    },
    /// Remove what is left of a stopped replica.
    Remove {
        /// Which.
        container: ContainerId,
    },
    /// Record this revision as the stable one: all its replicas are available and every
    /// older one drains or is gone. Decided again until it is recorded.
    CompleteRollout {
        /// Its number.
        revision: u64,
    },
    /// Nothing of an absent service is left: its record can go. Decided again as long as it is there.
    Forget {
        /// Its name.
        service: String,
    },
}

/// An event to record; who records it adds sequence and time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// `service/<name>`.
    pub subject: String,
    /// Stable name of what happened, for example `replica.crashed`.
    pub kind: &'static str,
    /// One sentence for people.
    pub message: String,
}

/// How far a service is from its declared revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rollout {
    /// Every replica is of the declared revision.
    Steady,
    /// Replicas of the declared revision replace older ones.
    Progressing {
        /// Available replicas of the declared revision.
        available: u32,
        /// Declared number.
        wanted: u32,
    },
    /// The new replicas keep failing: the older revision goes on serving, and one new replica at a time is tried.
    Stalled {
        /// How the last one failed.
        reason: String,
        /// How many have failed.
        crashes: u32,
    },
}

/// What [`crate::reconcile`] decided.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// What to do, in order.
    pub actions: Vec<Action>,
    /// What to record.
    pub notices: Vec<Notice>,
    /// When to reconcile again if nothing changes before; `None` when only a change can give work.
    pub wake_at: Option<Duration>,
    /// How far the service is.
    pub rollout: Rollout,
}
