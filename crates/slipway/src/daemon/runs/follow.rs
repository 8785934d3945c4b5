//! Sees a run to its end: metrics as they come, then the model version that a success makes.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use slipway_runtime::{Container, LogOptions};
use slipway_types::container::{ContainerId, ExitInfo, OutputStream};
use slipway_types::run::{RunSpec, RunState, RunStatus};
use slipway_types::{ApiError, ErrorCode};

use super::super::models::{self, Candidate};
use super::super::{App, logs};
use super::metrics::{MAX_METRICS, metrics_file, metrics_line};
use super::{folder, io, is_cancelled};

/// How often, and after which pauses, the end of a run is recorded when the database cannot.
const RECORD_ATTEMPTS: u32 = 60;
const RECORD_PAUSE: Duration = Duration::from_secs(1);

/// Sees a run to its end on a thread of its own.
pub(super) fn follow(app: &Arc<App>, mut status: RunStatus, spec: RunSpec, container: Container) {
    let owner = Arc::clone(app);
    let started = std::thread::Builder::new().name(format!("run {}", status.id)).spawn(move || {
        let app = owner;
        let id = container.config().id.clone();
        if let Err(error) = conclude(&app, &mut status, &spec, &container) {
            let mut reason = error.chain();
            remove_container(&app, &id);
            let model = folder(&app, &status.id).join("output/model");
            let full = error.code == ErrorCode::ResourceExhausted;
            if status.exit_code == Some(0) && !full && !is_empty(&model) {
                reason.push_str(&format!("; its files are kept in {}", model.display()));
            } else {
                drop_model(&app, &status.id);
            }
            finish(&app, &mut status, RunState::Failed, Some(reason));
        }
    });
    if let Err(error) = started {
        tracing::error!(%error, "cannot follow a run");
    }
}

fn conclude(
    app: &Arc<App>,
    status: &mut RunStatus,
    spec: &RunSpec,
    container: &Container,
) -> Result<(), ApiError> {
    let folder = folder(app, &status.id);
    let mut metrics = BTreeMap::new();
    let exit = watch(app, container, status, &mut metrics)?;
    metrics.extend(metrics_file(&folder.join("output/metrics.jsonl")));
    metrics.into_iter().take(MAX_METRICS).for_each(|(key, value)| {
        status.metrics.insert(key, value);
    });
    status.exit_code = Some(exit.code);
    status.peak_memory = exit.peak_memory;
    logs::keep(container, &folder).map_err(|e| io("keep the log in", &folder, &e))?;
    if let Some((state, reason)) = outcome(app, status, &exit)? {
        remove_container(app, &container.config().id);
        drop_model(app, &status.id);
        finish(app, status, state, reason);
        return Ok(());
    }
    // A daemon that died after recording the version and before recording the run comes here a second time.
    let version = match models::made_by(app, status)? {
        Some(version) => version,
        None => models::record(
            app,
            Candidate {
                model: &spec.project,
                folder: &folder.join("output/model"),
                format: spec.format,
                entry: spec.entry.as_deref(),
                lineage: status.lineage.clone(),
                metrics: status.metrics.clone(),
            },
        )
        .map_err(|error| {
            if is_empty(&folder.join("output/model")) {
                ApiError::new(ErrorCode::Failed, "the command succeeded but wrote no model")
                    .with_hint("write the model's files to the folder in SLIPWAY_MODEL_DIR")
            } else {
                error
            }
        })?,
    };
    status.version = Some(version.version);
    // The end first: what is left when this is cut short is a container that nobody has, not a run without its end.
    finish(app, status, RunState::Succeeded, None);
    remove_container(app, &container.config().id);
    // The store has its own copy.
    drop_model(app, &status.id);
    Ok(())
}

/// How a run that makes no version ends. Otherwise it is recorded as packing, and cannot be cancelled any more.
fn outcome(
    app: &App,
    status: &mut RunStatus,
    exit: &ExitInfo,
) -> Result<Option<(RunState, Option<String>)>, ApiError> {
    let _fate = app.run_fate.lock().unwrap_or_else(PoisonError::into_inner);
    if is_cancelled(app, &status.id) {
        return Ok(Some((RunState::Cancelled, None)));
    }
    if exit.code != 0 {
        return Ok(Some((RunState::Failed, Some(failure(exit)))));
    }
    status.state = RunState::Packing;
    app.state.update_run(status)?;
    Ok(None)
}

/// Reads the log as it grows, for metrics, until the container ended.
fn watch(
    app: &App,
    container: &Container,
    status: &mut RunStatus,
    metrics: &mut BTreeMap<String, f64>,
) -> Result<ExitInfo, ApiError> {
    let mut reported = std::time::Instant::now();
    let options = LogOptions { follow: true, ..LogOptions::default() };
    let runtime = |e: slipway_runtime::ContainerError| ApiError::from_error(ErrorCode::Internal, &e);
    for line in container.logs(options).map_err(runtime)? {
        let Ok(line) = line else { break };
        if line.stream == OutputStream::Stdout && metrics_line(&line.text, metrics) {
            status.metrics.clone_from(metrics);
            if reported.elapsed() > Duration::from_secs(1) {
                reported = std::time::Instant::now();
                // The end of the run records them as well: a full disk must not end it.
                if let Err(error) = app.state.update_run(status) {
                    tracing::warn!(%error, run = status.id, "metrics were not recorded");
                }
            }
        }
    }
    match container.wait_exit(None) {
        Ok(exit) => Ok(exit),
        Err(_) => container
            .recover()
            .map_err(runtime)?
            .ok_or_else(|| ApiError::new(ErrorCode::Internal, "the container's end was not recorded")),
    }
}

fn failure(exit: &ExitInfo) -> String {
    match &exit.error {
        Some(error) => error.clone(),
        None if exit.oom_killed => "it ran out of memory and was killed; raise `train.memory`".to_owned(),
        None if exit.code > 128 => format!("it was ended by signal {}", exit.code - 128),
        None => format!("it exited with code {}", exit.code),
    }
}

/// Records the end of a run.
pub(super) fn finish(app: &App, status: &mut RunStatus, state: RunState, error: Option<String>) {
    status.state = state;
    status.error = error;
    status.finished_at = Some(jiff::Timestamp::now());
    // A full disk is often full for a moment only: whoever filled it is being removed.
    for attempt in 1..=RECORD_ATTEMPTS {
        match app.state.update_run(status) {
            Ok(()) => break,
            Err(error) if attempt == RECORD_ATTEMPTS || app.is_stopping() => {
                tracing::error!(%error, run = status.id, "the end of a run was not recorded");
                break;
            }
            Err(_) => std::thread::sleep(RECORD_PAUSE),
        }
    }
    let (kind, message) = match state {
        RunState::Succeeded => {
            ("run.succeeded", format!("It made version {}.", status.version.unwrap_or_default()))
        }
        RunState::Cancelled => ("run.cancelled", "A user stopped it.".to_owned()),
        _ => ("run.failed", status.error.clone().unwrap_or_default()),
    };
    app.event(&format!("run/{}", status.id), kind, &message);
}

/// A run without a version leaves no model; what it wrote may be what fills the disk.
fn drop_model(app: &App, id: &str) {
    let _ = std::fs::remove_dir_all(folder(app, id).join("output/model"));
}

fn remove_container(app: &App, container: &ContainerId) {
    if let Err(error) = app.native.discard(container) {
        tracing::warn!(%error, "a run's container was not removed");
    }
}

fn is_empty(path: &Path) -> bool {
    std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none())
}
