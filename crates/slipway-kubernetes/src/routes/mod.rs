//! What the gateway of a namespace routes to: Services with [`ROUTE_ANNOTATION`] and the pods behind them.
//!
//! [`routes`] is pure: a snapshot in, the services of a routing table out. [`RouteWatch`] watches what it needs.

mod annotation;
mod endpoints;
mod follow;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use slipway_orchestrator::RouteLimits;
use slipway_types::name;
use slipway_types::service::{Backend, Route};

use crate::render::{ROUTE_ANNOTATION, VERSION_LABEL};
use crate::watch::Snapshot;
use endpoints::{Endpoint, Endpoints};

pub use annotation::RouteAnnotation;
pub use follow::{Change, RouteWatch};

/// Label of an EndpointSlice: the name of its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// What a namespace's objects say of routes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Routes {
    /// Services, by name.
    pub services: Vec<Route>,
    /// Services that are left out, and why, in a sentence each.
    pub problems: Vec<String>,
}

/// The routes of a namespace. A Service that cannot be understood takes no other one with it; of two that are for one
/// service the older is taken.
///
/// Pods that are ready get requests. A pod that ends, but serves still, finishes what it has, and gets new requests only
/// while no other pod is ready.
pub fn routes(snapshot: &Snapshot) -> Routes {
    let mut out = Routes::default();
    let mut known = BTreeSet::new();
    let slices = snapshot.by_label("EndpointSlice", SERVICE_NAME);
    let mut services: Vec<&Value> = snapshot.of("Service").iter().map(AsRef::as_ref).collect();
    services.sort_by_key(|service| {
        let metadata = &service["metadata"];
        [&metadata["creationTimestamp"], &metadata["name"]].map(|text| text.as_str().unwrap_or_default())
    });
    for service in services {
        let metadata = &service["metadata"];
        let Some(text) = metadata["annotations"][ROUTE_ANNOTATION].as_str() else { continue };
        let name = metadata["name"].as_str().unwrap_or_default();
        let annotation = match RouteAnnotation::read(text) {
            Ok(annotation) => annotation,
            Err(error) => {
                out.problems.push(format!(
                    "Service `{name}`: its annotation {ROUTE_ANNOTATION} is no route: {error}"
                ));
                continue;
            }
        };
        if let Some(bad) =
            [&annotation.service, &annotation.model].into_iter().find(|name| !name::is_valid(name))
        {
            out.problems.push(format!("Service `{name}`: `{bad}` cannot name a service or a model"));
            continue;
        }
        if !known.insert(annotation.service.clone()) {
            let problem =
                format!("Service `{name}`: another one is for the service `{}` already", annotation.service);
            out.problems.push(problem);
            continue;
        }
        let endpoints = Endpoints::read(slices.get(name).map_or(&[][..], Vec::as_slice));
        out.services.push(route(annotation, &endpoints, snapshot));
    }
    out.services.sort_by(|a, b| a.service.cmp(&b.service));
    out
}

fn route(annotation: RouteAnnotation, endpoints: &Endpoints, snapshot: &Snapshot) -> Route {
    let version = annotation.version.to_string();
    // An annotation without a version is of a Service whose pods are all of one.
    let declared = |endpoint: &Endpoint| {
        annotation.version == 0 || pod_version(snapshot, endpoint) == Some(version.as_str())
    };
    let backends: Vec<Backend> = endpoints
        .serving()
        .map(|endpoint| Backend {
            id: endpoint.id.clone(),
            name: Some(endpoint.name.clone()),
            address: slipway_types::service::Address::Tcp(endpoint.address),
            labels: if declared(endpoint) { annotation.labels.clone() } else { Vec::new() },
        })
        .collect();
    let pods = u32::try_from(backends.len().max(1)).unwrap_or(u32::MAX);
    Route {
        max_concurrency: RouteLimits::default().concurrency_per_replica.saturating_mul(pods),
        service: annotation.service,
        model: annotation.model,
        hosts: annotation.hosts,
        labels: annotation.labels,
        backends,
        max_body: annotation.max_body,
        timeout_ms: annotation.timeout_ms,
    }
}

/// The model version that a pod serves, as its label says.
fn pod_version<'a>(snapshot: &'a Snapshot, endpoint: &Endpoint) -> Option<&'a str> {
    let metadata = &snapshot.get("Pod", &endpoint.name)?["metadata"];
    // Another pod may have got its name.
    (metadata["uid"].as_str() == Some(endpoint.id.as_str())).then_some(())?;
    metadata["labels"][VERSION_LABEL].as_str()
}

/// Endpoints by the id of their pod.
type ById = BTreeMap<slipway_types::service::ReplicaId, Endpoint>;
