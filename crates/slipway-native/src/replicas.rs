//! Replicas of services: trait [`Replicas`] on this host.

use std::collections::BTreeSet;
use std::fs::{File, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use slipway_image::model;
use slipway_orchestrator::{
    Consumption, EngineError, LogLines, ModelPin, ObservedReplica, Replicas, StartReplica,
};
use slipway_types::container::{ContainerId, ContainerSpec, ContainerState, LogOptions, Mount, NetworkMode};
use slipway_types::service::{DEFAULT_MAX_BODY, PREDICTION_LIMIT_MS, ReplicaState, RunnerConfig};

use crate::containers::{Native, folder};
use crate::error::NativeError;
use crate::log::NativeLog;
use crate::probe::{NotReady, probe};
use crate::serving_files::ServingFiles;
use crate::steps::random_id;

/// Says that a container is a replica, and of what.
const META_FILE: &str = "replica.json";
/// Marks a replica that takes no new requests.
const DRAINING_FILE: &str = "draining";
/// Marks a replica that was ready once.
const READY_FILE: &str = "ready";
/// Folder that the replica shares with this host, inside and below the container's folder.
const RUN_INSIDE: &str = "/run/slipway";
const RUN_FOLDER: &str = "shared";
const SOCKET: &str = "http.sock";
/// A Unix socket's path has at most this many bytes.
const MAX_SOCKET_PATH: usize = 107;

/// Runs replicas as containers of this host.
pub struct NativeReplicas {
    native: Native,
    models: PathBuf,
    files: ServingFiles,
    ready: Mutex<BTreeSet<ContainerId>>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Meta {
    service: String,
    revision: u64,
    slot: u32,
}

impl Native {
    /// Whether a container is a service's replica.
    pub fn is_replica(&self, id: &ContainerId) -> bool {
        self.meta(id).is_some()
    }

    fn meta(&self, id: &ContainerId) -> Option<Meta> {
        let bytes = std::fs::read(self.dir(id).join(META_FILE)).ok()?;
        serde_json::from_slice(&bytes).ok()
    }
}

impl NativeReplicas {
    /// Replicas whose models are laid out below `models`.
    pub fn new(native: Native, models: PathBuf, files: ServingFiles) -> Self {
        Self { native, models, files, ready: Mutex::new(BTreeSet::new()) }
    }

    fn launch(&self, id: &ContainerId, replica: &StartReplica) -> Result<(), EngineError> {
        let revision = &replica.revision;
        let store = self.native.store();
        let Some(pin) = &revision.model else {
            let source = "it has no model, and replicas on this host serve models".into();
            return Err(EngineError::Failed { operation: "start the replica".to_owned(), source });
        };
        if !store.has(&pin.manifest) {
            return Err(EngineError::ModelMissing(pin.manifest.clone()));
        }
        let model = self.models.join(pin.manifest.hex());
        if !model.is_dir() {
            folder(&self.models, 0o700).map_err(failed("lay out the model"))?;
            model::materialize(store, &pin.manifest, &model).map_err(failed("lay out the model"))?;
        }
        let spec = ContainerSpec {
            image: revision.spec.image.clone(),
            entrypoint: Some(vec!["/slipway/slipway-runner".into(), format!("{RUN_INSIDE}/runner.json")]),
            env: revision.spec.env.clone(),
            mounts: self.mounts(id, &model),
            network: NetworkMode::None,
            limits: revision.spec.limits,
            read_only: true,
            workdir: Some("/".into()),
            ..ContainerSpec::default()
        };
        let (image, plan) = self.native.plan(&revision.image_id, &spec).map_err(|error| match error {
            NativeError::Store(store) if store.is_not_found() => {
                EngineError::ImageMissing(revision.image_id.clone())
            }
            other => failed("read the image")(other),
        })?;
        self.prepare(id, replica, pin).map_err(failed("prepare the replica"))?;
        self.native
            .launch(id, &image, &plan, &spec, |config| {
                config.hostname = format!("replica-{}", replica.slot);
            })
            .map_err(failed("start the replica"))?;
        Ok(())
    }

    fn mounts(&self, id: &ContainerId, model: &Path) -> Vec<Mount> {
        let bind = |source: PathBuf, target: &str, read_only| Mount::Bind {
            source,
            target: target.into(),
            read_only,
        };
        vec![
            bind(self.files.folder().to_owned(), "/slipway", true),
            bind(model.to_owned(), "/model", true),
            bind(self.native.dir(id).join(RUN_FOLDER), RUN_INSIDE, false),
            Mount::Tmpfs { target: "/tmp".into(), size: None },
        ]
    }

    /// The container's folder with what only replicas have.
    fn prepare(&self, id: &ContainerId, replica: &StartReplica, pin: &ModelPin) -> Result<(), NativeError> {
        let dir = self.native.dir(id);
        folder(&dir, 0o700)?;
        let run = dir.join(RUN_FOLDER);
        folder(&run, 0o755)?;
        let spec = &replica.revision.spec;
        let config = RunnerConfig {
            service: spec.name.clone(),
            model: spec.model.clone(),
            version: spec.version,
            labels: pin.labels.clone(),
            format: pin.format,
            model_dir: "/model".into(),
            entry: spec.entry.clone(),
            socket: Path::new(RUN_INSIDE).join(SOCKET),
            listen: None,
            python_dir: "/slipway/python".into(),
            batch: spec.batch,
            max_body: spec.max_body.unwrap_or(DEFAULT_MAX_BODY),
            timeout_ms: PREDICTION_LIMIT_MS,
        };
        write_json(&run.join("runner.json"), &config)?;
        // Whatever user the image has must be able to make the socket; nobody else gets past the folder above.
        std::fs::set_permissions(&run, Permissions::from_mode(0o777))
            .map_err(crate::error::io("open up", &run))?;
        let meta = Meta { service: spec.name.clone(), revision: replica.revision.number, slot: replica.slot };
        write_json(&dir.join(META_FILE), &meta)
    }

    fn observe(&self, id: &ContainerId) -> Option<ObservedReplica> {
        let meta = self.native.meta(id)?;
        let dir = self.native.dir(id);
        let container = self.native.container(id).ok()?;
        let mut seen = container.observe().ok()?;
        if seen.state != ContainerState::Exited && !seen.shim_alive {
            // Its shim died: end what is left, then see it as it is.
            let _ = container.recover();
            seen = container.observe().ok()?;
        }
        let socket = dir.join(RUN_FOLDER).join(SOCKET);
        let (state, why) = match (&seen.exit, seen.state) {
            (Some(exit), _) => (ReplicaState::Stopped, Some(ended(exit))),
            (None, ContainerState::Exited) => (ReplicaState::Stopped, None),
            _ if dir.join(DRAINING_FILE).exists() => (ReplicaState::Draining, None),
            _ => self.health(id, &dir, &socket),
        };
        let load_failed = why.as_ref().is_some_and(|why| why.load_failed);
        Some(ObservedReplica {
            container: id.clone(),
            service: meta.service,
            revision: meta.revision,
            slot: meta.slot,
            state,
            started_at: seen.started_at,
            reason: why.map(|why| why.reason),
            load_failed,
            socket: Some(socket),
        })
    }

    fn health(&self, id: &ContainerId, dir: &Path, socket: &Path) -> (ReplicaState, Option<NotReady>) {
        let mark = dir.join(READY_FILE);
        let known = self.ready.lock().unwrap_or_else(PoisonError::into_inner).contains(id);
        match probe(socket) {
            Ok(()) => {
                if !known {
                    // Only tells a replica that fails later from one that never worked; losing it costs nothing.
                    let _ = File::create(&mark);
                    self.ready.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone());
                }
                (ReplicaState::Ready, None)
            }
            Err(reason) if known || mark.exists() => (ReplicaState::Unready, Some(reason)),
            Err(reason) => (ReplicaState::Starting, Some(reason)),
        }
    }
}

impl Replicas for NativeReplicas {
    fn start(&self, replica: &StartReplica) -> Result<ContainerId, EngineError> {
        if let Some(running) = self.running(replica)? {
            return Ok(running);
        }
        let id = random_id();
        let socket = self.native.dir(&id).join(RUN_FOLDER).join(SOCKET);
        if socket.as_os_str().len() > MAX_SOCKET_PATH {
            return Err(failed("start the replica")(NativeError::Io {
                action: "use the socket path (too long; choose a shorter state folder)",
                path: socket,
                source: std::io::Error::from(std::io::ErrorKind::InvalidFilename),
            }));
        }
        self.launch(&id, replica).inspect_err(|_| {
            // The first error is the one to report.
            let _ = self.native.discard(&id);
        })?;
        Ok(id)
    }

    fn list(&self) -> Result<Vec<ObservedReplica>, EngineError> {
        let ids = self.native.ids().map_err(failed("list containers"))?;
        // Side by side: one that does not answer must not hold up the others.
        let replicas: Vec<ObservedReplica> = std::thread::scope(|scope| {
            let looks: Vec<_> = ids
                .iter()
                .filter(|id| self.native.is_replica(id))
                .map(|id| scope.spawn(|| self.observe(id)))
                .collect();
            looks.into_iter().filter_map(|look| look.join().ok().flatten()).collect()
        });
        let present: BTreeSet<&ContainerId> = replicas.iter().map(|r| &r.container).collect();
        self.ready.lock().unwrap_or_else(PoisonError::into_inner).retain(|id| present.contains(id));
        Ok(replicas)
    }

    fn drain(&self, container: &ContainerId) -> Result<(), EngineError> {
        let dir = self.known(container)?;
        File::create(dir.join(DRAINING_FILE)).and_then(|file| file.sync_all()).map_err(failed("drain"))
    }

    fn stop(&self, container: &ContainerId, grace: Duration) -> Result<(), EngineError> {
        self.drain(container)?;
        let handle = self.native.container(container).map_err(failed("stop the replica"))?;
        // Waiting is the reconciler's business, which has others to look after: this thread waits in its place.
        std::thread::Builder::new()
            .name("stop-replica".into())
            .spawn(move || {
                if let Err(error) = handle.stop(None, grace) {
                    tracing::warn!(%error, "a replica did not stop");
                }
            })
            .map_err(failed("stop the replica"))?;
        Ok(())
    }

    fn remove(&self, container: &ContainerId) -> Result<(), EngineError> {
        if self.known(container).is_err() {
            return Ok(());
        }
        match self.native.remove(container) {
            Err(NativeError::Runtime { .. }) if self.runs(container) => {
                Err(EngineError::NotStopped(container.clone()))
            }
            other => other.map_err(failed("remove the replica")),
        }
    }

    fn log(&self, container: &ContainerId, options: &LogOptions) -> Result<Box<dyn LogLines>, EngineError> {
        self.known(container)?;
        let handle = self.native.container(container).map_err(|error| {
            // One whose removal has begun is gone.
            if self.native.is_complete(container) {
                failed("read the log")(error)
            } else {
                EngineError::NotFound(container.clone())
            }
        })?;
        let reader = handle.logs(options.clone()).map_err(failed("read the log"))?;
        Ok(Box::new(NativeLog::from(reader)))
    }

    fn consumption(&self, container: &ContainerId) -> Result<Option<Consumption>, EngineError> {
        self.known(container)?;
        if !self.runs(container) {
            return Ok(None);
        }
        let stats = self.native.container(container).map(|handle| handle.stats());
        // One that ends at this moment has no cgroup any more.
        let Ok(Ok(stats)) = stats else { return Ok(None) };
        Ok(Some(Consumption {
            cpu: Duration::from_micros(stats.cpu_usec),
            memory: stats.memory_current.saturating_sub(stats.memory_inactive_file),
            memory_limit: stats.memory_limit,
        }))
    }
}

impl NativeReplicas {
    /// The replica that has this place already: a start that is repeated makes no second one.
    fn running(&self, replica: &StartReplica) -> Result<Option<ContainerId>, EngineError> {
        let (service, number) = (&replica.revision.spec.name, replica.revision.number);
        let ids = self.native.ids().map_err(failed("list containers"))?;
        let is_place =
            |meta: Meta| meta.service == *service && meta.revision == number && meta.slot == replica.slot;
        let same = |id: &ContainerId| {
            self.native.meta(id).is_some_and(is_place)
                && !self.native.dir(id).join(DRAINING_FILE).exists()
                && self.runs(id)
        };
        Ok(ids.into_iter().find(same))
    }

    fn known(&self, container: &ContainerId) -> Result<PathBuf, EngineError> {
        let dir = self.native.dir(container);
        if dir.join(META_FILE).exists() { Ok(dir) } else { Err(EngineError::NotFound(container.clone())) }
    }

    fn runs(&self, container: &ContainerId) -> bool {
        self.native
            .container(container)
            .is_ok_and(|c| c.observe().is_ok_and(|seen| seen.state != ContainerState::Exited))
    }
}

fn ended(exit: &slipway_types::container::ExitInfo) -> NotReady {
    let reason = match &exit.error {
        Some(error) => error.clone(),
        None if exit.oom_killed => "it ran out of memory".to_owned(),
        None => format!("it exited with code {}", exit.code),
    };
    NotReady { reason, load_failed: false }
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<(), NativeError> {
    let bytes = serde_json::to_vec_pretty(value).map_err(std::io::Error::other);
    let write = || -> std::io::Result<()> {
        let mut file = File::create(path)?;
        file.write_all(&bytes?)?;
        file.sync_all()
    };
    write().map_err(crate::error::io("write", path))
}

fn failed<E: std::error::Error + Send + Sync + 'static>(
    operation: &'static str,
) -> impl FnOnce(E) -> EngineError {
    move |source| EngineError::Failed { operation: operation.to_owned(), source: Box::new(source) }
}
