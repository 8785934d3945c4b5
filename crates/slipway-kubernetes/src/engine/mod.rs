//! Services in a cluster: what is declared is rendered and applied, what runs is observed, what failed is taken back.
//!
//! Kubernetes itself keeps the pods: a [`Deployment`](crate::render) replaces what ends and rolls out what changes. So one
//! pass here looks, applies what differs, and tells; it never starts or stops a pod.

mod kubernetes;
mod logs;
mod observe;
mod preview;
mod publisher;
mod renew;
mod rollout;
mod service;
mod usage;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use slipway_orchestrator::{Desired, EngineError, Notice, ObservedReplica, Rollout};
use slipway_types::container::ContainerId;
use tokio::runtime::Handle;

use crate::apply::{Applier, ApplyError, Inventory};
use crate::client::{Cluster, Discovery, ExecError, ExecOptions, LogError, LogOptions, Logs, Process};
use crate::render::SERVICE_LABEL;
use crate::watch::{Health, Snapshot, Store, WatchOptions, Watcher, usual};

pub use kubernetes::KubernetesEngine;
pub use observe::{Address, NoAddress, Reach, container_id, replicas};
pub use preview::{Previewer, Tried, Verdict};
pub use publisher::{Publication, PublishError, Publisher};
pub use rollout::{Progress, progress};

use service::{Context, Known, State};

/// Services that are worked on at once.
const PARALLEL: usize = 16;
/// How long the first pass waits for the lists.
const FILL_TIME: Duration = Duration::from_secs(20);

/// How the engine behaves.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// Id of the daemon, which never changes as long as its state folder is there, of letters and digits. Everything
    /// that the engine applies has it, and it touches nothing of another owner.
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

/// What one pass found and did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pass {
    /// Every desired service.
    pub services: Vec<ServiceReport>,
    /// Services with the revision that is now the stable one.
    pub completed: Vec<(String, u64)>,
    /// Absent services of which nothing is left.
    pub forgotten: Vec<String>,
    /// Services of ours in the namespace that nobody asked about.
    pub unknown: Vec<String>,
    /// Events to record.
    pub notices: Vec<Notice>,
    /// When to come again if nothing changes before.
    pub wake_at: Option<Duration>,
}

/// How a service stands.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceReport {
    /// Its name.
    pub service: String,
    /// How far it is from its declared revision.
    pub rollout: Rollout,
    /// Where it answers.
    pub address: Option<Address>,
    /// Why it answers nowhere, where that is known.
    pub no_address: Option<NoAddress>,
    /// Why it is not as declared, in one sentence with what to do.
    pub reason: Option<String>,
    /// As `reason`, where it is no use to wait for the declared revision.
    pub failing: Option<String>,
    /// What the cluster cannot give.
    pub warnings: Vec<String>,
}

/// The engine for one namespace of one cluster.
pub struct ServiceEngine {
    handle: Handle,
    applier: Applier,
    inventory: Arc<Inventory>,
    watcher: Watcher,
    publisher: Arc<dyn Publisher>,
    options: EngineOptions,
    states: BTreeMap<String, State>,
    gateway: Option<State>,
    /// UIDs of pods that were ready once.
    ready_once: HashSet<String>,
}

impl ServiceEngine {
    /// Begins to watch. `handle` is the runtime that requests run on; the calls below block, and are not made from it.
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
        let watcher = Watcher::start(&cluster, usual(&options.owner, &more), options.watch);
        Ok(Self {
            handle,
            applier,
            inventory,
            watcher,
            publisher,
            options,
            states: BTreeMap::new(),
            gateway: None,
            ready_once: HashSet::new(),
        })
    }

    /// The watcher, whose changes are worth a pass.
    pub fn watcher(&self) -> &Watcher {
        &self.watcher
    }

    /// The inventory, which training runs share.
    pub fn inventory(&self) -> &Arc<Inventory> {
        &self.inventory
    }

    /// What applies.
    pub fn applier(&self) -> &Applier {
        &self.applier
    }

    /// Makes the cluster as desired, as far as one look allows. `now` is a time that never runs backwards; `publish` gets
    /// every replica of the desired services before anything is changed.
    pub fn pass(
        &mut self,
        desired: &[Desired],
        now: Duration,
        publish: &mut dyn FnMut(&[ObservedReplica]) -> Result<(), EngineError>,
    ) -> Result<Pass, EngineError> {
        let handle = self.handle.clone();
        believe(self.watcher.store(), &handle)?;
        let snapshot = self.watcher.store().snapshot();
        self.note_ready(&snapshot);
        let asked: BTreeSet<&str> = desired.iter().map(Desired::service).collect();
        let mut seen = replicas(&snapshot, &self.ready_once);
        seen.retain(|replica| asked.contains(replica.service.as_str()));
        publish(&seen)?;
        handle.block_on(self.reconcile(desired, now, &snapshot))
    }

    fn note_ready(&mut self, snapshot: &Snapshot) {
        let pods = snapshot.of("Pod");
        let uid = |pod: &serde_json::Value| pod["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
        let there: HashSet<String> = pods.iter().map(|pod| uid(pod)).collect();
        self.ready_once.retain(|uid| there.contains(uid));
        self.ready_once.extend(pods.iter().filter(|pod| observe::is_ready(pod)).map(|pod| uid(pod)));
    }

    async fn reconcile(
        &mut self,
        desired: &[Desired],
        now: Duration,
        snapshot: &Snapshot,
    ) -> Result<Pass, EngineError> {
        let caps = match self.applier.discovery().capabilities().await {
            Ok(caps) => caps,
            Err(error) => return Err(EngineError::Unavailable(Box::new(error))),
        };
        let known = Known::new(snapshot);
        let unreachable = AtomicBool::new(false);
        let turns = AtomicUsize::new(self.options.applied_at_once);
        let context = Context {
            applier: &self.applier,
            inventory: &self.inventory,
            publisher: &*self.publisher,
            options: &self.options,
            caps: &caps,
            known: &known,
            now,
            unreachable: &unreachable,
            turns: &turns,
            gateway_address: None,
        };
        let mut pass = Pass::default();
        let gateway = self.gateway.take().unwrap_or_default();
        let (gateway, outcome) = service::gateway(&context, gateway).await;
        self.gateway = Some(gateway);
        let context = Context { gateway_address: outcome.address.clone(), ..context };
        let mut failure = merge(&mut pass, outcome);
        let mut states = std::mem::take(&mut self.states);
        let jobs = desired.iter().map(|one| {
            let state = states.remove(one.service()).unwrap_or_default();
            service::step(&context, one, state)
        });
        let done: Vec<_> = stream::iter(jobs).buffered(PARALLEL).collect().await;
        for (one, (state, outcome)) in desired.iter().zip(done) {
            let gone = outcome.forgotten.is_some();
            failure = merge(&mut pass, outcome).or(failure);
            if !gone {
                self.states.insert(one.service().to_owned(), state);
            }
        }
        let asked: BTreeSet<&str> = desired.iter().map(Desired::service).collect();
        pass.unknown = known.services().filter(|name| !asked.contains(name)).map(str::to_owned).collect();
        match failure {
            Some(error) => Err(EngineError::Unavailable(Box::new(error))),
            None => Ok(pass),
        }
    }

    /// What failed of a service before counts no more.
    pub fn try_again(&mut self, service: &str) {
        let lost = self.states.get(service).is_some_and(State::image_lost);
        self.publisher.try_again(service, lost);
        if let Some(state) = self.states.get_mut(service) {
            state.try_again();
        }
    }

    /// As [`ServiceEngine::try_again`], and what others own of the objects of a service, or of the gateway before it, is
    /// taken over once.
    pub fn take_over(&mut self, service: &str) {
        self.try_again(service);
        self.states.entry(service.to_owned()).or_default().take_over();
        self.gateway.get_or_insert_default().take_over();
    }

    /// Pod of a replica.
    pub fn pod(&self, container: &ContainerId) -> Option<String> {
        let snapshot = self.watcher.store().snapshot();
        let pod = snapshot.of("Pod").iter().find(|pod| container_id(pod).as_ref() == Some(container))?;
        Some(pod["metadata"]["name"].as_str()?.to_owned())
    }

    /// Pods of a service, the oldest first.
    pub fn pods(&self, service: &str) -> Vec<String> {
        let Ok(mapped) = crate::names::map(service) else { return Vec::new() };
        let snapshot = self.watcher.store().snapshot();
        let groups = snapshot.by_label("Pod", SERVICE_LABEL);
        let mut pods = groups.get(mapped.as_str()).cloned().unwrap_or_default();
        pods.sort_by_key(|pod| pod["metadata"]["creationTimestamp"].as_str().unwrap_or_default().to_owned());
        pods.iter().filter_map(|pod| Some(pod["metadata"]["name"].as_str()?.to_owned())).collect()
    }

    /// The log of a pod.
    pub async fn logs(&self, pod: &str, options: &LogOptions) -> Result<Logs, LogError> {
        self.applier.cluster().logs(self.applier.cluster().namespace(), pod, options).await
    }

    /// Runs a program in a pod.
    pub async fn exec(&self, pod: &str, options: &ExecOptions) -> Result<Process, ExecError> {
        self.applier.cluster().exec(self.applier.cluster().namespace(), pod, options).await
    }
}

/// Takes what one service gave into the whole; returns the error if the cluster is not reachable.
fn merge(pass: &mut Pass, outcome: service::Outcome) -> Option<ApplyError> {
    pass.services.extend(outcome.report);
    pass.completed.extend(outcome.completed);
    pass.forgotten.extend(outcome.forgotten);
    pass.notices.extend(outcome.notices);
    pass.wake_at = match (pass.wake_at, outcome.wake_at) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    };
    outcome.unreachable
}

/// The copy must be whole, and kept: on an old one, what is missing may well be there.
fn believe(store: &Store, handle: &Handle) -> Result<(), EngineError> {
    if matches!(store.health(), Health::Filling { .. }) {
        handle.block_on(store.filled(FILL_TIME));
    }
    match store.health() {
        Health::Good => Ok(()),
        Health::Filling { trouble } => {
            let text = trouble.unwrap_or_else(|| "the cluster's objects are still being listed".to_owned());
            Err(EngineError::Unavailable(text.into()))
        }
        Health::Old { trouble } => Err(EngineError::Unavailable(trouble.into())),
    }
}
