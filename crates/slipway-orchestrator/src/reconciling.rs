//! An [`Engine`] from single replicas: observe, decide, act.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use slipway_types::container::{ContainerId, LogOptions};
use slipway_types::service::{ReplicaState, ReplicaUsage};

use crate::engine::{Endpoint, Engine, EngineError, LogLines, ObservedReplica, Pass, Progress};
use crate::memory::ServiceMemory;
use crate::plan::{Absence, Action, Desired, Plan};
use crate::policy::Policy;
use crate::reconcile::{reconcile, unknown_services};
use crate::replicas::Replicas;

/// For how long CPU time is measured.
const MEASURED: Duration = Duration::from_millis(500);

/// Keeps services running with replicas that have nobody else to look after them. Its services answer at the gateway.
#[derive(Debug)]
pub struct Reconciling<R> {
    replicas: R,
    policy: Policy,
    memories: Mutex<BTreeMap<String, ServiceMemory>>,
}

impl<R: Replicas> Reconciling<R> {
    /// An engine that remembers nothing: the replicas that run are adopted.
    pub fn new(replicas: R, policy: Policy) -> Self {
        Self { replicas, policy, memories: Mutex::new(BTreeMap::new()) }
    }

    /// Held while replicas are looked at and acted on: a look beside a start could take a half-made replica for one
    /// that ended.
    fn memories(&self) -> MutexGuard<'_, BTreeMap<String, ServiceMemory>> {
        self.memories.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<R: Replicas> Engine for Reconciling<R> {
    fn pass(
        &self,
        desired: &[Desired],
        now: Duration,
        publish: &mut dyn FnMut(&[ObservedReplica]) -> Result<(), EngineError>,
    ) -> Result<Pass, EngineError> {
        let mut memories = self.memories();
        let replicas = self.replicas.list()?;
        publish(&replicas)?;
        let leftovers = unknown_services(desired.iter().map(Desired::service), &replicas);
        let leftovers: Vec<Desired> =
            leftovers.into_iter().map(|service| Desired::Absent { service, why: Absence::Unknown }).collect();
        let mut pass =
            Pass { busy: replicas.iter().any(|r| r.state != ReplicaState::Ready), ..Pass::default() };
        for desired in desired.iter().chain(&leftovers) {
            let service = desired.service();
            let known = match desired {
                Desired::Present { restarts, .. } => *restarts,
                Desired::Absent { .. } => 0,
            };
            let memory =
                memories.entry(service.to_owned()).or_insert_with(|| ServiceMemory::with_restarts(known));
            let plan = settle(&self.replicas, desired, &replicas, memory, &self.policy, now);
            if let Desired::Present { .. } = desired {
                let failing = memory.failing(&self.policy).map(|(_, why)| why.to_owned());
                let progress = Progress { restarts: memory.restarts(), rollout: plan.rollout, failing };
                pass.services.insert(service.to_owned(), progress);
            }
            pass.notices.extend(plan.notices);
            pass.busy |= !plan.actions.is_empty();
            pass.wake_at = [pass.wake_at, plan.wake_at].into_iter().flatten().min();
            for action in plan.actions {
                match action {
                    Action::CompleteRollout { revision } => {
                        pass.completed.push((service.to_owned(), revision));
                    }
                    Action::Forget { service } => pass.forgotten.push(service),
                    Action::Start(_) | Action::Drain { .. } | Action::Stop { .. } | Action::Remove { .. } => {
                    }
                }
            }
        }
        memories.retain(|service, _| {
            desired.iter().any(|d| d.service() == service) || replicas.iter().any(|r| r.service == *service)
        });
        pass.replicas = replicas;
        Ok(pass)
    }

    fn try_again(&self, service: &str) {
        if let Some(memory) = self.memories().get_mut(service) {
            memory.try_again();
        }
    }

    fn observe(&self) -> Result<Vec<ObservedReplica>, EngineError> {
        let _no_pass = self.memories();
        self.replicas.list()
    }

    fn endpoint(&self, _service: &str) -> Endpoint {
        Endpoint::Gateway
    }

    fn log(&self, replica: &ContainerId, options: &LogOptions) -> Result<Box<dyn LogLines>, EngineError> {
        self.replicas.log(replica, options)
    }

    fn usage(&self) -> Result<Vec<ReplicaUsage>, EngineError> {
        let live: Vec<ObservedReplica> =
            self.replicas.list()?.into_iter().filter(|r| r.state != ReplicaState::Stopped).collect();
        let measure = || -> Result<Vec<_>, EngineError> {
            live.iter()
                .map(|replica| Ok((Instant::now(), self.replicas.consumption(&replica.container)?)))
                .collect()
        };
        let first = measure()?;
        std::thread::sleep(MEASURED);
        let usage = live.iter().zip(first.iter().zip(measure()?)).filter_map(|(replica, (before, after))| {
            let ((began, Some(before)), (ended, Some(after))) = (before, after) else { return None };
            let used = after.cpu.saturating_sub(before.cpu).as_secs_f64();
            Some(ReplicaUsage {
                container: replica.container.clone(),
                service: replica.service.clone(),
                cpu_millis: (used * 1e3 / (ended - *began).as_secs_f64()).round() as u64,
                memory: after.memory,
                memory_limit: after.memory_limit,
            })
        });
        Ok(usage.collect())
    }

    fn retire(&self) -> Result<(), EngineError> {
        Ok(())
    }
}

/// Decides for one service and acts. An action that fails is remembered, for the next pass to tell and to try again.
pub(crate) fn settle(
    replicas: &impl Replicas,
    desired: &Desired,
    observed: &[ObservedReplica],
    memory: &mut ServiceMemory,
    policy: &Policy,
    now: Duration,
) -> Plan {
    let plan = reconcile(desired, observed, memory, policy, now);
    for action in &plan.actions {
        let result = match action {
            Action::Start(start) => replicas.start(start).map(drop),
            Action::Drain { container } => replicas.drain(container),
            Action::Stop { container, grace } => replicas.stop(container, *grace),
            Action::Remove { container } => replicas.remove(container),
            Action::CompleteRollout { .. } | Action::Forget { .. } => Ok(()),
        };
        if let Err(error) = result {
            memory.action_failed(action, &chain(&error), policy, now);
        }
    }
    plan
}

/// An error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
