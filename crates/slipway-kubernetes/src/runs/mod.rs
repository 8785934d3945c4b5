//! Training runs in a cluster: attempts of a gang, their logs, their end, and the way of the output back.

mod collect;
mod drive;
mod follow;
mod gang;
mod phase;
mod queue;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::apply::{Applier, ApplyError, ApplyOptions, DryRun, Inventory, Pruned};
use crate::client::{ApiError, Dependents, DiscoverError};
use crate::names;
use crate::object::Object;
use crate::render::{RUN_LABEL, render_training};
use crate::spec::TrainingRun;
use crate::watch::Store;

pub use collect::{CollectError, model_folder, output_claim};
pub use drive::{Budget, Progress, Record, RunUpdate};
pub use follow::RankLine;
pub use gang::{GangError, Offer, choose};
pub use phase::{RunPhase, phase};

/// How runs are looked after.
#[derive(Clone, Copy, Debug)]
pub struct RunOptions {
    /// How long an attempt may wait until all ranks run, where nothing in the cluster starts them together.
    pub gang_time: Duration,
    /// How many logs are followed at once; those of further ranks are read when others end.
    pub followed: usize,
    /// How often attempts may be lost to the cluster before that ends the run, too.
    pub disruptions: u32,
    /// How long pods of an attempt that ended may take to vanish, beside their own grace.
    pub removal: Duration,
    /// How often a queue is asked why an attempt waits in it.
    pub ask_queue: Duration,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self {
            gang_time: Duration::from_secs(600),
            followed: 256,
            disruptions: 20,
            removal: Duration::from_secs(60),
            ask_queue: Duration::from_secs(10),
        }
    }
}

/// Why a run cannot be looked after.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// An object of it cannot be applied or removed.
    #[error("cannot set up run {run}")]
    Apply {
        /// Which run.
        run: String,
        /// Why.
        #[source]
        source: Box<ApplyError>,
    },
    /// The API server refuses.
    #[error("cannot change run {run}")]
    Api {
        /// Which run.
        run: String,
        /// Why.
        #[source]
        source: ApiError,
    },
    /// What must be kept to go on with it is not kept.
    #[error("cannot record how far run {run} is")]
    Record {
        /// Which run.
        run: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl RunError {
    /// Whether the same may succeed later. Credentials that ran out are renewed by somebody: a run does not end for that.
    pub fn is_transient(&self) -> bool {
        let passes = |error: &ApiError| {
            error.is_transient() || matches!(error, ApiError::Credentials { .. }) || error.code() == Some(401)
        };
        match self {
            Self::Apply { source, .. } => match &**source {
                ApplyError::Api { source, .. } | ApplyError::Inventory { source, .. } => passes(source),
                other => other.is_transient(),
            },
            Self::Api { source, .. } => passes(source),
            Self::Record { .. } => false,
        }
    }
}

/// Runs of one namespace.
#[derive(Clone)]
pub struct Runs {
    applier: Applier,
    inventory: Arc<Inventory>,
    store: Arc<Store>,
    options: RunOptions,
}

impl Runs {
    /// With the inventory and the copy that services use as well.
    pub fn new(applier: Applier, inventory: Arc<Inventory>, store: Arc<Store>, options: RunOptions) -> Self {
        Self { applier, inventory, store, options }
    }

    fn apply_error(run: &TrainingRun, source: ApplyError) -> RunError {
        RunError::Apply { run: run.run.clone(), source: Box::new(source) }
    }

    /// Makes the objects of the run's current attempt; those that are there stay. Returns what the cluster cannot give.
    pub async fn start(&self, run: &TrainingRun) -> Result<Vec<String>, RunError> {
        let caps = self
            .applier
            .discovery()
            .capabilities()
            .await
            .map_err(|error| Self::apply_error(run, error.into()))?;
        let mut rendered =
            render_training(run, &caps).map_err(|error| Self::apply_error(run, error.into()))?;
        self.inventory.adopt(&mut rendered.objects).await.map_err(|error| Self::apply_error(run, error))?;
        self.apply(run, &rendered.objects).await.map_err(|error| Self::apply_error(run, error))?;
        Ok(rendered.warnings)
    }

    /// An attempt that is there is not applied again: whatever admits it changes it, and would be contradicted.
    async fn apply(&self, run: &TrainingRun, objects: &[Object]) -> Result<(), ApplyError> {
        let attempt = phase::attempt_name(run);
        for object in objects {
            let live = self.applier.base(object, None).await?;
            let is_attempt = object.name() == attempt && !is_of_run(object);
            if !(is_attempt && live.is_some()) {
                self.applier.send(object, live.as_ref(), ApplyOptions::default()).await?;
            }
        }
        Ok(())
    }

    /// Whether the server would take an attempt; nothing is made.
    async fn try_start(&self, run: &TrainingRun) -> Result<(), RunError> {
        let failed = |error| Self::apply_error(run, error);
        let caps = self.applier.discovery().capabilities().await.map_err(|error| failed(error.into()))?;
        let mut rendered = render_training(run, &caps).map_err(|error| failed(error.into()))?;
        self.inventory.set().adopt(&mut rendered.objects);
        let options = ApplyOptions { dry_run: DryRun::Server, ..ApplyOptions::default() };
        self.applier.apply_all(&rendered.objects, options).await.map(drop).map_err(failed)
    }

    /// How the current attempt stands, as far as the copy knows.
    pub fn phase(&self, run: &TrainingRun) -> RunPhase {
        phase(run, &self.store.snapshot())
    }

    /// Ends the current attempt: its Job goes, and its pods get their grace. The output stays.
    pub async fn end_attempt(&self, run: &TrainingRun) -> Result<(), RunError> {
        self.delete(run, gang::object(&run.gang), Dependents::Foreground).await?;
        match gang::group(&run.gang) {
            Some(group) => self.delete(run, group, Dependents::Background).await,
            None => Ok(()),
        }
    }

    /// Deletes an object that is called as the current attempt, if it is ours.
    async fn delete(
        &self,
        run: &TrainingRun,
        (group, kind): (&str, &str),
        dependents: Dependents,
    ) -> Result<(), RunError> {
        let resource = match self.applier.discovery().resource_of_group(group, kind).await {
            Ok(resource) => resource,
            // Whatever defined the kind was removed, and its objects with it.
            Err(DiscoverError::NoKind { .. }) => return Ok(()),
            Err(error) => return Err(Self::apply_error(run, error.into())),
        };
        let name = phase::attempt_name(run);
        let cluster = self.applier.cluster();
        let refused = |source| RunError::Api { run: run.run.clone(), source };
        let live = cluster.get_metadata(&resource, &run.namespace, &name).await.map_err(refused)?;
        let own = live.as_ref().filter(|live| self.inventory.set().has(live));
        let Some(uid) = own.and_then(|live| live["metadata"]["uid"].as_str()) else {
            return Ok(());
        };
        cluster.delete(&resource, &run.namespace, &name, uid, dependents).await.map_err(refused)?;
        Ok(())
    }

    /// Waits until no pod of the current attempt is left: the next one mounts the same claim. A lost node keeps its pods
    /// for as long as it is lost, so that is not waited for without end.
    pub(crate) async fn attempt_gone(&self, run: &TrainingRun) -> bool {
        let until = Instant::now() + Duration::from_secs(run.grace) + self.options.removal;
        let mut changes = self.store.subscribe();
        loop {
            let snapshot = self.store.snapshot();
            if phase::pods(run, &snapshot).is_empty() {
                return true;
            }
            if tokio::time::timeout_at(until, changes.changed()).await.is_err() {
                return false;
            }
        }
    }

    /// Removes everything of a run of this daemon's, its output claim included if that was made with it.
    pub async fn remove(&self, run: &str) -> Result<usize, RunError> {
        Self::removed(run, self.inventory.remove_all((RUN_LABEL, &self.label(run))).await)
    }

    /// Removes everything of a run but its output claim.
    pub async fn release(&self, run: &str) -> Result<usize, RunError> {
        let members = self.inventory.members(Some((RUN_LABEL, &self.label(run)))).await;
        let pruned = match members {
            Ok(live) => self.inventory.prune(&live, &[]).await,
            Err(error) => Err(error),
        };
        Self::removed(run, pruned)
    }

    fn label(&self, run: &str) -> String {
        names::owned(self.applier.owner(), run).unwrap_or_else(|_| run.to_owned())
    }

    fn removed(run: &str, pruned: Result<Pruned, ApplyError>) -> Result<usize, RunError> {
        pruned
            .map(|pruned| pruned.deleted.len())
            .map_err(|source| RunError::Apply { run: run.to_owned(), source: Box::new(source) })
    }
}

/// Whether all attempts share an object, by its kind.
fn is_of_run(object: &Object) -> bool {
    !matches!(object.kind(), "Job" | "JobSet" | "PodGroup")
}
