//! The engines of this daemon: this host, and the clusters that a user added. One that cannot be reached now is tried again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use slipway_orchestrator::{Endpoint, Engine, EngineError, ObservedReplica};
use slipway_types::container::{NAME_RULE, valid_name};
use slipway_types::engine::{ClusterSpec, EngineStatus, NATIVE, UseEngine};
use slipway_types::{ApiError, ErrorCode};
use tokio::sync::watch;

use super::App;
use super::preview::Previews;
use super::reconciler::engine_error;
use super::runs::{self, Driver};
use super::state::{ServiceRecord, State};

/// Connects to a cluster; the composition root knows how.
pub type Connect = dyn Fn(&Arc<App>, &ClusterSpec) -> Result<Connected, EngineError> + Send + Sync;

/// A cluster that answered.
#[derive(Clone)]
pub struct Connected {
    /// Its engine.
    pub engine: Arc<dyn Engine>,
    /// Where it is, for people: the API server and the namespace.
    pub place: String,
    /// What runs training there; absent where the daemon itself does.
    pub runs: Option<Arc<dyn Driver>>,
    /// Tells of changes there that are worth a pass; absent where an engine has to be looked at to see any.
    pub changes: Option<watch::Receiver<u64>>,
    /// Tells what it would do; absent where there is nothing to show.
    pub previews: Option<Arc<dyn Previews>>,
}

/// Engines by name.
pub struct Engines {
    all: Mutex<BTreeMap<String, Slot>>,
    connect: Box<Connect>,
}

/// Replicas by the name of their service.
type Seen = BTreeMap<String, Vec<ObservedReplica>>;

struct Slot {
    /// Absent for this host.
    cluster: Option<ClusterSpec>,
    /// Absent until it was reached.
    connected: Option<Connected>,
    /// Grows with every change of what the engine is.
    generation: u64,
    /// Replicas as its reconciler last saw them; absent before the first look.
    seen: Option<Seen>,
    /// Why its last pass failed.
    trouble: Option<String>,
}

impl Slot {
    fn new(cluster: Option<ClusterSpec>, connected: Option<Connected>, generation: u64) -> Self {
        Self { cluster, connected, generation, seen: None, trouble: None }
    }
}

impl Engines {
    /// This host's engine, and the clusters that the state knows.
    pub fn new(native: Arc<dyn Engine>, state: &State, connect: Box<Connect>) -> Result<Self, ApiError> {
        let here = Connected {
            engine: native,
            place: "this host".to_owned(),
            runs: None,
            changes: None,
            previews: None,
        };
        let mut all = BTreeMap::from([(NATIVE.to_owned(), Slot::new(None, Some(here), 0))]);
        for (name, cluster) in state.engines()? {
            all.insert(name, Slot::new(Some(cluster), None, 0));
        }
        Ok(Self { all: Mutex::new(all), connect })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Slot>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every engine by name, with its generation.
    pub fn generations(&self) -> BTreeMap<String, u64> {
        self.lock().iter().map(|(name, slot)| (name.clone(), slot.generation)).collect()
    }

    /// The engine of this name, if it was reached.
    pub fn get(&self, name: &str) -> Result<Connected, ApiError> {
        let all = self.lock();
        let slot = all.get(name).ok_or_else(|| unknown(name))?;
        slot.connected.clone().ok_or_else(|| {
            let mut error =
                ApiError::new(ErrorCode::Unavailable, format!("the engine `{name}` was not reached yet"));
            error.causes.extend(slot.trouble.clone());
            error
        })
    }

    /// Whether there is an engine of this name.
    pub fn knows(&self, name: &str) -> bool {
        self.lock().contains_key(name)
    }

    /// The engine of this name in this generation, connecting to it if need be; `None` when it was removed or replaced.
    pub fn reach(&self, app: &Arc<App>, name: &str, generation: u64) -> Result<Option<Connected>, ApiError> {
        let cluster = {
            let all = self.lock();
            let Some(slot) = all.get(name).filter(|slot| slot.generation == generation) else {
                return Ok(None);
            };
            match (&slot.connected, &slot.cluster) {
                (Some(connected), _) => return Ok(Some(connected.clone())),
                (None, Some(cluster)) => cluster.clone(),
                (None, None) => return Ok(None),
            }
        };
        let connected = (self.connect)(app, &cluster).map_err(|error| engine_error(&error))?;
        let mut all = self.lock();
        let Some(slot) = all.get_mut(name).filter(|slot| slot.generation == generation) else {
            return Ok(None);
        };
        // Another thread may have been faster.
        Ok(Some(slot.connected.get_or_insert(connected).clone()))
    }

    /// What runs training on the engine of this name, connecting to it if need be.
    pub fn driver(&self, app: &Arc<App>, name: &str) -> Result<Arc<dyn Driver>, ApiError> {
        let generation = self.lock().get(name).map(|slot| slot.generation).ok_or_else(|| unknown(name))?;
        let connected = self.reach(app, name, generation)?.ok_or_else(|| unknown(name))?;
        connected.runs.ok_or_else(|| {
            ApiError::new(ErrorCode::InvalidArgument, format!("the engine `{name}` does not train"))
        })
    }

    /// Names of the engines that are clusters: what runs there is not routed to by this host's gateway.
    pub fn clusters(&self) -> BTreeSet<String> {
        self.lock().iter().filter(|(_, slot)| slot.cluster.is_some()).map(|(name, _)| name.clone()).collect()
    }

    /// Replicas of each engine that is no cluster as last seen; one that was not looked at since the daemon started is not
    /// in it.
    pub fn seen_here(&self) -> BTreeMap<String, Vec<ObservedReplica>> {
        let all = self.lock();
        all.iter()
            .filter(|(_, slot)| slot.cluster.is_none())
            .filter_map(|(name, slot)| {
                Some((name.clone(), slot.seen.clone()?.into_values().flatten().collect()))
            })
            .collect()
    }

    /// Replaces what was last seen of an engine.
    pub fn set_seen(&self, engine: &str, replicas: &[ObservedReplica]) {
        let mut seen: Seen = BTreeMap::new();
        for replica in replicas {
            seen.entry(replica.service.clone()).or_default().push(replica.clone());
        }
        if let Some(slot) = self.lock().get_mut(engine) {
            slot.seen = Some(seen);
        }
    }

    /// Says why the last pass of an engine failed, or that it did not.
    pub fn set_trouble(&self, engine: &str, trouble: Option<String>) {
        if let Some(slot) = self.lock().get_mut(engine) {
            slot.trouble = trouble;
        }
    }

    /// Replicas of a service as its engine last saw them, or before its first look as they are; and why that cannot be
    /// relied upon, if so.
    pub fn replicas_of(&self, record: &ServiceRecord) -> (Vec<ObservedReplica>, Option<String>) {
        let name = &record.engine;
        let service = &record.target.spec.name;
        let of_service = |seen: &Seen| seen.get(service).cloned().unwrap_or_default();
        let (known, mut trouble) = match self.lock().get(name) {
            Some(slot) => (slot.seen.as_ref().map(of_service), slot.trouble.clone()),
            None => (None, None),
        };
        let look = || {
            let mut all = self.get(name)?.engine.observe().map_err(|error| engine_error(&error))?;
            all.retain(|replica| replica.service == *service);
            Ok(all)
        };
        let all = known.map_or_else(look, Ok).unwrap_or_else(|error: ApiError| {
            trouble.get_or_insert(error.chain());
            Vec::new()
        });
        (all, trouble)
    }

    /// Where a service answers.
    pub fn endpoint(&self, record: &ServiceRecord) -> Endpoint {
        match self.get(&record.engine) {
            Ok(connected) => connected.engine.endpoint(&record.target.spec.name),
            Err(error) => Endpoint::Pending { reason: error.chain() },
        }
    }
}

fn unknown(name: &str) -> ApiError {
    ApiError::new(ErrorCode::NotFound, format!("no engine is called `{name}`"))
        .with_hint("`slipway engine ls` lists those that there are, `slipway engine use` adds one")
}

/// Every engine.
pub fn list(app: &App) -> Result<Vec<EngineStatus>, ApiError> {
    let records = app.state.services()?;
    let default = app.state.default_engine()?;
    let all = app.engines.lock();
    let status = |(name, slot): (&String, &Slot)| EngineStatus {
        name: name.clone(),
        default: *name == default,
        cluster: slot.cluster.clone(),
        place: slot.connected.as_ref().map(|connected| connected.place.clone()).unwrap_or_default(),
        services: records.iter().filter(|record| record.engine == *name).count(),
        trouble: slot.trouble.clone(),
    };
    Ok(all.iter().map(status).collect())
}

/// Adds or changes an engine, or chooses the default one. A cluster must answer before anything is recorded.
pub fn use_engine(app: &Arc<App>, request: &UseEngine) -> Result<EngineStatus, ApiError> {
    let name = &request.name;
    let _claim = app.claim(&format!("engine {name}"))?;
    match &request.cluster {
        None if !app.engines.knows(name) => return Err(unknown(name)),
        None => app.state.put_engine(name, None, request.default)?,
        Some(cluster) => {
            if name == NATIVE || !valid_name(name) {
                let text = format!("`{name}` cannot be the name of a cluster: {NAME_RULE}, and not `native`");
                return Err(ApiError::new(ErrorCode::InvalidArgument, text));
            }
            stays_where_its_services_are(app, name, cluster)?;
            let connected = (app.engines.connect)(app, cluster).map_err(|error| engine_error(&error))?;
            app.state.put_engine(name, Some(cluster), request.default)?;
            let mut all = app.engines.lock();
            let generation = all.get(name).map_or(0, |slot| slot.generation + 1);
            all.insert(name.clone(), Slot::new(Some(cluster.clone()), Some(connected), generation));
        }
    }
    app.wake();
    let status = list(app)?.into_iter().find(|status| status.name == *name);
    status.ok_or_else(|| unknown(name))
}

/// Services stay in the cluster that they were declared for: pointed elsewhere, the engine would leave them behind.
fn stays_where_its_services_are(app: &Arc<App>, name: &str, cluster: &ClusterSpec) -> Result<(), ApiError> {
    let before = app.engines.lock().get(name).and_then(|slot| slot.cluster.clone());
    let moves = before.is_some_and(|before| {
        (&before.kubeconfig, &before.context, &before.namespace)
            != (&cluster.kubeconfig, &cluster.context, &cluster.namespace)
    });
    if !moves {
        return Ok(());
    }
    no_runs(app, name, "moved")?;
    runs::clear(app, name)?;
    let services = declared_on(app, name)?;
    if services.is_empty() {
        return Ok(());
    }
    let message =
        format!("the engine `{name}` cannot be moved while services run on it: {}", services.join(", "));
    Err(ApiError::new(ErrorCode::Conflict, message)
        .with_hint("delete them first, or add the other cluster under a name of its own with `--name`"))
}

fn declared_on(app: &App, engine: &str) -> Result<Vec<String>, ApiError> {
    let records = app.state.services()?.into_iter();
    Ok(records.filter(|record| record.engine == engine).map(|record| record.target.spec.name).collect())
}

fn no_runs(app: &App, engine: &str, change: &str) -> Result<(), ApiError> {
    let going = runs::on_engine(app, engine)?;
    if going.is_empty() {
        return Ok(());
    }
    let message = format!("the engine `{engine}` cannot be {change} while it trains: {}", going.join(", "));
    Err(ApiError::new(ErrorCode::Conflict, message)
        .with_hint("wait for the end of these runs, or `slipway runs --cancel` them"))
}

/// Forgets an engine that nothing runs on.
pub fn remove(app: &Arc<App>, name: &str) -> Result<(), ApiError> {
    let _claim = app.claim(&format!("engine {name}"))?;
    if name == NATIVE {
        return Err(ApiError::new(ErrorCode::InvalidArgument, "this host is always an engine"));
    }
    if !app.engines.knows(name) {
        return Err(unknown(name));
    }
    let services = declared_on(app, name)?;
    if !services.is_empty() {
        let message = format!("services run on the engine `{name}`: {}", services.join(", "));
        return Err(ApiError::new(ErrorCode::Conflict, message).with_hint("`slipway delete` them first"));
    }
    no_runs(app, name, "removed")?;
    let connected = app.engines.get(name).map_err(|error| {
        error.with_hint("what Slipway keeps in its cluster can be removed once it is reached")
    })?;
    runs::clear(app, name)?;
    connected.engine.retire().map_err(|error| engine_error(&error))?;
    app.state.remove_engine(name)?;
    app.engines.lock().remove(name);
    app.wake();
    Ok(())
}

/// The engine that a service or a run goes to: the one that is asked for, else the default one.
pub fn choose(app: &App, asked: Option<&str>) -> Result<String, ApiError> {
    let Some(name) = asked else { return Ok(app.state.default_engine()?) };
    if app.engines.knows(name) { Ok(name.to_owned()) } else { Err(unknown(name)) }
}
