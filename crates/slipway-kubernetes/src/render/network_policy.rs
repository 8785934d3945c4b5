//! NetworkPolicy. Whether it has any effect is the network plugin's business, which no API tells.

use serde_json::{Value, json};

use super::labels::{GATEWAY_LABEL, Identity};
use super::pod::HTTP;
use super::{RenderError, Rendered, map};
use crate::spec::{ServiceDeployment, TrainingRun};
use crate::validate;

const CAVEAT: &str = "Has an effect only where the cluster's network plugin enforces policies.";

/// Only the gateway, and whatever monitors, reaches the pods; they reach nothing, as on one host.
pub(super) fn for_service(
    spec: &ServiceDeployment,
    id: &Identity,
    out: &mut Rendered,
) -> Result<(), RenderError> {
    let mut from = Vec::new();
    if let Some(gateway) = spec.gateway() {
        from.push(json!({"podSelector": {"matchLabels": {GATEWAY_LABEL: map(&gateway.name)?}}}));
        if let Some(namespace) = &spec.scrape_from {
            validate::dns_1123_label(namespace)
                .map_err(|source| RenderError::Invalid { what: "namespace that monitors", source })?;
            from.push(
                json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}),
            );
        }
    }
    let from = if from.is_empty() { Value::Null } else { from.into() };
    let ingress = json!([{ "from": from, "ports": [{"port": HTTP, "protocol": "TCP"}] }]);
    let egress = if spec.egress { json!([{}]) } else { Value::Null };
    let why = if spec.gateway().is_some() {
        "Who reaches the pods: the gateway, on the port that they answer on."
    } else {
        "Where the pods are reached: on the port that they answer on."
    };
    add(why, id, &ingress, &egress, out);
    Ok(())
}

/// Ranks reach each other and the cluster's DNS; a rank alone reaches nothing, as on one host.
pub(super) fn for_run(run: &TrainingRun, id: &Identity, out: &mut Rendered) {
    let each_other = json!({"podSelector": {"matchLabels": id.selector}});
    let dns = json!({"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]});
    let alone = run.ranks == 1;
    let egress = match (run.egress, alone) {
        (true, _) => json!([{}]),
        (false, true) => Value::Null,
        (false, false) => json!([{ "to": [each_other] }, dns]),
    };
    let ingress = if alone { Value::Null } else { json!([{ "from": [each_other] }]) };
    add("Whom the ranks reach, and who reaches them.", id, &ingress, &egress, out);
}

/// A direction without rules is closed by being named. An empty list would say the same, and the API server, which keeps
/// none, would take each apply for a change.
fn add(why: &str, id: &Identity, ingress: &Value, egress: &Value, out: &mut Rendered) {
    out.add(
        format!("{why} {CAVEAT}"),
        json!({
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": id.metadata_as(&id.own),
            "spec": {
                "podSelector": {"matchLabels": id.selector},
                "policyTypes": ["Ingress", "Egress"],
                "ingress": ingress,
                "egress": egress,
            },
        }),
    );
}
