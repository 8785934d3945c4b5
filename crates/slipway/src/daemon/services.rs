//! Declared services, as the API changes and shows them.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Deserialize;
use slipway_orchestrator::{Endpoint, ModelPin, ObservedReplica, Revision};
use slipway_types::engine::NATIVE;
use slipway_types::expose::{ExposeRequest, Exposure};
use slipway_types::model::{ModelRef, ModelVersion, valid_model_name};
use slipway_types::service::{Batch, ReplicaState, ReplicaStatus, ReplicaUsage, ServiceSpec, ServiceStatus};
use slipway_types::{ApiError, Digest, ErrorCode};

use super::reconciler::engine_error;
use super::state::ServiceRecord;
use super::{App, data_plane, engines, images, models};

/// Kind of the pins that keep images and models of services in the store.
const PIN: &str = "service";
/// Most replicas of a service: a slip of the finger must not fill the machine.
const MAX_REPLICAS: u32 = 256;

/// Body of `POST /v1/services`.
#[derive(Debug, Deserialize)]
pub struct Declare {
    /// What it shall be; `model` may be a reference such as `digits@champion`.
    pub spec: ServiceSpec,
    /// Keeps the replica count of a service that exists; one replica otherwise.
    #[serde(default)]
    pub keep_replicas: bool,
    /// Settings to replace in a service that exists; its others stay, and those of `spec` do not count.
    #[serde(default)]
    pub change: Option<Changes>,
    /// Engine that it shall run on; where it runs, else the default one, when absent.
    #[serde(default)]
    pub engine: Option<String>,
}

/// Settings that a user gave; what is `None` or empty stays as it is.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Changes {
    /// Most rows in one batch.
    pub batch_size: Option<u32>,
    /// How long an idle worker waits for more rows, in microseconds.
    pub batch_delay_us: Option<u64>,
    /// Memory of each replica, in bytes.
    pub memory: Option<u64>,
    /// Thousandths of a CPU for each replica.
    pub cpu_millis: Option<u32>,
    /// `KEY=value` pairs; each replaces the one with its key.
    pub env: Vec<String>,
    /// Largest request body in bytes.
    pub max_body: Option<u64>,
}

impl Changes {
    /// Fills a specification: what was given, else what the service has, else the default.
    fn apply(&self, spec: &mut ServiceSpec, before: Option<&ServiceSpec>) {
        let old = before.cloned().unwrap_or_default();
        spec.batch = Batch {
            max_size: self.batch_size.unwrap_or(old.batch.max_size),
            max_delay_us: self.batch_delay_us.unwrap_or(old.batch.max_delay_us),
            ..old.batch
        };
        spec.limits = old.limits;
        spec.limits.memory = self.memory.or(old.limits.memory);
        spec.limits.cpu_millis = self.cpu_millis.or(old.limits.cpu_millis);
        spec.max_body = self.max_body.or(old.max_body);
        spec.env = old.env;
        for pair in &self.env {
            let key = |pair: &str| pair.split('=').next().unwrap_or_default().to_owned();
            spec.env.retain(|known| key(known) != key(pair));
            spec.env.push(pair.clone());
        }
    }
}

/// Declares a service or changes it. Whether anything changed is the second value.
pub fn declare(app: &Arc<App>, request: Declare) -> Result<(ServiceStatus, bool), ApiError> {
    let mut spec = request.spec;
    if !valid_model_name(&spec.name) {
        return Err(invalid(format!(
            "`{}` is not a service name: {}",
            spec.name,
            slipway_types::model::MODEL_NAME_RULE
        )));
    }
    let _claim = app.claim(&format!("service {}", spec.name))?;
    let before = app.state.service(&spec.name)?;
    let serving = before.as_ref().filter(|record| !record.deleting).map(|record| &record.target.spec);
    let engine = engine(app, request.engine.as_deref(), before.as_ref())?;
    if let Some(change) = &request.change {
        change.apply(&mut spec, serving);
    }
    if spec.batch.max_size == 0 {
        return Err(invalid("a batch has at least one row".to_owned()));
    }
    let reference: ModelRef = spec.model.parse().map_err(invalid)?;
    // A version must not be removed between its look-up and its pin.
    let _model = app.claim(&format!("model {}", reference.model))?;
    let _lease = app.store.lease();
    let version = models::find(app, &reference)?;
    spec.model.clone_from(&version.model);
    spec.version = version.version;
    let image_id = image(app, &mut spec, &version)?;
    if request.keep_replicas {
        spec.replicas = serving.map_or(1, |spec| spec.replicas);
    }
    replicas_in_range(spec.replicas)?;
    if spec.entry.is_none() {
        spec.entry = models::entry(app, &version.manifest)?;
    }
    let pin = ModelPin {
        manifest: version.manifest.clone(),
        format: version.format,
        labels: version.aliases.clone(),
    };
    let record = next_record(before.as_ref(), spec, image_id, pin, engine);
    let changed = before.as_ref() != Some(&record);
    if changed {
        pin_revision(app, &record.target)?;
        app.state.put_service(&record)?;
        let spec = &record.target.spec;
        app.event(
            &format!("service/{}", spec.name),
            "service.declared",
            &format!(
                "Revision {}: {}@{}, {} replicas.",
                record.target.number, spec.model, spec.version, spec.replicas
            ),
        );
    }
    app.try_again(&record.target.spec.name);
    Ok((status_of(app, &record), changed))
}

/// The engine of a service: a service that runs stays where it is.
fn engine(app: &App, asked: Option<&str>, before: Option<&ServiceRecord>) -> Result<String, ApiError> {
    let Some(before) = before else { return engines::choose(app, asked) };
    let runs_on = &before.engine;
    if let Some(asked) = asked.filter(|asked| asked != runs_on) {
        engines::choose(app, Some(asked))?;
        let name = &before.target.spec.name;
        let message = if before.deleting {
            format!("`{name}` is still being deleted from the engine `{runs_on}`")
        } else {
            format!("`{name}` runs on the engine `{runs_on}`")
        };
        return Err(ApiError::new(ErrorCode::Conflict, message).with_hint(format!(
            "`slipway delete {name}` first, or deploy under another name with `--name`"
        )));
    }
    Ok(runs_on.clone())
}

/// A new revision when anything but the replica count differs; the same one otherwise.
fn next_record(
    before: Option<&ServiceRecord>,
    spec: ServiceSpec,
    image_id: Digest,
    model: ModelPin,
    engine: String,
) -> ServiceRecord {
    let first = |number| ServiceRecord {
        target: Revision { number, spec: spec.clone(), image_id: image_id.clone(), model: model.clone() },
        stable: None,
        deleting: false,
        restarts: 0,
        engine: engine.clone(),
        exposure: Exposure::default(),
    };
    let Some(before) = before else { return first(1) };
    if before.deleting {
        // Replicas of the one that goes may still run: their revision number must not mean this one.
        return first(before.target.number + 1);
    }
    let old = &before.target;
    // A moved alias changes labels alone, which is no reason to replace replicas.
    let same = ServiceSpec { replicas: spec.replicas, ..old.spec.clone() } == spec
        && old.image_id == image_id
        && old.model.manifest == model.manifest;
    let mut record = before.clone();
    if same {
        record.target.spec.replicas = spec.replicas;
    } else {
        record.target = Revision { number: old.number + 1, spec, image_id, model };
    }
    record
}

/// The image to serve in: the one that was asked for, else the one that the model was trained in.
fn image(app: &App, spec: &mut ServiceSpec, version: &ModelVersion) -> Result<Digest, ApiError> {
    if !spec.image.is_empty() {
        return images::find(app, &spec.image);
    }
    let id = version.lineage.image.clone().ok_or_else(|| {
        invalid(format!(
            "{}@{} was not trained here, so its image is not known",
            version.model, version.version
        ))
        .with_hint("name an image that has the model's framework with `--image`")
    })?;
    spec.image = id.to_string();
    images::find(app, id.as_str()).map_err(|error| {
        if error.code != ErrorCode::NotFound {
            return error;
        }
        let reference = format!("{}@{}", version.model, version.version);
        ApiError::new(
            ErrorCode::NotFound,
            format!("the image that {reference} was trained in is not here: {id}"),
        )
        .with_hint("pull it by the name under which it was pushed, or name another one with `--image`")
    })
}

fn replicas_in_range(replicas: u32) -> Result<(), ApiError> {
    if replicas > MAX_REPLICAS {
        return Err(invalid(format!(
            "{replicas} replicas are more than one machine runs: at most {MAX_REPLICAS}"
        )));
    }
    Ok(())
}

/// Changes how many replicas run.
pub fn scale(app: &Arc<App>, name: &str, replicas: u32) -> Result<ServiceStatus, ApiError> {
    replicas_in_range(replicas)?;
    let _claim = app.claim(&format!("service {name}"))?;
    let mut record = find(app, name)?;
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
    app.try_again(name);
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
    if record.exposure != request.exposure {
        record.exposure = request.exposure.clone();
        app.state.put_service(&record)?;
        app.event(&format!("service/{name}"), "service.exposed", &record.exposure.to_string());
    }
    app.try_again(name);
    status(app, name)
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
    status.reachable = Some(match app.engines.endpoint(&record) {
        Endpoint::Gateway => any_ready && data_plane::answers(app, name),
        Endpoint::Url { reachable, .. } => reachable,
        Endpoint::Pending { .. } => false,
    });
    Ok(status)
}

/// Every service.
pub fn list(app: &App) -> Result<Vec<ServiceStatus>, ApiError> {
    Ok(app.state.services()?.iter().map(|record| status_of(app, record)).collect())
}

fn status_of(app: &App, record: &ServiceRecord) -> ServiceStatus {
    let name = &record.target.spec.name;
    let (replicas, trouble) = app.engines.replicas_of(record);
    let status = |replica: ObservedReplica| ReplicaStatus {
        container: replica.container,
        revision: replica.revision,
        state: replica.state,
        started_at: replica.started_at,
        reason: replica.reason,
    };
    ServiceStatus {
        spec: record.target.spec.clone(),
        image_id: record.target.image_id.clone(),
        revision: record.target.number,
        replicas: replicas.into_iter().map(status).collect(),
        restarts: record.restarts,
        url: match app.engines.endpoint(record) {
            Endpoint::Gateway => format!("http://{}", app.settings.values.gateway.listen),
            Endpoint::Url { url, .. } => url,
            Endpoint::Pending { .. } => String::new(),
        },
        reachable: None,
        failing: app.failing(name, record.target.number),
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
    app.store.pin(PIN, &format!("{name}/model"), &revision.model.manifest).map_err(images::store_error)
}

/// Lets go of revisions of a service but those of `keep`.
pub fn unpin_others(app: &App, service: &str, keep: &[u64]) -> Result<(), ApiError> {
    for (name, _) in app.store.pins(PIN).map_err(images::store_error)? {
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
    for (name, _) in app.store.pins(PIN).map_err(images::store_error)? {
        let mut parts = name.split('/');
        let (owner, number) = (parts.next().unwrap_or(""), parts.next().and_then(|n| n.parse::<u64>().ok()));
        let declared = records.iter().any(|record| {
            let stable = record.stable.as_ref().map(|stable| stable.number);
            record.target.spec.name == owner && (number == Some(record.target.number) || number == stable)
        });
        if !declared {
            app.store.unpin(PIN, &name).map_err(images::store_error)?;
        }
    }
    Ok(())
}

/// Whether any service uses a model's manifest.
pub fn uses_model(app: &App, manifest: &Digest) -> Result<Option<String>, ApiError> {
    let uses = |revision: &Revision| revision.model.manifest == *manifest;
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
    use slipway_types::model::ModelFormat;

    fn pin(seed: u8) -> ModelPin {
        ModelPin { manifest: Digest::from_sha256([seed; 32]), format: ModelFormat::Onnx, labels: Vec::new() }
    }

    #[test]
    fn settings_that_are_not_given_stay() {
        let mut old = ServiceSpec { env: vec!["A=1".into(), "B=2".into()], ..ServiceSpec::default() };
        old.limits.memory = Some(1 << 30);
        old.batch.max_size = 8;
        old.max_body = Some(5);
        let mut spec = ServiceSpec::default();
        Changes::default().apply(&mut spec, Some(&old));
        assert_eq!(spec, old);
        let given = Changes {
            memory: Some(2),
            batch_delay_us: Some(7),
            env: vec!["A=3".into(), "C=4".into()],
            ..Changes::default()
        };
        given.apply(&mut spec, Some(&old));
        assert_eq!((spec.limits.memory, spec.batch.max_size, spec.batch.max_delay_us), (Some(2), 8, 7));
        assert_eq!(spec.env, ["B=2", "A=3", "C=4"]);
        given.apply(&mut spec, None);
        assert_eq!((spec.batch.max_size, spec.max_body), (Batch::default().max_size, None));
    }

    #[test]
    fn only_real_changes_make_a_revision() {
        let image = Digest::from_sha256([1; 32]);
        let spec = ServiceSpec {
            name: "a".into(),
            model: "m".into(),
            version: 1,
            replicas: 1,
            ..Default::default()
        };
        let first = next_record(None, spec.clone(), image.clone(), pin(1), NATIVE.to_owned());
        assert_eq!(first.target.number, 1);
        let same = next_record(Some(&first), spec.clone(), image.clone(), pin(1), NATIVE.to_owned());
        assert_eq!(same, first);
        let scaled = next_record(
            Some(&first),
            ServiceSpec { replicas: 3, ..spec.clone() },
            image.clone(),
            pin(1),
            NATIVE.to_owned(),
        );
        assert_eq!((scaled.target.number, scaled.target.spec.replicas), (1, 3));
        let mut going = first.clone();
        going.deleting = true;
        let again = next_record(Some(&going), spec.clone(), image.clone(), pin(1), NATIVE.to_owned());
        assert_eq!((again.target.number, again.deleting), (2, false));
        let labelled = ModelPin { labels: vec!["champion".into()], ..pin(1) };
        assert_eq!(
            next_record(Some(&first), spec.clone(), image.clone(), labelled, NATIVE.to_owned()).target.number,
            1
        );
        let updated =
            next_record(Some(&first), ServiceSpec { version: 2, ..spec }, image, pin(2), NATIVE.to_owned());
        assert_eq!((updated.target.number, updated.stable), (2, None));
    }
}
