//! The pods of a service: those with Slipway's runner in them; [`super::image`] has what differs in others.

use serde_json::{Value, json};
use slipway_types::service::PREDICTION_LIMIT_MS;

use super::autoscaling::Scaling;
use super::labels::Identity;
use super::pod::{
    HTTP, HTTP_PORT, PRE_STOP_SECONDS, check_user, container_security, environment, pod_security, pre_stop,
    probe,
};
use super::volumes::{CONFIG, RUN, RUNNER, Volumes, way};
use super::{RenderError, Rendered, config, image, resources};
use crate::Capabilities;
use crate::routes::RouteAnnotation;
use crate::spec::{ModelContent, PodResources, ServiceDeployment, Workload};

/// The container of a replica.
pub const SERVER: &str = "server";
/// Loading and warming up may take as long as the runner lets it: ten minutes.
pub(super) const START_SECONDS: u32 = 600;
/// Requests get as long to finish as the runner gives them after SIGTERM, and then some.
const DRAIN_SECONDS: u64 = 30 + 10;
/// A new pod counts once it has been ready for this long.
const MIN_READY_SECONDS: u32 = 5;
/// Requested where autoscaling by CPU needs a request and there is none.
const CPU_REQUEST_MILLIS: u32 = 250;

pub(super) fn render(
    spec: &ServiceDeployment,
    caps: &Capabilities,
    id: &Identity,
    secret: Option<&str>,
    scaling: Option<&Scaling>,
    out: &mut Rendered,
) -> Result<(), RenderError> {
    check_user(spec.image.run_as, out)?;
    let wanted = wanted_resources(spec, scaling, out);
    let mut volumes = Volumes::default();
    let mut container = match &spec.workload {
        Workload::Model { content, tools } => {
            let config = config::runner_config(spec, content, caps, id, out)?;
            volumes.tools(tools);
            runner(content, &config, &wanted, caps, &mut volumes)
        }
        Workload::Image { port } => image::server(*port, &wanted, caps, &mut volumes)?,
    };
    container["name"] = SERVER.into();
    container["image"] = spec.image.reference.to_string().into();
    container["imagePullPolicy"] = "IfNotPresent".into();
    container["env"] = environment(&spec.spec.env, secret, &spec.environment)?.into();
    container["resources"] = resources::container(&wanted, id, caps, out)?;
    container["volumeMounts"] = volumes.mounts.into();
    let mut pod = json!({
        "serviceAccountName": id.own,
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "securityContext": pod_security(spec.image.run_as),
        "terminationGracePeriodSeconds": PRE_STOP_SECONDS + DRAIN_SECONDS,
        "topologySpreadConstraints": resources::spread(id),
        "initContainers": if volumes.init.is_empty() { Value::Null } else { volumes.init.into() },
        "containers": [container],
        "volumes": volumes.volumes,
    });
    resources::place(&mut pod, &spec.placement, &spec.image, wanted.gpus.as_ref(), id)?;
    out.add(
        match spec.workload {
            Workload::Model { .. } => {
                "The pods that serve the model: the service's own image, with Slipway's runner put into it."
            }
            Workload::Image { .. } => image::WHY,
        },
        json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": id.metadata(),
            "spec": {
                // Absent where an autoscaler owns it: two owners would undo each other's work.
                "replicas": if scaling.is_some() { Value::Null } else { spec.spec.replicas.into() },
                "revisionHistoryLimit": 3,
                "minReadySeconds": MIN_READY_SECONDS,
                "progressDeadlineSeconds": START_SECONDS + 120,
                "strategy": {"type": "RollingUpdate", "rollingUpdate": rolling(wanted.gpus.is_some())},
                "selector": {"matchLabels": id.selector},
                "template": {"metadata": id.pod_metadata(), "spec": pod},
            },
        }),
    );
    Ok(())
}

/// What runs in a pod that serves a model.
fn runner(
    model: &ModelContent,
    config: &str,
    wanted: &PodResources,
    caps: &Capabilities,
    volumes: &mut Volumes,
) -> Value {
    volumes.model(model, way(model, caps));
    volumes.mount("config", CONFIG, true, json!({"configMap": {"name": config}}));
    volumes.mount("run", RUN, false, json!({"emptyDir": {}}));
    volumes.scratch(wanted);
    json!({
        "command": [RUNNER, format!("{CONFIG}/runner.json")],
        "workingDir": "/",
        "ports": [{"name": HTTP, "containerPort": HTTP_PORT}],
        "securityContext": container_security(true),
        "startupProbe": probe("/v2/health/ready", 2, 2, START_SECONDS / 2),
        "readinessProbe": probe("/v2/health/ready", 5, 2, 2),
        "livenessProbe": probe("/v2/health/live", 10, 5, 6),
        "lifecycle": pre_stop(caps, &[RUNNER, "wait"]),
    })
}

/// CPU pods are replaced without a gap. A spare GPU is rarely there to start a new pod on before an old one ends, and
/// a rollout that waits for one never ends.
fn rolling(gpus: bool) -> Value {
    if gpus {
        json!({"maxSurge": 0, "maxUnavailable": 1})
    } else {
        json!({"maxSurge": 1, "maxUnavailable": 0})
    }
}

fn wanted_resources(spec: &ServiceDeployment, scaling: Option<&Scaling>, out: &mut Rendered) -> PodResources {
    let mut wanted = spec.resources.clone();
    if wanted.limits == slipway_types::container::Limits::default() {
        wanted.limits = spec.spec.limits;
    }
    if let Some(scaling) = scaling {
        let mut requests = wanted.requests.unwrap_or(wanted.limits);
        if scaling.uses("cpu") && requests.cpu_millis.is_none() {
            out.warn(format!(
                "autoscaling by CPU needs a request, so each pod requests {CPU_REQUEST_MILLIS}m: set `cpus` to what one pod uses"
            ));
            requests.cpu_millis = Some(wanted.limits.cpu_millis.unwrap_or(u32::MAX).min(CPU_REQUEST_MILLIS));
        }
        if scaling.uses("memory") && requests.memory.is_none() {
            out.warn("autoscaling by memory needs a request, so each pod requests 512Mi: set `memory`");
            requests.memory = Some(wanted.limits.memory.unwrap_or(u64::MAX).min(512 << 20));
        }
        wanted.requests = Some(requests);
    }
    wanted
}

/// What the gateway must know about a service.
pub(super) fn route_annotation(
    spec: &ServiceDeployment,
    content: &ModelContent,
    id: &Identity,
    hosts: Vec<String>,
) -> Value {
    let route = RouteAnnotation {
        service: spec.spec.name.clone(),
        model: spec.spec.model.clone(),
        version: spec.spec.version,
        labels: content.labels.clone(),
        hosts,
        max_body: config::max_body(spec),
        timeout_ms: PREDICTION_LIMIT_MS,
        to_zero: spec.autoscaling.as_ref().is_some_and(|scaling| scaling.min == 0),
        deployment: id.name.clone(),
    };
    json!(route).to_string().into()
}
