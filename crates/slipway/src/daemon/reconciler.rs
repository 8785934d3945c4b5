//! The loop that keeps declared services running: observe, decide, act, record, route.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use slipway_orchestrator::{
    Absence, Action, Desired, Engine, ObservedReplica, Policy, RouteLimits, ServedService, ServiceMemory,
    reconcile, routes, unknown_services,
};
use slipway_types::service::ReplicaState;
use slipway_types::{ApiError, ErrorCode};
use tokio::runtime::Handle;

use super::data_plane::DataPlane;
use super::state::ServiceRecord;
use super::{App, services};

/// How often replicas are looked at when nothing happens, and when something does.
const CALM: Duration = Duration::from_millis(500);
const BUSY: Duration = Duration::from_millis(50);

/// Runs until the daemon ends.
pub fn run(app: &Arc<App>, handle: &Handle) {
    let mut reconciler = Reconciler {
        app: Arc::clone(app),
        policy: Policy::default(),
        memories: BTreeMap::new(),
        origin: Instant::now(),
        data_plane: DataPlane::new(app),
    };
    while !app.is_stopping() {
        let pause = match reconciler.pass() {
            Ok(pause) => pause,
            Err(error) => {
                tracing::error!(error = error.chain(), "a pass of the reconciler failed");
                CALM
            }
        };
        handle.block_on(async {
            // The end of the pause is as good a reason to look again as a change.
            let _ = tokio::time::timeout(pause, app.changed.notified()).await;
        });
    }
    // The last service may have gone since the last pass; then nothing needs the gateway, and nobody would end it.
    if app.state.services().is_ok_and(|services| services.is_empty()) {
        reconciler.data_plane.end();
    }
}

struct Reconciler {
    app: Arc<App>,
    policy: Policy,
    memories: BTreeMap<String, ServiceMemory>,
    origin: Instant,
    data_plane: DataPlane,
}

impl Reconciler {
    /// One look at everything; gives how long to wait for the next.
    fn pass(&mut self) -> Result<Duration, ApiError> {
        let records = self.app.state.services()?;
        let observed = self.app.replicas.list().map_err(|e| engine_error(&e))?;
        self.app.set_seen(observed.clone());
        let served = records.iter().filter(|record| !record.deleting).map(|record| self.served(record));
        let table = routes(
            served.collect::<Result<Vec<_>, _>>()?,
            &observed,
            &RouteLimits::default(),
            &self.data_plane.table,
        );
        // Routes first: a replica that drains must lose its traffic before it is stopped.
        self.data_plane.publish(table, &records, &observed)?;

        let mut busy = false;
        let mut wake = CALM;
        for record in &records {
            let name = &record.target.spec.name;
            let desired = if record.deleting {
                Desired::Absent { service: name.clone(), why: Absence::Deleted }
            } else {
                Desired::Present { target: record.target.clone(), stable: record.stable.clone() }
            };
            busy |= self.settle(&desired, Some(record), &observed, &mut wake)?;
        }
        let names = records.iter().map(|record| record.target.spec.name.as_str());
        for service in unknown_services(names, &observed) {
            let desired = Desired::Absent { service, why: Absence::Unknown };
            busy |= self.settle(&desired, None, &observed, &mut wake)?;
        }
        let declared = |service: &String| records.iter().any(|r| r.target.spec.name == *service);
        self.memories
            .retain(|service, _| declared(service) || observed.iter().any(|r| r.service == *service));
        let unsettled = observed.iter().any(|replica| replica.state != ReplicaState::Ready);
        Ok(if busy || unsettled { BUSY } else { wake.max(BUSY) })
    }

    /// A service with the aliases that name its versions now.
    fn served<'r>(&self, record: &'r ServiceRecord) -> Result<ServedService<'r>, ApiError> {
        let mut labels = BTreeMap::new();
        for revision in std::iter::once(&record.target).chain(&record.stable) {
            let aliases = self.app.state.aliases(&revision.spec.model, revision.spec.version)?;
            labels.insert(revision.number, aliases);
        }
        Ok(ServedService { spec: &record.target.spec, revision: record.target.number, labels })
    }

    /// Decides for one service and acts. Says whether it did anything.
    fn settle(
        &mut self,
        desired: &Desired,
        record: Option<&ServiceRecord>,
        observed: &[ObservedReplica],
        wake: &mut Duration,
    ) -> Result<bool, ApiError> {
        let service = desired.service().to_owned();
        let restarts = record.map_or(0, |record| record.restarts);
        let memory =
            self.memories.entry(service.clone()).or_insert_with(|| ServiceMemory::with_restarts(restarts));
        if self.app.take_try_again(&service) {
            memory.try_again();
        }
        let now = self.origin.elapsed();
        let plan = reconcile(desired, observed, memory, &self.policy, now);
        for notice in &plan.notices {
            self.app.event(&notice.subject, notice.kind, &notice.message);
        }
        if let Some(at) = plan.wake_at {
            *wake = (*wake).min(at.saturating_sub(now));
        }
        let acted = !plan.actions.is_empty();
        for action in plan.actions {
            if let Err(error) = apply(&self.app, &service, &action) {
                let reason = error.chain();
                tracing::warn!(service, reason, "an action failed");
                memory.action_failed(&action, &reason, &self.policy, self.origin.elapsed());
            }
        }
        self.app.set_failing(&service, memory.failing(&self.policy));
        let now_restarts = memory.restarts();
        if record.is_some() && now_restarts != restarts {
            self.app.state.set_restarts(&service, now_restarts)?;
        }
        Ok(acted)
    }
}

fn apply(app: &Arc<App>, service: &str, action: &Action) -> Result<(), ApiError> {
    match action {
        Action::Start(start) => app.replicas.start(start).map(drop).map_err(|e| engine_error(&e)),
        Action::Drain { container } => app.replicas.drain(container).map_err(|e| engine_error(&e)),
        Action::Stop { container, grace } => {
            app.replicas.stop(container, *grace).map_err(|e| engine_error(&e))
        }
        Action::Remove { container } => app.replicas.remove(container).map_err(|e| engine_error(&e)),
        Action::CompleteRollout { revision } => complete(app, service, *revision),
        Action::Forget { service } => forget(app, service),
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

/// What the API says of an engine that cannot.
pub fn engine_error(error: &slipway_orchestrator::EngineError) -> ApiError {
    ApiError::from_error(ErrorCode::Internal, error)
}
