//! The shape of one document: what an object must have, and the broken shapes that tutorials spread.

use super::tree::{Document, Entry, Kind, Node};
use super::{Finding, Severity, shape};
use crate::names;
use crate::validate;

/// Kinds, the API that serves them, and former ones that no cluster serves any more.
const KINDS: &[(&str, &str, &[&str])] = &[
    ("Pod", "v1", &[]),
    ("Service", "v1", &[]),
    ("ConfigMap", "v1", &[]),
    ("Secret", "v1", &[]),
    ("Namespace", "v1", &[]),
    ("ServiceAccount", "v1", &[]),
    ("PersistentVolumeClaim", "v1", &[]),
    ("PersistentVolume", "v1", &[]),
    ("ReplicationController", "v1", &[]),
    ("Deployment", "apps/v1", &["extensions/v1beta1", "apps/v1beta1", "apps/v1beta2"]),
    ("ReplicaSet", "apps/v1", &["extensions/v1beta1", "apps/v1beta2"]),
    ("DaemonSet", "apps/v1", &["extensions/v1beta1", "apps/v1beta2"]),
    ("StatefulSet", "apps/v1", &["apps/v1beta1", "apps/v1beta2"]),
    ("Job", "batch/v1", &[]),
    ("CronJob", "batch/v1", &["batch/v1beta1", "batch/v2alpha1"]),
    ("Ingress", "networking.k8s.io/v1", &["extensions/v1beta1", "networking.k8s.io/v1beta1"]),
    ("IngressClass", "networking.k8s.io/v1", &["networking.k8s.io/v1beta1"]),
    ("NetworkPolicy", "networking.k8s.io/v1", &["extensions/v1beta1"]),
    ("HorizontalPodAutoscaler", "autoscaling/v2", &["autoscaling/v2beta1", "autoscaling/v2beta2"]),
    ("PodDisruptionBudget", "policy/v1", &["policy/v1beta1"]),
    ("Role", "rbac.authorization.k8s.io/v1", &["rbac.authorization.k8s.io/v1beta1"]),
    ("RoleBinding", "rbac.authorization.k8s.io/v1", &["rbac.authorization.k8s.io/v1beta1"]),
    ("ClusterRole", "rbac.authorization.k8s.io/v1", &["rbac.authorization.k8s.io/v1beta1"]),
    ("ClusterRoleBinding", "rbac.authorization.k8s.io/v1", &["rbac.authorization.k8s.io/v1beta1"]),
];

/// Kinds that need a `spec`.
const WITH_SPEC: &[&str] = &[
    "Pod",
    "Service",
    "Deployment",
    "ReplicaSet",
    "DaemonSet",
    "StatefulSet",
    "Job",
    "CronJob",
    "Ingress",
    "HorizontalPodAutoscaler",
    "PodDisruptionBudget",
    "PersistentVolumeClaim",
    "NetworkPolicy",
];

/// Keys that belong to a container, or to a specification, and are often written at the top.
const MISPLACED: &[&str] = &[
    "name",
    "image",
    "images",
    "ports",
    "port",
    "containers",
    "container",
    "replicas",
    "env",
    "command",
    "args",
    "selector",
    "template",
    "volumes",
    "resources",
    "labels",
];

/// The specification of the pods of a workload: where it is, by kind.
pub(super) fn pod_path(kind: &str) -> Option<&'static [&'static str]> {
    match kind {
        "Pod" => Some(&["spec"]),
        "Deployment" | "ReplicaSet" | "DaemonSet" | "StatefulSet" | "Job" | "ReplicationController" => {
            Some(&["spec", "template", "spec"])
        }
        "CronJob" => Some(&["spec", "jobTemplate", "spec", "template", "spec"]),
        _ => None,
    }
}

pub(super) fn error(
    place: (usize, usize),
    code: &'static str,
    message: impl Into<String>,
    fix: impl Into<String>,
) -> Finding {
    finding(Severity::Error, place, code, message, fix)
}

pub(super) fn warning(
    place: (usize, usize),
    code: &'static str,
    message: impl Into<String>,
    fix: impl Into<String>,
) -> Finding {
    finding(Severity::Warning, place, code, message, fix)
}

pub(super) fn finding(
    severity: Severity,
    (line, column): (usize, usize),
    code: &'static str,
    message: impl Into<String>,
    fix: impl Into<String>,
) -> Finding {
    Finding { line, column, severity, code, message: message.into(), fix: fix.into() }
}

pub(super) fn place(node: &Node) -> (usize, usize) {
    (node.line, node.column)
}

pub(super) fn place_of(entry: &Entry) -> (usize, usize) {
    (entry.line, entry.column)
}

pub(super) fn document(document: &Document, findings: &mut Vec<Finding>) {
    let root = &document.root;
    if !matches!(root.kind, Kind::Map(_)) {
        let message = "the document is no object: it has no keys";
        findings.push(error(place(root), "no-object", message, "begin with `apiVersion:` and `kind:`"));
        return;
    }
    let guess = guess(root);
    capitals(root, findings);
    identity(document, guess, findings);
    metadata(document, guess, findings);
    misplaced(document, guess, findings);
    let kind = if document.kind().is_empty() { guess } else { document.kind() };
    if WITH_SPEC.contains(&kind) {
        match root.entry("spec") {
            None => {
                let fix = if kind == "Service" {
                    "add `spec:` with `selector:` and `ports:`"
                } else if pod_path(kind).is_some_and(|path| path.len() > 1) {
                    "add `spec:` with `selector:` and `template:`; containers go to `spec.template.spec.containers`"
                } else {
                    "add `spec:`"
                };
                findings.push(error(place(root), "missing-spec", format!("a {kind} needs a `spec`"), fix));
            }
            Some(entry) if entry.value.is_null() => {
                let fix = "indent what belongs to it by two spaces";
                findings.push(error(place_of(entry), "empty-spec", "`spec` is empty", fix));
            }
            Some(_) => {}
        }
    }
    shape::workload(document, kind, findings);
    match kind {
        "Service" => shape::service(root, findings),
        "ConfigMap" => shape::config_map(root, findings),
        _ => {}
    }
}

/// Keys of every object that are written with other capitals: the API knows none of them then.
fn capitals(root: &Node, findings: &mut Vec<Finding>) {
    for key in ["apiVersion", "kind", "metadata", "spec"] {
        let other = |entry: &&Entry| entry.key != key && entry.key.eq_ignore_ascii_case(key);
        for entry in root.entries().iter().filter(other) {
            let message = format!("`{}` is no key: keys are written with the right capitals", entry.key);
            findings.push(error(place_of(entry), "capitals", message, format!("write `{key}:`")));
        }
    }
}

/// What a document without a kind probably means.
fn guess(root: &Node) -> &'static str {
    let spec = |path: &[&str]| root.at(path).is_some();
    if spec(&["spec", "template"])
        || spec(&["image"])
        || spec(&["containers"])
        || spec(&["spec", "containers"])
    {
        return if spec(&["spec", "containers"]) && !spec(&["spec", "replicas"]) {
            "Pod"
        } else {
            "Deployment"
        };
    }
    if spec(&["spec", "selector"]) || spec(&["ports"]) || spec(&["spec", "ports"]) {
        return "Service";
    }
    if spec(&["data"]) { "ConfigMap" } else { "" }
}

fn identity(document: &Document, guess: &str, findings: &mut Vec<Finding>) {
    let root = &document.root;
    let kind = document.kind();
    let known = KINDS.iter().find(|(name, ..)| *name == kind);
    if kind.is_empty() {
        let fix = match KINDS.iter().find(|(name, ..)| *name == guess) {
            Some((name, api, _)) => format!("add `kind: {name}` and `apiVersion: {api}`: it looks like one"),
            None => "add `kind:`, such as `kind: Deployment`".to_owned(),
        };
        findings.push(error(place(root), "missing-kind", "the document has no `kind`", fix));
    } else if known.is_none() {
        let close = KINDS.iter().find(|(name, ..)| name.eq_ignore_ascii_case(kind));
        if let (Some((name, ..)), Some(entry)) = (close, root.entry("kind")) {
            let message = format!("`{kind}` is no kind: kinds are written with capitals");
            findings.push(error(
                place(&entry.value),
                "unknown-kind",
                message,
                format!("write `kind: {name}`"),
            ));
        }
    }
    let Some(api) = root.entry("apiVersion") else {
        let fix = match known.or_else(|| KINDS.iter().find(|(name, ..)| *name == guess)) {
            Some((_, api, _)) => format!("add `apiVersion: {api}`"),
            None => "add `apiVersion:`, such as `apiVersion: apps/v1`".to_owned(),
        };
        findings.push(error(place(root), "missing-api-version", "the document has no `apiVersion`", fix));
        return;
    };
    let (text, Some((_, current, former))) = (api.value.text().unwrap_or_default(), known) else { return };
    if text == *current || (kind == "HorizontalPodAutoscaler" && text == "autoscaling/v1") {
        return;
    }
    let message = if former.contains(&text) {
        format!("`{text}` no longer has {kind}: no supported cluster serves it")
    } else {
        format!("`{text}` has no {kind}")
    };
    let fix = format!("write `apiVersion: {current}`");
    findings.push(error(place(&api.value), "wrong-api-version", message, fix));
}

fn metadata(document: &Document, guess: &str, findings: &mut Vec<Finding>) {
    let root = &document.root;
    if document.kind().ends_with("List") || document.kind() == "Kustomization" {
        return;
    }
    let Some(entry) = root.entry("metadata") else {
        let name = root.text_at(&["name"]).map(|name| names::map(name).unwrap_or_default());
        let fix = format!("add `metadata:` with `name: {}`", name.as_deref().unwrap_or("NAME"));
        findings.push(error(place(root), "missing-metadata", "the document has no `metadata`", fix));
        return;
    };
    let metadata = &entry.value;
    let kind = if document.kind().is_empty() { guess } else { document.kind() };
    match metadata.get("name") {
        Some(node) => name(node, kind, findings),
        None if metadata.get("generateName").is_some() => {}
        None => {
            let message = "`metadata` has no `name`";
            findings.push(error(place_of(entry), "missing-name", message, "add `name:` below `metadata:`"));
        }
    }
    for (path, labels) in [("metadata.labels", metadata.get("labels"))]
        .into_iter()
        .chain([("spec.selector", root.at(&["spec", "selector", "matchLabels"]))])
        .chain([("template labels", root.at(&["spec", "template", "metadata", "labels"]))])
    {
        for label in labels.map_or(&[][..], Node::entries) {
            self::label(path, label, findings);
        }
    }
}

fn label(path: &str, label: &Entry, findings: &mut Vec<Finding>) {
    if let Err(invalid) = validate::label_key(&label.key) {
        let fix = "use letters, digits, `-`, `_` and `.`";
        findings.push(error(place_of(label), "label", format!("{path}: {invalid}"), fix));
    }
    let value = &label.value;
    if value.json().is_number() || value.json().is_boolean() {
        let text = value.text().unwrap_or_default();
        let message = format!("{path}: the value of `{}` is no text", label.key);
        findings.push(error(
            place(value),
            "label",
            message,
            format!("quote it: `{}: \"{text}\"`", label.key),
        ));
    } else if let Some(Err(invalid)) = value.text().map(validate::label_value) {
        let fix = "use at most 63 letters, digits, `-`, `_` and `.`; longer texts go to annotations";
        findings.push(error(place(value), "label", format!("{path}: {invalid}"), fix));
    }
}

fn name(node: &Node, kind: &str, findings: &mut Vec<Finding>) {
    let text = node.text().unwrap_or_default();
    let result = match kind {
        "Service" => validate::dns_1035_label(text),
        "Namespace" | "Job" => validate::dns_1123_label(text),
        _ => validate::dns_1123_subdomain(text),
    };
    if let Err(invalid) = result {
        let fix = match plain_name(text) {
            Some(plain) => format!(
                "write `name: {plain}`, and the same wherever it is referred to; Slipway itself takes any name"
            ),
            None => {
                "choose a short name of letters, digits and `-`; Slipway itself takes any name".to_owned()
            }
        };
        findings.push(error(place(node), "name", invalid.to_string(), fix));
    }
}

/// A name that is meant by one with other characters, if what is left is one.
pub(super) fn plain_name(text: &str) -> Option<String> {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c.to_ascii_lowercase() } else { '-' };
    let plain: String = text.chars().map(plain).collect();
    let plain = plain.trim_matches('-');
    validate::dns_1035_label(plain).is_ok().then(|| plain.to_owned())
}

fn misplaced(document: &Document, guess: &str, findings: &mut Vec<Finding>) {
    let kind = if document.kind().is_empty() { guess } else { document.kind() };
    if !KINDS.iter().any(|(name, ..)| *name == kind) {
        return;
    }
    for entry in document.root.entries().iter().filter(|entry| MISPLACED.contains(&entry.key.as_str())) {
        let key = entry.key.as_str();
        let pods = pod_path(kind).map(|path| path.join("."));
        let home = match (key, pods) {
            ("name" | "labels", _) => format!("metadata.{key}"),
            ("image" | "env" | "command" | "args" | "resources", Some(pods)) => {
                format!("{pods}.containers[0].{key}")
            }
            ("ports" | "port", Some(pods)) => {
                format!("{pods}.containers[0].ports, each as `- containerPort: NUMBER`")
            }
            ("containers" | "container" | "volumes", Some(pods)) => format!("{pods}.{key}"),
            ("images", Some(pods)) => format!("{pods}.containers[0].image"),
            _ => format!("spec.{key}"),
        };
        let message = format!("a {kind} has no `{key}` at its top level");
        findings.push(error(place_of(entry), "misplaced", message, format!("move it to {home}")));
    }
}
