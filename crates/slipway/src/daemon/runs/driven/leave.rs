//! What of a run is left on its engine, and its removal.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use slipway_types::run::RunStatus;
use slipway_types::{ApiError, ErrorCode};

use super::super::super::App;
use super::super::{folder, io};
use super::keeping::Keeping;
use super::{LOOK, PAUSE, PLAN};

/// File of a run's folder that is there while the engine keeps the output of a run that is done.
const KEPT: &str = "kept";
/// Longest pause before what cannot be removed now is tried again.
const LONGEST: Duration = Duration::from_secs(60);

/// Where the output of a run is that did not come back.
#[derive(Deserialize, Serialize)]
struct Left {
    /// The cluster that the engine was, for people.
    cluster: String,
    /// The output in it, for people.
    output: String,
}

/// Removes what the engine still has of runs that are done.
pub(in super::super) fn sweep(app: &Arc<App>, done: Vec<RunStatus>) {
    let done: Vec<_> = done.into_iter().filter(|run| plan_file(app, &run.id).exists()).collect();
    if done.is_empty() {
        return;
    }
    let owner = Arc::clone(app);
    let started = std::thread::Builder::new()
        .name("sweep runs".into())
        .spawn(move || done.iter().for_each(|status| leave(&owner, status)));
    if let Err(error) = started {
        tracing::error!(%error, "what is left of runs is not removed");
    }
}

/// A model that was made and does not come back stays where it is, alone.
pub(super) fn keep_output(keeping: &Keeping, error: ApiError) -> ApiError {
    let id = &keeping.id;
    let place = keeping.plan().map_or_else(|| format!("the engine `{}`", keeping.engine), |plan| plan.place);
    if let Err(error) = mark(keeping, &place) {
        tracing::error!(%error, run = id, "that the output of a run is kept is not recorded");
        // Then nothing is removed at all.
        drop_plan(&keeping.app, id);
    }
    let text = format!(
        "training succeeded, but its model cannot be fetched; it is kept in {place} until `slipway runs --discard {id}`"
    );
    let mut causes = vec![error.message];
    causes.extend(error.causes);
    ApiError { causes, ..ApiError::new(error.code, text) }
}

/// Records that the output of a run is kept. It must outlast a loss of power: without it the output is removed with the rest.
fn mark(keeping: &Keeping, output: &str) -> io::Result<()> {
    let cluster =
        keeping.app.engines.get(&keeping.engine).map(|connected| connected.place).unwrap_or_default();
    keeping.write(KEPT, &Left { cluster, output: output.to_owned() })
}

/// The output came back after all, to a daemon that goes on with what another had given up.
pub(super) fn keep_no_output(keeping: &Keeping) -> Result<(), ApiError> {
    let marker = kept_file(&keeping.app, &keeping.id);
    match std::fs::remove_file(&marker) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io("remove", &marker, &error)),
        _ => Ok(()),
    }
}

/// Removes what the engine has of a run that is done, again and again until it can.
pub(super) fn leave(app: &Arc<App>, status: &RunStatus) {
    let plan = plan_file(app, &status.id);
    let mut pause = PAUSE;
    while plan.exists() {
        match remove(app, status) {
            Ok(()) => return,
            Err(error) if error.code == ErrorCode::NotFound => {
                let text = format!("The engine `{}` is not known any more.", status.engine);
                app.event(&format!("run/{}", status.id), "run.abandoned", &text);
                drop_plan(app, &status.id);
                return;
            }
            Err(error) => {
                tracing::warn!(error = error.chain(), run = status.id, "a run is not removed yet");
            }
        }
        let again = Instant::now() + pause;
        pause = (pause * 2).min(LONGEST);
        while Instant::now() < again {
            if app.is_stopping() {
                return;
            }
            std::thread::sleep(LOOK);
        }
    }
}

/// Removes what the engine has of a run, but an output that is kept.
fn remove(app: &Arc<App>, status: &RunStatus) -> Result<(), ApiError> {
    let driver = app.engines.driver(app, &status.engine)?;
    if kept_file(app, &status.id).exists() {
        driver.release(&status.id)?;
    } else {
        driver.remove(&status.id)?;
    }
    drop_plan(app, &status.id);
    Ok(())
}

/// Removes the output of a run that its engine keeps because it could not be fetched, and whatever else it wrote that is no
/// version. What is in a cluster that is no engine any more is out of reach.
pub fn discard(app: &Arc<App>, status: &RunStatus) -> Result<(), ApiError> {
    let (plan, kept) = (plan_file(app, &status.id), kept_file(app, &status.id));
    if plan.exists() || kept.exists() {
        check_reach(app, status)?;
        let driver = app.engines.driver(app, &status.engine);
        match driver.and_then(|driver| driver.remove(&status.id)) {
            Err(error) if error.code != ErrorCode::NotFound => return Err(error),
            _ => {}
        }
        drop_plan(app, &status.id);
        match std::fs::remove_file(&kept) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io("remove", &kept, &error)),
            _ => {}
        }
    }
    let output = folder(app, &status.id).join("output");
    match std::fs::remove_dir_all(&output) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io("remove", &output, &error)),
        _ => Ok(()),
    }
}

/// Refuses where the output is in another cluster, or namespace, than the engine is now.
fn check_reach(app: &App, status: &RunStatus) -> Result<(), ApiError> {
    let marker = kept_file(app, &status.id);
    let left: Left = match std::fs::read(&marker) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| io("read", &marker, &e.into()))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io("read", &marker, &error)),
    };
    let engine = &status.engine;
    let now = match app.engines.get(engine) {
        Ok(connected) => connected.place,
        Err(error) if error.code == ErrorCode::NotFound => {
            let text = format!("Nobody removes {} ({}) any more.", left.output, left.cluster);
            app.event(&format!("run/{}", status.id), "run.abandoned", &text);
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    if left.cluster.is_empty() || now == left.cluster {
        return Ok(());
    }
    let text = format!(
        "run {} left something in {} ({}), and the engine `{engine}` is now another ({now})",
        status.id, left.output, left.cluster
    );
    Err(ApiError::new(ErrorCode::Conflict, text).with_hint(
        "make that cluster the engine again with `slipway engine use`, or delete the claim there with kubectl",
    ))
}

/// Removes what an engine still has of runs that are done: it is about to be forgotten.
pub fn clear(app: &Arc<App>, engine: &str) -> Result<(), ApiError> {
    let done = app.state.runs(None)?.into_iter().filter(|run| run.engine == engine && run.state.is_final());
    let mut left = done.filter(|run| plan_file(app, &run.id).exists());
    left.try_for_each(|status| remove(app, &status))
}

fn drop_plan(app: &App, id: &str) {
    match std::fs::remove_file(plan_file(app, id)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::error!(%error, run = id, "the plan of a run is not dropped");
        }
        _ => {}
    }
}

fn kept_file(app: &App, id: &str) -> PathBuf {
    folder(app, id).join(KEPT)
}

fn plan_file(app: &App, id: &str) -> PathBuf {
    folder(app, id).join(PLAN)
}
