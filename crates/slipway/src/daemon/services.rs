//! Declared services, as the API changes and shows them.

use std::collections::BTreeSet;
use std::sync::Arc;

use slipway_orchestrator::{Endpoint, ObservedReplica, Revision};
use slipway_types::engine::NATIVE;
use slipway_types::expose::{ExposeRequest, Exposure};
use slipway_types::name::argument;
use slipway_types::service::{ReplicaState, ReplicaStatus, ReplicaUsage, ServiceStatus};
use slipway_types::{ApiError, Digest, ErrorCode};

use super::reconciler::engine_error;
use super::state::ServiceRecord;
use super::{App, data_plane, images};

/// Kind of the pins that keep images and models of services in the store.
const PIN: &str = "service";
/// Most replicas of a service: a slip of the finger must not fill the machine.
const MAX_REPLICAS: u32 = 256;

/// Refuses a replica count that can only be a mistake.
pub fn replicas_in_range(replicas: u32) -> Result<(), ApiError> {
    if replicas > MAX_REPLICAS {
        return Err(invalid(format!(
            "{replicas} replicas are more than one machine runs: at most {MAX_REPLICAS}"
        )));
    }
    Ok(())
}

/// Changes how many replicas run.
pub fn scale(app: &Arc<App>, name: &str, replicas: u32, take_over: bool) -> Result<ServiceStatus, ApiError> {
    replicas_in_range(replicas)?;
    let _claim = app.claim(&format!("service {name}"))?;
    let mut record = find(app, name)?;
    if let Some(range) = record.target.spec.autoscale {
        let message = format!("`{name}` has {range}");
        let hint = format!("`slipway deploy {} --replicas {replicas}` ends that", argument(name));
        return Err(ApiError::new(ErrorCode::Conflict, message).with_hint(hint));
    }
    if record.target.spec.replicas != replicas {
        let before = record.target.spec.replicas;
        record.target.spec.replicas = replicas;
        app.state.put_service(&record)?;
        app.event(
            &format!("service/{name}"),
            "service.scaled",
            &format!("From {before} to {replicas} replicas."),
        );
    }
    app.try_again(name, take_over);
    Ok(status_of(app, &record))
}

/// Changes how a service is reached from outside of its cluster.
pub fn expose(app: &Arc<App>, request: &ExposeRequest) -> Result<ServiceStatus, ApiError> {
    let name = &request.service;
    let _claim = app.claim(&format!("service {name}"))?;
    let mut record = find(app, name)?;
    if record.engine == NATIVE {
        let gateway = &app.settings.values.gateway.listen;
        let message =
            format!("`{name}` runs on this host, where every service is reached at http://{gateway}");
        return Err(ApiError::new(ErrorCode::InvalidArgument, message).with_hint(
            "`gateway.listen` in the settings file says where the gateway listens; `expose` is for services on a cluster",
        ));
    }
    let mut exposure = request.exposure.clone();
    let mut more = None;
    if record.target.model.is_none() {
        more = way_to_image(app, &record.target, request.port, &mut exposure)?;
    }
    if let Some(port) = more {
        record.target.number += 1;
        record.target.spec.port = Some(port);
        pin_revision(app, &record.target)?;
    }
    if record.exposure.as_ref() != Some(&exposure) || more.is_some() {
        record.exposure = Some(exposure.clone());
        app.state.put_service(&record)?;
        app.event(&format!("service/{name}"), "service.exposed", &exposure.to_string());
    }
    app.try_again(name, request.take_over);
    status(app, name)
}

/// Fits the way to an image that is run as it is. Gives the port that it listens on where nobody knew one before.
fn way_to_image(
    app: &App,
    revision: &Revision,
    asked: Option<u16>,
    exposure: &mut Exposure,
) -> Result<Option<u16>, ApiError> {
    let name = &revision.spec.name;
    match (container_port(app, revision)?, asked) {
        (None, Some(asked)) => return Ok(Some(asked)),
        (None, None) => {
            let image = &revision.spec.image;
            return Err(invalid(format!(
                "nobody says on which port `{name}` listens: {image} does not expose one"
            ))
            .with_hint("`--port PORT` says it"));
        }
        (Some(known), None) => match exposure {
            Exposure::NodePort { port, .. } | Exposure::LoadBalancer { port } => *port = known,
            Exposure::ClusterIp | Exposure::Host { .. } => {}
        },
        (Some(known), Some(asked)) => {
            let own = matches!(exposure, Exposure::ClusterIp | Exposure::Host { .. });
            if own && asked != known {
                return Err(invalid(format!("`{name}` listens on port {known}, and is reached there"))
                    .with_hint(format!(
                        "leave `--port` out, or say that it listens elsewhere: `slipway deploy {} --port {asked}`",
                        argument(name)
                    )));
            }
        }
    }
    Ok(None)
}

/// Port that a revision whose image is run as it is listens on: the one that was said, else the only one that the image
/// exposes.
pub fn container_port(app: &App, revision: &Revision) -> Result<Option<u16>, ApiError> {
    if revision.model.is_some() || revision.spec.port.is_some() {
        return Ok(revision.spec.port);
    }
    let image = app.store.image(&revision.image_id).map_err(images::store_error)?;
    let exposed = image.config.config().as_ref().and_then(|config| config.exposed_ports().as_ref());
    Ok(exposed.and_then(|ports| only_port(ports)))
}

/// The only TCP port of an image's configuration, such as `8080/tcp`.
fn only_port(exposed: &[String]) -> Option<u16> {
    let tcp = |text: &String| match text.split_once('/') {
        None => text.parse().ok(),
        Some((port, protocol)) if protocol.eq_ignore_ascii_case("tcp") => port.parse().ok(),
        Some(_) => None,
    };
    let mut ports = exposed.iter().filter_map(tcp);
    ports.next().filter(|port| *port > 0 && ports.next().is_none())
}

/// Lets a service's replicas drain and end, then forgets it.
pub fn delete(app: &Arc<App>, name: &str) -> Result<(), ApiError> {
    let _claim = app.claim(&format!("service {name}"))?;
    let mut record = find(app, name)?;
    record.deleting = true;
    app.state.put_service(&record)?;
    app.event(&format!("service/{name}"), "service.deleting", "Its replicas drain and stop.");
    app.wake();
    Ok(())
}

/// One service.
pub fn find(app: &App, name: &str) -> Result<ServiceRecord, ApiError> {
    app.state.service(name)?.ok_or_else(|| {
        ApiError::new(ErrorCode::NotFound, format!("no service is called `{name}`"))
            .with_hint("`slipway services` lists those that there are")
    })
}

/// One service and its replicas as last seen.
pub fn status(app: &App, name: &str) -> Result<ServiceStatus, ApiError> {
    let record = find(app, name)?;
    let mut status = status_of(app, &record);
    // Without a ready replica the answer is known, and asking would count as a failed request.
    let any_ready = status.replicas.iter().any(|replica| replica.state == ReplicaState::Ready);
    status.reachable = match app.engines.endpoint(&record) {
        Endpoint::Gateway => Some(any_ready && data_plane::answers(app, name)),
        // The gateway there learns of replicas a moment after the engine does. What an image itself runs is not asked.
        Endpoint::Url { url, reachable } => Some(
            reachable
                && (record.target.model.is_none() || data_plane::answers_at(&url, name).unwrap_or(true)),
        ),
        Endpoint::Pending { .. } => Some(false),
        Endpoint::Nowhere => None,
    };
    Ok(status)
}

/// Every service.
pub fn list(app: &App) -> Result<Vec<ServiceStatus>, ApiError> {
    Ok(app.state.services()?.iter().map(|record| status_of(app, record)).collect())
}

/// A service and its replicas as last seen.
pub fn status_of(app: &App, record: &ServiceRecord) -> ServiceStatus {
    let name = &record.target.spec.name;
    let (replicas, trouble) = app.engines.replicas_of(record);
    let status = |replica: ObservedReplica| ReplicaStatus {
        container: replica.container,
        revision: replica.revision,
        state: replica.state,
        started_at: replica.started_at,
        reason: replica.reason,
    };
    let endpoint = app.engines.endpoint(record);
    ServiceStatus {
        spec: record.target.spec.clone(),
        image_id: record.target.image_id.clone(),
        revision: record.target.number,
        replicas: replicas.into_iter().map(status).collect(),
        restarts: record.restarts,
        pending: match &endpoint {
            Endpoint::Pending { reason } => Some(reason.clone()),
            Endpoint::Gateway | Endpoint::Url { .. } | Endpoint::Nowhere => None,
        },
        url: match endpoint {
            Endpoint::Gateway => format!("http://{}", app.settings.values.gateway.listen),
            Endpoint::Url { url, .. } => url,
            Endpoint::Pending { .. } | Endpoint::Nowhere => String::new(),
        },
        reachable: None,
        failing: app.failing(name, record.target.number),
        unseen: app.is_unseen(name),
        engine: record.engine.clone(),
        trouble,
    }
}

/// What the replicas of a service use, or those of all, the busiest first.
pub fn top(app: &App, name: Option<&str>) -> Result<Vec<ReplicaUsage>, ApiError> {
    let records = match name {
        Some(name) => vec![find(app, name)?],
        None => app.state.services()?,
    };
    let on: BTreeSet<&str> = records.iter().map(|record| record.engine.as_str()).collect();
    let mut all = Vec::new();
    for engine in on {
        let usage = app.engines.get(engine)?.engine.usage().map_err(|error| engine_error(&error))?;
        let asked =
            |u: &ReplicaUsage| records.iter().any(|r| r.engine == engine && r.target.spec.name == u.service);
        all.extend(usage.into_iter().filter(asked));
    }
    all.sort_by(|a, b| b.cpu_millis.cmp(&a.cpu_millis).then_with(|| a.container.cmp(&b.container)));
    Ok(all)
}

/// Keeps what a revision needs in the store.
pub fn pin_revision(app: &App, revision: &Revision) -> Result<(), ApiError> {
    let name = format!("{}/{}", revision.spec.name, revision.number);
    app.store.pin(PIN, &format!("{name}/image"), &revision.image_id).map_err(images::store_error)?;
    let Some(model) = &revision.model else { return Ok(()) };
    app.store.pin(PIN, &format!("{name}/model"), &model.manifest).map_err(images::store_error)
}

/// Lets go of revisions of a service but those of `keep`.
pub fn unpin_others(app: &App, service: &str, keep: &[u64]) -> Result<(), ApiError> {
    for name in app.store.pins_below(PIN, &format!("{service}/")).map_err(images::store_error)? {
        let mut parts = name.split('/');
        let (owner, number) = (parts.next(), parts.next().and_then(|n| n.parse::<u64>().ok()));
        if owner == Some(service) && number.is_some_and(|n| !keep.contains(&n)) {
            app.store.unpin(PIN, &name).map_err(images::store_error)?;
        }
    }
    Ok(())
}

/// Drops pins of services and revisions that nothing declares: what a crash left between two writes.
pub fn drop_stale_pins(app: &App) -> Result<(), ApiError> {
    let records = app.state.services()?;
    let mut declared = BTreeSet::new();
    for record in &records {
        for revision in std::iter::once(&record.target).chain(&record.stable) {
            declared.insert((revision.spec.name.as_str(), revision.number));
        }
    }
    for (name, _) in app.store.pins(PIN).map_err(images::store_error)? {
        let mut parts = name.split('/');
        let (owner, number) = (parts.next().unwrap_or(""), parts.next().and_then(|n| n.parse::<u64>().ok()));
        if number.is_none_or(|number| !declared.contains(&(owner, number))) {
            app.store.unpin(PIN, &name).map_err(images::store_error)?;
        }
    }
    Ok(())
}

/// Whether any service uses a model's manifest.
pub fn uses_model(app: &App, manifest: &Digest) -> Result<Option<String>, ApiError> {
    let uses = |revision: &Revision| revision.model.as_ref().is_some_and(|model| model.manifest == *manifest);
    let found = app
        .state
        .services()?
        .into_iter()
        .find(|record| uses(&record.target) || record.stable.as_ref().is_some_and(uses));
    Ok(found.map(|record| record.target.spec.name))
}

fn invalid(reason: String) -> ApiError {
    ApiError::new(ErrorCode::InvalidArgument, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_exposed_port_is_the_port() {
        let port =
            |exposed: &[&str]| only_port(&exposed.iter().map(|&text| text.to_owned()).collect::<Vec<_>>());
        assert_eq!(port(&["8080/tcp"]), Some(8080));
        assert_eq!(port(&["8080"]), Some(8080));
        assert_eq!(port(&["53/udp", "8080/TCP"]), Some(8080));
        for none in [&[][..], &["80/tcp", "443/tcp"], &["53/udp"], &["x/tcp"], &["0/tcp"]] {
            assert_eq!(port(none), None, "{none:?}");
        }
    }
}
