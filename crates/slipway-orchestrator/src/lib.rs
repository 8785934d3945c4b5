//! Keeps services running: desired state and observed state in, actions out.
//!
//! Two traits, one above the other. An [`Engine`] keeps services running: the daemon tells it what is declared, again and
//! again. [`Replicas`] runs single replicas. [`Reconciling`] makes the first from the second: it lists what there is,
//! calls [`reconcile`] for every service and does what that decides. A cluster, whose own controllers look after
//! replicas, is an engine without it. [`routes`] makes the gateway's table from what engines see.
//!
//! Nothing here sees a container, a socket or a clock: time is a [`std::time::Duration`] since a fixed moment of the
//! caller's, which must not run backwards.
//!
//! ```text
//! Desired ─┐                      ┌─ actions  → Replicas
//! observed ┼─ reconcile(…, now) → ┼─ notices  → events
//! memory  ─┘                      └─ wake_at, rollout
//! ```

#![forbid(unsafe_code)]

#[cfg(any(test, feature = "contract"))]
pub mod contract;
mod decide;
pub mod engine;
#[cfg(any(test, feature = "contract"))]
pub mod fake;
mod memory;
mod observe;
mod plan;
mod policy;
mod reconcile;
mod reconciling;
pub mod replicas;
mod routes;

pub use engine::{
    Endpoint, Engine, EngineError, LogLines, ModelPin, ObservedReplica, Pass, Progress, Revision,
};
pub use memory::ServiceMemory;
pub use plan::{Absence, Action, Desired, Notice, Plan, Rollout};
pub use policy::Policy;
pub use reconcile::{reconcile, unknown_services};
pub use reconciling::Reconciling;
pub use replicas::{Consumption, Replicas, StartReplica};
pub use routes::{RouteLimits, ServedService, routes};

#[cfg(test)]
mod failing_tests;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
