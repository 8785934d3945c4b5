//! Training runs on a cluster, as the daemon drives them.

use std::any::Any;
use std::io::{self, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use slipway_kubernetes::apply::{Applier, Inventory};
use slipway_kubernetes::reason::RunEnd;
use slipway_kubernetes::render::MPI_TOKEN;
use slipway_kubernetes::runs::{
    Budget, CollectError, Progress, RunError, RunOptions, RunPhase, RunUpdate, Runs, model_folder,
    output_claim,
};
use slipway_kubernetes::spec::{
    Environment, Gang, ImagePin, Launcher, Placement, PodResources, RunAs, Storage, TrainingRun, VolumeSource,
};
use slipway_kubernetes::watch::Store;
use slipway_types::container::NetworkMode;
use slipway_types::engine::ClusterSpec;
use slipway_types::publish::PublishEvent;
use slipway_types::run;
use slipway_types::{ApiError, ErrorCode};
use tokio::io::AsyncWrite;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

use crate::daemon::App;
use crate::daemon::publish::{self, OnPublish, PublishedRun};
use crate::daemon::runs::{Driver, End, Keeper, Line, Order, Plan, Wanted};

/// Time between SIGTERM and SIGKILL, in seconds: as long as this host gives.
const GRACE: u64 = 10;
/// How long the copy of the namespace may take to be whole.
const FILL_TIME: Duration = Duration::from_secs(60);
/// How often the daemon is asked what it wants.
const LOOK: Duration = Duration::from_millis(200);
/// Updates that wait to be kept; ranks that write more wait.
const WAITING: usize = 1024;

/// Runs of one namespace.
pub struct ClusterRuns {
    handle: Handle,
    cluster: ClusterSpec,
    namespace: String,
    owner: String,
    runs: Runs,
    store: Arc<Store>,
    /// What keeps the copy up to date for as long as a run is driven.
    _watching: Arc<dyn Any + Send + Sync>,
}

/// What is recorded of a run.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    run: TrainingRun,
    progress: Progress,
    budget: Budget,
}

impl Kept {
    fn plan(&self) -> Result<Plan, ApiError> {
        let rest =
            serde_json::to_value(self).map_err(|error| ApiError::from_error(ErrorCode::Internal, &error))?;
        let claim = output_claim(&self.run).unwrap_or_default();
        let (folder, namespace) = (model_folder(&self.run), &self.run.namespace);
        let place = format!("the folder `{folder}` of the claim `{claim}` in the namespace `{namespace}`");
        Ok(Plan { place, rest })
    }

    fn of(plan: &Plan) -> Result<Self, ApiError> {
        serde_json::from_value(plan.rest.clone())
            .map_err(|error| ApiError::from_error(ErrorCode::Internal, &error))
    }
}

impl ClusterRuns {
    /// With the inventory and the copy that services use as well; `watching` keeps the copy up to date.
    pub fn new(
        handle: Handle,
        cluster: ClusterSpec,
        applier: Applier,
        inventory: Arc<Inventory>,
        store: Arc<Store>,
        watching: Arc<dyn Any + Send + Sync>,
    ) -> Self {
        let namespace = applier.cluster().namespace().to_owned();
        let owner = applier.owner().to_owned();
        let runs = Runs::new(applier, inventory, Arc::clone(&store), RunOptions::default());
        Self { handle, cluster, namespace, owner, runs, store, _watching: watching }
    }

    fn training(&self, order: &Order<'_>, published: PublishedRun, gang: Gang) -> TrainingRun {
        let spec = order.spec;
        let folder = |(reference, folder)| VolumeSource::Image { reference, folder };
        let mut environment = Environment { secrets: spec.secrets.0.clone(), ..Environment::default() };
        if spec.gang.launcher == run::Launcher::Mpi {
            let token = format!("{}{}", slipway_native::random_id(), slipway_native::random_id());
            environment.secrets.insert(MPI_TOKEN.to_owned(), token);
        }
        TrainingRun {
            run: order.run.to_owned(),
            owner: Some(self.owner.clone()),
            project: spec.project.clone(),
            attempt: 0,
            namespace: self.namespace.clone(),
            image: ImagePin {
                reference: published.image,
                run_as: match published.user {
                    (0, _) => RunAs::Root,
                    (uid, gid) => RunAs::User { uid, gid },
                },
                architectures: vec![published.architecture],
            },
            tools: published.tools,
            command: spec.command.clone(),
            ranks: spec.gang.ranks,
            min_ranks: None,
            processes: spec.gang.processes,
            launcher: match spec.gang.launcher {
                run::Launcher::None => Launcher::None,
                run::Launcher::Torchrun => Launcher::Torchrun,
                run::Launcher::TensorFlow => Launcher::TensorFlow,
                run::Launcher::Mpi => Launcher::Mpi,
            },
            env: spec.env.clone(),
            environment,
            resources: PodResources { limits: spec.limits, ..PodResources::default() },
            placement: Placement {
                image_pull_secrets: self.cluster.pull_secrets.clone(),
                ..Placement::default()
            },
            workspace: folder(published.workspace),
            data: published.data.map(folder),
            output: Storage::New {
                size: spec.gang.storage,
                class: self.cluster.storage_class.clone(),
                shared: spec.gang.ranks > 1,
            },
            deadline: None,
            grace: GRACE,
            gang,
            egress: spec.network == NetworkMode::Host,
        }
    }

    /// Runs to the end, or until the daemon wants to leave.
    async fn until_end(&self, mut kept: Kept, keeper: &dyn Keeper) -> Result<End, ApiError> {
        // On a copy that is not whole, pods of an attempt that still runs would not be there.
        if !self.store.filled(FILL_TIME).await {
            let text = "the cluster's objects are still being listed";
            return Err(ApiError::new(ErrorCode::Unavailable, text));
        }
        let (sender, mut updates) = mpsc::channel(WAITING);
        let (cancel, cancelled) = watch::channel(keeper.wanted() == Wanted::Cancel);
        let (progress, budget) = (kept.progress, kept.budget);
        let record = |run: &TrainingRun, progress: Progress| {
            let kept = Kept { run: run.clone(), progress, budget };
            keeper.record(&kept.plan().map_err(io::Error::other)?)
        };
        let driven = self.runs.drive(&mut kept.run, progress, budget, &record, sender, cancelled);
        tokio::pin!(driven);
        let mut look = tokio::time::interval(LOOK);
        let end = loop {
            tokio::select! {
                end = &mut driven => break end,
                Some(update) = updates.recv() => tell(keeper, update),
                _ = look.tick() => match keeper.wanted() {
                    Wanted::Run => {}
                    Wanted::Cancel => drop(cancel.send_replace(true)),
                    Wanted::Leave => return Ok(End::Left),
                },
            }
        };
        // Its senders are gone: what comes is what is there.
        while let Ok(update) = updates.try_recv() {
            tell(keeper, update);
        }
        Ok(match end.map_err(|error| run_error(&error))? {
            Some(RunEnd::Succeeded) => End::Succeeded,
            Some(RunEnd::Failed { exit_code, reason, .. }) => End::Failed {
                reason: reason.text,
                exit_code: exit_code.and_then(|code| code.try_into().ok()),
            },
            None => End::Cancelled,
        })
    }
}

fn tell(keeper: &dyn Keeper, update: RunUpdate) {
    match update {
        RunUpdate::Line(line) => {
            keeper.line(Line { rank: line.rank, time: line.time, text: line.text });
        }
        RunUpdate::Warning(text) => keeper.warning(&text),
        RunUpdate::Restart { attempt, reason, .. } => keeper.restart(attempt, &reason),
        RunUpdate::Phase { phase: RunPhase::Pending { reason, .. }, .. } => {
            let starting = || "its ranks start".to_owned();
            keeper.note(Some(reason.map_or_else(starting, |reason| reason.text)));
        }
        RunUpdate::Phase { phase: RunPhase::Missing, .. } => {}
        RunUpdate::Phase { phase: RunPhase::Running { reason, .. }, .. } => {
            keeper.note(reason.map(|reason| reason.text));
        }
        RunUpdate::Phase { phase: RunPhase::Ended(_), .. } => keeper.note(None),
    }
}

impl Driver for ClusterRuns {
    fn prepare(
        &self,
        app: &Arc<App>,
        order: &Order<'_>,
        told: &(dyn Fn(&str) + Send + Sync),
    ) -> Result<Plan, ApiError> {
        // Asked first: what the cluster cannot do is not worth a push.
        let gang = self.handle.block_on(self.runs.gang(&order.spec.gang)).map_err(|error| {
            let code = if error.is_transient() { ErrorCode::Unavailable } else { ErrorCode::Failed };
            ApiError::from_error(code, &error)
        })?;
        // Events come from the registry client's tasks, which outlive no borrow: they are passed on from here.
        let (sender, mut events) = mpsc::unbounded_channel();
        let on_event: OnPublish = Arc::new(move |event| {
            if let PublishEvent::Image { what, .. } = event {
                let _ = sender.send(what);
            }
        });
        let published = std::thread::scope(|scope| {
            scope.spawn(move || {
                while let Some(what) = events.blocking_recv() {
                    told(&format!("pushing the {what}"));
                }
            });
            let published =
                publish::publish_run(app, &self.cluster.registry, order.spec, order.image, &on_event);
            drop(on_event);
            published
        })?;
        let budget = Budget { retries: order.spec.gang.retries };
        Kept { run: self.training(order, published, gang), progress: Progress::default(), budget }.plan()
    }

    fn drive(&self, plan: &Plan, keeper: &dyn Keeper) -> Result<End, ApiError> {
        self.handle.block_on(self.until_end(Kept::of(plan)?, keeper))
    }

    fn collect(&self, plan: &Plan, to: &mut (dyn Write + Send)) -> Result<(), ApiError> {
        let run = Kept::of(plan)?.run;
        let mut sink = Sink { to, failure: None };
        let collected = self.handle.block_on(async {
            self.store.filled(FILL_TIME).await;
            self.runs.collect(&run, &mut sink).await
        });
        let failure = sink.failure;
        collected.map(drop).map_err(|error| {
            let code = match (&error, failure) {
                // What is here failed, not the way to it.
                (_, Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)) => {
                    ErrorCode::ResourceExhausted
                }
                (_, Some(_)) => ErrorCode::Failed,
                (CollectError::Write { .. }, None) => ErrorCode::Unavailable,
                (error, None) if error.is_transient() => ErrorCode::Unavailable,
                _ => ErrorCode::Failed,
            };
            ApiError::from_error(code, &error)
        })
    }

    fn release(&self, run: &str) -> Result<(), ApiError> {
        let released = self.handle.block_on(self.runs.release(run));
        released.map(drop).map_err(|error| run_error(&error))
    }

    fn remove(&self, run: &str) -> Result<(), ApiError> {
        let removed = self.handle.block_on(self.runs.remove(run));
        removed.map(drop).map_err(|error| run_error(&error))
    }
}

fn run_error(error: &RunError) -> ApiError {
    let code = if error.is_transient() { ErrorCode::Unavailable } else { ErrorCode::Failed };
    ApiError::from_error(code, error)
}

/// A writer of this thread's, whose failures are told from those of what is read.
struct Sink<'a> {
    to: &'a mut (dyn Write + Send),
    failure: Option<io::ErrorKind>,
}

impl AsyncWrite for Sink<'_> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = this.to.write(bytes);
        this.failure = written.as_ref().err().map(io::Error::kind).or(this.failure);
        Poll::Ready(written)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = this.to.flush();
        this.failure = flushed.as_ref().err().map(io::Error::kind).or(this.failure);
        Poll::Ready(flushed)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(context)
    }
}
