//! The orchestrator's trait over [`ServiceEngine`]: its reports as progress, its pods as replicas, their lives as events.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use slipway_orchestrator::{
    Absence, Desired, Endpoint, Engine, EngineError, LogLines, Notice, ObservedReplica, Pass, Progress,
    Rollout,
};
use slipway_types::container::{ContainerId, LogOptions};
use slipway_types::service::{ReplicaState, ReplicaUsage};
use tokio::runtime::Handle;

use super::logs::PodLog;
use super::usage;
use super::{Address, NoAddress, ServiceEngine, ServiceReport, replicas};
use crate::apply::{Applier, Inventory};
use crate::client::{self, Cluster};
use crate::render::{GATEWAY_LABEL, SERVICE_LABEL};
use crate::watch::{Snapshot, Store};

/// Container of a replica in its pod.
const SERVER: &str = "server";

/// Services in one namespace of one cluster.
pub struct KubernetesEngine {
    handle: Handle,
    cluster: Cluster,
    store: Arc<Store>,
    applier: Applier,
    inventory: Arc<Inventory>,
    passing: Mutex<Passing>,
    told: Mutex<Told>,
}

/// What passes need.
struct Passing {
    engine: ServiceEngine,
    /// Services that the cluster has of ours and nobody declared.
    leftovers: Vec<String>,
    /// Each replica as the last pass told of it.
    known: BTreeMap<ContainerId, ObservedReplica>,
    rollouts: BTreeMap<String, (u64, bool)>,
    restarts: Restarts,
    /// Nothing of ours shall be there any more.
    retired: bool,
}

/// What is told without a pass.
#[derive(Default)]
struct Told {
    endpoints: BTreeMap<String, Endpoint>,
    ready_once: HashSet<String>,
}

impl KubernetesEngine {
    /// Over an engine that has begun to watch.
    pub fn new(engine: ServiceEngine) -> Self {
        let (handle, applier) = (engine.handle.clone(), engine.applier.clone());
        Self {
            handle,
            cluster: applier.cluster().clone(),
            store: engine.watcher.store().clone(),
            inventory: Arc::clone(&engine.inventory),
            applier,
            passing: Mutex::new(Passing {
                engine,
                leftovers: Vec::new(),
                known: BTreeMap::new(),
                rollouts: BTreeMap::new(),
                restarts: Restarts::default(),
                retired: false,
            }),
            told: Mutex::default(),
        }
    }

    /// The copy of the namespace, whose changes are worth a pass.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// The inventory, which training runs share.
    pub fn inventory(&self) -> &Arc<Inventory> {
        &self.inventory
    }

    /// What applies.
    pub fn applier(&self) -> &Applier {
        &self.applier
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pod(&self, replica: &ContainerId) -> Option<Arc<Value>> {
        let snapshot = self.store.snapshot();
        let pods = snapshot.of("Pod").iter();
        pods.filter(|pod| pod["metadata"]["labels"][SERVICE_LABEL].is_string())
            .find(|pod| super::container_id(pod).as_ref() == Some(replica))
            .cloned()
    }
}

impl Engine for KubernetesEngine {
    fn pass(
        &self,
        desired: &[Desired],
        now: Duration,
        publish: &mut dyn FnMut(&[ObservedReplica]) -> Result<(), EngineError>,
    ) -> Result<Pass, EngineError> {
        let mut passing = self.passing.lock().unwrap_or_else(PoisonError::into_inner);
        let passing = &mut *passing;
        if passing.retired {
            return Ok(Pass::default());
        }
        let mut all = desired.to_vec();
        let asked: HashSet<&str> = desired.iter().map(Desired::service).collect();
        let leftovers = std::mem::take(&mut passing.leftovers);
        let leftovers = leftovers.into_iter().filter(|service| !asked.contains(service.as_str()));
        all.extend(leftovers.map(|service| Desired::Absent { service, why: Absence::Unknown }));
        let mut seen = Vec::new();
        let inner = passing.engine.pass(&all, now, &mut |replicas| {
            seen = replicas.to_vec();
            publish(replicas)
        })?;
        let snapshot = self.store.snapshot();
        let mut told = self.told();
        told.ready_once.clone_from(&passing.engine.ready_once);
        let gateway = gateway_answers(&snapshot);
        let mut pass = Pass { notices: inner.notices, wake_at: inner.wake_at, ..Pass::default() };
        lives(&mut passing.known, &seen, &mut pass.notices);
        let counted = passing.restarts.count(&snapshot);
        told.endpoints.clear();
        let reports: HashMap<&str, &ServiceReport> =
            inner.services.iter().map(|report| (report.service.as_str(), report)).collect();
        let all_ready: HashSet<&str> =
            seen.iter().filter(|r| r.state == ReplicaState::Ready).map(|r| r.service.as_str()).collect();
        for one in desired {
            let Desired::Present { target, restarts, .. } = one else { continue };
            let name = &target.spec.name;
            // One that could not be worked on, as the cluster went away, is as it was.
            let Some(report) = reports.get(name.as_str()) else { continue };
            let ready = all_ready.contains(name.as_str());
            // The gateway knows models alone.
            let reachable = ready && (gateway || target.model.is_none());
            told.endpoints.insert(name.clone(), endpoint(report, reachable));
            rollout_notices(&mut passing.rollouts, target.number, report, &mut pass.notices);
            let progress = Progress {
                restarts: restarts + counted.get(name.as_str()).copied().unwrap_or_default(),
                rollout: report.rollout.clone(),
                failing: report.failing.clone(),
            };
            pass.services.insert(name.clone(), progress);
        }
        passing.rollouts.retain(|service, _| asked.contains(service.as_str()));
        pass.completed = inner.completed;
        pass.forgotten = inner.forgotten.into_iter().filter(|name| asked.contains(name.as_str())).collect();
        pass.busy = !inner.unknown.is_empty();
        passing.leftovers = inner.unknown;
        pass.replicas = seen;
        Ok(pass)
    }

    fn try_again(&self, service: &str) {
        let mut passing = self.passing.lock().unwrap_or_else(PoisonError::into_inner);
        passing.engine.try_again(service);
        // Where it was reached before it was changed is no answer to whoever waits for the change.
        self.told().endpoints.remove(service);
    }

    fn take_over(&self, service: &str) {
        let mut passing = self.passing.lock().unwrap_or_else(PoisonError::into_inner);
        passing.engine.take_over(service);
    }

    fn observe(&self) -> Result<Vec<ObservedReplica>, EngineError> {
        super::believe(&self.store, &self.handle)?;
        let ready_once = self.told().ready_once.clone();
        Ok(replicas(&self.store.snapshot(), &ready_once))
    }

    fn endpoint(&self, service: &str) -> Endpoint {
        self.told().endpoints.get(service).cloned().unwrap_or_else(|| Endpoint::Pending {
            reason: "the cluster was not looked at since it was declared".to_owned(),
        })
    }

    fn log(&self, replica: &ContainerId, options: &LogOptions) -> Result<Box<dyn LogLines>, EngineError> {
        let pod = self.pod(replica).ok_or_else(|| EngineError::NotFound(replica.clone()))?;
        let name = pod["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let options = client::LogOptions {
            container: Some(SERVER.to_owned()),
            follow: options.follow,
            since: options.since,
            tail: options.tail.map(|lines| lines as u64),
            previous: false,
        };
        let logs = self.handle.block_on(self.cluster.logs(self.cluster.namespace(), &name, &options));
        PodLog::open(self.handle.clone(), logs, replica)
    }

    fn usage(&self) -> Result<Vec<ReplicaUsage>, EngineError> {
        let caps = self.handle.block_on(self.applier.discovery().capabilities());
        if !caps.map_err(|error| EngineError::Unavailable(Box::new(error)))?.metrics_api {
            let text = "nothing measures pods in this cluster: install metrics-server";
            return Err(EngineError::Unavailable(text.into()));
        }
        self.handle.block_on(usage::of(&self.cluster, &self.store.snapshot()))
    }

    fn retire(&self) -> Result<(), EngineError> {
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| EngineError::Failed {
            operation: "remove what Slipway keeps in the namespace".to_owned(),
            source,
        };
        // No pass may bring back what is removed here.
        let mut passing = self.passing.lock().unwrap_or_else(PoisonError::into_inner);
        self.handle.block_on(self.inventory.remove_everything()).map_err(|error| failed(Box::new(error)))?;
        passing.retired = true;
        Ok(())
    }
}

fn endpoint(report: &ServiceReport, reachable: bool) -> Endpoint {
    match &report.address {
        Some(Address { url, .. }) => Endpoint::Url { url: url.clone(), reachable },
        None => match &report.no_address {
            Some(NoAddress::NoPort) => Endpoint::Nowhere,
            // Why there are no pods tells more than that there are none.
            Some(NoAddress::Pending(reason)) => {
                Endpoint::Pending { reason: report.reason.as_ref().unwrap_or(reason).clone() }
            }
            None => Endpoint::Pending {
                reason: report.reason.clone().unwrap_or_else(|| "it has no address yet".to_owned()),
            },
        },
    }
}

/// Whether a gateway pod is available, where there is a gateway.
fn gateway_answers(snapshot: &Snapshot) -> bool {
    let mut gateways =
        snapshot.of("Deployment").iter().filter(|one| one["metadata"]["labels"][GATEWAY_LABEL].is_string());
    gateways.all(|one| one["status"]["availableReplicas"].as_u64().unwrap_or_default() > 0)
}

/// Tells how replicas fared since the last pass.
fn lives(
    known: &mut BTreeMap<ContainerId, ObservedReplica>,
    seen: &[ObservedReplica],
    notices: &mut Vec<Notice>,
) {
    let mut tell = |replica: &ObservedReplica, kind, what: String| {
        let (slot, revision, id) = (replica.slot, replica.revision, replica.container.short());
        let message = format!("Replica {slot} of revision {revision} ({id}) {what}");
        notices.push(Notice { subject: format!("service/{}", replica.service), kind, message });
    };
    for replica in seen {
        let before = known.get(&replica.container);
        let state = before.map(|before| before.state);
        let because = || replica.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        match replica.state {
            now if state == Some(now) => {
                let reason = replica.reason.as_ref().filter(|_| now != ReplicaState::Draining);
                if reason.is_some() && before.and_then(|before| before.reason.as_ref()) != reason {
                    tell(replica, "replica.waiting", format!("waits{}", because()));
                }
            }
            ReplicaState::Starting => tell(replica, "replica.starting", "is started.".to_owned()),
            ReplicaState::Ready => tell(replica, "replica.ready", "is ready.".to_owned()),
            ReplicaState::Unready => {
                tell(replica, "replica.unready", format!("does not answer any more{}", because()));
            }
            ReplicaState::Draining => tell(replica, "replica.draining", "drains.".to_owned()),
            ReplicaState::Stopped => tell(replica, "replica.stopped", format!("stopped{}", because())),
        }
    }
    let now: BTreeMap<ContainerId, ObservedReplica> =
        seen.iter().map(|replica| (replica.container.clone(), replica.clone())).collect();
    for (id, replica) in std::mem::take(known) {
        if !now.contains_key(&id) && replica.state != ReplicaState::Stopped {
            tell(&replica, "replica.stopped", "is gone.".to_owned());
        }
    }
    *known = now;
}

/// Tells of a rollout's beginning, its end, and what keeps it.
fn rollout_notices(
    rollouts: &mut BTreeMap<String, (u64, bool)>,
    revision: u64,
    report: &ServiceReport,
    notices: &mut Vec<Notice>,
) {
    let steady = report.rollout == Rollout::Steady;
    let before = rollouts.insert(report.service.clone(), (revision, steady));
    let mut tell = |kind, message: String| {
        notices.push(Notice { subject: format!("service/{}", report.service), kind, message });
    };
    match before {
        Some((known, was_steady)) if known == revision => {
            if steady && !was_steady {
                tell("rollout.completed", format!("Revision {revision} is available."));
            }
        }
        // What an earlier daemon rolled out is no news.
        None if steady => {}
        _ => {
            tell("rollout.started", format!("Revision {revision} is rolled out."));
            if steady {
                tell("rollout.completed", format!("Revision {revision} is available."));
            }
        }
    }
}

/// Restarts of containers in pods, counted from the first look.
#[derive(Default)]
struct Restarts {
    looked: bool,
    /// Of each pod, by UID: its service, and what of its count is older than the first look.
    pods: HashMap<String, (String, u64, u64)>,
    /// Of pods that are gone.
    gone: BTreeMap<String, u64>,
    told: BTreeMap<String, u64>,
}

impl Restarts {
    /// Restarts of each service since the last call.
    fn count(&mut self, snapshot: &Snapshot) -> BTreeMap<String, u64> {
        let mut there = HashSet::new();
        for pod in snapshot.of("Pod") {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let service = text(&pod["metadata"]["annotations"][crate::names::NAME_ANNOTATION]);
            if !pod["metadata"]["labels"][SERVICE_LABEL].is_string() {
                continue;
            }
            let statuses = pod["status"]["containerStatuses"].as_array().map_or(&[][..], Vec::as_slice);
            let count: u64 = statuses.iter().filter_map(|status| status["restartCount"].as_u64()).sum();
            let uid = text(&pod["metadata"]["uid"]);
            let base = if self.looked { 0 } else { count };
            let entry = self.pods.entry(uid.clone()).or_insert((service, base, base));
            entry.2 = count.max(entry.2);
            there.insert(uid);
        }
        self.looked = true;
        let mut totals = self.gone.clone();
        for (uid, (service, base, now)) in &self.pods {
            *totals.entry(service.clone()).or_default() += now - base;
            if !there.contains(uid) {
                *self.gone.entry(service.clone()).or_default() += now - base;
            }
        }
        self.pods.retain(|uid, _| there.contains(uid));
        let before = std::mem::replace(&mut self.told, totals.clone());
        totals.retain(|service, total| {
            *total -= before.get(service).copied().unwrap_or_default();
            *total > 0
        });
        totals
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(uid: &str, restarts: u64) -> Value {
        json!({"kind": "Pod", "metadata": {"uid": uid, "name": uid, "labels": {SERVICE_LABEL: "s"},
            "annotations": {crate::names::NAME_ANNOTATION: "s"}},
            "status": {"containerStatuses": [{"restartCount": restarts}]}})
    }

    #[test]
    fn restarts_are_counted_from_the_first_look_and_told_once() {
        let look = |restarts: &mut Restarts, pods: &[(&str, u64)]| {
            let mut snapshot = Snapshot::default();
            pods.iter().for_each(|(uid, count)| snapshot.insert(pod(uid, *count)));
            restarts.count(&snapshot).get("s").copied().unwrap_or_default()
        };
        let mut restarts = Restarts::default();
        assert_eq!(look(&mut restarts, &[("a", 3)]), 0, "an earlier daemon counted these");
        assert_eq!(look(&mut restarts, &[("a", 4), ("b", 1)]), 2);
        assert_eq!(look(&mut restarts, &[("b", 1)]), 0, "a pod that went takes nothing back");
        assert_eq!(look(&mut restarts, &[("b", 2), ("c", 0)]), 1);
        assert_eq!(look(&mut restarts, &[]), 0);
    }

    #[test]
    fn what_happens_to_replicas_is_told_once() {
        let replica = |state, reason: Option<&str>| ObservedReplica {
            container: ContainerId::from_random([7; 12]),
            service: "s".into(),
            revision: 2,
            slot: 0,
            state,
            started_at: None,
            reason: reason.map(str::to_owned),
            load_failed: false,
            socket: None,
        };
        let mut known = BTreeMap::new();
        let mut kinds = |seen: &[ObservedReplica]| {
            let mut notices = Vec::new();
            lives(&mut known, seen, &mut notices);
            notices.iter().map(|notice| notice.kind).collect::<Vec<_>>()
        };
        let starting = replica(ReplicaState::Starting, None);
        assert_eq!(kinds(std::slice::from_ref(&starting)), ["replica.starting"]);
        assert_eq!(kinds(&[starting]), [""; 0]);
        let waiting = replica(ReplicaState::Starting, Some("no node takes it"));
        assert_eq!(kinds(std::slice::from_ref(&waiting)), ["replica.waiting"]);
        assert_eq!(kinds(&[waiting]), [""; 0]);
        assert_eq!(kinds(&[replica(ReplicaState::Ready, None)]), ["replica.ready"]);
        assert_eq!(kinds(&[]), ["replica.stopped"]);
        assert_eq!(kinds(&[]), [""; 0]);
    }
}
