//! The gateway's process and the files that it reads.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use slipway_orchestrator::{Endpoint, ObservedReplica, Revision, RouteLimits, ServedService, routes};
use slipway_types::name::{label_value, segment};
use slipway_types::service::{Route, RoutingTable};
use slipway_types::{ApiError, ErrorCode};

use super::App;
use super::state::ServiceRecord;

/// File that the running gateway holds locked.
pub const LOCK_FILE: &str = "lock";
/// How often the containers' metrics are written.
const METRICS_PERIOD: Duration = Duration::from_secs(2);
/// How long the gateway may take to answer for a service.
const PROBE_LIMIT: Duration = Duration::from_secs(2);
/// How long to wait before another try when the gateway does not stay up.
const RETRY: Duration = Duration::from_secs(2);

/// Aliases of model versions, by the model's name and the version.
type Aliases = BTreeMap<(String, u64), Vec<String>>;

/// Keeps the gateway running and informed.
pub struct DataPlane {
    app: Arc<App>,
    folder: PathBuf,
    /// The table that the gateway has.
    table: RoutingTable,
    published: bool,
    child: Option<Child>,
    last_start: Option<Instant>,
    last_metrics: Option<Instant>,
}

impl DataPlane {
    /// The data plane of a state folder. The table of an earlier daemon goes on, so that its generation grows.
    pub fn new(app: &Arc<App>) -> Self {
        let folder = app.settings.root.join("gateway");
        let table = std::fs::read(folder.join("routes.json"))
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default();
        Self {
            app: Arc::clone(app),
            folder,
            table,
            published: false,
            child: None,
            last_start: None,
            last_metrics: None,
        }
    }

    /// Gives the gateway the table of what engines were last seen to have, and keeps it running while anything is
    /// declared that answers there.
    pub fn publish(&mut self) -> Result<(), ApiError> {
        let clusters = self.app.engines.clusters();
        let mut records = self.app.state.services_where(|record| !clusters.contains(&record.engine))?;
        records.retain(|record| self.app.engines.endpoint(record) == Endpoint::Gateway);
        let seen = self.app.engines.seen_here();
        let table = table(&records, &self.aliases(&records)?, &seen, &self.table);
        if let Some(child) = &mut self.child {
            // Takes its exit status, so that no zombie stays.
            let _ = child.try_wait();
        }
        if records.is_empty() && table.services.is_empty() && !self.published && !self.folder.exists() {
            return Ok(());
        }
        std::fs::create_dir_all(&self.folder).map_err(|e| failed("create", &self.folder, &e))?;
        if !self.published || table != self.table {
            let bytes = serde_json::to_vec_pretty(&table)
                .map_err(|e| ApiError::new(ErrorCode::Internal, e.to_string()))?;
            write(&self.folder, "routes.json", &bytes)?;
            self.table = table;
            self.published = true;
        }
        if self.last_metrics.is_none_or(|at| at.elapsed() >= METRICS_PERIOD) {
            self.last_metrics = Some(Instant::now());
            write(
                &self.folder,
                "containers.prom",
                self.metrics(&records, seen.values().flatten()).as_bytes(),
            )?;
        }
        if records.is_empty() {
            self.end();
        } else if gateway_pid(&self.folder).is_none() {
            return self.start();
        }
        Ok(())
    }

    /// Asks the gateway to end, if it runs.
    pub fn end(&self) {
        if let Some(pid) = gateway_pid(&self.folder) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
    }

    /// The aliases that name the versions of services now.
    fn aliases(&self, records: &[ServiceRecord]) -> Result<Aliases, ApiError> {
        let mut aliases = BTreeMap::new();
        for revision in records.iter().flat_map(revisions).filter(|revision| revision.model.is_some()) {
            let (model, version) = (&revision.spec.model, revision.spec.version);
            aliases.insert((model.clone(), version), self.app.state.aliases(model, version)?);
        }
        Ok(aliases)
    }

    fn start(&mut self) -> Result<(), ApiError> {
        if self.last_start.is_some_and(|at| at.elapsed() < RETRY) {
            return Ok(());
        }
        let (kind, message) = match self.last_start {
            None => {
                ("gateway.started", format!("It listens on {}.", self.app.settings.values.gateway.listen))
            }
            Some(_) => ("gateway.restarted", self.why()),
        };
        self.app.event("gateway", kind, &message);
        self.last_start = Some(Instant::now());
        let path = self.folder.join("gateway.log");
        let log =
            File::options().create(true).append(true).open(&path).map_err(|e| failed("open", &path, &e))?;
        let exe = self.app.native.exe();
        let child = Command::new(exe)
            .arg("--root")
            .arg(&self.app.settings.root)
            .arg("gateway")
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|e| failed("start", exe, &e))?;
        self.child = Some(child);
        Ok(())
    }

    fn why(&self) -> String {
        let last = std::fs::read_to_string(self.folder.join("gateway.log")).unwrap_or_default();
        let reason = last.lines().rev().find(|line| line.contains("error:")).unwrap_or("");
        format!("It did not run. {reason}").trim_end().to_owned()
    }

    /// Metrics of replicas' containers in Prometheus text, named as cAdvisor names them.
    fn metrics<'a>(
        &self,
        records: &[ServiceRecord],
        observed: impl Iterator<Item = &'a ObservedReplica>,
    ) -> String {
        let mut text = String::new();
        let mut families: [(&str, &str, &str, Vec<String>); 5] = [
            ("container_cpu_usage_seconds_total", "counter", "CPU time used.", Vec::new()),
            ("container_memory_usage_bytes", "gauge", "Memory in use, page cache included.", Vec::new()),
            ("container_spec_memory_limit_bytes", "gauge", "Memory limit.", Vec::new()),
            ("container_oom_events_total", "counter", "Processes killed for lack of memory.", Vec::new()),
            ("container_processes", "gauge", "Processes and threads.", Vec::new()),
        ];
        for replica in observed {
            let Ok(container) = self.app.native.container(&replica.container) else { continue };
            let Ok(stats) = container.stats() else { continue };
            let labels =
                format!("service=\"{}\",id=\"{}\"", label_value(&replica.service), replica.container.short());
            let values = [
                Some(format!("{:.6}", stats.cpu_usec as f64 / 1e6)),
                Some(stats.memory_current.to_string()),
                stats.memory_limit.map(|v| v.to_string()),
                Some(stats.oom_kills.to_string()),
                Some(stats.pids.to_string()),
            ];
            for (family, value) in families.iter_mut().zip(values) {
                family.3.extend(value.map(|value| format!("{}{{{labels}}} {value}", family.0)));
            }
        }
        for (name, kind, help, lines) in families {
            if !lines.is_empty() {
                let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{}", lines.join("\n"));
            }
        }
        let mut restarts = Vec::new();
        for record in records {
            restarts.push(format!(
                "slipway_service_restarts_total{{service=\"{}\"}} {}",
                label_value(&record.target.spec.name),
                record.restarts
            ));
        }
        if !restarts.is_empty() {
            let name = "slipway_service_restarts_total";
            let _ = writeln!(
                text,
                "# HELP {name} Replicas restarted after a crash.\n# TYPE {name} counter\n{}",
                restarts.join("\n")
            );
        }
        text
    }
}

/// The revisions of a service that may have replicas.
fn revisions(record: &ServiceRecord) -> impl Iterator<Item = &Revision> {
    std::iter::once(&record.target).chain(&record.stable)
}

/// The table of the services that were declared. Those of an engine that was not looked at yet, since the daemon
/// started, keep the routes that they have.
fn table(
    records: &[ServiceRecord],
    aliases: &Aliases,
    seen: &BTreeMap<String, Vec<ObservedReplica>>,
    previous: &RoutingTable,
) -> RoutingTable {
    let observed: Vec<ObservedReplica> = seen.values().flatten().cloned().collect();
    // What an image itself runs is reached without this gateway.
    let served = records.iter().filter(|record| !record.deleting && record.target.model.is_some());
    let (looked_at, others): (Vec<_>, Vec<_>) = served.partition(|record| seen.contains_key(&record.engine));
    let labels = |revision: &Revision| {
        aliases.get(&(revision.spec.model.clone(), revision.spec.version)).cloned().unwrap_or_default()
    };
    let services = looked_at.into_iter().map(|record| ServedService {
        spec: &record.target.spec,
        revision: record.target.number,
        labels: revisions(record).map(|revision| (revision.number, labels(revision))).collect(),
    });
    let mut table = routes(services, &observed, &RouteLimits::default(), previous);
    let kept = |route: &&Route| others.iter().any(|record| record.target.spec.name == route.service);
    table.services.extend(previous.services.iter().filter(kept).cloned());
    for route in &mut table.services {
        // One that is no host name has another before `.localhost`, which is no other service's.
        let mapped = slipway_kubernetes::names::map(&route.service).ok();
        let mapped = mapped.filter(|mapped| *mapped != route.service);
        route.hosts = mapped.into_iter().map(|mapped| format!("{mapped}.localhost")).collect();
    }
    table.services.sort_by(|a, b| a.service.cmp(&b.service));
    table.generation = previous.generation + u64::from(table.services != previous.services);
    table
}

/// Whether the gateway answers for a service: it has a replica that takes requests.
pub fn answers(app: &App, service: &str) -> bool {
    let address = app.settings.values.gateway.listen.parse().ok();
    address.and_then(|address| ready_at(address, service).ok()).unwrap_or(false)
}

/// As [`answers`], of another gateway; `None` where this host does not reach it.
pub fn answers_at(url: &str, service: &str) -> Option<bool> {
    use std::net::ToSocketAddrs;
    let authority = url.strip_prefix("http://")?.trim_end_matches('/');
    let host = if authority.contains(':') { authority.to_owned() } else { format!("{authority}:80") };
    let address = host.to_socket_addrs().ok()?.next()?;
    ready_at(address, service).ok()
}

/// Asks for the readiness of a service; an error when nobody answers.
fn ready_at(address: SocketAddr, service: &str) -> std::io::Result<bool> {
    use std::io::Read;
    let mut stream = TcpStream::connect_timeout(&address, PROBE_LIMIT)?;
    stream.set_read_timeout(Some(PROBE_LIMIT))?;
    write!(
        stream,
        "GET /v2/models/{}/ready HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n\r\n",
        segment(service)
    )?;
    let mut answer = Vec::new();
    stream.take(4096).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).split_ascii_whitespace().nth(1) == Some("200"))
}

/// The process that holds the gateway's lock.
fn gateway_pid(folder: &Path) -> Option<rustix::process::Pid> {
    let path = folder.join(LOCK_FILE);
    let file = File::options().read(true).write(true).open(&path).ok()?;
    if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
        return None;
    }
    let text = std::fs::read_to_string(&path).ok()?;
    rustix::process::Pid::from_raw(text.trim().parse().ok()?)
}

/// Claims the gateway's lock for this process; the claim lasts as long as the file is open.
pub fn hold_lock(folder: &Path) -> Result<File, ApiError> {
    std::fs::create_dir_all(folder).map_err(|e| failed("create", folder, &e))?;
    let path = folder.join(LOCK_FILE);
    let mut file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|e| failed("open", &path, &e))?;
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| ApiError::new(ErrorCode::Conflict, "another gateway runs with this state folder"))?;
    file.set_len(0)
        .and_then(|()| write!(file, "{}", std::process::id()))
        .map_err(|e| failed("write", &path, &e))?;
    Ok(file)
}

fn write(folder: &Path, name: &str, bytes: &[u8]) -> Result<(), ApiError> {
    let (path, aside) = (folder.join(name), folder.join(format!("{name}.new")));
    let write = || -> std::io::Result<()> {
        let mut file = File::create(&aside)?;
        file.write_all(bytes)?;
        file.sync_data()?;
        std::fs::rename(&aside, &path)
    };
    write().map_err(|error| failed("write", &path, &error))
}

fn failed(what: &str, path: &Path, error: &std::io::Error) -> ApiError {
    let code = match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => ErrorCode::ResourceExhausted,
        _ => ErrorCode::Internal,
    };
    let mut api = ApiError::new(code, format!("cannot {what} {}", path.display()));
    api.causes.push(error.to_string());
    api
}

#[cfg(test)]
mod tests {
    use super::*;
    use slipway_orchestrator::ModelPin;
    use slipway_types::Digest;
    use slipway_types::container::ContainerId;
    use slipway_types::model::ModelFormat;
    use slipway_types::service::{ReplicaState, ServiceSpec};

    fn record(name: &str, engine: &str) -> ServiceRecord {
        let spec = ServiceSpec { name: name.into(), replicas: 1, ..ServiceSpec::default() };
        let image_id = Digest::from_sha256([1; 32]);
        let model = ModelPin { manifest: image_id.clone(), format: ModelFormat::Onnx, labels: Vec::new() };
        let target = Revision { number: 1, spec, image_id, model: Some(model) };
        ServiceRecord {
            target,
            stable: None,
            deleting: false,
            restarts: 0,
            engine: engine.into(),
            exposure: None,
        }
    }

    fn replica(service: &str, id: u8) -> ObservedReplica {
        ObservedReplica {
            container: ContainerId::from_random([id; 12]),
            service: service.into(),
            revision: 1,
            slot: 0,
            state: ReplicaState::Ready,
            started_at: None,
            reason: None,
            load_failed: false,
            socket: Some(format!("/{id}").into()),
        }
    }

    #[test]
    fn an_engine_that_was_not_looked_at_keeps_its_routes() {
        let records = [record("a", "one"), record("b", "two"), record("c", "two")];
        let aliases = Aliases::from([((String::new(), 0), vec!["champion".to_owned()])]);
        let both = BTreeMap::from([
            ("one".to_owned(), vec![replica("a", 1)]),
            ("two".to_owned(), vec![replica("b", 2)]),
        ]);
        let full = table(&records, &aliases, &both, &RoutingTable::default());
        let backends = |table: &RoutingTable| -> Vec<usize> {
            table.services.iter().map(|route| route.backends.len()).collect()
        };
        assert_eq!((full.generation, backends(&full)), (1, vec![1, 1, 0]));

        assert!(full.services.iter().all(|route| route.labels == ["champion"]));

        let mut seen = BTreeMap::from([("two".to_owned(), Vec::new())]);
        let table_now = table(&records, &aliases, &seen, &full);
        assert_eq!((table_now.generation, backends(&table_now)), (2, vec![1, 0, 0]));
        seen.insert("two".to_owned(), vec![replica("b", 2)]);
        assert_eq!(table(&records, &aliases, &seen, &full), full, "nothing changed");

        let mut going = records;
        going[0].deleting = true;
        assert_eq!(
            table(&going, &aliases, &seen, &full).services.len(),
            2,
            "what is deleted takes no requests"
        );
    }
}
