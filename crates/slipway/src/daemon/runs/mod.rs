//! Training runs: a container, its log and metrics, and the model version that a success makes.

mod follow;
mod metrics;
mod stream;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use slipway_image::model;
use slipway_runtime::Container;
use slipway_types::container::{ContainerId, ContainerSpec, Mount};
use slipway_types::model::{Lineage, MODEL_NAME_RULE, valid_model_name};
use slipway_types::run::{RunSpec, RunState, RunStatus};
use slipway_types::{ApiError, ErrorCode};

use self::follow::{finish, follow};
pub use self::stream::stream;
use super::{App, containers, git, images, models};

/// Where a run's results appear inside its container.
const OUTPUT: &str = "/output";
/// How long a cancelled run may take to end by itself.
const CANCEL_GRACE: Duration = Duration::from_secs(10);
const SIGKILL: i32 = 9;

/// Records a run and starts its container; the rest happens on a thread of its own. `fingerprint` is that of the inputs
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
    if !valid_model_name(&spec.project) {
        let text = format!("`{}` is not a project name: {MODEL_NAME_RULE}", spec.project);
        return Err(ApiError::new(ErrorCode::InvalidArgument, text));
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
    let status = app.state.add_run(spec, fingerprint, |id| RunStatus {
        project: spec.project.clone(),
        state: RunState::Running,
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
    match launch(app, spec, &status) {
        Ok(container) => {
            // One that was cancelled before it had a container ends now.
            if is_cancelled(app, &status.id) {
                let _ = container.signal(SIGKILL);
            }
            follow(app, status.clone(), spec.clone(), container);
            Ok(status)
        }
        Err(error) => {
            let mut failed = status;
            finish(app, &mut failed, RunState::Failed, Some(error.message.clone()));
            Err(error)
        }
    }
}

fn launch(app: &App, spec: &RunSpec, status: &RunStatus) -> Result<Container, ApiError> {
    let folder = folder(app, &status.id);
    let output = folder.join("output");
    for name in ["model", "checkpoints"] {
        let path = output.join(name);
        std::fs::create_dir_all(&path).map_err(|e| io("create", &path, &e))?;
        open_up(&path)?;
    }
    open_up(&output)?;
    let mut env = vec![
        format!("SLIPWAY_RUN_ID={}", status.id),
        format!("SLIPWAY_MODEL_DIR={OUTPUT}/model"),
        format!("SLIPWAY_CHECKPOINT_DIR={OUTPUT}/checkpoints"),
        format!("SLIPWAY_METRICS_FILE={OUTPUT}/metrics.jsonl"),
        "PYTHONUNBUFFERED=1".to_owned(),
        "PYTHONDONTWRITEBYTECODE=1".to_owned(),
    ];
    env.extend(spec.env.iter().cloned());
    let bind =
        |source: PathBuf, target: &str, read_only| Mount::Bind { source, target: target.into(), read_only };
    let mut mounts = vec![bind(spec.workspace.clone(), "/workspace", true), bind(output, OUTPUT, false)];
    mounts.extend(spec.data.clone().map(|data| bind(data, "/data", true)));
    let container_spec = ContainerSpec {
        image: spec.image.clone(),
        // The command is the whole command: an image's entrypoint is for serving or shells.
        entrypoint: Some(spec.command.clone()),
        env,
        workdir: Some("/workspace".into()),
        mounts,
        network: spec.network,
        limits: spec.limits,
        ..ContainerSpec::default()
    };
    let id = slipway_native::random_id();
    let marker = folder.join("container");
    std::fs::write(&marker, id.as_str()).map_err(|e| io("write", &marker, &e))?;
    let (image, plan) =
        app.native.plan(&status.image_id, &container_spec).map_err(containers::native_error)?;
    app.native
        .launch(&id, &image, &plan, &container_spec, |config| config.hostname = "train".into())
        .map_err(containers::native_error)
}

/// Whatever user the image has must be able to write; only root gets past the state folder.
fn open_up(path: &Path) -> Result<(), ApiError> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777))
        .map_err(|e| io("open up", path, &e))
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

/// Asks a run to end, and ends it when it does not.
fn end(app: &App, id: &str) {
    if let Some(container) = container(app, id) {
        // One that ends at this very moment needs no signal.
        let _ = container.stop(None, CANCEL_GRACE);
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

/// The container of a run, while it exists.
pub fn container(app: &App, id: &str) -> Option<Container> {
    let text = std::fs::read_to_string(folder(app, id).join("container")).ok()?;
    let id: ContainerId = text.trim().parse().ok()?;
    Container::open(&app.native.dir(&id)).ok()
}

/// Whether a container belongs to a run that is not done.
pub fn owns(app: &App, id: &ContainerId) -> Result<bool, ApiError> {
    let mut running = app.state.runs(None)?.into_iter().filter(|run| !run.state.is_final());
    Ok(running.any(|run| container(app, &run.id).is_some_and(|container| container.config().id == *id)))
}

/// The folder of a run.
pub fn folder(app: &App, id: &str) -> PathBuf {
    app.settings.root.join("runs").join(id)
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
    for mut status in app.state.runs(None)?.into_iter().filter(|run| !run.state.is_final()) {
        let Some((_, spec)) = app.state.run(&status.id)? else { continue };
        match container(app, &status.id) {
            Some(container) => {
                let id = status.id.clone();
                follow(app, status, spec, container);
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
