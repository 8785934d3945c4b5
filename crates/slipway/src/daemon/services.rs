//! Declared services, as the API changes and shows them.

use std::sync::Arc;

use serde::Deserialize;
use slipway_orchestrator::{ModelPin, Revision};
use slipway_types::model::{ModelRef, ModelVersion, valid_model_name};
use slipway_types::service::{ReplicaStatus, ServiceSpec, ServiceStatus};
use slipway_types::{ApiError, Digest, ErrorCode};

use super::state::ServiceRecord;
use super::{App, data_plane, images, models};

/// Kind of the pins that keep images and models of services in the store.
const PIN: &str = "service";

/// Body of `POST /v1/services`.
#[derive(Debug, Deserialize)]
pub struct Declare {
    /// What it shall be; `model` may be a reference such as `digits@champion`.
    pub spec: ServiceSpec,
    /// Keeps the replica count of a service that exists; one replica otherwise.
    #[serde(default)]
    pub keep_replicas: bool,
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
    if spec.batch.max_size == 0 {
        return Err(invalid("a batch has at least one row".to_owned()));
    }
    let _claim = app.claim(&format!("service {}", spec.name))?;
    let reference: ModelRef = spec.model.parse().map_err(invalid)?;
    // A version must not be removed between its look-up and its pin.
    let _model = app.claim(&format!("model {}", reference.model))?;
    let _lease = app.store.lease();
    let version = models::find(app, &reference)?;
    spec.model.clone_from(&version.model);
    spec.version = version.version;
    let image_id = image(app, &mut spec, &version)?;
    let before = app.state.service(&spec.name)?;
    if request.keep_replicas {
        spec.replicas = before.as_ref().map_or(1, |record| record.target.spec.replicas);
    }
    if spec.entry.is_none() {
        spec.entry = models::entry(app, &version.manifest)?;
    }
    let pin = ModelPin {
        manifest: version.manifest.clone(),
        format: version.format,
        labels: version.aliases.clone(),
    };
    let record = next_record(before.as_ref(), spec, image_id, pin);
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
        app.changed.notify_one();
    }
    Ok((status_of(app, &record), changed))
}

/// A new revision when anything but the replica count differs; the same one otherwise.
fn next_record(
    before: Option<&ServiceRecord>,
    spec: ServiceSpec,
    image_id: Digest,
    model: ModelPin,
) -> ServiceRecord {
    let Some(before) = before else {
        let target = Revision { number: 1, spec, image_id, model };
        return ServiceRecord { target, stable: None, deleting: false, restarts: 0 };
    };
    if before.deleting {
        // Replicas of the one that goes may still run: their revision number must not mean this one.
        let target = Revision { number: before.target.number + 1, spec, image_id, model };
        return ServiceRecord { target, stable: None, deleting: false, restarts: 0 };
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
    images::find(app, id.as_str())
}

/// Changes how many replicas run.
pub fn scale(app: &Arc<App>, name: &str, replicas: u32) -> Result<ServiceStatus, ApiError> {
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
        app.changed.notify_one();
    }
    Ok(status_of(app, &record))
}

/// Lets a service's replicas drain and end, then forgets it.
pub fn delete(app: &Arc<App>, name: &str) -> Result<(), ApiError> {
    let _claim = app.claim(&format!("service {name}"))?;
    let mut record = find(app, name)?;
    record.deleting = true;
    app.state.put_service(&record)?;
    app.event(&format!("service/{name}"), "service.deleting", "Its replicas drain and stop.");
    app.changed.notify_one();
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
    let mut status = status_of(app, &find(app, name)?);
    status.reachable = Some(data_plane::answers(app, name));
    Ok(status)
}

/// Every service.
pub fn list(app: &App) -> Result<Vec<ServiceStatus>, ApiError> {
    Ok(app.state.services()?.iter().map(|record| status_of(app, record)).collect())
}

fn status_of(app: &App, record: &ServiceRecord) -> ServiceStatus {
    let name = &record.target.spec.name;
    let replicas = app.seen().into_iter().filter(|replica| replica.service == *name);
    ServiceStatus {
        spec: record.target.spec.clone(),
        image_id: record.target.image_id.clone(),
        revision: record.target.number,
        replicas: replicas
            .map(|replica| ReplicaStatus {
                container: replica.container,
                revision: replica.revision,
                state: replica.state,
                started_at: replica.started_at,
                reason: replica.reason,
            })
            .collect(),
        restarts: record.restarts,
        url: url(app),
        reachable: None,
    }
}

/// The gateway's address as a URL.
pub fn url(app: &App) -> String {
    format!("http://{}", app.settings.values.gateway.listen)
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

/// The containers of a service that have a log.
pub fn containers(app: &App, name: &str) -> Result<Vec<slipway_types::container::ContainerId>, ApiError> {
    app.replicas.of_service(name).map_err(super::containers::native_error)
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
    fn only_real_changes_make_a_revision() {
        let image = Digest::from_sha256([1; 32]);
        let spec = ServiceSpec {
            name: "a".into(),
            model: "m".into(),
            version: 1,
            replicas: 1,
            ..Default::default()
        };
        let first = next_record(None, spec.clone(), image.clone(), pin(1));
        assert_eq!(first.target.number, 1);
        let same = next_record(Some(&first), spec.clone(), image.clone(), pin(1));
        assert_eq!(same, first);
        let scaled =
            next_record(Some(&first), ServiceSpec { replicas: 3, ..spec.clone() }, image.clone(), pin(1));
        assert_eq!((scaled.target.number, scaled.target.spec.replicas), (1, 3));
        let mut going = first.clone();
        going.deleting = true;
        let again = next_record(Some(&going), spec.clone(), image.clone(), pin(1));
        assert_eq!((again.target.number, again.deleting), (2, false));
        let labelled = ModelPin { labels: vec!["champion".into()], ..pin(1) };
        assert_eq!(next_record(Some(&first), spec.clone(), image.clone(), labelled).target.number, 1);
        let updated = next_record(Some(&first), ServiceSpec { version: 2, ..spec }, image, pin(2));
        assert_eq!((updated.target.number, updated.stable), (2, None));
    }
}
