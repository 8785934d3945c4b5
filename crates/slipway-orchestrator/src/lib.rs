//! Pure decisions: desired state and observed state in, actions out.
//!
//! One loop per service, run by the daemon: list what the [`Engine`] has, call [`reconcile`], apply the actions that it
//! returns, record its notices as events, sleep until its wake-up time or until something changes, and write the
//! table that [`routes`] makes. Nothing here sees a container, a socket or a clock: time is a [`std::time::Duration`]
//! since a fixed moment of the caller's, which must not run backwards.
//!
//! ```text
//! Desired ─┐                      ┌─ actions  → Engine
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
mod routes;

pub use engine::{Engine, EngineError, ModelPin, ObservedReplica, Revision, StartReplica};
pub use memory::ServiceMemory;
pub use plan::{Absence, Action, Desired, Notice, Plan, Rollout};
pub use policy::Policy;
pub use reconcile::{reconcile, unknown_services};
pub use routes::{RouteLimits, ServedService, routes};

#[cfg(test)]
mod failing_tests;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
