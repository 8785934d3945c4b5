//! From pods to replicas, and from Services to addresses. Pure.

use std::collections::{BTreeMap, HashSet};

use serde_json::Value;
use slipway_orchestrator::ObservedReplica;
use slipway_types::container::ContainerId;
use slipway_types::service::ReplicaState;

use crate::names::NAME_ANNOTATION;
use crate::reason;
use crate::render::{REVISION_LABEL, SERVICE_LABEL};
use crate::spec::{Exposure, ServiceDeployment};
use crate::watch::Snapshot;

/// Where a service answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// URL.
    pub url: String,
    /// Who reaches it.
    pub reach: Reach,
}

/// Who reaches an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Pods of the cluster only.
    Cluster,
    /// Whoever reaches the nodes.
    Nodes,
    /// Whoever reaches the load balancer or resolves the host name.
    Outside,
}

/// Why a service answers nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoAddress {
    /// It offers no port.
    NoPort,
    /// The cluster has not given it one yet; why, in one sentence.
    Pending(String),
}

/// The id of a pod as a replica: the first digits of its UID, which is random.
pub fn container_id(pod: &Value) -> Option<ContainerId> {
    let digits: String = pod["metadata"]["uid"].as_str()?.chars().filter(|c| *c != '-').take(24).collect();
    digits.to_lowercase().parse().ok()
}

/// Whether a pod answers.
pub(super) fn is_ready(pod: &Value) -> bool {
    pod["status"]["conditions"]
        .as_array()
        .is_some_and(|all| all.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
}

/// Whether new requests go to a pod.
pub(super) fn serves(pod: &Value) -> bool {
    is_ready(pod) && pod["metadata"]["deletionTimestamp"].is_null()
}

/// Every replica of every service, by its pod. `ready_once` has the UIDs of pods that were ready before.
pub fn replicas(snapshot: &Snapshot, ready_once: &HashSet<String>) -> Vec<ObservedReplica> {
    let events = snapshot.events();
    let mut slots: BTreeMap<(String, u64), u32> = BTreeMap::new();
    let mut pods: Vec<&Value> = snapshot
        .of("Pod")
        .iter()
        .map(|pod| &**pod)
        .filter(|pod| pod["metadata"]["labels"][SERVICE_LABEL].is_string())
        .collect();
    let text = |pod: &Value, pointer: &str| {
        pod.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    pods.sort_by_key(|pod| (text(pod, "/metadata/creationTimestamp"), text(pod, "/metadata/name")));
    pods.into_iter()
        .filter_map(|pod| {
            let service = pod["metadata"]["annotations"][NAME_ANNOTATION].as_str()?.to_owned();
            let revision = pod["metadata"]["labels"][REVISION_LABEL].as_str()?.parse().ok()?;
            let uid = pod["metadata"]["uid"].as_str().unwrap_or_default();
            let slot = slots.entry((service.clone(), revision)).or_default();
            let own = *slot;
            *slot += 1;
            let about = events.get(uid).map_or(&[][..], Vec::as_slice);
            Some(ObservedReplica {
                container: container_id(pod)?,
                service,
                revision,
                slot: own,
                state: state(pod, ready_once.contains(uid)),
                started_at: text(pod, "/status/startTime").parse().ok(),
                reason: reason::pod(pod, about).map(|reason| reason.text),
                // A probe's event has the status of the answer and not its body, which would say so.
                load_failed: false,
                socket: None,
            })
        })
        .collect()
}

pub(super) fn state(pod: &Value, was_ready: bool) -> ReplicaState {
    let phase = pod["status"]["phase"].as_str().unwrap_or_default();
    if matches!(phase, "Succeeded" | "Failed") {
        return ReplicaState::Stopped;
    }
    if !pod["metadata"]["deletionTimestamp"].is_null() {
        return ReplicaState::Draining;
    }
    if is_ready(pod) {
        return ReplicaState::Ready;
    }
    if was_ready { ReplicaState::Unready } else { ReplicaState::Starting }
}

/// Where something answers. `live` is its Service, `pods` those before which that stands.
pub(super) fn address(
    exposure: &Exposure,
    namespace: &str,
    live: Option<&Value>,
    pods: &[&Value],
) -> Option<Address> {
    let with_port = |host: &str, port: u64| {
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        if port == 80 { format!("http://{host}") } else { format!("http://{host}:{port}") }
    };
    let live = live?;
    let port = &live["spec"]["ports"][0];
    match exposure {
        Exposure::Host { host, tls_secret, .. } => {
            let scheme = if tls_secret.is_some() { "https" } else { "http" };
            Some(Address { url: format!("{scheme}://{host}"), reach: Reach::Outside })
        }
        Exposure::ClusterIp => {
            let name = live["metadata"]["name"].as_str()?;
            let host = format!("{name}.{namespace}.svc");
            Some(Address { url: with_port(&host, port["port"].as_u64()?), reach: Reach::Cluster })
        }
        Exposure::NodePort { .. } => {
            // Every node answers; one whose pod serves is known to be up.
            let known = |pod: &&Value| pod["status"]["hostIP"].is_string();
            let mut candidates = pods.iter().copied().filter(known);
            let up = candidates.clone().find(|pod| serves(pod)).or_else(|| candidates.next())?;
            let node = up["status"]["hostIP"].as_str()?;
            Some(Address { url: with_port(node, port["nodePort"].as_u64()?), reach: Reach::Nodes })
        }
        Exposure::LoadBalancer { .. } => {
            let ingress = &live["status"]["loadBalancer"]["ingress"][0];
            let host = ingress["ip"].as_str().or_else(|| ingress["hostname"].as_str())?;
            Some(Address { url: with_port(host, port["port"].as_u64()?), reach: Reach::Outside })
        }
    }
}

/// Why [`address`] gives nothing for a service. `events` are those about its Service, oldest first.
pub(super) fn no_address(spec: &ServiceDeployment, live: Option<&Value>, events: &[&Value]) -> NoAddress {
    if spec.port().is_none() {
        return NoAddress::NoPort;
    }
    let why = match (&spec.exposure, live) {
        (Exposure::LoadBalancer { .. }, Some(_)) => {
            let said = reason::newest_warning(events).map(|said| format!(" ({said})")).unwrap_or_default();
            format!(
                "nothing in this cluster has given its Service of type LoadBalancer an address yet{said}; where no load balancers are provided, reach it with `--type NodePort` or `--ingress HOST`"
            )
        }
        (Exposure::NodePort { .. }, Some(_)) => "no node runs a pod of it yet".to_owned(),
        _ => "the cluster has not made its Service yet".to_owned(),
    };
    NoAddress::Pending(why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(name: &str, uid: &str, status: Value) -> Value {
        json!({"kind": "Pod", "metadata": {
            "name": name, "uid": uid, "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {SERVICE_LABEL: "my-model-535d4cfe", REVISION_LABEL: "3"},
            "annotations": {NAME_ANNOTATION: "my_model"},
        }, "status": status})
    }

    #[test]
    fn a_node_port_is_on_a_node_that_is_up() {
        let on = |ip: &str, ready: &str| json!({"status": {"hostIP": ip, "conditions": [{"type": "Ready", "status": ready}]}});
        let live = json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80, "nodePort": 30080}]}});
        let at = |pods: &[&Value]| {
            let exposure = Exposure::NodePort { port: 80, node_port: None };
            address(&exposure, "n", Some(&live), pods).map(|address| address.url)
        };
        let (down, up, nowhere) = (on("10.0.0.1", "Unknown"), on("10.0.0.2", "True"), json!({"status": {}}));
        assert_eq!(at(&[&nowhere, &down, &up]).as_deref(), Some("http://10.0.0.2:30080"));
        assert_eq!(at(&[&nowhere, &down]).as_deref(), Some("http://10.0.0.1:30080"));
        assert_eq!(at(&[&nowhere]), None);
    }

    #[test]
    fn pods_are_replicas() {
        let ready = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
        let not = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "False"}],
            "containerStatuses": [{"name": "server", "state": {"running": {}}, "ready": false, "restartCount": 0}]});
        let mut snapshot = Snapshot::default();
        snapshot.insert(pod("a", "0a1b2c3d-0000-4000-8000-000000000001", ready.clone()));
        snapshot.insert(pod("b", "1a1b2c3d-0000-4000-8000-000000000002", not.clone()));
        snapshot.insert(pod("c", "2a1b2c3d-0000-4000-8000-000000000003", not));
        let mut going = pod("d", "3a1b2c3d-0000-4000-8000-000000000004", ready);
        going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        snapshot.insert(going);
        let once = HashSet::from(["2a1b2c3d-0000-4000-8000-000000000003".to_owned()]);
        let replicas = replicas(&snapshot, &once);
        let states: Vec<ReplicaState> = replicas.iter().map(|r| r.state).collect();
        use ReplicaState::{Draining, Ready, Starting, Unready};
        assert_eq!(states, [Ready, Starting, Unready, Draining]);
        assert_eq!(replicas[0].container.as_str(), "0a1b2c3d0000400080000000");
        assert_eq!(
            (replicas[1].service.as_str(), replicas[1].revision, replicas[1].slot),
            ("my_model", 3, 1)
        );
        assert!(replicas[1].reason.as_deref().unwrap().contains("not ready yet"));
        assert_eq!(replicas[0].reason, None);
    }
}
