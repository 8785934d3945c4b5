//! Brings what services need to the registry of a cluster, one after another and in the background.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use slipway_kubernetes::engine::{Publication, PublishError, Publisher};
use slipway_kubernetes::spec::{GatewayDeployment, ServiceDeployment};
use slipway_orchestrator::Revision;
use slipway_types::Reference;
use slipway_types::engine::ClusterSpec;
use slipway_types::publish::{PublishEvent, PublishedService};

use super::deployment::{GATEWAY, gateway, on_engine, placement};
use crate::daemon::App;
use crate::daemon::publish::{self, Destination, OnPublish};

/// How long what failed is not tried again, unless a user asks.
const AGAIN: Duration = Duration::from_secs(15);

/// Publishes for one cluster.
pub struct RegistryPublisher {
    app: Weak<App>,
    spec: ClusterSpec,
    namespace: String,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    jobs: BTreeMap<Key, Job>,
    queue: VecDeque<Work>,
    working: bool,
}

/// Service and revision; none is the gateway.
type Key = Option<(String, u64)>;

enum Work {
    Service(Box<Revision>),
    Gateway,
}

impl Work {
    fn key(&self) -> Key {
        match self {
            Self::Service(revision) => Some((revision.spec.name.clone(), revision.number)),
            Self::Gateway => None,
        }
    }
}

enum Job {
    Underway(String),
    Service(Box<PublishedService>),
    Gateway(Reference),
    Failed(String, Instant),
}

impl RegistryPublisher {
    /// For a cluster. What `app` does meanwhile is not waited for.
    pub fn new(app: &Arc<App>, spec: &ClusterSpec, namespace: &str) -> Self {
        let app = Arc::downgrade(app);
        Self { app, spec: spec.clone(), namespace: namespace.to_owned(), shared: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        lock(&self.shared)
    }

    /// Gives `work` to the thread that publishes, starting one if none works.
    fn enqueue(&self, work: Work) -> Result<(), PublishError> {
        let mut shared = self.lock();
        shared.jobs.insert(work.key(), Job::Underway("waits to be sent to the registry".to_owned()));
        shared.queue.push_back(work);
        if std::mem::replace(&mut shared.working, true) {
            return Ok(());
        }
        let (app, registry, all) = (self.app.clone(), self.spec.registry.clone(), Arc::clone(&self.shared));
        let started = std::thread::Builder::new()
            .name("publisher".into())
            .spawn(move || work_off(&app, &registry, &all));
        if let Err(error) = started {
            shared.working = false;
            return Err(Box::new(error));
        }
        Ok(())
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Publishes until nothing is left to do.
fn work_off(app: &Weak<App>, registry: &str, shared: &Arc<Mutex<Shared>>) {
    loop {
        let work = {
            let mut shared = lock(shared);
            let next = shared.queue.pop_front();
            shared.working = next.is_some();
            next
        };
        let (Some(work), Some(app)) = (work, app.upgrade()) else { return };
        if app.is_stopping() {
            return;
        }
        let key = work.key();
        let progress: OnPublish = {
            let (shared, key) = (Arc::clone(shared), key.clone());
            Arc::new(move |event| {
                if let PublishEvent::Image { what, reference } = event {
                    lock(&shared)
                        .jobs
                        .insert(key.clone(), Job::Underway(format!("{what} goes to {reference}")));
                }
            })
        };
        let to = Destination { registry, compression: None, push: true };
        let outcome = match &work {
            Work::Service(revision) => publish::revision(&app, revision, &to, &progress)
                .map(|published| Job::Service(Box::new(published))),
            Work::Gateway => publish::gateway(&app, &to, &progress).map(Job::Gateway),
        };
        let job = outcome.unwrap_or_else(|error| {
            let what = key.as_ref().map_or(GATEWAY, |(service, _)| service);
            tracing::warn!(what, error = error.chain(), "it was not published");
            Job::Failed(error.chain(), Instant::now())
        });
        lock(shared).jobs.insert(key, job);
        app.wake();
    }
}

impl Publisher for RegistryPublisher {
    fn service(&self, revision: &Revision) -> Result<Publication<ServiceDeployment>, PublishError> {
        let app = self.app.upgrade().ok_or("the daemon ends")?;
        let name = &revision.spec.name;
        let key = Some((name.clone(), revision.number));
        let published = match self.lock().jobs.get(&key) {
            Some(Job::Underway(what)) => return Ok(Publication::Underway(what.clone())),
            Some(Job::Failed(why, at)) if at.elapsed() < AGAIN => return Err(why.clone().into()),
            Some(Job::Service(published)) => Some((**published).clone()),
            Some(Job::Failed(..) | Job::Gateway(_)) | None => None,
        };
        let Some(published) = published else {
            // Revisions before the one that runs and the one that comes are asked for no more.
            self.lock().jobs.retain(|key, _| {
                key.as_ref().is_none_or(|(service, number)| service != name || *number + 8 > revision.number)
            });
            self.enqueue(Work::Service(Box::new(revision.clone())))?;
            return Ok(Publication::Underway("its images go to the registry".to_owned()));
        };
        let exposure = app.state.service(name)?.and_then(|record| record.exposure);
        Ok(Publication::Ready(on_engine(published, revision, exposure, &self.spec, &self.namespace)))
    }

    fn gateway(&self) -> Result<Option<Publication<GatewayDeployment>>, PublishError> {
        if self.spec.gateway_replicas == 0 {
            return Ok(None);
        }
        let image = match self.lock().jobs.get(&None) {
            Some(Job::Underway(what)) => return Ok(Some(Publication::Underway(what.clone()))),
            Some(Job::Failed(why, at)) if at.elapsed() < AGAIN => return Err(why.clone().into()),
            Some(Job::Gateway(image)) => Some(image.clone()),
            Some(Job::Failed(..) | Job::Service(_)) | None => None,
        };
        let Some(image) = image else {
            self.enqueue(Work::Gateway)?;
            return Ok(Some(Publication::Underway("its image goes to the registry".to_owned())));
        };
        Ok(Some(Publication::Ready(GatewayDeployment {
            replicas: self.spec.gateway_replicas,
            exposure: self.spec.exposure.clone(),
            placement: placement(&self.spec),
            ..gateway(image, &self.namespace)
        })))
    }

    fn try_again(&self, service: &str) {
        let failed = |key: &Key, job: &Job| {
            matches!(job, Job::Failed(..)) && key.as_ref().is_none_or(|(name, _)| name == service)
        };
        self.lock().jobs.retain(|key, job| !failed(key, job));
    }
}
