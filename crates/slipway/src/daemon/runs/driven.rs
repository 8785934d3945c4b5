//! Runs on another engine than this host: driven from here to their end, by whichever daemon lives.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use slipway_image::build::{CancelFlag, unpack};
use slipway_types::run::{RunSpec, RunState, RunStatus};
use slipway_types::{ApiError, ErrorCode};

use super::super::{App, models};
use super::driver::{Driver, End, Keeper, Line, Order, Plan, Wanted};
use super::finish::{self, finish};
use super::gang_log::GangLog;
use super::metrics::{MAX_METRICS, metrics_file, metrics_line};
use super::{folder, io, is_cancelled};

/// File with how to go on. It is there as long as the engine may have something of the run.
const PLAN: &str = "plan.json";
/// Pause before what cannot be done now is tried again.
const PAUSE: Duration = Duration::from_secs(3);
/// Longest such pause when something is to be removed.
const LONGEST: Duration = Duration::from_secs(60);
/// How often it is looked what is wanted meanwhile.
const LOOK: Duration = Duration::from_millis(100);
/// How long the daemon's end waits for those who drive.
const SETTLE_TIME: Duration = Duration::from_secs(1);
/// How long a cancelled run waits for an engine that cannot be reached.
const CANCEL_PATIENCE: Duration = Duration::from_secs(60);
/// How long a model that is ready is asked for.
const FETCH_TIME: Duration = Duration::from_secs(3600);
/// Shortest time between two records of metrics.
const REPORT: Duration = Duration::from_secs(1);
/// What a tar may have beside the content of its files.
const TAR_MARGIN: u64 = 64 << 20;

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

/// Waits a moment until whoever drives a run has left it: the runtime that they use is about to end.
pub fn settle(app: &App) {
    let until = Instant::now() + SETTLE_TIME;
    while app.driving.load(Ordering::SeqCst) > 0 && Instant::now() < until {
        std::thread::sleep(LOOK / 10);
    }
}

/// A thread that drives a run.
struct Driving(Arc<App>);

impl Driving {
    fn begin(app: &Arc<App>) -> Self {
        app.driving.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(app))
    }
}

impl Drop for Driving {
    fn drop(&mut self) {
        self.0.driving.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Removes what the engine still has of runs that are done.
pub(super) fn sweep(app: &Arc<App>, done: Vec<RunStatus>) {
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
            Ok(true) => {}
            Ok(false) => return Ok(Fate::Left),
            Err(error) => return Err(kept_there(keeping, error)),
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

/// Brings the output here. False when the daemon ends meanwhile.
fn fetch(keeping: &Keeping, spec: &RunSpec) -> Result<bool, ApiError> {
    let plan = keeping.plan();
    let plan = plan.ok_or_else(|| ApiError::new(ErrorCode::Internal, "the plan of the run is lost"))?;
    let until = Instant::now() + FETCH_TIME;
    loop {
        keeping.note(Some("fetching the model".to_owned()));
        let fetched = keeping
            .app
            .engines
            .driver(&keeping.app, &keeping.engine)
            .and_then(|driver| fetch_once(&*driver, &plan, &keeping.folder, spec.gang.storage));
        let error = match fetched {
            Ok(()) => return Ok(true),
            Err(_) if keeping.app.is_stopping() => return Ok(false),
            // A full disk is often full for a moment only.
            Err(error)
                if Instant::now() < until
                    && matches!(error.code, ErrorCode::Unavailable | ErrorCode::ResourceExhausted) =>
            {
                error
            }
            Err(error) => return Err(error),
        };
        keeping.note(Some(format!("the model cannot be fetched yet: {}", error.chain())));
        let again = Instant::now() + PAUSE;
        while Instant::now() < again {
            if keeping.app.is_stopping() {
                return Ok(false);
            }
            std::thread::sleep(LOOK);
        }
    }
}

fn fetch_once(driver: &dyn Driver, plan: &Plan, folder: &Path, storage: u64) -> Result<(), ApiError> {
    let aside = tempfile::tempfile_in(folder).map_err(|e| io("create a file in", folder, &e))?;
    let mut bounded = Bounded { file: aside, left: storage.saturating_add(TAR_MARGIN) };
    driver.collect(plan, &mut bounded)?;
    let mut aside = bounded.file;
    aside.rewind().map_err(|e| io("read what was fetched in", folder, &e))?;
    let output = folder.join("output");
    match std::fs::remove_dir_all(&output) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(io("replace", &output, &e)),
        _ => {}
    }
    // Where a program would have found it here.
    let model = output.join("model");
    std::fs::create_dir_all(&model).map_err(|e| io("create", &model, &e))?;
    let unpacked = unpack(&mut aside, &output, "the run's output", &CancelFlag::new());
    unpacked.map(drop).map_err(|error| ApiError::from_error(ErrorCode::Failed, &error))
}

/// A file that takes no more than it should.
struct Bounded {
    file: File,
    left: u64,
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() as u64 > self.left {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                "the model has more bytes than `train.storage` gives it",
            ));
        }
        let written = self.file.write(bytes)?;
        self.left -= written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A model that was made and does not come back stays where it is.
fn kept_there(keeping: &Keeping, error: ApiError) -> ApiError {
    drop_plan(&keeping.app, &keeping.id);
    let text = format!(
        "training succeeded, but its model cannot be fetched; it stays on the engine `{}`",
        keeping.engine
    );
    let mut causes = vec![error.message];
    causes.extend(error.causes);
    ApiError { causes, ..ApiError::new(error.code, text) }
}

/// Removes what the engine has of a run that is done, again and again until it can.
fn leave(app: &Arc<App>, status: &RunStatus) {
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

/// Removes what the engine has of a run.
fn remove(app: &Arc<App>, status: &RunStatus) -> Result<(), ApiError> {
    app.engines.driver(app, &status.engine)?.remove(&status.id)?;
    drop_plan(app, &status.id);
    Ok(())
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

fn plan_file(app: &App, id: &str) -> PathBuf {
    folder(app, id).join(PLAN)
}

/// What is known of a run that is driven, and its way to disk.
struct Keeping {
    app: Arc<App>,
    id: String,
    engine: String,
    folder: PathBuf,
    inner: Mutex<Kept>,
}

struct Kept {
    status: RunStatus,
    plan: Option<Plan>,
    log: GangLog,
    metrics: BTreeMap<String, f64>,
    reported: Instant,
    /// What was told: each attempt finds the same.
    warned: BTreeSet<String>,
}

impl Keeping {
    fn open(app: &Arc<App>, status: &RunStatus, ranks: u32) -> Result<Self, ApiError> {
        let folder = folder(app, &status.id);
        std::fs::create_dir_all(&folder).map_err(|e| io("create", &folder, &e))?;
        let path = folder.join(PLAN);
        let plan = match std::fs::read(&path) {
            Ok(bytes) => Some(serde_json::from_slice(&bytes).map_err(|e| io("read", &path, &e.into()))?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(io("read", &path, &error)),
        };
        let inner = Kept {
            log: GangLog::open(&folder, ranks).map_err(|e| io("open the log in", &folder, &e))?,
            metrics: status.metrics.clone(),
            status: status.clone(),
            plan,
            reported: Instant::now(),
            warned: BTreeSet::new(),
        };
        Ok(Self {
            app: Arc::clone(app),
            id: status.id.clone(),
            engine: status.engine.clone(),
            folder,
            inner: Mutex::new(inner),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn status(&self) -> RunStatus {
        self.lock().status.clone()
    }

    fn replace(&self, status: RunStatus) {
        self.lock().status = status;
    }

    fn plan(&self) -> Option<Plan> {
        self.lock().plan.clone()
    }

    /// Records what changed. The end of the run records it as well: a full disk must not end it.
    fn report(&self, kept: &mut Kept) {
        kept.reported = Instant::now();
        if let Err(error) = self.app.state.update_run(&kept.status) {
            tracing::warn!(%error, run = self.id, "how a run stands was not recorded");
        }
    }
}

impl Keeper for Keeping {
    fn record(&self, plan: &Plan) -> io::Result<()> {
        let mut aside = tempfile::NamedTempFile::new_in(&self.folder)?;
        serde_json::to_writer(&mut aside, plan)?;
        aside.as_file().sync_all()?;
        aside.persist(self.folder.join(PLAN)).map_err(|error| error.error)?;
        File::open(&self.folder)?.sync_all()?;
        self.lock().plan = Some(plan.clone());
        Ok(())
    }

    fn line(&self, line: Line) {
        let mut kept = self.lock();
        kept.log.line(&line);
        if line.rank == 0 && metrics_line(&line.text, &mut kept.metrics) {
            kept.status.metrics = kept.metrics.clone();
            if kept.reported.elapsed() > REPORT {
                self.report(&mut kept);
            }
        }
    }

    fn note(&self, note: Option<String>) {
        let mut kept = self.lock();
        if kept.status.note != note {
            kept.status.note = note;
            self.report(&mut kept);
        }
    }

    fn warning(&self, text: &str) {
        if !self.lock().warned.insert(text.to_owned()) {
            return;
        }
        self.app.event(&format!("run/{}", self.id), "run.warning", text);
    }

    fn restart(&self, attempt: u32, reason: &str) {
        let number = attempt.saturating_add(1);
        let mut kept = self.lock();
        kept.log.attempt(number, reason);
        kept.status.attempt = number;
        self.report(&mut kept);
        drop(kept);
        let text = format!("Attempt {number} begins: {reason}.");
        self.app.event(&format!("run/{}", self.id), "run.restarted", &text);
    }

    fn wanted(&self) -> Wanted {
        if self.app.is_stopping() {
            Wanted::Leave
        } else if is_cancelled(&self.app, &self.id) {
            Wanted::Cancel
        } else {
            Wanted::Run
        }
    }
}
