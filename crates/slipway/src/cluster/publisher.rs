//! Brings what services need to the registry of a cluster, a few at a time and in the background.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use slipway_kubernetes::engine::{Publication, PublishError, Publisher};
use slipway_kubernetes::spec::{GatewayDeployment, ServiceDeployment};
use slipway_orchestrator::Revision;
use slipway_types::Reference;
use slipway_types::engine::ClusterSpec;
use slipway_types::publish::{PublishEvent, PublishedService};

use super::deployment::{GATEWAY, gateway_on_engine, on_engine};
use crate::daemon::App;
use crate::daemon::publish::{self, Destination, OnPublish};
use crate::daemon::published;

/// How long what failed is not tried again, unless a user asks.
const AGAIN: Duration = Duration::from_secs(15);
/// How many revisions before the one that is asked for are remembered.
const KEPT: u64 = 8;
/// How many services are published at once: most of the time of a small image is waiting for the registry and the disk.
const WORKERS: usize = 4;

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
    workers: usize,
}

impl Shared {
    /// Forgets revisions of a service up to a number. Only its own are looked through: this is called for each service in
    /// each pass.
    fn forget_before(&mut self, service: &str, number: u64) {
        let of = |number| Some((service.to_owned(), number));
        let old: Vec<Key> = self.jobs.range(of(0)..=of(number)).map(|(key, _)| key.clone()).collect();
        for key in old {
            self.jobs.remove(&key);
        }
    }
}

/// Service and revision; none is the gateway.
type Key = Option<(String, u64)>;

enum Work {
    Service(Box<Revision>),
    Gateway,
    /// What was published by an earlier daemon may be gone: then the work is done again.
    Check(Box<Work>, Vec<Reference>),
}

impl Work {
    fn key(&self) -> Key {
        match self {
            Self::Service(revision) => Some((revision.spec.name.clone(), revision.number)),
            Self::Gateway => None,
            Self::Check(work, _) => work.key(),
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

    /// Takes up what an earlier daemon published, and has it checked in the background.
    fn take_up(&self, work: Work, job: Job, images: Vec<Reference>) -> Result<(), PublishError> {
        self.lock().jobs.insert(work.key(), job);
        self.enqueue(Work::Check(Box::new(work), images))
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        lock(&self.shared)
    }

    /// Gives `work` to the threads that publish, starting one more up to the most.
    fn enqueue(&self, work: Work) -> Result<(), PublishError> {
        let mut shared = self.lock();
        if !matches!(work, Work::Check(..)) {
            shared.jobs.insert(work.key(), Job::Underway("waits to be sent to the registry".to_owned()));
        }
        shared.queue.push_back(work);
        if shared.workers >= WORKERS {
            return Ok(());
        }
        shared.workers += 1;
        let (app, registry, all) = (self.app.clone(), self.spec.registry.clone(), Arc::clone(&self.shared));
        let started = std::thread::Builder::new()
            .name("publisher".into())
            .spawn(move || work_off(&app, &registry, &all));
        if let Err(error) = started {
            shared.workers -= 1;
            // Those that work take it as well; without any it is asked for again.
            if shared.workers == 0 {
                shared.queue.clear();
                shared.jobs.retain(|_, job| !matches!(job, Job::Underway(_)));
                return Err(Box::new(error));
            }
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
            shared.workers -= usize::from(next.is_none());
            next
        };
        let Some(work) = work else { return };
        let Some(app) = app.upgrade().filter(|app| !app.is_stopping()) else { return };
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
        let outcome = match what_is_due(&app, work) {
            None => continue,
            Some(Work::Service(revision)) => publish::revision(&app, &revision, &to, &progress).map(|done| {
                published::remember_service(&app, registry, &revision, &done);
                Job::Service(Box::new(done))
            }),
            Some(_) => publish::gateway(&app, &to, &progress).map(|done| {
                published::remember_gateway(&app, registry, &done);
                Job::Gateway(done)
            }),
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

/// The work, or what is due of a check: nothing where all is there, or where the registry does not answer.
fn what_is_due(app: &App, work: Work) -> Option<Work> {
    let Work::Check(work, images) = work else { return Some(work) };
    match published::are_there(app, &images) {
        Ok(true) => None,
        Ok(false) => Some(*work),
        Err(error) => {
            tracing::warn!(error = error.chain(), "what was published is taken to be there still");
            None
        }
    }
}

impl Publisher for RegistryPublisher {
    fn service(&self, revision: &Revision) -> Result<Publication<ServiceDeployment>, PublishError> {
        let app = self.app.upgrade().ok_or("the daemon ends")?;
        let name = &revision.spec.name;
        let key = Some((name.clone(), revision.number));
        let published = {
            let jobs = self.lock();
            match jobs.jobs.get(&key) {
                Some(Job::Underway(what)) => return Ok(Publication::Underway(what.clone())),
                Some(Job::Failed(why, at)) if at.elapsed() < AGAIN => return Err(why.clone().into()),
                Some(Job::Service(published)) => Some((**published).clone()),
                Some(Job::Failed(..) | Job::Gateway(_)) => None,
                None => {
                    drop(jobs);
                    let known = published::service(&app, &self.spec.registry, revision);
                    if let Some(known) = &known {
                        let work = Work::Service(Box::new(revision.clone()));
                        let images = published::images_of(known);
                        self.take_up(work, Job::Service(Box::new(known.clone())), images)?;
                    }
                    known
                }
            }
        };
        let Some(published) = published else {
            self.enqueue(Work::Service(Box::new(revision.clone())))?;
            return Ok(Publication::Underway("its images go to the registry".to_owned()));
        };
        // Revisions before the one that runs and the one that comes are asked for no more.
        self.lock().forget_before(name, revision.number.saturating_sub(KEPT));
        let exposure = app.state.service(name)?.and_then(|record| record.exposure);
        // The replica count changes without a new revision.
        let published = PublishedService { spec: revision.spec.clone(), ..published };
        Ok(Publication::Ready(on_engine(published, exposure, &self.spec, &self.namespace)))
    }

    fn gateway(&self) -> Result<Option<Publication<GatewayDeployment>>, PublishError> {
        if self.spec.gateway_replicas == 0 {
            return Ok(None);
        }
        let image = {
            let jobs = self.lock();
            match jobs.jobs.get(&None) {
                Some(Job::Underway(what)) => return Ok(Some(Publication::Underway(what.clone()))),
                Some(Job::Failed(why, at)) if at.elapsed() < AGAIN => return Err(why.clone().into()),
                Some(Job::Gateway(image)) => Some(image.clone()),
                Some(Job::Failed(..) | Job::Service(_)) => None,
                None => {
                    drop(jobs);
                    let app = self.app.upgrade().ok_or("the daemon ends")?;
                    let known = published::gateway(&app, &self.spec.registry);
                    if let Some(known) = &known {
                        self.take_up(Work::Gateway, Job::Gateway(known.clone()), vec![known.clone()])?;
                    }
                    known
                }
            }
        };
        let Some(image) = image else {
            self.enqueue(Work::Gateway)?;
            return Ok(Some(Publication::Underway("its image goes to the registry".to_owned())));
        };
        Ok(Some(Publication::Ready(gateway_on_engine(image, &self.spec, &self.namespace))))
    }

    fn try_again(&self, service: &str, lost: bool) {
        // What is remembered is no longer so: all of it is sent before pods are made anew.
        if lost && let Some(app) = self.app.upgrade() {
            published::forget(&app, service);
        }
        let again = |key: &Key, job: &Job| match job {
            Job::Failed(..) => key.as_ref().is_none_or(|(name, _)| name == service),
            Job::Service(_) => lost && key.as_ref().is_some_and(|(name, _)| name == service),
            Job::Underway(_) | Job::Gateway(_) => false,
        };
        self.lock().jobs.retain(|key, job| !again(key, job));
    }
}
