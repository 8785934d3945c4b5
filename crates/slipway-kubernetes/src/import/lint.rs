//! What works and will surprise.

use super::Finding;
use super::check::{place, pod_path, warning};
use super::tree::{Document, Node};

pub(super) fn document(document: &Document, findings: &mut Vec<Finding>) {
    let Some(pod) = pod_path(document.kind()).and_then(|path| document.root.at(path)) else { return };
    for container in pod.get("containers").map_or(&[][..], Node::items) {
        if let Some(image) = container.get("image").filter(|image| !image.is_null()) {
            let text = image.text().unwrap_or_default();
            if floating(text) {
                let message = format!("`{text}` is another image tomorrow: its tag moves");
                findings.push(warning(place(image), "floating-tag", message, "name a version, or a digest"));
            }
        }
        if container.at(&["resources", "limits"]).is_none() {
            let message = "the container has no resource limits: it can take all memory of its node";
            let fix = "add `resources:` with `limits:` for `memory`, and `requests:` for `cpu` and `memory`";
            findings.push(warning(place(container), "no-limits", message, fix));
        }
        if document.kind() == "Deployment" && container.get("readinessProbe").is_none() {
            let message = "the container has no readiness probe: it gets requests before it can answer";
            let fix = "add `readinessProbe:` with `httpGet:`";
            findings.push(warning(place(container), "no-readiness", message, fix));
        }
        if container.text_at(&["securityContext", "privileged"]) == Some("true") {
            let message = "the container is privileged: it can do anything to its node";
            findings.push(warning(place(container), "privileged", message, "remove `privileged`"));
        }
    }
}

/// Whether an image's tag is `latest`, or it has none.
fn floating(image: &str) -> bool {
    if image.contains('@') {
        return false;
    }
    let last = image.rsplit('/').next().unwrap_or(image);
    match last.split_once(':') {
        None => true,
        Some((_, tag)) => tag == "latest",
    }
}
