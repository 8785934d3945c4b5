//! What a declaration makes of a service: its image, its model, its engine, and whether that is a new revision.

use std::sync::Arc;

use serde::Deserialize;
use slipway_orchestrator::{ModelPin, Revision};
use slipway_types::engine::NATIVE;
use slipway_types::model::{ModelRef, ModelSelector, ModelVersion};
use slipway_types::name::{self, argument};
use slipway_types::service::{Batch, ServiceSpec, ServiceStatus};
use slipway_types::{ApiError, Digest, ErrorCode};

use super::state::ServiceRecord;
use super::{App, Claim, engines, images, models, services};

/// Body of `POST /v1/services`.
#[derive(Debug, Deserialize)]
pub struct Declare {
    /// What it shall be; `model` may be a reference such as `digits@champion`. Where there is no model of that name, and
    /// an image is named, what the image itself runs is served.
    pub spec: ServiceSpec,
    /// Keeps the replica count of a service that exists, or how it is scaled; one replica otherwise.
    #[serde(default)]
    pub keep_replicas: bool,
    /// Settings to replace in a service that exists; its others stay, and those of `spec` do not count.
    #[serde(default)]
    pub change: Option<Changes>,
    /// Engine that it shall run on; where it runs, else the default one, when absent.
    #[serde(default)]
    pub engine: Option<String>,
    /// Runs what the image itself runs, whatever models there are.
    #[serde(default)]
    pub no_model: bool,
    /// Takes over what others own of its objects in a cluster.
    #[serde(default)]
    pub take_over: bool,
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
    /// Port that an image which is run as it is listens on.
    pub port: Option<u16>,
}

impl Changes {
    /// Whether anything is named that only a model has.
    fn are_for_models(&self) -> bool {
        self.batch_size.is_some() || self.batch_delay_us.is_some() || self.max_body.is_some()
    }

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
        spec.port = self.port.or(old.port);
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
    named_validly(&request.spec.name)?;
    let _claim = app.claim(&format!("service {}", request.spec.name))?;
    let _lease = app.store.lease();
    let take_over = request.take_over;
    let Planned { record, before, .. } = &plan(app, request)?;
    let changed = before.as_ref() != Some(record);
    if changed {
        services::pin_revision(app, &record.target)?;
        app.state.put_service(record)?;
        let spec = &record.target.spec;
        app.event(
            &format!("service/{}", spec.name),
            "service.declared",
            &format!("Revision {}: {}, {}.", record.target.number, spec.content(), spec.count()),
        );
    }
    app.try_again(&record.target.spec.name, take_over);
    Ok((services::status_of(app, record), changed))
}

/// What a request would declare; it is not declared.
pub fn would_be(app: &Arc<App>, request: Declare) -> Result<ServiceRecord, ApiError> {
    named_validly(&request.spec.name)?;
    Ok(plan(app, request)?.record)
}

fn named_validly(name: &str) -> Result<(), ApiError> {
    if name::is_valid(name) {
        return Ok(());
    }
    let rule = name::RULE;
    Err(invalid(format!("`{name}` is not a service name: {rule}")))
}

/// What a request would declare.
struct Planned {
    record: ServiceRecord,
    /// What is declared now.
    before: Option<ServiceRecord>,
    /// A version must not be removed between its look-up and its pin.
    _model: Option<Claim>,
}

fn plan(app: &Arc<App>, request: Declare) -> Result<Planned, ApiError> {
    let mut spec = request.spec;
    let before = app.state.service(&spec.name)?;
    let serving = before.as_ref().filter(|record| !record.deleting);
    let engine = engine(app, request.engine.as_deref(), before.as_ref())?;
    if let Some(change) = &request.change {
        change.apply(&mut spec, serving.map(|record| &record.target.spec));
    }
    if spec.batch.max_size == 0 {
        return Err(invalid("a batch has at least one row".to_owned()));
    }
    let reference: ModelRef = spec.model.parse().map_err(invalid)?;
    let claim = app.claim(&format!("model {}", reference.model))?;
    let found = content(app, &reference, &spec, request.no_model, serving)?;
    let (image_id, pin, claim) = match found {
        Some(version) => {
            let (image_id, pin) = model(app, &mut spec, &version, request.change.as_ref())?;
            (image_id, Some(pin), Some(claim))
        }
        None => {
            check_engine(&engine, &reference, request.no_model)?;
            let change = request.change.as_ref();
            (image_alone(app, &mut spec, change, request.no_model, serving)?, None, None)
        }
    };
    let serving = serving.map(|record| &record.target.spec);
    if request.keep_replicas {
        spec.replicas = serving.map_or(1, |serving| serving.replicas);
        spec.autoscale = spec.autoscale.or(serving.and_then(|serving| serving.autoscale));
    }
    if let Some(range) = spec.autoscale {
        if let Some((key, reason)) = range.fault() {
            return Err(invalid(format!("autoscale: {key}: {reason}")));
        }
        services::replicas_in_range(range.max)?;
        spec.replicas = serving.map_or(range.min, |serving| serving.replicas.clamp(range.min, range.max));
    }
    services::replicas_in_range(spec.replicas)?;
    let record = next_record(before.as_ref(), spec, image_id, pin, engine);
    Ok(Planned { record, before, _model: claim })
}

/// The model version to serve; `None` where the image is to be run as it is. A service becomes the one from the other
/// only when a user says so.
fn content(
    app: &App,
    reference: &ModelRef,
    spec: &ServiceSpec,
    no_model: bool,
    serving: Option<&ServiceRecord>,
) -> Result<Option<ModelVersion>, ApiError> {
    if no_model {
        return Ok(None);
    }
    let (name, model) = (&spec.name, &reference.model);
    let latest = reference.selector == ModelSelector::Latest;
    let before = serving.map(|record| &record.target.spec);
    match app.state.find_model(reference)? {
        Some(version) => {
            if let Some(before) = before.filter(|before| latest && !before.has_model()) {
                let message = format!(
                    "`{name}` runs what {} itself runs, and there is a model `{model}` now",
                    before.image
                );
                return Err(ApiError::new(ErrorCode::Conflict, message).with_hint(format!(
                    "`--no-model` keeps it so; `{model}@{}` serves the model in its place",
                    version.version
                )));
            }
            Ok(Some(version))
        }
        None => {
            let unknown = models::find(app, reference).map(Some);
            let image = !spec.image.is_empty() || before.is_some_and(|before| !before.has_model());
            if !latest || !image {
                return unknown;
            }
            if let Some(before) = before.filter(|before| before.has_model()) {
                let hint = format!(
                    "`{name}` serves {}; `--no-model` lets it run what the image itself runs in its place",
                    before.content()
                );
                return unknown.map_err(|error| error.with_hint(hint));
            }
            Ok(None)
        }
    }
}

/// Replicas on this host are without any network, and answer through the runner.
fn check_engine(engine: &str, reference: &ModelRef, no_model: bool) -> Result<(), ApiError> {
    if engine != NATIVE {
        return Ok(());
    }
    let error = if no_model {
        invalid("what an image itself runs is served by clusters, and not by this host".to_owned())
    } else {
        invalid(format!(
            "there is no model `{}`, and what an image itself runs is served by clusters, and not by this host",
            reference.model
        ))
    };
    Err(error.with_hint(
        "`slipway model ls` lists models; `slipway run -d IMAGE` runs an image here; `--engine NAME` names a cluster of `slipway engine ls`",
    ))
}

/// Fills a specification for a model version.
fn model(
    app: &App,
    spec: &mut ServiceSpec,
    version: &ModelVersion,
    change: Option<&Changes>,
) -> Result<(Digest, ModelPin), ApiError> {
    if change.is_some_and(|change| change.port.is_some()) {
        let message =
            format!("`{}` is a model, and Slipway's runner decides on which port it listens", version.model);
        return Err(invalid(message).with_hint("leave `--port` out, or say `--no-model`"));
    }
    spec.model.clone_from(&version.model);
    spec.version = version.version;
    spec.port = None;
    let image_id = image(app, spec, version)?;
    if spec.entry.is_none() {
        spec.entry = models::entry(app, &version.manifest)?;
    }
    let pin = ModelPin {
        manifest: version.manifest.clone(),
        format: version.format,
        labels: version.aliases.clone(),
    };
    Ok((image_id, pin))
}

/// Fills a specification for an image that is run as it is; gives the image.
fn image_alone(
    app: &App,
    spec: &mut ServiceSpec,
    change: Option<&Changes>,
    no_model: bool,
    serving: Option<&ServiceRecord>,
) -> Result<Digest, ApiError> {
    if spec.entry.is_some() || change.is_some_and(Changes::are_for_models) {
        return Err(invalid(
            "`--entry`, `--batch-size`, `--batch-delay` and `--max-body` are for models".to_owned(),
        )
        .with_hint("what an image itself runs gets its requests as they are"));
    }
    let asked = std::mem::take(&mut spec.model);
    spec.version = 0;
    (spec.batch, spec.max_body) = (Batch::default(), None);
    let before = serving.filter(|record| record.target.model.is_none());
    let Some(before) = before.filter(|_| spec.image.is_empty()) else {
        if spec.image.is_empty() {
            return Err(invalid("no image is named".to_owned()).with_hint("`--image IMAGE` names it"));
        }
        let id = images::find(app, &spec.image)?;
        if !no_model && let Some(version) = trained_in(app, &id)? {
            let message = format!(
                "there is no model `{asked}`, and {} is for models: {version} was trained in it",
                spec.image
            );
            return Err(ApiError::new(ErrorCode::NotFound, message).with_hint(
                "`slipway model ls` lists models and versions; `--no-model` serves what the image itself runs",
            ));
        }
        return Ok(id);
    };
    spec.image.clone_from(&before.target.spec.image);
    Ok(before.target.image_id.clone())
}

/// A model version that was trained in an image.
fn trained_in(app: &App, image: &Digest) -> Result<Option<String>, ApiError> {
    let versions = app.state.model_versions(None)?.into_iter();
    let mut trained = versions.filter(|version| version.lineage.image.as_ref() == Some(image));
    Ok(trained.next().map(|version| format!("{}@{}", version.model, version.version)))
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
            "`slipway delete {}` first, or deploy under another name with `--name`",
            argument(name)
        )));
    }
    Ok(runs_on.clone())
}

/// A new revision when anything but the replica count differs; the same one otherwise.
fn next_record(
    before: Option<&ServiceRecord>,
    spec: ServiceSpec,
    image_id: Digest,
    model: Option<ModelPin>,
    engine: String,
) -> ServiceRecord {
    let first = |number| ServiceRecord {
        target: Revision { number, spec: spec.clone(), image_id: image_id.clone(), model: model.clone() },
        stable: None,
        deleting: false,
        restarts: 0,
        engine: engine.clone(),
        exposure: None,
    };
    let Some(before) = before else { return first(1) };
    if before.deleting {
        // Replicas of the one that goes may still run: their revision number must not mean this one.
        return first(before.target.number + 1);
    }
    let old = &before.target;
    // A moved alias changes labels alone, which is no reason to replace replicas.
    let content = |model: &Option<ModelPin>| model.as_ref().map(|model| model.manifest.clone());
    let same = ServiceSpec { replicas: spec.replicas, autoscale: spec.autoscale, ..old.spec.clone() } == spec
        && old.image_id == image_id
        && content(&old.model) == content(&model);
    let mut record = before.clone();
    if same {
        record.target.spec.replicas = spec.replicas;
        record.target.spec.autoscale = spec.autoscale;
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

fn invalid(reason: String) -> ApiError {
    ApiError::new(ErrorCode::InvalidArgument, reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use slipway_types::model::ModelFormat;
    use slipway_types::service::Autoscale;

    fn pin(seed: u8) -> Option<ModelPin> {
        Some(ModelPin {
            manifest: Digest::from_sha256([seed; 32]),
            format: ModelFormat::Onnx,
            labels: Vec::new(),
        })
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
        let by_load = Autoscale { min: 1, max: 4, cpu_percent: None, memory_percent: None };
        let ranged = next_record(
            Some(&scaled),
            ServiceSpec { autoscale: Some(by_load), ..spec.clone() },
            image.clone(),
            pin(1),
            NATIVE.to_owned(),
        );
        assert_eq!((ranged.target.number, ranged.target.spec.autoscale), (1, Some(by_load)));
        let mut going = first.clone();
        going.deleting = true;
        let again = next_record(Some(&going), spec.clone(), image.clone(), pin(1), NATIVE.to_owned());
        assert_eq!((again.target.number, again.deleting), (2, false));
        let labelled = pin(1).map(|pin| ModelPin { labels: vec!["champion".into()], ..pin });
        assert_eq!(
            next_record(Some(&first), spec.clone(), image.clone(), labelled, NATIVE.to_owned()).target.number,
            1
        );
        let updated =
            next_record(Some(&first), ServiceSpec { version: 2, ..spec }, image, pin(2), NATIVE.to_owned());
        assert_eq!((updated.target.number, updated.stable), (2, None));
    }
}
