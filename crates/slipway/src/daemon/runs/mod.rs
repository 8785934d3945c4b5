//! Training runs: what executes them, their logs and metrics, and the model version that a success makes.

mod driven;
mod driver;
mod finish;
mod gang_log;
mod metrics;
mod native;
mod stream;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use slipway_image::model;
use slipway_runtime::{LogError, LogOptions, LogReader};
use slipway_types::container::ContainerId;
use slipway_types::engine::NATIVE;
use slipway_types::model::Lineage;
use slipway_types::name;
use slipway_types::run::{Gang, RunSpec, RunState, RunStatus};
use slipway_types::{ApiError, ErrorCode};

pub use self::driven::{clear, settle};
pub use self::driver::{Driver, End, Keeper, Line, Order, Plan, Wanted};
use self::finish::finish;
pub use self::native::container;
pub use self::stream::stream;
use super::{App, engines, git, images, models};
use crate::mapped::file_name;

/// How long a cancelled run may take to end by itself.
const CANCEL_GRACE: Duration = Duration::from_secs(10);
const SIGKILL: i32 = 9;
/// How long whoever cancels a run on another engine waits for its end.
const CANCEL_WAIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);

/// Records a run and starts it; the rest happens on a thread of its own. `fingerprint` is that of the inputs
/// that `up` trains from. Nothing starts when `is_gone` says, after the data was read, that whoever asked went away.
pub fn start(
    app: &Arc<App>,
    spec: &RunSpec,
    fingerprint: Option<&str>,
    is_gone: &dyn Fn() -> bool,
) -> Result<RunStatus, ApiError> {
    if spec.command.is_empty() {
        return Err(ApiError::new(ErrorCode::InvalidArgument, "no command was given"));
    }
    if !name::is_valid(&spec.project) {
        let text = format!("`{}` is not a project name: {}", spec.project, name::RULE);
        return Err(ApiError::new(ErrorCode::InvalidArgument, text));
    }
    if let Some((key, reason)) = spec.gang.fault() {
        return Err(ApiError::new(ErrorCode::InvalidArgument, format!("{key}: {reason}")));
    }
    if let Some(reason) = spec.secrets.fault() {
        return Err(ApiError::new(ErrorCode::InvalidArgument, format!("secrets: {reason}")));
    }
    let engine = engines::choose(app, spec.engine.as_deref())?;
    if engine == NATIVE {
        alone(&spec.gang)?;
    } else {
        // One that cannot be reached now is told at once, not by a run that waits.
        app.engines.driver(app, &engine)?;
    }
    let _lease = app.store.lease();
    let image_id = images::find(app, &spec.image).map_err(|error| {
        if error.code == ErrorCode::NotFound {
            ApiError::new(error.code, format!("the image `{}` is not built yet", spec.image)).with_hint(
                "`slipway up` builds it, trains and deploys; `slipway build -t NAME .` only builds",
            )
        } else {
            error
        }
    })?;
    let data = spec.data.as_deref().map(model::data_digest).transpose();
    let data = data.map_err(|e| ApiError::from_error(ErrorCode::InvalidArgument, &e))?;
    // Before the database is held: it asks a file system that may be slow.
    let git_commit = git::commit(&spec.workspace);
    if is_gone() {
        return Err(ApiError::new(ErrorCode::Failed, "the run was cancelled before it started"));
    }
    let spec = RunSpec { engine: Some(engine.clone()), ..spec.clone() };
    let status = app.state.add_run(&spec, fingerprint, |id| RunStatus {
        project: spec.project.clone(),
        state: RunState::Running,
        engine: engine.clone(),
        attempt: 1,
        note: None,
        image_id: image_id.clone(),
        command: spec.command.clone(),
        started_at: jiff::Timestamp::now(),
        finished_at: None,
        exit_code: None,
        error: None,
        peak_memory: None,
        metrics: BTreeMap::new(),
        version: None,
        lineage: Lineage { run: Some(id.clone()), image: Some(image_id), git_commit, data },
        id,
    })?;
    app.event(&format!("run/{}", status.id), "run.started", &format!("{} starts.", spec.command[0]));
    if engine == NATIVE {
        return native::start(app, &spec, status);
    }
    driven::follow(app, status.clone(), spec);
    Ok(status)
}

/// What this host does not do yet.
fn alone(gang: &Gang) -> Result<(), ApiError> {
    let refused = |what: String, hint: &str| {
        let text = format!("{what} needs a cluster: this host trains in one container, once");
        Err(ApiError::new(ErrorCode::InvalidArgument, text).with_hint(format!(
            "choose a cluster with `--engine` (`slipway engine ls` lists those that there are), or {hint}"
        )))
    };
    if gang.ranks > 1 {
        return refused(format!("training with {} ranks", gang.ranks), "train with one: `train.ranks = 1`");
    }
    if gang.processes > 1 {
        let hint = "let the command start its processes itself: `train.processes = 1`";
        return refused(format!("starting {} processes", gang.processes), hint);
    }
    if gang.retries > 0 {
        return refused("training again after a failure".to_owned(), "leave out `train.retries`");
    }
    Ok(())
}

/// Stops a run and waits for its end; it leaves no model version.
pub fn cancel(app: &App, id: &str) -> Result<(), ApiError> {
    condemn(app, id)?;
    end(app, id);
    Ok(())
}

/// As [`cancel`], without waiting for the end.
pub fn cancel_aside(app: &Arc<App>, id: &str) -> Result<(), ApiError> {
    condemn(app, id)?;
    end_aside(app, id.to_owned());
    Ok(())
}

/// Removes what a run that is done has left: output that its engine keeps, checkpoints and files here. Its record and its log
/// stay, and so does its version.
pub fn discard(app: &Arc<App>, id: &str) -> Result<(), ApiError> {
    let (status, _) = find(app, id)?;
    if !status.state.is_final() {
        let error = ApiError::new(ErrorCode::Conflict, format!("run {id} is not done"));
        return Err(error.with_hint(format!("`slipway runs --cancel {id}` ends it")));
    }
    driven::discard(app, &status)?;
    app.event(&format!("run/{id}"), "run.discarded", "What it left was removed.");
    Ok(())
}

/// Records that a run shall make no version.
fn condemn(app: &App, id: &str) -> Result<(), ApiError> {
    let _fate = app.run_fate.lock().unwrap_or_else(PoisonError::into_inner);
    let (status, _) = find(app, id)?;
    if status.state != RunState::Running {
        return Err(ApiError::new(ErrorCode::Conflict, format!("run {id} is done already")));
    }
    let folder = folder(app, id);
    std::fs::create_dir_all(&folder).map_err(|e| io("create", &folder, &e))?;
    let marker = folder.join("cancelled");
    // It must outlast a loss of power once it is acknowledged, its name in the folder as well.
    std::fs::File::create(&marker)
        .and_then(|file| file.sync_all())
        .and_then(|()| std::fs::File::open(&folder)?.sync_all())
        .map_err(|e| io("write", &marker, &e))
}

/// Waits for the end of a run that shall end; helps where it runs here.
fn end(app: &App, id: &str) {
    native::end(app, id);
    let until = Instant::now() + CANCEL_WAIT;
    while Instant::now() < until && !app.is_stopping() {
        // Whoever drives a run sees by itself that it shall end.
        match find(app, id) {
            Ok((run, _)) if run.engine != NATIVE && !run.state.is_final() => std::thread::sleep(POLL),
            _ => return,
        }
    }
}

/// Whether a user stopped a run; it may not have ended yet.
pub fn is_cancelled(app: &App, id: &str) -> bool {
    folder(app, id).join("cancelled").exists()
}

/// One run and what it executes.
pub fn find(app: &App, id: &str) -> Result<(RunStatus, RunSpec), ApiError> {
    app.state.run(id)?.ok_or_else(|| {
        ApiError::new(ErrorCode::NotFound, format!("there is no run `{id}`"))
            .with_hint("`slipway runs` lists those that there are")
    })
}

/// The log of a run that has no container here: kept, or still written as its engine tells it.
pub fn kept_log(app: &Arc<App>, id: &str, options: LogOptions) -> Result<LogReader, LogError> {
    let (owner, run) = (Arc::clone(app), id.to_owned());
    LogReader::open_until(&folder(app, id), options, move || {
        owner.is_stopping() || find(&owner, &run).map_or(true, |(status, _)| status.state.is_final())
    })
}

/// Runs on an engine that are not done.
pub fn on_engine(app: &App, engine: &str) -> Result<Vec<String>, ApiError> {
    let runs = app.state.runs(None)?.into_iter();
    Ok(runs.filter(|run| run.engine == engine && !run.state.is_final()).map(|run| run.id).collect())
}

/// Whether a container belongs to a run that is not done.
pub fn owns(app: &App, id: &ContainerId) -> Result<bool, ApiError> {
    let mut running = app.state.runs(None)?.into_iter().filter(|run| !run.state.is_final());
    Ok(running.any(|run| container(app, &run.id).is_some_and(|container| container.config().id == *id)))
}

/// The folder of a run.
pub fn folder(app: &App, id: &str) -> PathBuf {
    app.settings.root.join("runs").join(&*file_name(id))
}

/// As [`end`], on a thread of its own.
fn end_aside(app: &Arc<App>, id: String) {
    let owner = Arc::clone(app);
    let started = std::thread::Builder::new()
        .name("cancel".into())
        .stack_size(256 << 10)
        .spawn(move || end(&owner, &id));
    if let Err(error) = started {
        tracing::error!(%error, "a cancelled run is not ended");
    }
}

/// After a restart of the daemon: runs go on, or end as what became of their container.
pub fn recover(app: &Arc<App>) -> Result<(), ApiError> {
    let (done, going): (Vec<_>, Vec<_>) =
        app.state.runs(None)?.into_iter().partition(|run| run.state.is_final());
    // The daemon may have died between the end of a run and this.
    for run in &done {
        app.state.forget_secrets(&run.id)?;
    }
    driven::sweep(app, done.into_iter().filter(|run| run.engine != NATIVE).collect());
    for mut status in going {
        let Some((_, spec)) = app.state.run(&status.id)? else { continue };
        if status.engine != NATIVE {
            driven::follow(app, status, spec);
            continue;
        }
        match container(app, &status.id) {
            Some(container) => {
                let id = status.id.clone();
                native::follow(app, status, spec, container);
                if is_cancelled(app, &id) {
                    end_aside(app, id);
                }
            }
            None => {
                // Its container is gone: it never ran, or everything but its end was done.
                status.version = models::made_by(app, &status)?.map(|version| version.version);
                let (state, reason) = if status.version.is_some() {
                    (RunState::Succeeded, None)
                } else if is_cancelled(app, &status.id) {
                    (RunState::Cancelled, None)
                } else {
                    (RunState::Failed, Some("the daemon died before its end was recorded".to_owned()))
                };
                finish(app, &mut status, state, reason);
            }
        }
    }
    Ok(())
}

fn io(what: &str, path: &Path, error: &std::io::Error) -> ApiError {
    crate::failure::io(what, path, error)
        .error
        .unwrap_or_else(|| ApiError::new(ErrorCode::Internal, format!("cannot {what} {}", path.display())))
}
