//! Quantities, accelerators, and where pods run.

use serde_json::{Map, Value, json};
use slipway_types::container::Limits;

use super::labels::Identity;
use super::{RenderError, Rendered};
use crate::Capabilities;
use crate::spec::{Gpus, ImagePin, Placement, PodResources};
use crate::validate;

const ARCH: &str = "kubernetes.io/arch";
const CLAIM: &str = "devices";

/// Bytes as the API server writes them back, so that applying twice changes nothing.
pub(super) fn bytes(count: u64) -> String {
    [(40, "Ti"), (30, "Gi"), (20, "Mi"), (10, "Ki")]
        .into_iter()
        .find(|(shift, _)| count >= 1 << shift && count.is_multiple_of(1 << shift))
        .map_or_else(|| count.to_string(), |(shift, unit)| format!("{}{unit}", count >> shift))
}

pub(super) fn cpu(millis: u32) -> String {
    if millis.is_multiple_of(1000) { (millis / 1000).to_string() } else { format!("{millis}m") }
}

fn amounts(limits: &Limits) -> Map<String, Value> {
    let pairs = [("cpu", limits.cpu_millis.map(cpu)), ("memory", limits.memory.map(bytes))];
    pairs.into_iter().filter_map(|(key, value)| Some((key.to_owned(), Value::from(value?)))).collect()
}

/// `resources` of the main container, and the claim that it uses, which must be made first.
pub(super) fn container(
    resources: &PodResources,
    id: &Identity,
    caps: &Capabilities,
    out: &mut Rendered,
) -> Result<Value, RenderError> {
    if resources.limits.pids.is_some() {
        out.warn("a limit of processes cannot be given to a pod: the kubelet of each node has one for all");
    }
    let mut limits = amounts(&resources.limits);
    let mut requests = amounts(&resources.requests.unwrap_or(resources.limits));
    check_requests(&resources.requests.unwrap_or(resources.limits), &resources.limits)?;
    let mut claims = Value::Null;
    match &resources.gpus {
        None => {}
        Some(gpus) if gpus.count() == 0 => {
            return Err(RenderError::Contradiction { what: "gpus", reason: "the count is 0".to_owned() });
        }
        Some(Gpus::Devices { resource, count }) => add_devices(&mut limits, &mut requests, resource, *count)?,
        Some(Gpus::Mig { profile, count }) => {
            add_devices(&mut limits, &mut requests, &format!("nvidia.com/mig-{profile}"), *count)?;
        }
        Some(Gpus::Claim { device_class, count, selectors }) => {
            claim_template(device_class, *count, selectors, id, caps, out)?;
            claims = json!([{ "name": CLAIM }]);
        }
    }
    let or_null = |map: Map<String, Value>| if map.is_empty() { Value::Null } else { Value::Object(map) };
    Ok(json!({ "limits": or_null(limits), "requests": or_null(requests), "claims": claims }))
}

fn check_requests(requests: &Limits, limits: &Limits) -> Result<(), RenderError> {
    let above = |request: Option<u64>, limit: Option<u64>| request.zip(limit).is_some_and(|(r, l)| r > l);
    let cpu = |limits: &Limits| limits.cpu_millis.map(u64::from);
    if above(requests.memory, limits.memory) || above(cpu(requests), cpu(limits)) {
        let reason = "more is requested than the limit allows".to_owned();
        return Err(RenderError::Contradiction { what: "resources", reason });
    }
    Ok(())
}

/// Extended resources cannot be overcommitted: request and limit are one number.
fn add_devices(
    limits: &mut Map<String, Value>,
    requests: &mut Map<String, Value>,
    resource: &str,
    count: u32,
) -> Result<(), RenderError> {
    validate::label_key(resource).map_err(|source| RenderError::Invalid { what: "gpus", source })?;
    for map in [limits, requests] {
        map.insert(resource.to_owned(), count.to_string().into());
    }
    Ok(())
}

fn claim_template(
    device_class: &str,
    count: u32,
    selectors: &[String],
    id: &Identity,
    caps: &Capabilities,
    out: &mut Rendered,
) -> Result<(), RenderError> {
    let Some(version) = &caps.dra else {
        let what = format!("a claim of {device_class}");
        return Err(RenderError::Unsupported { missing: "resource.k8s.io (device claims)", what });
    };
    validate::dns_1123_subdomain(device_class)
        .map_err(|source| RenderError::Invalid { what: "device class", source })?;
    let selectors: Vec<Value> = selectors.iter().map(|cel| json!({"cel": {"expression": cel}})).collect();
    let device = json!({
        "deviceClassName": device_class,
        "allocationMode": "ExactCount",
        "count": count,
        "selectors": if selectors.is_empty() { Value::Null } else { selectors.into() },
    });
    // v1beta1 has the fields in the request itself.
    let request = if version == "v1beta1" {
        let mut flat = device;
        flat["name"] = CLAIM.into();
        flat
    } else {
        json!({ "name": CLAIM, "exactly": device })
    };
    out.add(
        "The devices that each pod claims.",
        json!({
            "apiVersion": format!("resource.k8s.io/{version}"),
            "kind": "ResourceClaimTemplate",
            "metadata": id.metadata_as(&id.own),
            "spec": {"spec": {"devices": {"requests": [request]}}},
        }),
    );
    Ok(())
}

/// Adds to a pod's specification which nodes may run it.
pub(super) fn place(
    pod: &mut Value,
    placement: &Placement,
    image: &ImagePin,
    gpus: Option<&Gpus>,
    id: &Identity,
) -> Result<(), RenderError> {
    let mut selector = placement.node_selector.clone();
    selector.entry("kubernetes.io/os".to_owned()).or_insert_with(|| "linux".to_owned());
    let mut affinity = placement.affinity.clone().unwrap_or_else(|| json!({}));
    match image.architectures.as_slice() {
        [] => {}
        [one] => {
            selector.entry(ARCH.to_owned()).or_insert_with(|| one.clone());
        }
        _ if selector.contains_key(ARCH) => {}
        several => require_architecture(&mut affinity, several)?,
    }
    for (key, value) in &selector {
        validate::label_key(key)
            .and_then(|()| validate::label_value(value))
            .map_err(|source| RenderError::Invalid { what: "node selector", source })?;
    }
    let mut tolerations: Vec<Value> = placement
        .tolerations
        .iter()
        .map(|t| {
            json!({
                "key": t.key, "operator": if t.value.is_some() { "Equal" } else { "Exists" }, "value": t.value,
                "effect": t.effect, "tolerationSeconds": t.seconds,
            })
        })
        .collect();
    let gpu_taint = match gpus {
        Some(Gpus::Devices { resource, .. }) => Some(resource.as_str()),
        Some(Gpus::Mig { .. }) => Some("nvidia.com/gpu"),
        _ => None,
    };
    if let Some(key) = gpu_taint {
        // Clusters keep other pods off GPU nodes by this taint.
        let own = json!({"key": key, "operator": "Exists", "effect": "NoSchedule"});
        if !placement.tolerations.iter().any(|t| t.key.as_deref() == Some(key)) {
            tolerations.push(own);
        }
    }
    pod["nodeSelector"] = json!(selector);
    if affinity.as_object().is_some_and(|a| !a.is_empty()) {
        pod["affinity"] = affinity;
    }
    if !tolerations.is_empty() {
        pod["tolerations"] = tolerations.into();
    }
    pod["priorityClassName"] = json!(placement.priority_class);
    pod["runtimeClassName"] = json!(placement.runtime_class);
    if !placement.image_pull_secrets.is_empty() {
        let names = placement.image_pull_secrets.iter().map(|name| json!({ "name": name }));
        pod["imagePullSecrets"] = names.collect();
    }
    if let Some(Gpus::Claim { .. }) = gpus {
        pod["resourceClaims"] = json!([{ "name": CLAIM, "resourceClaimTemplateName": id.own }]);
    }
    Ok(())
}

/// Every alternative of the user's, and the one that there is without, also needs one of these architectures.
fn require_architecture(affinity: &mut Value, architectures: &[String]) -> Result<(), RenderError> {
    let wrong = || RenderError::Contradiction { what: "affinity", reason: "it is no affinity".to_owned() };
    let expression = json!({ "key": ARCH, "operator": "In", "values": architectures });
    let affinity = affinity.as_object_mut().ok_or_else(wrong)?;
    let node = affinity.entry("nodeAffinity").or_insert_with(|| json!({}));
    let required = node
        .as_object_mut()
        .ok_or_else(wrong)?
        .entry("requiredDuringSchedulingIgnoredDuringExecution")
        .or_insert_with(|| json!({"nodeSelectorTerms": [{}]}));
    let terms = required["nodeSelectorTerms"].as_array_mut().ok_or_else(wrong)?;
    for term in terms {
        let term = term.as_object_mut().ok_or_else(wrong)?;
        let expressions = term.entry("matchExpressions").or_insert_with(|| json!([]));
        expressions.as_array_mut().ok_or_else(wrong)?.push(expression.clone());
    }
    Ok(())
}

/// Pods of one thing on different nodes, and in different zones, as far as there are any.
pub(super) fn spread(id: &Identity) -> Value {
    let constraint = |key: &str| {
        json!({
            "maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": id.selector}, "matchLabelKeys": ["pod-template-hash"],
        })
    };
    json!([constraint("topology.kubernetes.io/zone"), constraint("kubernetes.io/hostname")])
}
