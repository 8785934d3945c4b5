//! Runs in a container of this host.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use slipway_runtime::{Container, LogOptions};
use slipway_types::container::{ContainerId, ContainerSpec, ExitInfo, Mount, OutputStream};
use slipway_types::run::{RunSpec, RunState, RunStatus};
use slipway_types::{ApiError, ErrorCode};

use super::super::{App, containers, logs};
use super::finish::{self, finish};
use super::metrics::{MAX_METRICS, metrics_file, metrics_line};
use super::{CANCEL_GRACE, SIGKILL, folder, io, is_cancelled};

/// Where a run's results appear inside its container.
const OUTPUT: &str = "/output";

/// Starts the container of a run and sees it to its end on a thread of its own.
pub(super) fn start(app: &Arc<App>, spec: &RunSpec, status: RunStatus) -> Result<RunStatus, ApiError> {
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
    env.extend(spec.secrets.0.iter().map(|(name, value)| format!("{name}={value}")));
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

/// Sees a run to its end on a thread of its own.
pub(super) fn follow(app: &Arc<App>, mut status: RunStatus, spec: RunSpec, container: Container) {
    let owner = Arc::clone(app);
    let started = std::thread::Builder::new().name(format!("run {}", status.id)).spawn(move || {
        let app = owner;
        let id = container.config().id.clone();
        if let Err(error) = conclude(&app, &mut status, &spec, &container) {
            let mut reason = error.chain();
            remove_container(&app, &id);
            if status.exit_code == Some(0) {
                finish::keep_or_drop_model(&app, &status.id, &error, &mut reason);
            } else {
                finish::drop_model(&app, &status.id);
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
    let failure = (exit.code != 0).then(|| failure(&exit));
    if let Some((state, reason)) = finish::outcome(app, status, failure)? {
        remove_container(app, &container.config().id);
        finish::drop_model(app, &status.id);
        finish(app, status, state, reason);
        return Ok(());
    }
    let version = finish::record_version(app, status, spec)?;
    status.version = Some(version);
    // The end first: what is left when this is cut short is a container that nobody has, not a run without its end.
    finish(app, status, RunState::Succeeded, None);
    remove_container(app, &container.config().id);
    // The store has its own copy.
    finish::drop_model(app, &status.id);
    Ok(())
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

fn remove_container(app: &App, container: &ContainerId) {
    if let Err(error) = app.native.discard(container) {
        tracing::warn!(%error, "a run's container was not removed");
    }
}

/// The container of a run, while it exists.
pub fn container(app: &App, id: &str) -> Option<Container> {
    let text = std::fs::read_to_string(folder(app, id).join("container")).ok()?;
    let id: ContainerId = text.trim().parse().ok()?;
    Container::open(&app.native.dir(&id)).ok()
}

/// Asks a run to end, and ends it when it does not.
pub(super) fn end(app: &App, id: &str) {
    if let Some(container) = container(app, id) {
        // One that ends at this very moment needs no signal.
        let _ = container.stop(None, CANCEL_GRACE);
    }
}
