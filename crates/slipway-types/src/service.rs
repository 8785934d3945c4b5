//! Services: declared state, replicas, the runner's configuration and the gateway's routing table.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::container::{ContainerId, Limits};
use crate::digest::Digest;
use crate::engine::NATIVE;
use crate::model::ModelFormat;
use crate::{ApiError, ErrorCode};

/// Largest request body, in bytes, of a service that does not say.
pub const DEFAULT_MAX_BODY: u64 = 32 << 20;
/// Longest time for one prediction, in milliseconds.
pub const PREDICTION_LIMIT_MS: u64 = 60_000;

/// What a service shall be. Body of `POST /v1/services`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServiceSpec {
    /// Name; the gateway routes by it.
    pub name: String,
    /// Image reference or id.
    pub image: String,
    /// Model name; empty where the image is run as it is.
    pub model: String,
    /// Model version.
    pub version: u64,
    /// How many replicas run; with `autoscale`, how many it begins with.
    pub replicas: u32,
    /// Port that an image which is run as it is listens on; the only one that it exposes when absent.
    pub port: Option<u16>,
    /// Batching.
    pub batch: Batch,
    /// Class of the user's for the `python` and `torch` formats, as `module:Class`.
    pub entry: Option<String>,
    /// Extra `KEY=value` pairs.
    pub env: Vec<String>,
    /// Limits of each replica.
    pub limits: Limits,
    /// Largest request body in bytes.
    pub max_body: Option<u64>,
    /// Lets a cluster choose how many replicas run, by load.
    pub autoscale: Option<Autoscale>,
}

impl ServiceSpec {
    /// The fewest ready replicas with which it is as declared.
    pub fn fewest(&self) -> u32 {
        self.autoscale.map_or(self.replicas, |range| range.min)
    }

    /// How many replicas run, for people.
    pub fn count(&self) -> String {
        self.autoscale.map_or_else(|| format!("{} replicas", self.replicas), |range| range.to_string())
    }

    /// Whether a model is served, and not what the image itself runs.
    pub fn has_model(&self) -> bool {
        !self.model.is_empty()
    }

    /// What is served, for people: `model@version`, or the image.
    pub fn content(&self) -> String {
        if self.has_model() { format!("{}@{}", self.model, self.version) } else { self.image.clone() }
    }
}

/// How many replicas run, by load. An autoscaler of the cluster keeps the mean use of what replicas request at a share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Autoscale {
    /// Fewest.
    pub min: u32,
    /// Most.
    pub max: u32,
    /// Mean use of the requested CPU, in percent; 70 where no share at all is given.
    #[serde(default)]
    pub cpu_percent: Option<u32>,
    /// Mean use of the requested memory, in percent.
    #[serde(default)]
    pub memory_percent: Option<u32>,
}

impl Autoscale {
    /// What is wrong with it: the key, and why.
    pub fn fault(&self) -> Option<(&'static str, &'static str)> {
        if self.min == 0 {
            return Some(("min", "load scales no service to none: at least 1"));
        }
        if self.max < self.min {
            return Some(("max", "the most replicas are fewer than the fewest"));
        }
        if self.cpu_percent == Some(0) {
            return Some(("cpu_percent", "0 percent can never be held: at least 1"));
        }
        if self.memory_percent == Some(0) {
            return Some(("memory_percent", "0 percent can never be held: at least 1"));
        }
        None
    }
}

impl fmt::Display for Autoscale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {} replicas by load", self.min, self.max)
    }
}

/// How the runner forms batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Batch {
    /// Most rows in one batch.
    pub max_size: u32,
    /// How long an idle worker waits for more rows, in microseconds; 0 never waits.
    pub max_delay_us: u64,
    /// Most rows that wait; more are refused with 503.
    pub max_queue: u32,
}

impl Default for Batch {
    fn default() -> Self {
        Self { max_size: 32, max_delay_us: 0, max_queue: 1024 }
    }
}

/// The life of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplicaState {
    /// Its container starts, or its model loads and warms up.
    Starting,
    /// A warm-up prediction succeeded; it takes requests.
    Ready,
    /// It was ready and answers its health check no more.
    Unready,
    /// It takes no new requests and finishes those it has.
    Draining,
    /// Its container ended.
    Stopped,
}

impl ReplicaState {
    /// Every state, for exhaustive tests.
    pub const ALL: [Self; 5] = [Self::Starting, Self::Ready, Self::Unready, Self::Draining, Self::Stopped];

    /// Whether a replica may go from this state to `next`.
    pub fn can_become(self, next: Self) -> bool {
        matches!(
            (self, next),
            (Self::Starting, Self::Ready | Self::Draining | Self::Stopped)
                | (Self::Ready, Self::Unready | Self::Draining | Self::Stopped)
                | (Self::Unready, Self::Ready | Self::Draining | Self::Stopped)
                | (Self::Draining, Self::Stopped)
        )
    }
}

/// One replica as `slipway services` shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReplicaStatus {
    /// Its container.
    pub container: ContainerId,
    /// Revision of the service that it belongs to.
    pub revision: u64,
    /// State.
    pub state: ReplicaState,
    /// When its container started.
    pub started_at: Option<jiff::Timestamp>,
    /// Why it is not ready, or why it ended.
    pub reason: Option<String>,
}

/// What a replica uses now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaUsage {
    /// Its container.
    pub container: ContainerId,
    /// Service that it belongs to.
    pub service: String,
    /// Thousandths of a CPU, over the last moments.
    pub cpu_millis: u64,
    /// Memory in bytes, without what the kernel would drop first.
    pub memory: u64,
    /// Most memory that it may use, in bytes; absent where nothing limits it, or nobody tells.
    pub memory_limit: Option<u64>,
}

/// One service as `slipway services` shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// Declared state.
    pub spec: ServiceSpec,
    /// Digest of the configuration of its image.
    pub image_id: Digest,
    /// Number of the declared revision; every change of the specification but the replica count makes a new one.
    pub revision: u64,
    /// Its replicas.
    pub replicas: Vec<ReplicaStatus>,
    /// Restarts since it was declared.
    pub restarts: u64,
    /// Where it answers; empty while it does nowhere.
    pub url: String,
    /// Why it answers nowhere, while it shall.
    #[serde(default)]
    pub pending: Option<String>,
    /// Whether a request to it would be answered now; only told of one service, and not of one that offers no port.
    #[serde(default)]
    pub reachable: Option<bool>,
    /// Why the declared revision does not come up, once that is plain; an older one goes on serving if there is one.
    #[serde(default)]
    pub failing: Option<String>,
    /// Its engine has not looked at it since a user asked for it.
    #[serde(default)]
    pub unseen: bool,
    /// Engine that it is declared to run on.
    #[serde(default)]
    pub engine: String,
    /// Why its engine cannot be asked; then `replicas` is what was last seen.
    #[serde(default)]
    pub trouble: Option<String>,
}

impl ServiceStatus {
    /// Ready replicas of the declared revision.
    pub fn ready(&self) -> usize {
        self.replicas.iter().filter(|r| r.revision == self.revision && r.state == ReplicaState::Ready).count()
    }

    /// Whether as many replicas of the declared revision are ready as are declared.
    pub fn is_ready(&self) -> bool {
        self.ready() >= self.spec.fewest() as usize
    }

    /// That nothing scales it by load, though it is declared so: this host has no autoscaler.
    pub fn unscaled(&self) -> Option<String> {
        let range = self.spec.autoscale.filter(|_| self.engine == NATIVE)?;
        Some(format!("nothing scales by load on this host: of {range}, {} run", self.spec.replicas))
    }

    /// How many replicas of an older revision serve, and which one; `None` when none does.
    pub fn older(&self) -> Option<(usize, u64)> {
        let older = self.replicas.iter().filter(|r| r.revision != self.revision);
        let older: Vec<u64> = older.filter(|r| r.state == ReplicaState::Ready).map(|r| r.revision).collect();
        older.last().map(|revision| (older.len(), *revision))
    }

    /// How long an address is waited for once all replicas are ready: a cluster that gives any does so soon, or nobody knows
    /// when.
    pub const ADDRESS_WAIT: Duration = Duration::from_secs(10);

    /// Whether every declared replica is ready, and none of another revision is left.
    pub fn settled(&self) -> bool {
        let settled = self.replicas.iter().all(|replica| replica.revision == self.revision);
        settled && self.ready() >= self.spec.fewest() as usize
    }

    /// Why it answers nowhere, where all that runs is as declared and only an address is missing.
    pub fn lacks_address(&self) -> Option<&str> {
        self.pending.as_deref().filter(|_| self.settled())
    }

    /// How far it is, in one line.
    pub fn progress(&self) -> String {
        let coming = self.replicas.iter().filter(|r| r.revision == self.revision);
        let reason = coming.filter(|r| r.state != ReplicaState::Ready).find_map(|r| r.reason.as_deref());
        let count = format!("{} of {} replicas are ready", self.ready(), self.spec.fewest());
        let reason = reason.or(self.pending.as_deref());
        if let Some(trouble) = &self.trouble {
            return format!("{count}: the engine `{}` cannot be asked: {trouble}", self.engine);
        }
        match reason.and_then(|reason| reason.lines().next()) {
            Some(reason) => format!("{count}: {reason}"),
            None => count,
        }
    }

    /// Why it is no use to wait for the declared revision, if that is plain.
    pub fn failure(&self) -> Option<ApiError> {
        let reason = self.failing.as_ref()?;
        let (name, content) = (&self.spec.name, self.spec.content());
        let message = if self.is_ready() {
            format!("`{name}` with {content} is not as declared")
        } else {
            format!("replicas of `{name}` with {content} do not get ready")
        };
        let mut error = ApiError::new(ErrorCode::Failed, message);
        error.causes.push(reason.clone());
        let serving = self.older().map_or(String::new(), |(count, revision)| {
            format!("revision {revision} goes on serving ({count} ready); ")
        });
        let then = "it is tried again until you deploy another version or delete the service";
        Some(error.with_hint(format!("{serving}{then}")))
    }
}

/// What `slipway-runner` reads from `/slipway/runner.json` inside a serving container.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunnerConfig {
    /// Service name: an alias of the model name in URLs.
    pub service: String,
    /// Model name.
    pub model: String,
    /// Model version.
    pub version: u64,
    /// Labels (aliases) of this version.
    #[serde(default)]
    pub labels: Vec<String>,
    /// Format of the files.
    pub format: ModelFormat,
    /// Folder of the model's files, for example `/model`.
    pub model_dir: PathBuf,
    /// Class of the user's, as `module:Class`.
    #[serde(default)]
    pub entry: Option<String>,
    /// Unix socket to listen on, for example `/run/slipway/http.sock`.
    pub socket: PathBuf,
    /// TCP address to listen on as well, where there is no gateway beside.
    #[serde(default)]
    pub listen: Option<String>,
    /// Folder with the Python worker, for example `/slipway/python`.
    pub python_dir: PathBuf,
    /// Batching.
    #[serde(default)]
    pub batch: Batch,
    /// Largest request body in bytes.
    pub max_body: u64,
    /// Longest time for one prediction, in milliseconds.
    pub timeout_ms: u64,
}

/// Everything that the gateway knows. Written whole, to a side file that is renamed into place.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RoutingTable {
    /// Grows with every change.
    pub generation: u64,
    /// Services.
    pub services: Vec<Route>,
}

/// One service in the routing table.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Route {
    /// Service name.
    pub service: String,
    /// Model name; requests for `/v1/models/<model>` and `/v2/models/<model>` come here too.
    pub model: String,
    /// Host names, without a port, whose requests all come here.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// Aliases of the declared version and of those that replicas serve: `/v1/models/<service>/labels/<alias>` comes here
    /// and goes to replicas that have the alias.
    pub labels: Vec<String>,
    /// Ready replicas.
    pub backends: Vec<Backend>,
    /// Largest request body in bytes.
    pub max_body: u64,
    /// Longest time for one request, in milliseconds.
    pub timeout_ms: u64,
    /// Most requests under way at once, over all replicas; more are refused with 503.
    pub max_concurrency: u32,
}

/// One replica in the routing table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backend {
    /// Who it is.
    pub id: ReplicaId,
    /// What logs and metrics call it; the first twelve digits of its id when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Where it answers.
    #[serde(flatten)]
    pub address: Address,
    /// Aliases of the version that it serves.
    #[serde(default)]
    pub labels: Vec<String>,
}

/// Where a replica answers: `"socket": "<path>"` or `"tcp": "<ip>:<port>"` in the routing table.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Address {
    /// Unix socket of its runner, on this host.
    Socket(PathBuf),
    /// Address of its pod.
    Tcp(SocketAddr),
}

/// Who a replica is: the id of its container on this host, or the UID of its pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ReplicaId(String);

/// Why a text is no id of a replica.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` cannot be the id of a replica")]
pub struct InvalidReplicaId(pub String);

impl ReplicaId {
    /// The whole id.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its first twelve characters.
    pub fn short(&self) -> &str {
        &self.0[..self.0.len().min(12)]
    }
}

impl TryFrom<String> for ReplicaId {
    type Error = InvalidReplicaId;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let valid =
            (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if valid { Ok(Self(text)) } else { Err(InvalidReplicaId(text)) }
    }
}

impl From<ReplicaId> for String {
    fn from(id: ReplicaId) -> Self {
        id.0
    }
}

impl From<ContainerId> for ReplicaId {
    fn from(id: ContainerId) -> Self {
        Self(id.into())
    }
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_how_far_it_is_and_why_not_further() {
        let replica = |n: u8, revision, state, reason: Option<&str>| ReplicaStatus {
            container: ContainerId::from_random([n; 12]),
            revision,
            state,
            started_at: None,
            reason: reason.map(str::to_owned),
        };
        let mut status = ServiceStatus {
            spec: ServiceSpec {
                name: "s".into(),
                model: "m".into(),
                version: 2,
                replicas: 2,
                ..ServiceSpec::default()
            },
            image_id: Digest::from_sha256([1; 32]),
            revision: 4,
            replicas: vec![
                replica(1, 3, ReplicaState::Draining, Some("it exited with code 0")),
                replica(2, 4, ReplicaState::Ready, None),
                replica(3, 4, ReplicaState::Starting, Some("TypeError: no\n  File x")),
            ],
            restarts: 0,
            url: String::new(),
            pending: None,
            reachable: None,
            failing: None,
            unseen: false,
            engine: "native".into(),
            trouble: None,
        };
        assert_eq!(status.progress(), "1 of 2 replicas are ready: TypeError: no");
        assert_eq!((status.ready(), status.older(), status.failure().is_none()), (1, None, true));
        status.pending = Some("there is no load balancer yet".into());
        assert_eq!(status.progress(), "1 of 2 replicas are ready: TypeError: no", "the replicas come first");
        status.replicas[2].reason = None;
        assert_eq!(status.progress(), "1 of 2 replicas are ready: there is no load balancer yet");
        assert_eq!(status.lacks_address(), None, "a replica is to come");
        let mut all_ready = status.clone();
        all_ready.replicas.remove(0);
        all_ready.replicas[1].state = ReplicaState::Ready;
        assert_eq!(all_ready.lacks_address(), Some("there is no load balancer yet"));
        all_ready.pending = None;
        assert_eq!((all_ready.settled(), all_ready.lacks_address()), (true, None));
        status.replicas[2].reason = Some("TypeError: no\n  File x".into());
        status.replicas[0].state = ReplicaState::Ready;
        status.failing = Some("TypeError: no\n  File x".into());
        let failure = status.failure().unwrap();
        assert_eq!(failure.message, "replicas of `s` with m@2 do not get ready");
        assert_eq!(failure.causes, ["TypeError: no\n  File x"]);
        assert!(failure.hint.unwrap().starts_with("revision 3 goes on serving (1 ready); "));
        status.spec.replicas = 1;
        assert_eq!(status.failure().unwrap().message, "`s` with m@2 is not as declared");
        status.trouble = Some("no".into());
        assert_eq!(status.progress(), "1 of 1 replicas are ready: the engine `native` cannot be asked: no");
    }

    #[test]
    fn tables_of_before_are_read_and_those_of_a_host_look_the_same() {
        let old = r#"{"generation":3,"services":[{"service":"s","model":"m","labels":[],"backends":[
            {"id":"010101010101010101010101","socket":"/run/1.sock"}],"max_body":0,"timeout_ms":0,"max_concurrency":0}]}"#;
        let table: RoutingTable = serde_json::from_str(old).unwrap();
        let backend = &table.services[0].backends[0];
        assert_eq!(backend.id, ContainerId::from_random([1; 12]).into());
        assert_eq!(backend.address, Address::Socket("/run/1.sock".into()));
        let written = serde_json::to_value(&table).unwrap();
        let expected = serde_json::json!({"id": backend.id, "socket": "/run/1.sock", "labels": []});
        assert_eq!(written["services"][0]["backends"][0], expected);
        assert!(written["services"][0].get("hosts").is_none());

        let pod = r#"{"id":"0d3f2a1c-9d3e-4c1a-8b0e-2f6d7c5b4a39","name":"s-1","tcp":"[fd00::7]:8080","labels":["eu"]}"#;
        let backend: Backend = serde_json::from_str(pod).unwrap();
        assert_eq!(backend.address, Address::Tcp("[fd00::7]:8080".parse().unwrap()));
        assert_eq!(serde_json::to_string(&backend).unwrap(), pod);
        for bad in [
            r#"{"id":"a"}"#,
            r#"{"id":"a","tcp":"name:80"}"#,
            r#"{"id":"","socket":"/x"}"#,
            r#"{"id":"a/b","socket":"/x"}"#,
        ] {
            assert!(serde_json::from_str::<Backend>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_replica_transition() {
        use ReplicaState::{Draining, Ready, Starting, Stopped, Unready};
        let allowed = [
            (Starting, Ready),
            (Starting, Draining),
            (Starting, Stopped),
            (Ready, Unready),
            (Ready, Draining),
            (Ready, Stopped),
            (Unready, Ready),
            (Unready, Draining),
            (Unready, Stopped),
            (Draining, Stopped),
        ];
        for from in ReplicaState::ALL {
            for to in ReplicaState::ALL {
                assert_eq!(from.can_become(to), allowed.contains(&(from, to)), "{from:?} -> {to:?}");
            }
        }
    }
}
