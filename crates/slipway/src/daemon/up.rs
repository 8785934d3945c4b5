//! `up`: build, train, record and deploy what changed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use slipway_types::build::BuildEvent;
use slipway_types::name::argument;
use slipway_types::run::{RunEvent, RunSpec, RunState, RunStatus};
use slipway_types::service::ServiceStatus;
use slipway_types::up::{UpEvent, UpOutcome, UpRequest};
use slipway_types::{ApiError, Digest, ErrorCode};

use super::fingerprint::Fingerprint;
use super::{App, builds, declare, runs, services};

/// How long replicas may take until they answer: as long as the reconciler gives one to start.
const READY_LIMIT: Duration = Duration::from_secs(300);
const POLL: Duration = Duration::from_millis(20);

/// Brings a project up. `send` says whether anyone still listens; nobody ends it where it is.
pub fn up(
    app: &Arc<App>,
    request: &UpRequest,
    send: &(dyn Fn(UpEvent) -> bool + Sync),
    is_gone: &(dyn Fn() -> bool + Sync),
) -> Result<UpOutcome, ApiError> {
    let _claim = app.claim(&format!("project {}", request.train.project))?;
    let _lease = app.store.lease();
    let on_event = |event| {
        // The failure is told once, below.
        matches!(event, BuildEvent::Failed(_)) || send(UpEvent::Build(event))
    };
    let built = builds::build(app, &request.build, &on_event, is_gone);
    let built = built.map_err(|failure| {
        let error = failure.error.clone();
        send(UpEvent::Build(BuildEvent::Failed(*failure)));
        error
    })?;
    let image = built.image.ok_or_else(|| ApiError::new(ErrorCode::Internal, "the build gave no image"))?;
    let (version, trained) = train(app, request, &image, send, is_gone)?;
    let mut spec = request.serve.clone();
    // By digest: the name may mean another image by now.
    spec.image = image.to_string();
    spec.model = format!("{}@{version}", request.train.project);
    let request = declare::Declare {
        spec,
        keep_replicas: false,
        change: None,
        engine: request.train.engine.clone(),
        no_model: false,
        take_over: request.take_over,
    };
    let (status, declared) = declare::declare(app, request)?;
    if let Some(message) = status.unscaled() {
        send(UpEvent::Deploy { message });
    }
    let status = wait(app, &status, send, is_gone)?;
    Ok(UpOutcome {
        changed: built.executed > 0 || trained || declared,
        image,
        version,
        ready: u32::try_from(status.ready()).unwrap_or(u32::MAX),
        service: status.spec.name,
        url: status.url,
    })
}

/// The version to serve, and whether it was trained since the last `up`.
fn train(
    app: &Arc<App>,
    request: &UpRequest,
    image: &Digest,
    send: &(dyn Fn(UpEvent) -> bool + Sync),
    is_gone: &(dyn Fn() -> bool + Sync),
) -> Result<(u64, bool), ApiError> {
    let project = &request.train.project;
    let last = app.state.project(project)?;
    let known = last.as_ref().and_then(|(text, _)| serde_json::from_str::<Fingerprint>(text).ok());
    let last = last.map(|(_, version)| version);
    let now = Fingerprint::of(&request.train, image, known.as_ref())?;
    let text = serde_json::to_string(&now).map_err(|e| ApiError::new(ErrorCode::Internal, e.to_string()))?;
    let remember = |version| app.state.put_project(project, &text, version).map_err(ApiError::from);
    // An `up` whose daemon died may have left a run, or its version, that it did not live to remember.
    let runs = app.state.fingerprinted_runs(project)?.into_iter();
    let runs = runs
        .map(|(run, of)| (run, serde_json::from_str::<Fingerprint>(&of).is_ok_and(|of| of.same_work(&now))));
    let runs: Vec<_> = runs.collect();
    let going = |run: &RunStatus| !run.state.is_final() && !runs::is_cancelled(app, &run.id);
    if let Some((run, _)) = runs.iter().find(|(run, same)| *same && going(run)) {
        send(UpEvent::TrainAttached { run: run.id.clone() });
        let version = follow(app, run, true, send, is_gone)?;
        remember(version)?;
        return Ok((version, true));
    }
    let versions = app.state.model_versions(Some(project))?;
    let exists = |version: &u64| versions.iter().any(|v| v.version == *version);
    if !request.retrain {
        let newest = runs.first().filter(|(run, same)| *same && run.state == RunState::Succeeded);
        let missed = newest.and_then(|(run, _)| run.version).filter(|v| Some(*v) != last && exists(v));
        let current = last.filter(|v| known.as_ref().is_some_and(|known| known.same_work(&now)) && exists(v));
        if let Some(version) = missed.or(current) {
            if missed.is_some() || known.as_ref() != Some(&now) {
                remember(version)?;
            }
            send(UpEvent::TrainSkipped { version });
            return Ok((version, missed.is_some()));
        }
    }
    let spec = RunSpec { image: image.to_string(), ..request.train.clone() };
    let run = runs::start(app, &spec, Some(&text), is_gone)?;
    let version = follow(app, &run, false, send, is_gone)?;
    remember(version)?;
    Ok((version, true))
}

/// Waits for a run's end and passes on what it does; gives the version that it made.
fn follow(
    app: &Arc<App>,
    run: &RunStatus,
    attached: bool,
    send: &(dyn Fn(UpEvent) -> bool + Sync),
    is_gone: &(dyn Fn() -> bool + Sync),
) -> Result<u64, ApiError> {
    let mut end = None;
    runs::stream(app, run, is_gone, &mut |event| {
        if let RunEvent::Finished(status) = &event {
            end = Some(status.clone());
        }
        // One that is attached to started before.
        (attached && matches!(event, RunEvent::Started(_))) || send(UpEvent::Train(event))
    });
    if end.is_none() && is_gone() && !app.is_stopping() {
        // `up` was interrupted: its training run goes with it.
        let _ = runs::cancel_aside(app, &run.id);
        return Err(ApiError::new(ErrorCode::Failed, format!("run {} was cancelled", run.id)));
    }
    let end = end.ok_or_else(|| ApiError::new(ErrorCode::Unavailable, "the daemon ends"))?;
    match (end.state, end.version) {
        (RunState::Succeeded, Some(version)) => Ok(version),
        _ => Err(ApiError::new(ErrorCode::Failed, format!("training failed (run {})", end.id))
            .with_hint(format!("its output is kept: `slipway logs {}`", argument(&end.id)))),
    }
}

/// Waits until every declared replica of the declared revision is ready and it answers, or lacks nothing but an
/// address that the cluster does not give it soon.
fn wait(
    app: &Arc<App>,
    declared: &ServiceStatus,
    send: &(dyn Fn(UpEvent) -> bool + Sync),
    is_gone: &(dyn Fn() -> bool + Sync),
) -> Result<ServiceStatus, ApiError> {
    let began = Instant::now();
    let mut last = String::new();
    let mut lacking_since = None;
    loop {
        let status = services::status(app, &declared.spec.name)?;
        let wanted = status.spec.replicas;
        let reachable = wanted == 0 || status.reachable == Some(true);
        // What is as it shall be by its replicas may be something else otherwise, so the engine is heard first.
        if let Some(failure) = status.failure() {
            return Err(failure);
        }
        if status.settled() && reachable && !status.unseen {
            return Ok(status);
        }
        let message = status.progress();
        if message != last {
            last.clone_from(&message);
            send(UpEvent::Deploy { message });
        }
        if status.lacks_address().is_none() {
            lacking_since = None;
        } else if lacking_since.get_or_insert_with(Instant::now).elapsed() > ServiceStatus::ADDRESS_WAIT {
            return Ok(status);
        }
        if is_gone() || app.is_stopping() {
            return Err(ApiError::new(ErrorCode::Failed, "nobody waits any more"));
        }
        if began.elapsed() > READY_LIMIT {
            let name = &declared.spec.name;
            let mut error = ApiError::new(
                ErrorCode::Failed,
                format!("`{name}` is not ready after {} s", READY_LIMIT.as_secs()),
            );
            error.causes.push(last);
            return Err(error.with_hint(format!(
                "see `slipway logs {}` and `slipway events --subject {}`",
                argument(name),
                argument(&format!("service/{name}"))
            )));
        }
        std::thread::sleep(POLL);
    }
}
