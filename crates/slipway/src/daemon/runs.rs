//! Training runs: a container, its log and metrics, and the model version that a success makes.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use slipway_image::model;
use slipway_runtime::{Container, LogNext, LogOptions};
use slipway_types::container::{ContainerId, ContainerSpec, ExitInfo, LogLine, Mount, OutputStream};
use slipway_types::model::{Lineage, MODEL_NAME_RULE, valid_model_name};
use slipway_types::run::{RunEvent, RunSpec, RunState, RunStatus};
use slipway_types::{ApiError, ErrorCode};

use super::models::{self, Candidate};
use super::{App, containers, git, images, logs};

/// Where a run's results appear inside its container.
const OUTPUT: &str = "/output";
/// Most distinct metrics of one run.
const MAX_METRICS: usize = 1000;
/// How long a cancelled run may take to end by itself.
const CANCEL_GRACE: Duration = Duration::from_secs(10);
const SIGKILL: i32 = 9;
/// How often, and after which pauses, the end of a run is recorded when the database cannot.
const RECORD_ATTEMPTS: u32 = 60;
const RECORD_PAUSE: Duration = Duration::from_secs(1);
/// How often a follower looks whether a run is done.
const POLL: Duration = Duration::from_millis(50);
/// How often a follower of a log looks whether anyone still listens.
const FOLLOW_POLL: Duration = Duration::from_millis(200);

/// Records a run and starts its container; the rest happens on a thread of its own.
pub fn start(app: &Arc<App>, spec: &RunSpec) -> Result<RunStatus, ApiError> {
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
    let status = app.state.add_run(spec, |id| RunStatus {
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
            if folder(app, &status.id).join("cancelled").exists() {
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

/// Sees a run to its end on a thread of its own.
fn follow(app: &Arc<App>, mut status: RunStatus, spec: RunSpec, container: Container) {
    let owner = Arc::clone(app);
    let started = std::thread::Builder::new().name(format!("run {}", status.id)).spawn(move || {
        let app = owner;
        let id = container.config().id.clone();
        if let Err(error) = conclude(&app, &mut status, &spec, &container) {
            let mut reason = error.message.clone();
            error.causes.iter().for_each(|cause| {
                reason.push_str(": ");
                reason.push_str(cause);
            });
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
    let cancelled = folder.join("cancelled").exists();
    let outcome = if cancelled {
        Err((RunState::Cancelled, None))
    } else if exit.code != 0 {
        Err((RunState::Failed, Some(failure(&exit))))
    } else {
        Ok(())
    };
    if let Err((state, reason)) = outcome {
        remove_container(app, &container.config().id);
        drop_model(app, &status.id);
        finish(app, status, state, reason);
        return Ok(());
    }
    status.state = RunState::Packing;
    app.state.update_run(status)?;
    // A daemon that died after recording the version and before recording the run comes here a second time.
    let recorded = models::list(app, Some(&spec.project))?
        .into_iter()
        .find(|version| version.lineage.run.as_deref() == Some(&status.id));
    let version = match recorded {
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

/// Takes the numbers of a line that is a JSON object. Says whether it was one.
fn metrics_line(text: &str, metrics: &mut BTreeMap<String, f64>) -> bool {
    let text = text.trim();
    if !text.starts_with('{') || text.len() > 64 << 10 {
        return false;
    }
    let Ok(serde_json::Value::Object(object)) = serde_json::from_str(text) else { return false };
    for (key, value) in object {
        let Some(number) = value.as_f64().filter(|n| n.is_finite()) else { continue };
        if metrics.len() < MAX_METRICS || metrics.contains_key(&key) {
            metrics.insert(key, number);
        }
    }
    true
}

fn metrics_file(path: &Path) -> BTreeMap<String, f64> {
    use std::io::Read;
    let mut metrics = BTreeMap::new();
    let mut text = String::new();
    // The container wrote it: it may be a link to anywhere, a device, or endless.
    let open = rustix::fs::open(
        path,
        rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK,
        rustix::fs::Mode::empty(),
    );
    let Ok(file) = open.map(std::fs::File::from) else { return metrics };
    if file.metadata().is_ok_and(|m| m.is_file()) && file.take(16 << 20).read_to_string(&mut text).is_ok() {
        text.lines().for_each(|line| {
            metrics_line(line, &mut metrics);
        });
    }
    metrics
}

fn failure(exit: &ExitInfo) -> String {
    match &exit.error {
        Some(error) => error.clone(),
        None if exit.oom_killed => "it ran out of memory and was killed; raise `train.memory`".to_owned(),
        None if exit.code > 128 => format!("it was ended by signal {}", exit.code - 128),
        None => format!("it exited with code {}", exit.code),
    }
}

fn finish(app: &App, status: &mut RunStatus, state: RunState, error: Option<String>) {
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

/// Stops a run; it leaves no model version.
pub fn cancel(app: &App, id: &str) -> Result<(), ApiError> {
    let (status, _) = find(app, id)?;
    if status.state != RunState::Running {
        return Err(ApiError::new(ErrorCode::Conflict, format!("run {id} is done already")));
    }
    let folder = folder(app, id);
    std::fs::create_dir_all(&folder).map_err(|e| io("create", &folder, &e))?;
    let marker = folder.join("cancelled");
    std::fs::write(&marker, "").map_err(|e| io("write", &marker, &e))?;
    if let Some(container) = container(app, id) {
        // One that ends at this very moment needs no signal.
        let _ = container.stop(None, CANCEL_GRACE);
    }
    Ok(())
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

/// After a restart of the daemon: runs go on, or end as what became of their container.
pub fn recover(app: &Arc<App>) -> Result<(), ApiError> {
    for mut status in app.state.runs(None)?.into_iter().filter(|run| !run.state.is_final()) {
        let Some((_, spec)) = app.state.run(&status.id)? else { continue };
        match container(app, &status.id) {
            Some(container) => follow(app, status, spec, container),
            None => {
                // Its container is gone: it never ran, or everything but its end was done.
                let made = models::list(app, Some(&status.project))?
                    .into_iter()
                    .find(|version| version.lineage.run.as_deref() == Some(&status.id));
                status.version = made.map(|version| version.version);
                let (state, reason) = if status.version.is_some() {
                    (RunState::Succeeded, None)
                } else if folder(app, &status.id).join("cancelled").exists() {
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

/// Passes on what a run writes, and its end. `send` says whether anyone still listens.
pub fn stream(
    app: &App,
    status: &RunStatus,
    is_gone: &dyn Fn() -> bool,
    send: &mut dyn FnMut(RunEvent) -> bool,
) {
    if !send(RunEvent::Started(Box::new(status.clone()))) {
        return;
    }
    let mut on_line = |line: LogLine| send(RunEvent::Log(line));
    if let Some(container) = container(app, &status.id) {
        let options = LogOptions { follow: true, ..LogOptions::default() };
        if let Ok(mut lines) = container.logs(options) {
            loop {
                match lines.next_within(FOLLOW_POLL) {
                    Ok(LogNext::Line(line)) => {
                        if !on_line(line) {
                            return;
                        }
                    }
                    Ok(LogNext::Idle) => {
                        if is_gone() || app.is_stopping() {
                            return;
                        }
                    }
                    Ok(LogNext::End) | Err(_) => break,
                }
            }
        }
    }
    loop {
        match find(app, &status.id) {
            Ok((now, _)) if now.state.is_final() => {
                send(RunEvent::Finished(Box::new(now)));
                return;
            }
            Ok(_) if app.is_stopping() || is_gone() => return,
            Ok(_) => std::thread::sleep(POLL),
            Err(error) => {
                send(RunEvent::Failed(error));
                return;
            }
        }
    }
}

fn is_empty(path: &Path) -> bool {
    std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none())
}

fn io(what: &str, path: &Path, error: &std::io::Error) -> ApiError {
    crate::failure::io(what, path, error)
        .error
        .unwrap_or_else(|| ApiError::new(ErrorCode::Internal, format!("cannot {what} {}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_the_last_numbers_of_json_lines() {
        let mut metrics = BTreeMap::new();
        let lines = [
            r#"{"epoch": 1, "loss": 0.5, "name": "x", "nested": {"a": 1}}"#,
            "plain text",
            "{not json",
            r#"  {"loss": 0.25, "accuracy": 0.97}  "#,
            r#"[1, 2]"#,
        ];
        let taken: Vec<bool> = lines.iter().map(|line| metrics_line(line, &mut metrics)).collect();
        assert_eq!(taken, [true, false, false, true, false]);
        let expected = [("accuracy", 0.97), ("epoch", 1.0), ("loss", 0.25)];
        assert_eq!(metrics, expected.map(|(k, v)| (k.to_owned(), v)).into());
    }

    #[test]
    fn a_metrics_file_that_is_a_link_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().join("real");
        std::fs::write(&real, "{\"a\": 1}\n").unwrap();
        assert_eq!(metrics_file(&real).len(), 1);
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&real, &link).unwrap();
        assert!(metrics_file(&link).is_empty());
        assert!(metrics_file(&dir.path().join("absent")).is_empty());
    }
}
