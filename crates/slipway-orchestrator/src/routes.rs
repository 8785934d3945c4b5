//! The gateway's routing table, from services and their replicas.

use std::collections::BTreeMap;

use slipway_types::service::{
    Address, Backend, DEFAULT_MAX_BODY, PREDICTION_LIMIT_MS, ReplicaState, Route, RoutingTable, ServiceSpec,
};

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
        Self { max_body: DEFAULT_MAX_BODY, timeout_ms: PREDICTION_LIMIT_MS, concurrency_per_replica: 1024 }
    }
}

/// A declared service, and which aliases name the versions of its revisions now.
#[derive(Clone, Debug)]
pub struct ServedService<'a> {
    /// What is declared.
    pub spec: &'a ServiceSpec,
    /// The revision that is declared.
    pub revision: u64,
    /// Aliases by revision; replicas of a revision that is missing here have none.
    pub labels: BTreeMap<u64, Vec<String>>,
}

/// The table in which each service has its ready replicas, of whatever revision, in a fixed order. Each replica has the
/// aliases of its own version: those of the declared one must not lead to replicas of another.
///
/// The generation is one more than the previous table's, or the previous one when nothing changed: then the two are
/// equal and nothing needs to be written.
pub fn routes<'a>(
    services: impl IntoIterator<Item = ServedService<'a>>,
    observed: &[ObservedReplica],
    limits: &RouteLimits,
    previous: &RoutingTable,
) -> RoutingTable {
    let mut routes: Vec<Route> =
        services.into_iter().map(|service| route(&service, observed, limits)).collect();
    routes.sort_by(|a, b| a.service.cmp(&b.service));
    let changed = routes != previous.services;
    RoutingTable { generation: previous.generation + u64::from(changed), services: routes }
}

fn route(service: &ServedService<'_>, observed: &[ObservedReplica], limits: &RouteLimits) -> Route {
    let ServedService { spec, revision, labels } = service;
    let of_revision = |revision: u64| labels.get(&revision).cloned().unwrap_or_default();
    let mut backends: Vec<Backend> = observed
        .iter()
        .filter(|replica| replica.service == spec.name && replica.state == ReplicaState::Ready)
        .filter_map(|replica| {
            Some(Backend {
                id: replica.container.clone().into(),
                name: None,
                address: Address::Socket(replica.socket.clone()?),
                labels: of_revision(replica.revision),
            })
        })
        .collect();
    backends.sort_by(|a, b| a.id.cmp(&b.id));
    let mut labels = of_revision(*revision);
    labels.extend(backends.iter().flat_map(|backend| backend.labels.iter().cloned()));
    labels.sort();
    labels.dedup();
    Route {
        service: spec.name.clone(),
        model: spec.model.clone(),
        hosts: Vec::new(),
        labels,
        backends,
        max_body: spec.max_body.unwrap_or(limits.max_body),
        timeout_ms: limits.timeout_ms,
        max_concurrency: limits.concurrency_per_replica.saturating_mul(spec.replicas.max(1)),
    }
}
