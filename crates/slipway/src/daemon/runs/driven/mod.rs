//! Runs on another engine than this host: driven from here to their end, by whichever daemon lives.

mod driving;
mod fetch;
mod keeping;
mod leave;

use std::sync::Arc;
use std::time::{Duration, Instant};

use slipway_types::run::{RunSpec, RunState, RunStatus};
use slipway_types::{ApiError, ErrorCode};

use super::super::{App, models};
use super::driver::{Driver, End, Keeper, Order, Wanted};
use super::finish::{self, finish};
use super::io;
use super::metrics::{MAX_METRICS, metrics_file};
use driving::Driving;
use fetch::fetch;
use keeping::Keeping;
use leave::{keep_output, leave};

pub use driving::settle;
pub(super) use leave::sweep;
pub use leave::{clear, discard};

/// File with how to go on. It is there as long as the engine may have something of the run that shall go.
const PLAN: &str = "plan.json";
/// Pause before what cannot be done now is tried again.
const PAUSE: Duration = Duration::from_secs(3);
/// How often it is looked what is wanted meanwhile.
const LOOK: Duration = Duration::from_millis(100);
/// How long a cancelled run waits for an engine that cannot be reached.
const CANCEL_PATIENCE: Duration = Duration::from_secs(60);

/// Sees a run to its end on a thread of its own.
pub(super) fn follow(app: &Arc<App>, status: RunStatus, spec: RunSpec) {
    let owner = Arc::clone(app);
    let driving = Driving::begin(app);
    let started = std::thread::Builder::new().name(format!("run {}", status.id)).spawn(move || {
        let _driving = driving;
        let mut status = status;
        let fate = match Keeping::open(&owner, &status, spec.gang.ranks) {
            Ok(keeping) => conclude(&keeping, &spec),
            Err(error) => Err(error),
        };
        match fate {
            Ok(Fate::Left) => return,
            Ok(Fate::Ended) => {}
            Err(_) if owner.is_stopping() => return,
            Err(error) => {
                let recorded = owner.state.run(&status.id);
                status = recorded.ok().flatten().map_or(status, |(status, _)| status);
                finish(&owner, &mut status, RunState::Failed, Some(error.chain()));
            }
        }
        leave(&owner, &status);
    });
    if let Err(error) = started {
        tracing::error!(%error, "cannot follow a run");
    }
}

/// What became of a run.
enum Fate {
    Ended,
    /// The daemon ends; the run goes on.
    Left,
}

fn conclude(keeping: &Keeping, spec: &RunSpec) -> Result<Fate, ApiError> {
    let app = &keeping.app;
    if keeping.status().state == RunState::Running {
        let (failure, exit_code) = match drive(keeping, spec)? {
            End::Left => return Ok(Fate::Left),
            End::Succeeded => (None, Some(0)),
            End::Cancelled => (Some("it was ended before it was done".to_owned()), None),
            End::Failed { reason, exit_code } => (Some(reason), exit_code),
        };
        let mut status = keeping.status();
        status.exit_code = exit_code;
        if let Some((state, reason)) = finish::outcome(app, &mut status, failure)? {
            finish(app, &mut status, state, reason);
            return Ok(Fate::Ended);
        }
        keeping.replace(status);
    }
    let mut status = keeping.status();
    // A daemon that died after recording the version and before recording the run comes here a second time.
    if models::made_by(app, &status)?.is_none() {
        match fetch(keeping, spec) {
            Ok(true) => leave::keep_no_output(keeping)?,
            Ok(false) => return Ok(Fate::Left),
            Err(error) => return Err(keep_output(keeping, error)),
        }
    }
    let metrics = metrics_file(&keeping.folder.join("output/metrics.jsonl"));
    status.metrics.extend(metrics.into_iter().take(MAX_METRICS));
    match finish::record_version(app, &status, spec) {
        Ok(version) => {
            status.version = Some(version);
            finish(app, &mut status, RunState::Succeeded, None);
        }
        Err(error) => {
            let mut reason = error.chain();
            finish::keep_or_drop_model(app, &status.id, &error, &mut reason);
            finish(app, &mut status, RunState::Failed, Some(reason));
            return Ok(Fate::Ended);
        }
    }
    // The store has its own copy.
    finish::drop_model(app, &status.id);
    Ok(Fate::Ended)
}

/// Prepares and runs, or goes on, until the end.
fn drive(keeping: &Keeping, spec: &RunSpec) -> Result<End, ApiError> {
    let status = keeping.status();
    let (id, image) = (status.id.as_str(), &status.image_id);
    if keeping.plan().is_none() {
        let told = |text: &str| keeping.note(Some(text.to_owned()));
        let order = Order { run: id, spec, image };
        let plan = match insist(keeping, &|driver| driver.prepare(&keeping.app, &order, &told))? {
            Insisted::Done(plan) => plan,
            Insisted::Cancelled => return Ok(End::Cancelled),
            Insisted::Left => return Ok(End::Left),
        };
        if keeping.wanted() == Wanted::Cancel {
            return Ok(End::Cancelled);
        }
        keeping.record(&plan).map_err(|e| io("write", &keeping.folder.join(PLAN), &e))?;
    }
    let drive = |driver: &dyn Driver| match keeping.plan() {
        Some(plan) => driver.drive(&plan, keeping),
        None => Err(ApiError::new(ErrorCode::Internal, "the plan of the run is lost")),
    };
    Ok(match insist(keeping, &drive)? {
        Insisted::Done(end) => end,
        Insisted::Cancelled => End::Cancelled,
        Insisted::Left => End::Left,
    })
}

enum Insisted<T> {
    Done(T),
    Cancelled,
    Left,
}

/// Does something again and again until the engine can be reached.
fn insist<T>(
    keeping: &Keeping,
    work: &dyn Fn(&dyn Driver) -> Result<T, ApiError>,
) -> Result<Insisted<T>, ApiError> {
    let mut cancelled: Option<Instant> = None;
    loop {
        let driver = keeping.app.engines.driver(&keeping.app, &keeping.engine);
        let error = match driver.and_then(|driver| work(&*driver)) {
            Ok(done) => return Ok(Insisted::Done(done)),
            Err(_) if keeping.app.is_stopping() => return Ok(Insisted::Left),
            Err(error) if error.code == ErrorCode::Unavailable => error,
            Err(error) => return Err(error),
        };
        keeping.note(Some(error.chain()));
        let again = Instant::now() + PAUSE;
        while Instant::now() < again {
            match keeping.wanted() {
                Wanted::Run => {}
                Wanted::Leave => return Ok(Insisted::Left),
                Wanted::Cancel => {
                    let since = *cancelled.get_or_insert_with(Instant::now);
                    // What is there without a plan is nothing; what is left with one is removed when it can be.
                    if keeping.plan().is_none() || since.elapsed() > CANCEL_PATIENCE {
                        return Ok(Insisted::Cancelled);
                    }
                }
            }
            std::thread::sleep(LOOK);
        }
    }
}
