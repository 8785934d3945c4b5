//! What pods and Services must have, and in which form.

use super::Finding;
use super::check::{error, place, place_of, plain_name, pod_path};
use super::tree::{Document, Kind, Node};
use crate::validate;

pub(super) fn workload(document: &Document, kind: &str, findings: &mut Vec<Finding>) {
    let Some(path) = pod_path(kind) else { return };
    let root = &document.root;
    if path.len() > 1 {
        for key in ["containers", "volumes", "restartPolicy"] {
            if let Some(entry) = root.get("spec").and_then(|spec| spec.entry(key)) {
                let message = format!("`{key}` is outside of a pod's specification");
                let fix = format!("move it to {}.{key}", path.join("."));
                findings.push(error(place_of(entry), "misplaced", message, fix));
            }
        }
        if let Some(entry) = root.at(&["spec", "template"]).and_then(|t| t.entry("containers")) {
            let fix = format!("move it to {}.containers", path.join("."));
            let message = "`containers` is outside of a pod's specification";
            findings.push(error(place_of(entry), "misplaced", message, fix));
        }
    }
    pods_of(root, kind, findings);
    let Some(pod) = root.at(path) else {
        if root.at(&["spec"]).is_some_and(|spec| !spec.is_null())
            && root.at(&["spec", "containers"]).is_none()
        {
            let message = format!("a {kind} has no {}", path.join("."));
            findings.push(error(place(root), "missing-pod", message, "add it, with `containers:` in it"));
        }
        return;
    };
    match pod.entry("containers") {
        None => {
            let message = "the pod has no `containers`";
            findings.push(error(
                place(pod),
                "no-containers",
                message,
                "add `containers:` with a name and an image",
            ));
        }
        Some(entry) if matches!(entry.value.kind, Kind::Map(_)) => {
            let message = "`containers` is a map and must be a list";
            findings.push(error(
                place_of(entry),
                "no-list",
                message,
                "begin each container with `- name: NAME`",
            ));
        }
        Some(entry) => entry.value.items().iter().for_each(|one| container(one, findings)),
    }
}

/// How many pods there are, and which: what a workload says beside its pods' template.
fn pods_of(root: &Node, kind: &str, findings: &mut Vec<Finding>) {
    if root.get("spec").is_none_or(Node::is_null) {
        return;
    }
    if let Some(replicas) = root.at(&["spec", "replicas"])
        && !replicas.is_null()
        && replicas.json().as_i64().is_none_or(|count| count < 0)
    {
        let text = replicas.text().unwrap_or_default();
        let fix = match text.parse::<u32>() {
            Ok(count) => format!("write `replicas: {count}`, without quotes"),
            Err(_) => "write `replicas: NUMBER`".to_owned(),
        };
        findings.push(error(place(replicas), "replicas", "`replicas` must be a number of pods", fix));
    }
    let needs_selector = matches!(kind, "Deployment" | "ReplicaSet" | "DaemonSet" | "StatefulSet");
    if needs_selector && root.at(&["spec", "selector"]).is_none() {
        let message = format!("a {kind} needs `spec.selector`");
        let fix = "add `selector:` with `matchLabels:`, the same as `template.metadata.labels`";
        findings.push(error(place(root), "missing-selector", message, fix));
    }
    let selector = root.get("spec").and_then(|spec| spec.entry("selector")).filter(|_| needs_selector);
    if let Some(selector) = selector {
        for label in selector.value.entries() {
            if !matches!(label.key.as_str(), "matchLabels" | "matchExpressions") {
                let text = label.value.text().unwrap_or_default();
                let message = format!("a {kind}'s selector has its labels below `matchLabels`");
                let fix = format!("write `matchLabels:`, and below it, indented, `{}: {text}`", label.key);
                findings.push(error(place_of(label), "selector", message, fix));
            }
        }
    }
}

fn container(one: &Node, findings: &mut Vec<Finding>) {
    match one.get("name") {
        None => {
            findings.push(error(place(one), "container-name", "the container has no `name`", "add `name:`"));
        }
        Some(node) => {
            if let Some(Err(invalid)) = node.text().map(validate::dns_1123_label) {
                let fix = match node.text().and_then(plain_name) {
                    Some(plain) => format!("write `name: {plain}`"),
                    None => "use lower-case letters, digits and `-`".to_owned(),
                };
                findings.push(error(place(node), "container-name", invalid.to_string(), fix));
            }
        }
    }
    if one.get("image").is_none_or(Node::is_null) {
        let at = one.entry("image").map_or(place(one), place_of);
        findings.push(error(at, "no-image", "the container has no `image`", "add `image: REPOSITORY:TAG`"));
    }
    for port in one.get("ports").map_or(&[][..], Node::items) {
        number(port, "containerPort", true, findings);
        if let Some(Err(invalid)) = port.text_at(&["name"]).map(validate::port_name) {
            findings.push(error(place(port), "port-name", invalid.to_string(), "shorten it, such as `http`"));
        }
        if port.text().is_some() {
            let fix = format!("write `- containerPort: {}`", port.text().unwrap_or_default());
            findings.push(error(place(port), "port", "a port is a map, not a number", fix));
        }
    }
    for variable in one.get("env").map_or(&[][..], Node::items) {
        let Some(value) = variable.get("value") else { continue };
        if value.json().is_number() || value.json().is_boolean() {
            let text = value.text().unwrap_or_default();
            let message = "the value of an environment variable must be a text";
            findings.push(error(
                place(value),
                "env-value",
                message,
                format!("quote it: `value: \"{text}\"`"),
            ));
        }
    }
    if let Some(entry) = one.entry("env").filter(|entry| matches!(entry.value.kind, Kind::Map(_))) {
        let message = "`env` is a map and must be a list";
        findings.push(error(
            place_of(entry),
            "no-list",
            message,
            "write `- name: KEY` and `value: VALUE` for each",
        ));
    }
}

pub(super) fn service(root: &Node, findings: &mut Vec<Finding>) {
    let Some(spec) = root.get("spec").filter(|spec| !spec.is_null()) else { return };
    const TYPES: [&str; 4] = ["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"];
    if let Some(node) = spec.get("type").filter(|node| !node.is_null()) {
        let text = node.text().unwrap_or_default();
        if !TYPES.contains(&text) {
            let close = TYPES.iter().find(|known| known.eq_ignore_ascii_case(text));
            let fix = match close {
                Some(known) => format!("write `type: {known}`"),
                None => format!("write one of {}", TYPES.join(", ")),
            };
            findings.push(error(
                place(node),
                "service-type",
                format!("`{text}` is no type of a Service"),
                fix,
            ));
        }
    }
    let ports = spec.get("ports");
    if ports.is_none_or(|ports| ports.items().is_empty())
        && !matches!(spec.text_at(&["type"]), Some("ExternalName"))
        && spec.text_at(&["clusterIP"]) != Some("None")
    {
        let at = ports.map_or(place(spec), place);
        let fix = "add `ports:` with `- port: 80` and `targetPort: NUMBER`";
        findings.push(error(at, "no-ports", "the Service has no `ports`, as a list", fix));
    }
    for port in ports.map_or(&[][..], Node::items) {
        number(port, "port", true, findings);
        number(port, "nodePort", false, findings);
        if let Some(target) = port.get("targetPort")
            && matches!(&target.kind, Kind::Text(text) if text.bytes().all(|b| b.is_ascii_digit()))
        {
            let text = target.text().unwrap_or_default();
            let message =
                format!("`targetPort: \"{text}\"` names a port called {text}, which there cannot be");
            findings.push(error(place(target), "port-text", message, format!("write `targetPort: {text}`")));
        }
    }
}

pub(super) fn config_map(root: &Node, findings: &mut Vec<Finding>) {
    for entry in root.get("data").map_or(&[][..], Node::entries) {
        let value = &entry.value;
        let (key, text) = (&entry.key, value.text().unwrap_or_default());
        let fix = if value.json().is_number() || value.json().is_boolean() {
            format!("quote it: `{key}: \"{text}\"`")
        } else if matches!(value.kind, Kind::Map(_)) {
            format!("write it as a text: `{key}: |`, and what it shall hold indented below")
        } else {
            continue;
        };
        let message = format!("the value of `{key}` in a ConfigMap must be a text");
        findings.push(error(place(value), "config-value", message, fix));
    }
}

/// A port must be a number from 1 to 65535, not a text that looks like one.
fn number(port: &Node, key: &str, needed: bool, findings: &mut Vec<Finding>) {
    let Some(node) = port.get(key) else {
        if needed && matches!(port.kind, Kind::Map(_)) {
            let message = format!("the port has no `{key}`");
            findings.push(error(place(port), "port", message, format!("add `{key}: NUMBER`")));
        }
        return;
    };
    match node.json().as_i64() {
        Some(1..=65535) => {}
        Some(_) => {
            let message = format!("`{key}` is not between 1 and 65535");
            findings.push(error(place(node), "port", message, "choose another"));
        }
        None => {
            let text = node.text().unwrap_or_default();
            let fix = match text.parse::<u16>() {
                Ok(number) => format!("write `{key}: {number}`, without quotes"),
                Err(_) => format!("write `{key}: NUMBER`"),
            };
            findings.push(error(
                place(node),
                "port-text",
                format!("`{key}` must be a number, not a text"),
                fix,
            ));
        }
    }
}
