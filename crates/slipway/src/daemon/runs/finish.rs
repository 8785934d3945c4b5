//! How a run ends: the model version that a success makes, and what is recorded.

use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use slipway_types::run::{RunSpec, RunState, RunStatus};
use slipway_types::{ApiError, ErrorCode};

use super::super::App;
use super::super::models::{self, Candidate};
use super::{folder, is_cancelled};

/// How often, and after which pauses, the end of a run is recorded when the database cannot.
const RECORD_ATTEMPTS: u32 = 60;
const RECORD_PAUSE: Duration = Duration::from_secs(1);

/// How a run that makes no version ends. Otherwise it is recorded as packing, and cannot be cancelled any more.
pub(super) fn outcome(
    app: &App,
    status: &mut RunStatus,
    failure: Option<String>,
) -> Result<Option<(RunState, Option<String>)>, ApiError> {
    let _fate = app.run_fate.lock().unwrap_or_else(PoisonError::into_inner);
    if is_cancelled(app, &status.id) {
        return Ok(Some((RunState::Cancelled, None)));
    }
    if failure.is_some() {
        return Ok(Some((RunState::Failed, failure)));
    }
    status.state = RunState::Packing;
    status.note = None;
    app.state.update_run(status)?;
    Ok(None)
}

/// The version that the model in the run's folder becomes.
pub(super) fn record_version(app: &Arc<App>, status: &RunStatus, spec: &RunSpec) -> Result<u64, ApiError> {
    let folder = folder(app, &status.id);
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
    Ok(version.version)
}

/// Records the end of a run.
pub(super) fn finish(app: &App, status: &mut RunStatus, state: RunState, error: Option<String>) {
    status.state = state;
    status.error = error;
    status.note = None;
    status.finished_at = Some(jiff::Timestamp::now());
    // A full disk is often full for a moment only: whoever filled it is being removed.
    let mut recorded = false;
    for attempt in 1..=RECORD_ATTEMPTS {
        match app.state.update_run(status) {
            Ok(()) => {
                recorded = true;
                break;
            }
            Err(error) if attempt == RECORD_ATTEMPTS || app.is_stopping() => {
                tracing::error!(%error, run = status.id, "the end of a run was not recorded");
                break;
            }
            Err(_) => std::thread::sleep(RECORD_PAUSE),
        }
    }
    // A run whose end is not recorded goes on with the next daemon, and needs them.
    if recorded && let Err(error) = app.state.forget_secrets(&status.id) {
        tracing::warn!(%error, run = status.id, "the secrets of a run are still recorded");
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

/// What becomes of a model that should have been a version: it is kept unless it fills the disk. `reason` says where.
pub(super) fn keep_or_drop_model(app: &App, id: &str, error: &ApiError, reason: &mut String) {
    let model = folder(app, id).join("output/model");
    if error.code != ErrorCode::ResourceExhausted && model.is_dir() && !is_empty(&model) {
        reason.push_str(&format!("; its files are kept in {}", model.display()));
    } else {
        drop_model(app, id);
    }
}

/// A run without a version leaves no model; what it wrote may be what fills the disk.
pub(super) fn drop_model(app: &App, id: &str) {
    let _ = std::fs::remove_dir_all(folder(app, id).join("output/model"));
}

fn is_empty(path: &Path) -> bool {
    std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none())
}
