//! What is known of a run that is driven, and its way to disk.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use slipway_types::ApiError;
use slipway_types::run::RunStatus;

use super::super::super::App;
use super::super::driver::{Keeper, Line, Plan, Wanted};
use super::super::gang_log::GangLog;
use super::super::metrics::metrics_line;
use super::super::{folder, io, is_cancelled};
use super::PLAN;

/// Shortest time between two records of metrics.
const REPORT: Duration = Duration::from_secs(1);

/// What is known of a run that is driven, and its way to disk.
pub(super) struct Keeping {
    pub app: Arc<App>,
    pub id: String,
    pub engine: String,
    pub folder: PathBuf,
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
    pub(super) fn open(app: &Arc<App>, status: &RunStatus, ranks: u32) -> Result<Self, ApiError> {
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

    pub(super) fn status(&self) -> RunStatus {
        self.lock().status.clone()
    }

    pub(super) fn replace(&self, status: RunStatus) {
        self.lock().status = status;
    }

    pub(super) fn plan(&self) -> Option<Plan> {
        self.lock().plan.clone()
    }

    /// Writes a file of the run's folder: it is there whole, or not at all.
    pub(super) fn write(&self, name: &str, content: &impl Serialize) -> io::Result<()> {
        let mut aside = tempfile::NamedTempFile::new_in(&self.folder)?;
        serde_json::to_writer(&mut aside, content)?;
        aside.as_file().sync_all()?;
        aside.persist(self.folder.join(name)).map_err(|error| error.error)?;
        File::open(&self.folder)?.sync_all()
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
        self.write(PLAN, plan)?;
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
