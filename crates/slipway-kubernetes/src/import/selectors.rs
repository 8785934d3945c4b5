//! References between the documents of a file: selectors that match nothing, and scalers without a target.

use super::check::{error, finding, place, place_of, pod_path, warning};
use super::tree::{Document, Node};
use super::{Finding, Severity};

pub(super) fn check(documents: &[Document], findings: &mut Vec<Finding>) {
    for document in documents {
        let root = &document.root;
        if let Some(selector) = root.at(&["spec", "selector", "matchLabels"])
            && pod_path(document.kind()).is_some()
        {
            own_template(root, selector, findings);
        }
        match document.kind() {
            "Service" => service(root, documents, findings),
            "HorizontalPodAutoscaler" => scaler(root, documents, findings),
            "Ingress" => ingress(root, documents, findings),
            _ => {}
        }
    }
}

fn labels(document: &Document) -> Option<&Node> {
    match document.kind() {
        "Pod" => document.root.at(&["metadata", "labels"]),
        "CronJob" => document.root.at(&["spec", "jobTemplate", "spec", "template", "metadata", "labels"]),
        kind => {
            pod_path(kind)?;
            document.root.at(&["spec", "template", "metadata", "labels"])
        }
    }
}

/// Whether pods with these labels have all that a selector wants.
pub(super) fn matches(selector: &Node, labels: Option<&Node>) -> bool {
    let has = |key: &str| labels.and_then(|labels| labels.text_at(&[key]));
    selector.entries().iter().all(|wanted| has(&wanted.key) == wanted.value.text())
}

fn own_template(root: &Node, selector: &Node, findings: &mut Vec<Finding>) {
    let labels = root.at(&["spec", "template", "metadata", "labels"]);
    for wanted in selector.entries() {
        let has = labels.and_then(|labels| labels.text_at(&[&wanted.key]));
        let text = wanted.value.text().unwrap_or_default();
        if has == Some(text) {
            continue;
        }
        let message = match has {
            Some(other) => format!(
                "the selector wants `{key}: {text}`, but the template has `{key}: {other}`",
                key = wanted.key
            ),
            None => format!("the selector wants `{}: {text}`, which the template has not", wanted.key),
        };
        let fix = format!("write `{}: {text}` below `template.metadata.labels`", wanted.key);
        findings.push(error(place_of(wanted), "selector", message, fix));
    }
}

/// A Service may select pods of another file, so one that matches nothing is sure to be wrong only where this file has
/// pods at all.
fn service(root: &Node, documents: &[Document], findings: &mut Vec<Finding>) {
    let Some(entry) = root.get("spec").and_then(|spec| spec.entry("selector")) else { return };
    let selector = &entry.value;
    if selector.entries().is_empty() {
        return;
    }
    if let Some(inner) = selector.entry("matchLabels") {
        let message = "a Service's selector has its labels at once, without `matchLabels`";
        findings.push(error(place_of(inner), "selector", message, "move the labels up into `selector`"));
        return;
    }
    let pods: Vec<(&Document, &Node)> = documents.iter().filter_map(|d| Some((d, labels(d)?))).collect();
    let workloads = documents.iter().any(|d| pod_path(d.kind()).is_some());
    let selected: Vec<&Document> = pods
        .iter()
        .filter(|(_, labels)| matches(selector, Some(*labels)))
        .map(|(document, _)| *document)
        .collect();
    if selected.is_empty() {
        let fix = match pods.first().map(|(document, labels)| (document, *labels)) {
            Some((document, labels)) => {
                let wanted: Vec<String> = labels
                    .entries()
                    .iter()
                    .map(|label| format!("`{}: {}`", label.key, label.value.text().unwrap_or_default()))
                    .collect();
                format!(
                    "{} {} has {}: select one of these",
                    document.kind(),
                    document.name(),
                    wanted.join(", ")
                )
            }
            None => "give the pods these labels, below `template.metadata.labels`".to_owned(),
        };
        let severity = if workloads { Severity::Error } else { Severity::Warning };
        let message = "the selector matches no pods of this file";
        findings.push(finding(severity, place_of(entry), "selector", message, fix));
    }
    for document in selected {
        target_ports(root, document, findings);
    }
}

/// A `targetPort` that no selected container has. Only names must be declared; a number works without.
fn target_ports(root: &Node, document: &Document, findings: &mut Vec<Finding>) {
    let Some(pod) = pod_path(document.kind()).and_then(|path| document.root.at(path)) else { return };
    let declared: Vec<&Node> = pod
        .get("containers")
        .map_or(&[][..], Node::items)
        .iter()
        .flat_map(|container| container.get("ports").map_or(&[][..], Node::items))
        .collect();
    for port in root.at(&["spec", "ports"]).map_or(&[][..], Node::items) {
        let Some(target) = port.get("targetPort").or_else(|| port.get("port")) else { continue };
        let text = target.text().unwrap_or_default();
        let by_number = text.parse::<u16>().is_ok();
        let key = if by_number { "containerPort" } else { "name" };
        if declared.is_empty() && by_number || declared.iter().any(|port| port.text_at(&[key]) == Some(text))
        {
            continue;
        }
        let message = format!("no container of {} {} has port `{text}`", document.kind(), document.name());
        let severity = if by_number { Severity::Warning } else { Severity::Error };
        let fix = "write the port that the program listens on";
        findings.push(finding(severity, place(target), "target-port", message, fix));
    }
}

fn scaler(root: &Node, documents: &[Document], findings: &mut Vec<Finding>) {
    let Some(target) = root.at(&["spec", "scaleTargetRef"]) else { return };
    let (kind, name) = (target.text_at(&["kind"]), target.text_at(&["name"]));
    if !documents.iter().any(|d| Some(d.kind()) == kind && Some(d.name()) == name) {
        let message = format!("this file has no {} `{}`", kind.unwrap_or("?"), name.unwrap_or("?"));
        let fix = "name the Deployment that is scaled";
        findings.push(warning(place(target), "scale-target", message, fix));
    }
}

fn ingress(root: &Node, documents: &[Document], findings: &mut Vec<Finding>) {
    let rules = root.at(&["spec", "rules"]).map_or(&[][..], Node::items);
    for path in rules.iter().flat_map(|rule| rule.at(&["http", "paths"]).map_or(&[][..], Node::items)) {
        if let Some(old) = path.get("backend").and_then(|backend| backend.entry("serviceName")) {
            let name = old.value.text().unwrap_or_default();
            let fix = format!("write `service:` with `name: {name}` and `port:` with `number:`");
            findings.push(error(place_of(old), "ingress-backend", "`serviceName` is of a former API", fix));
        }
        let Some(name) = path.at(&["backend", "service", "name"]) else { continue };
        if !documents.iter().any(|d| d.kind() == "Service" && Some(d.name()) == name.text()) {
            let message = format!("this file has no Service `{}`", name.text().unwrap_or_default());
            findings.push(warning(place(name), "ingress-backend", message, "name a Service"));
        }
    }
}
