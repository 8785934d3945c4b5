//! Services in a cluster: what is declared is rendered and applied, what runs is observed, what failed is taken back.
//!
//! Kubernetes itself keeps the pods: a [`Deployment`](crate::render) replaces what ends and rolls out what changes. So one
//! pass here looks, applies what differs, and tells. It starts no pod, and stops one only when a user asks to try again.

mod found;
mod gateway;
mod known;
mod leave;
mod lives;
mod log;
mod observe;
mod preview;
mod publisher;
mod report;
mod restarts;
mod rollout;
mod send;
mod service;
mod state;
mod stuck;
mod usage;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use slipway_orchestrator::{
    Absence, Desired, Endpoint, Engine, EngineError, LogLines, ObservedReplica, Pass,
};
use slipway_types::container::{ContainerId, LogOptions};
use slipway_types::service::ReplicaUsage;
use tokio::runtime::Handle;

use crate::Capabilities;
use crate::apply::{Applier, ApplyError, Inventory};
use crate::client::{Cluster, Discovery};
use crate::object::ObjectKey;
use crate::watch::{Health, Snapshot, Store, WatchOptions, Watcher, usual};

pub use observe::{Address, NoAddress, Reach, container_id, replicas};
pub use preview::{Previewer, Tried, Verdict};
pub use publisher::{Publication, PublishError, Publisher};
pub use report::ServiceReport;
pub use rollout::{Progress, progress};

use known::Known;
use lives::Lives;
use state::{Context, Outcome, State};

/// Services that are worked on at once.
const PARALLEL: usize = 16;
/// How long a look waits for the first lists.
const FILL_TIME: Duration = Duration::from_secs(20);

/// How the engine behaves.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// Whose the services are: an id that never changes as long as the daemon's state folder is there, of letters and
    /// digits. Everything that the engine applies has it, and nothing of another owner is touched. Two engines of one
    /// daemon in one namespace need two: what an engine's owner has and nobody declared to it is removed.
    pub owner: String,
    /// How long a new revision may be stuck in what does not pass by itself (no image, crashes, a wrong configuration)
    /// before the stable one is put back. The Deployment's own deadline does the same, later, for everything else.
    pub patience: Duration,
    /// How long it may be stuck so before that is said to whoever waits.
    pub telling: Duration,
    /// Wait after a service could not be applied; doubles up to `retry_most`.
    pub retry_first: Duration,
    /// Longest such wait.
    pub retry_most: Duration,
    /// Services that one pass applies at most; the others follow in the next. A pass tells nothing before its end, and a
    /// thousand services take a minute.
    pub applied_at_once: usize,
    /// Watches.
    pub watch: WatchOptions,
}

impl EngineOptions {
    /// The usual ones, for an owner.
    pub fn new(owner: impl Into<String>) -> Self {
        Self {
            owner: owner.into(),
            patience: Duration::from_secs(120),
            telling: Duration::from_secs(15),
            retry_first: Duration::from_secs(2),
            retry_most: Duration::from_secs(60),
            applied_at_once: 64,
            watch: WatchOptions::default(),
        }
    }
}

/// The engine for what one owner declares in one namespace of one cluster.
pub struct KubernetesEngine {
    handle: Handle,
    applier: Applier,
    inventory: Arc<Inventory>,
    watcher: Watcher,
    /// Kinds that not every cluster has, and this one had when we began to watch.
    watched: Optional,
    publisher: Arc<dyn Publisher>,
    options: EngineOptions,
    /// Held during a pass.
    memory: Mutex<Memory>,
    /// UIDs of pods that were ready once.
    ready_once: Mutex<HashSet<String>>,
    /// What the last pass found. This and what follows is never held while anybody is asked.
    reports: Mutex<BTreeMap<String, ServiceReport>>,
    /// Services that a user asked for again since the last pass, and whether what others own is taken over.
    again: Mutex<BTreeMap<String, bool>>,
}

/// Kinds that not every cluster has.
#[derive(Clone, Copy)]
struct Optional {
    routes: bool,
    claims: bool,
}

impl Optional {
    /// Leaves out what came to the cluster since: it would never be seen to be there.
    fn restrict(self, caps: &mut Capabilities) {
        caps.gateway_api.take_if(|_| !self.routes);
        caps.dra.take_if(|_| !self.claims);
    }
}

#[derive(Default)]
struct Memory {
    states: BTreeMap<String, State>,
    gateway: State,
    lives: Lives,
    /// Nothing of ours shall be there any more.
    retired: bool,
}

impl KubernetesEngine {
    /// Begins to watch. The runtime that this is awaited on is the one that requests run on; the calls of [`Engine`]
    /// block, and are not made from its threads.
    pub async fn start(
        cluster: Cluster,
        publisher: Arc<dyn Publisher>,
        options: EngineOptions,
    ) -> Result<Self, ApplyError> {
        let handle = Handle::current();
        let discovery = Arc::new(Discovery::new(cluster.clone()));
        let applier = Applier::new(cluster.clone(), Arc::clone(&discovery), &options.owner);
        let inventory = Arc::new(Inventory::new(applier.clone())?);
        let caps = discovery.capabilities().await?;
        let mut more = Vec::new();
        if let Some(version) = &caps.gateway_api {
            more.push(
                discovery.resource(&format!("gateway.networking.k8s.io/{version}"), "HTTPRoute").await?,
            );
        }
        if let Some(version) = &caps.dra {
            more.push(
                discovery.resource(&format!("resource.k8s.io/{version}"), "ResourceClaimTemplate").await?,
            );
        }
        if let Some(version) = &caps.jobset {
            more.push(discovery.resource(&format!("jobset.x-k8s.io/{version}"), "JobSet").await?);
        }
        let watched = Optional { routes: caps.gateway_api.is_some(), claims: caps.dra.is_some() };
        let watcher = Watcher::start(&cluster, usual(&options.owner, &more), options.watch);
        Ok(Self {
            handle,
            applier,
            inventory,
            watcher,
            watched,
            publisher,
            options,
            memory: Mutex::default(),
            ready_once: Mutex::default(),
            reports: Mutex::default(),
            again: Mutex::default(),
        })
    }

    /// The copy of what the owner has in the namespace, which training runs share. Its changes are worth a pass.
    pub fn store(&self) -> &Arc<Store> {
        self.watcher.store()
    }

    /// The inventory, which training runs share.
    pub fn inventory(&self) -> &Arc<Inventory> {
        &self.inventory
    }

    /// What applies.
    pub fn applier(&self) -> &Applier {
        &self.applier
    }

    /// How a declared service stood at the last pass.
    pub fn report(&self, service: &str) -> Option<ServiceReport> {
        lock(&self.reports).get(service).cloned()
    }

    /// Name of a replica's pod.
    pub fn pod(&self, replica: &ContainerId) -> Option<String> {
        let snapshot = self.watcher.store().snapshot();
        let pod = snapshot.of("Pod").iter().find(|pod| container_id(pod).as_ref() == Some(replica))?;
        Some(pod["metadata"]["name"].as_str()?.to_owned())
    }

    /// The copy, which must be whole and kept: on an old one, what is missing may well be there.
    fn look(&self) -> Result<Snapshot, EngineError> {
        let store = self.watcher.store();
        if matches!(store.health(), Health::Filling { .. }) {
            self.handle.block_on(store.filled(FILL_TIME));
        }
        match store.health() {
            Health::Good => Ok(store.snapshot()),
            Health::Filling { trouble } => {
                let text =
                    trouble.unwrap_or_else(|| "the cluster's objects are still being listed".to_owned());
                Err(EngineError::Unavailable(text.into()))
            }
            Health::Old { trouble } => Err(EngineError::Unavailable(trouble.into())),
        }
    }

    fn replicas(&self, snapshot: &Snapshot) -> Vec<ObservedReplica> {
        let pods = snapshot.of("Pod");
        let uid = |pod: &serde_json::Value| pod["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
        let there: HashSet<String> = pods.iter().map(|pod| uid(pod)).collect();
        let mut ready_once = lock(&self.ready_once);
        ready_once.retain(|uid| there.contains(uid));
        ready_once.extend(pods.iter().filter(|pod| observe::is_ready(pod)).map(|pod| uid(pod)));
        replicas(snapshot, &ready_once)
    }

    /// One step of everything. `desired` has the leftovers as well.
    async fn reconcile(
        &self,
        memory: &mut Memory,
        desired: &[&Desired],
        now: Duration,
        known: &Known<'_>,
    ) -> Result<Vec<Outcome>, EngineError> {
        let caps = self.applier.discovery().capabilities().await;
        let mut caps = caps.map_err(|error| EngineError::Unavailable(Box::new(error)))?;
        self.watched.restrict(&mut caps);
        let inventory = ObjectKey {
            group: String::new(),
            kind: "ConfigMap".to_owned(),
            namespace: self.applier.cluster().namespace().to_owned(),
            name: self.inventory.set().parent_name().to_owned(),
        };
        if known.get(&inventory).is_none()
            && let Err(error) = self.inventory.restore().await
        {
            tracing::warn!(error = error.sentence(), "the inventory is not written again");
        }
        let mut context = Context {
            applier: &self.applier,
            inventory: &self.inventory,
            publisher: &*self.publisher,
            options: &self.options,
            caps: &caps,
            known,
            now,
            unreachable: &AtomicBool::new(false),
            turns: &AtomicUsize::new(self.options.applied_at_once),
            gateway_address: None,
        };
        let again = std::mem::take(&mut *lock(&self.again));
        for (service, take_over) in again {
            let state = memory.states.entry(service.clone()).or_default();
            self.publisher.try_again(&service, state.image_lost);
            state.try_again();
            state.take_over |= take_over;
            memory.gateway.take_over |= take_over;
        }
        let gateway = gateway::gateway(&context, &mut memory.gateway).await;
        context.gateway_address.clone_from(&memory.gateway.address);
        let mut outcomes = vec![gateway];
        let mut states = std::mem::take(&mut memory.states);
        let steps = desired.iter().map(|one| {
            let state = states.remove(one.service()).unwrap_or_default();
            service::step(&context, one, state)
        });
        let done: Vec<_> = stream::iter(steps).buffered(PARALLEL).collect().await;
        for (one, (state, outcome)) in desired.iter().zip(done) {
            if !outcome.gone {
                memory.states.insert(one.service().to_owned(), state);
            }
            outcomes.push(outcome);
        }
        Ok(outcomes)
    }
}

impl Engine for KubernetesEngine {
    fn pass(
        &self,
        desired: &[Desired],
        now: Duration,
        publish: &mut dyn FnMut(&[ObservedReplica]) -> Result<(), EngineError>,
    ) -> Result<Pass, EngineError> {
        let mut memory = lock(&self.memory);
        if memory.retired {
            return Ok(Pass::default());
        }
        let snapshot = self.look()?;
        let mut pass = Pass { replicas: self.replicas(&snapshot), ..Pass::default() };
        publish(&pass.replicas)?;
        let known = Known::new(&snapshot);
        let asked: BTreeSet<&str> = desired.iter().map(Desired::service).collect();
        let leftovers = known.services().into_iter().filter(|service| !asked.contains(service));
        let leftovers: Vec<Desired> = leftovers
            .map(|service| Desired::Absent { service: service.to_owned(), why: Absence::Unknown })
            .collect();
        let all: Vec<&Desired> = desired.iter().chain(&leftovers).collect();
        pass.notices = memory.lives.look(&pass.replicas);
        let outcomes = self.handle.block_on(self.reconcile(&mut memory, &all, now, &known))?;
        let mut reports = BTreeMap::new();
        // The first is the gateway's.
        let services = std::iter::once(None).chain(all.iter().copied().map(Some));
        for (one, outcome) in services.zip(outcomes) {
            pass.notices.extend(outcome.notices);
            pass.wake_at = [pass.wake_at, outcome.wake_at].into_iter().flatten().min();
            let Some(one) = one else { continue };
            let name = one.service().to_owned();
            pass.completed.extend(outcome.completed.map(|number| (name.clone(), number)));
            if outcome.gone && asked.contains(one.service()) {
                pass.forgotten.push(name.clone());
            }
            if let Some(report) = outcome.report {
                pass.services.insert(name.clone(), report.progress());
                reports.insert(name, report);
            }
        }
        *lock(&self.reports) = reports;
        Ok(pass)
    }

    fn try_again(&self, service: &str) {
        lock(&self.again).entry(service.to_owned()).or_default();
        // Where it was reached before it was changed is no answer to whoever waits for the change.
        lock(&self.reports).remove(service);
    }

    fn take_over(&self, service: &str) {
        self.try_again(service);
        lock(&self.again).insert(service.to_owned(), true);
    }

    fn observe(&self) -> Result<Vec<ObservedReplica>, EngineError> {
        let snapshot = self.look()?;
        Ok(self.replicas(&snapshot))
    }

    fn endpoint(&self, service: &str) -> Endpoint {
        match lock(&self.reports).get(service) {
            Some(report) => report.endpoint(),
            None => Endpoint::Pending { reason: "the cluster was not looked at yet".to_owned() },
        }
    }

    fn log(&self, replica: &ContainerId, options: &LogOptions) -> Result<Box<dyn LogLines>, EngineError> {
        let pod = self.pod(replica).ok_or_else(|| EngineError::NotFound(replica.clone()))?;
        let cluster = self.applier.cluster().clone();
        Ok(Box::new(log::PodLog::open(self.handle.clone(), cluster, pod, options.clone())?))
    }

    fn usage(&self) -> Result<Vec<ReplicaUsage>, EngineError> {
        self.handle.block_on(usage::of(self.applier.cluster(), &self.store().snapshot()))
    }

    fn retire(&self) -> Result<(), EngineError> {
        // No pass may bring back what is removed here.
        let mut memory = lock(&self.memory);
        self.handle.block_on(self.inventory.remove_everything()).map_err(|error| EngineError::Failed {
            operation: "remove what Slipway keeps in the namespace".to_owned(),
            source: Box::new(error),
        })?;
        memory.retired = true;
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
