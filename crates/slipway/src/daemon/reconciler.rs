//! The loops that keep declared services running, one per engine: tell it what is declared, publish routes, record.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use slipway_orchestrator::{Absence, Desired, Endpoint, EngineError, Pass};
use slipway_types::{ApiError, ErrorCode};
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::data_plane::DataPlane;
use super::state::ServiceRecord;
use super::{App, Connected, services};

/// How often an engine is looked at when nothing happens, and when something does.
const CALM: Duration = Duration::from_millis(500);
const BUSY: Duration = Duration::from_millis(50);
/// Longest time that changes wait for the next pass. With a thousand services one takes long, and each change is told by
/// several watches: passes take at most half of the time.
const LONGEST_REST: Duration = Duration::from_secs(2);
/// As `CALM`, for an engine that tells of changes.
const TOLD: Duration = Duration::from_secs(10);
/// Longest pause after passes that failed.
const LONGEST: Duration = Duration::from_secs(10);
/// How often engines without a loop are looked for when nothing says that there is one.
const SUPERVISION: Duration = Duration::from_secs(1);

/// Runs until the daemon ends. Engines do not wait for each other.
pub fn run(app: &Arc<App>, handle: &Handle) {
    let data_plane = Arc::new(Mutex::new(DataPlane::new(app)));
    let origin = Instant::now();
    let mut loops: BTreeMap<String, JoinHandle<()>> = BTreeMap::new();
    let mut changes = app.changed.subscribe();
    while !app.is_stopping() {
        loops.retain(|_, running| !running.is_finished());
        for (name, generation) in app.engines.generations() {
            if loops.contains_key(&name) {
                continue;
            }
            let (app, data_plane) = (Arc::clone(app), Arc::clone(&data_plane));
            let looper = Loop { app, name: name.clone(), generation, data_plane, origin };
            let handle = handle.clone();
            let thread = std::thread::Builder::new().name(format!("engine {name}"));
            match thread.spawn(move || looper.run(&handle)) {
                Ok(running) => drop(loops.insert(name, running)),
                Err(error) => tracing::error!(%error, engine = name, "cannot look after an engine"),
            }
        }
        handle.block_on(async {
            let _ = tokio::time::timeout(SUPERVISION, changes.changed()).await;
        });
    }
    for (engine, running) in loops {
        if running.join().is_err() {
            tracing::error!(engine, "a reconciler panicked");
        }
    }
    // The last service may have gone since the last pass; then nothing needs the gateway, and nobody would end it.
    let at_gateway = |record: &ServiceRecord| app.engines.endpoint(record) == Endpoint::Gateway;
    if app.state.services().is_ok_and(|services| !services.iter().any(at_gateway)) {
        data_plane.lock().unwrap_or_else(PoisonError::into_inner).end();
    }
}

struct Loop {
    app: Arc<App>,
    name: String,
    generation: u64,
    data_plane: Arc<Mutex<DataPlane>>,
    origin: Instant,
}

impl Loop {
    /// Runs until the daemon ends, or the engine is removed or replaced.
    fn run(&self, handle: &Handle) {
        let mut changes = self.app.changed.subscribe();
        let mut failures: u32 = 0;
        while !self.app.is_stopping() {
            let connected = match self.app.engines.reach(&self.app, &self.name, self.generation) {
                Ok(Some(connected)) => Ok(connected),
                Ok(None) => return,
                Err(error) => Err(error),
            };
            let mut told = connected.as_ref().ok().and_then(|connected| connected.changes.clone());
            if let Some(told) = &mut told {
                // What changes from here on is what this pass may not see.
                told.mark_unchanged();
            }
            let began = Instant::now();
            let pass = connected.and_then(|connected| self.pass(&connected));
            let rest = rest(began.elapsed());
            self.app.engines.set_trouble(&self.name, pass.as_ref().err().map(ApiError::chain));
            failures = if pass.is_ok() { 0 } else { failures + 1 };
            let pause = pass.unwrap_or_else(|error| {
                // One that stays away is said once in a while.
                if failures.is_power_of_two() {
                    let engine = &self.name;
                    tracing::error!(engine, error = error.chain(), "a pass of the reconciler failed");
                }
                (CALM * failures).min(LONGEST)
            });
            handle.block_on(async {
                // The end of the pause is as good a reason to look again as a change.
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    _ = changes.changed() => tokio::time::sleep(rest).await,
                    // Changes come in bursts.
                    () = change(told) => tokio::time::sleep(BUSY.max(rest)).await,
                }
            });
        }
    }

    /// One look at everything that the engine has; gives how long to wait for the next.
    fn pass(&self, connected: &Connected) -> Result<Duration, ApiError> {
        let engine = &*connected.engine;
        let calm = if connected.changes.is_some() { TOLD } else { CALM };
        let of_this = |record: &ServiceRecord| record.engine == self.name;
        // A wish is taken before the records are read: what was declared before it was made is in them.
        let wished = self.app.tried_again();
        let wished = self
            .app
            .state
            .services_where(|record| of_this(record) && wished.contains(&record.target.spec.name))?;
        for record in &wished {
            let service = &record.target.spec.name;
            match self.app.take_try_again(service) {
                None => {}
                Some(false) => engine.try_again(service),
                Some(true) => engine.take_over(service),
            }
        }
        let records = self.app.state.services_where(of_this)?;
        let desired: Vec<Desired> = records.iter().map(desired).collect();
        let now = self.origin.elapsed();
        let began = Instant::now();
        let pass = engine
            .pass(&desired, now, &mut |replicas| {
                self.app.engines.set_seen(&self.name, replicas);
                self.data_plane.lock().unwrap_or_else(PoisonError::into_inner).publish().map_err(unpublished)
            })
            .map_err(|error| engine_error(&error))?;
        self.record(&records, &pass)?;
        let took_ms = began.elapsed().as_secs_f64() * 1000.0;
        tracing::debug!(
            engine = self.name,
            services = desired.len(),
            took_ms,
            "a pass of the reconciler ended"
        );
        let wake = pass.wake_at.map_or(calm, |at| at.saturating_sub(now).clamp(BUSY, calm));
        Ok(if pass.busy { BUSY } else { wake })
    }

    fn record(&self, records: &[ServiceRecord], pass: &Pass) -> Result<(), ApiError> {
        for notice in &pass.notices {
            self.app.event(&notice.subject, notice.kind, &notice.message);
        }
        for record in records {
            let name = &record.target.spec.name;
            let progress = pass.services.get(name);
            let failing = progress.and_then(|progress| progress.failing.as_deref());
            self.app.set_failing(name, failing.map(|why| (record.target.number, why)));
            if let Some(progress) = progress.filter(|progress| progress.restarts != record.restarts) {
                self.app.state.set_restarts(name, progress.restarts)?;
            }
        }
        // What cannot be recorded now is told again by the next pass.
        for (service, revision) in &pass.completed {
            if let Err(error) = complete(&self.app, service, *revision) {
                tracing::warn!(service, revision, %error, "a completed rollout was not recorded");
            }
        }
        for service in &pass.forgotten {
            if let Err(error) = forget(&self.app, service) {
                tracing::warn!(service, %error, "a deleted service was not forgotten");
            }
        }
        Ok(())
    }
}

/// How long what happens waits after a pass that took so long. A short one is no reason to let a user wait.
fn rest(pass: Duration) -> Duration {
    if pass < BUSY { Duration::ZERO } else { pass.min(LONGEST_REST) }
}

/// Waits for a change; for ever where nobody tells of any.
async fn change(told: Option<watch::Receiver<u64>>) {
    if let Some(mut told) = told
        && told.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

fn desired(record: &ServiceRecord) -> Desired {
    if record.deleting {
        Desired::Absent { service: record.target.spec.name.clone(), why: Absence::Deleted }
    } else {
        Desired::Present {
            target: record.target.clone(),
            stable: record.stable.clone(),
            restarts: record.restarts,
        }
    }
}

/// Every declared replica of a revision is ready: it becomes the one to go back to. A user who changes the service at
/// this moment holds the claim; then the reconciler comes back to it.
fn complete(app: &Arc<App>, service: &str, revision: u64) -> Result<(), ApiError> {
    let _claim = app.claim(&format!("service {service}"))?;
    let Some(mut record) = app.state.service(service)?.filter(|r| r.target.number == revision) else {
        return Ok(());
    };
    record.stable = Some(record.target.clone());
    app.state.put_service(&record)?;
    services::unpin_others(app, service, &[revision])
}

fn forget(app: &Arc<App>, service: &str) -> Result<(), ApiError> {
    let _claim = app.claim(&format!("service {service}"))?;
    if app.state.service(service)?.is_some_and(|record| record.deleting) {
        app.state.remove_service(service)?;
        services::unpin_others(app, service, &[])?;
        app.event(&format!("service/{service}"), "service.deleted", "It is gone.");
    }
    Ok(())
}

/// An engine's error, with its public kind.
pub fn engine_error(error: &EngineError) -> ApiError {
    let code = match error {
        EngineError::NotFound(_) | EngineError::ImageMissing(_) | EngineError::ModelMissing(_) => {
            ErrorCode::NotFound
        }
        EngineError::NotStopped(_) => ErrorCode::Conflict,
        EngineError::Unavailable(_) | EngineError::Lacks(_) => ErrorCode::Unavailable,
        EngineError::Failed { .. } => ErrorCode::Internal,
    };
    ApiError::from_error(code, error)
}

fn unpublished(error: ApiError) -> EngineError {
    EngineError::Failed { operation: "publish the routes".to_owned(), source: error.chain().into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_take_at_most_half_of_the_time_and_short_ones_let_nobody_wait() {
        assert_eq!(rest(Duration::from_millis(5)), Duration::ZERO);
        assert_eq!(rest(Duration::from_millis(400)), Duration::from_millis(400));
        assert_eq!(rest(Duration::from_secs(90)), LONGEST_REST);
    }
}
