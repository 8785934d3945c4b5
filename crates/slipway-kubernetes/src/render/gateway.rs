//! Our gateway in a cluster: the same program as on a host, which reads addresses of pods in place of sockets.

use serde_json::{Value, json};
use slipway_types::service::PREDICTION_LIMIT_MS;

use super::labels::Identity;
use super::pod::{HTTP, PRE_STOP_SECONDS, check_user, container_security, pod_security, pre_stop, probe};
use super::service::client_service;
use super::{RenderError, Rendered, disruption, rbac, resources, route};
use crate::Capabilities;
use crate::spec::GatewayDeployment;

/// Port on which the gateway's pods answer.
pub const GATEWAY_PORT: u16 = 8080;
const PROGRAM: &str = "/slipway";
const TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Requests under way when a pod ends get as long as the longest prediction takes.
const DRAIN_SECONDS: u64 = PREDICTION_LIMIT_MS.div_ceil(1000);
/// It serves on for a moment after it was told to end, and has a moment to end.
const LEAVE_SECONDS: u64 = 5;

pub(super) fn render(gateway: &GatewayDeployment, caps: &Capabilities) -> Result<Rendered, RenderError> {
    let id = Identity::gateway(gateway)?;
    let mut out = Rendered::default();
    check_user(gateway.image.run_as, &mut out)?;
    if gateway.replicas < 2 {
        out.warn("the gateway has fewer than two pods: while its pod moves, no service is reached");
    }
    rbac::gateway_account(&id, &mut out);
    let container = json!({
        "name": "gateway",
        "image": gateway.image.reference.to_string(),
        "imagePullPolicy": "IfNotPresent",
        "command": [
            PROGRAM, "gateway", "--in-cluster", "--namespace", gateway.namespace,
            "--listen", format!("{}:{GATEWAY_PORT}", caps.any_address()),
        ],
        "ports": [{"name": HTTP, "containerPort": GATEWAY_PORT}],
        "resources": resources::container(&gateway.resources, &id, caps, &mut out)?,
        "securityContext": container_security(true),
        "startupProbe": probe("/-/ready", 1, 2, 60),
        "readinessProbe": probe("/-/ready", 2, 2, 2),
        "livenessProbe": probe("/-/healthy", 10, 5, 6),
        "lifecycle": pre_stop(caps, &[PROGRAM, "gateway", "wait"]),
        "volumeMounts": [
            {"name": "tmp", "mountPath": "/tmp"},
            {"name": "token", "mountPath": TOKEN, "readOnly": true},
        ],
    });
    let mut pod = json!({
        "serviceAccountName": id.name,
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "securityContext": pod_security(gateway.image.run_as),
        "terminationGracePeriodSeconds": PRE_STOP_SECONDS + LEAVE_SECONDS + DRAIN_SECONDS,
        "topologySpreadConstraints": resources::spread(&id),
        "containers": [container],
        "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "256Mi"}}, token()],
    });
    let gpus = gateway.resources.gpus.as_ref();
    resources::place(&mut pod, &gateway.placement, &gateway.image, gpus, &id)?;
    out.add(
        "Slipway's gateway: routes, admits, balances and measures, as it does on one host.",
        json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": id.metadata(),
            "spec": {
                "replicas": gateway.replicas,
                "revisionHistoryLimit": 3,
                "minReadySeconds": 5,
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
                "selector": {"matchLabels": id.selector},
                "template": {"metadata": id.pod_metadata(), "spec": pod},
            },
        }),
    );
    let mut service = client_service(&id, &json!(id.selector), &gateway.exposure)?;
    for (key, value) in &gateway.service_annotations {
        service["metadata"]["annotations"][key] = value.as_str().into();
    }
    out.add("Where the gateway is reached.", service);
    disruption::render(gateway.replicas, &id, &mut out);
    route::render(&gateway.exposure, &id, caps, &mut out)?;
    Ok(out)
}

/// The token, the cluster's certificate and the namespace, as a pod would have them by itself, but with a token of an
/// hour's life, which the kubelet renews.
fn token() -> Value {
    let field =
        json!({"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}});
    json!({"name": "token", "projected": {"sources": [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [field]}},
    ]}})
}
