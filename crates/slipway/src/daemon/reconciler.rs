//! The loops that keep declared services running, one per engine: tell it what is declared, publish routes, record.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use slipway_orchestrator::{Absence, Desired, Engine, EngineError, Pass};
use slipway_types::{ApiError, ErrorCode};
use tokio::runtime::Handle;

use super::data_plane::DataPlane;
use super::state::ServiceRecord;
use super::{App, services};

/// How often an engine is looked at when nothing happens, and when something does.
const CALM: Duration = Duration::from_millis(500);
const BUSY: Duration = Duration::from_millis(50);

/// Runs until the daemon ends. Engines do not wait for each other.
pub fn run(app: &Arc<App>, handle: &Handle) {
    let data_plane = Mutex::new(DataPlane::new(app));
    let origin = Instant::now();
    std::thread::scope(|scope| {
        for (name, engine) in &app.engines {
            let looper = Loop { app, name, engine: &**engine, data_plane: &data_plane, origin };
            scope.spawn(move || looper.run(handle));
        }
    });
    // The last service may have gone since the last pass; then nothing needs the gateway, and nobody would end it.
    if app.state.services().is_ok_and(|services| services.is_empty()) {
        data_plane.into_inner().unwrap_or_else(PoisonError::into_inner).end();
    }
}

struct Loop<'a> {
    app: &'a Arc<App>,
    name: &'a str,
    engine: &'a dyn Engine,
    data_plane: &'a Mutex<DataPlane>,
    origin: Instant,
}

impl Loop<'_> {
    fn run(&self, handle: &Handle) {
        let mut changes = self.app.changed.subscribe();
        while !self.app.is_stopping() {
            let pass = self.pass();
            self.app.set_trouble(self.name, pass.as_ref().err().map(ApiError::chain));
            let pause = pass.unwrap_or_else(|error| {
                tracing::error!(engine = self.name, error = error.chain(), "a pass of the reconciler failed");
                CALM
            });
            handle.block_on(async {
                // The end of the pause is as good a reason to look again as a change.
                let _ = tokio::time::timeout(pause, changes.changed()).await;
            });
        }
    }

    /// One look at everything that the engine has; gives how long to wait for the next.
    fn pass(&self) -> Result<Duration, ApiError> {
        let mut records = self.app.state.services()?;
        records.retain(|record| record.engine == self.name);
        let desired: Vec<Desired> = records.iter().map(desired).collect();
        for desired in &desired {
            if self.app.take_try_again(desired.service()) {
                self.engine.try_again(desired.service());
            }
        }
        let now = self.origin.elapsed();
        let pass = self
            .engine
            .pass(&desired, now, &mut |replicas| {
                self.app.set_seen(self.name, replicas.to_vec());
                self.data_plane.lock().unwrap_or_else(PoisonError::into_inner).publish().map_err(unpublished)
            })
            .map_err(|error| engine_error(&error))?;
        self.record(&records, &pass)?;
        let wake = pass.wake_at.map_or(CALM, |at| at.saturating_sub(now).clamp(BUSY, CALM));
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
            if let Err(error) = complete(self.app, service, *revision) {
                tracing::warn!(service, revision, %error, "a completed rollout was not recorded");
            }
        }
        for service in &pass.forgotten {
            if let Err(error) = forget(self.app, service) {
                tracing::warn!(service, %error, "a deleted service was not forgotten");
            }
        }
        Ok(())
    }
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
        EngineError::Unavailable(_) => ErrorCode::Unavailable,
        EngineError::Failed { .. } => ErrorCode::Internal,
    };
    ApiError::from_error(code, error)
}

fn unpublished(error: ApiError) -> EngineError {
    EngineError::Failed { operation: "publish the routes".to_owned(), source: error.chain().into() }
}
