//! The gateway's routing table, from services and their replicas.

use slipway_types::service::{Backend, ReplicaState, Route, RoutingTable, ServiceSpec};

use crate::engine::ObservedReplica;

/// Limits that a service's specification does not state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteLimits {
    /// Largest request body in bytes.
    pub max_body: u64,
    /// Longest time for one request, in milliseconds.
    pub timeout_ms: u64,
    /// Most requests under way per replica.
    pub concurrency_per_replica: u32,
}

impl Default for RouteLimits {
    fn default() -> Self {
        Self { max_body: 32 << 20, timeout_ms: 60_000, concurrency_per_replica: 1024 }
    }
}

/// The table in which each service has its ready replicas, of whatever revision, in a fixed order. A service comes with
/// the aliases that name its version now.
///
/// The generation is one more than the previous table's, or the previous one when nothing changed: then the two are
/// equal and nothing needs to be written.
pub fn routes<'a>(
    services: impl IntoIterator<Item = (&'a ServiceSpec, Vec<String>)>,
    observed: &[ObservedReplica],
    limits: &RouteLimits,
    previous: &RoutingTable,
) -> RoutingTable {
    let mut routes: Vec<Route> = services
        .into_iter()
        .map(|(spec, labels)| Route { labels, ..route(spec, observed, limits) })
        .collect();
    routes.sort_by(|a, b| a.service.cmp(&b.service));
    let changed = routes != previous.services;
    RoutingTable { generation: previous.generation + u64::from(changed), services: routes }
}

fn route(spec: &ServiceSpec, observed: &[ObservedReplica], limits: &RouteLimits) -> Route {
    let mut backends: Vec<Backend> = observed
        .iter()
        .filter(|replica| replica.service == spec.name && replica.state == ReplicaState::Ready)
        .filter_map(|replica| {
            Some(Backend { id: replica.container.clone(), socket: replica.socket.clone()? })
        })
        .collect();
    backends.sort_by(|a, b| a.id.cmp(&b.id));
    Route {
        service: spec.name.clone(),
        model: spec.model.clone(),
        labels: Vec::new(),
        backends,
        max_body: spec.max_body.unwrap_or(limits.max_body),
        timeout_ms: limits.timeout_ms,
        max_concurrency: limits.concurrency_per_replica.saturating_mul(spec.replicas.max(1)),
    }
}
