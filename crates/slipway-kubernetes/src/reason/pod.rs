//! Why a pod does not run.

use serde_json::Value;

use super::{Reason, ReasonKind, clip, condition, event, items, text};

/// Why a pod is not ready, or ended badly; `None` when nothing is wrong with it. `events` are those about it, oldest first.
pub fn pod(pod: &Value, events: &[&Value]) -> Option<Reason> {
    if let Some(reason) = disruption(pod) {
        return Some(reason);
    }
    match text(pod, "/status/phase") {
        "Succeeded" => return None,
        "Failed" => return Some(failed(pod)),
        _ => {}
    }
    if let Some(scheduled) = condition(pod, "PodScheduled")
        && scheduled["status"] == "False"
    {
        return Some(unschedulable(text(scheduled, "/message"), text(scheduled, "/reason")));
    }
    for status in containers(pod) {
        if let Some(reason) = container(pod, status) {
            return Some(reason);
        }
    }
    if condition(pod, "Ready").is_some_and(|ready| ready["status"] == "True") {
        return None;
    }
    event::volume(events).filter(|_| !any_started(pod)).or_else(|| starting(pod, events))
}

fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    items(pod, "/status/initContainerStatuses").iter().chain(items(pod, "/status/containerStatuses"))
}

fn any_started(pod: &Value) -> bool {
    containers(pod).any(|status| status["state"]["waiting"].is_null())
}

/// The cluster took its place away.
fn disruption(pod: &Value) -> Option<Reason> {
    let node = text(pod, "/spec/nodeName");
    if text(pod, "/status/reason") == "NodeLost" || text(pod, "/status/reason") == "NodeAffinity" {
        return Some(node_lost(node));
    }
    if let Some(target) = condition(pod, "DisruptionTarget")
        && target["status"] == "True"
    {
        let message = clip(text(target, "/message"));
        return Some(match text(target, "/reason") {
            "DeletionByTaintManager" | "DeletionByPodGC" => node_lost(node),
            "PreemptionByScheduler" | "PreemptionByKubeScheduler" => Reason::new(
                ReasonKind::Evicted,
                "it gave way to something of a higher priority: set a priority class, or add room",
            ),
            _ => Reason::new(ReasonKind::Evicted, format!("node {node} gave it up ({message})")),
        });
    }
    if text(pod, "/status/reason") == "Evicted" {
        let message = clip(text(pod, "/status/message"));
        return Some(Reason::new(
            ReasonKind::Evicted,
            format!("node {node} evicted it ({message}): set `memory` to what it uses"),
        ));
    }
    let ready = condition(pod, "Ready")?;
    // The node controller marks pods of a node that it does not hear of, and gives no reason where a kubelet always does.
    let containers = condition(pod, "ContainersReady").is_some_and(|c| c["status"] == "True");
    let marked = containers && text(ready, "/reason").is_empty();
    (ready["status"] == "False" && (marked || ready["reason"] == "NodeNotReady")
        || ready["status"] == "Unknown")
        .then(|| node_lost(node))
}

fn node_lost(node: &str) -> Reason {
    Reason::new(ReasonKind::NodeLost, format!("node {node} does not answer; its pods are replaced elsewhere"))
}

fn unschedulable(message: &str, why: &str) -> Reason {
    let message = clip(message);
    if why == "SchedulingGated" {
        let text = "it waits to be admitted by the cluster's queue";
        return Reason::new(ReasonKind::Starting, text);
    }
    let fix = if message.contains("Insufficient nvidia.com/") || message.contains("Insufficient amd.com/") {
        "free a GPU, ask for fewer, or add a node that has one"
    } else if message.contains("Insufficient memory") || message.contains("Insufficient cpu") {
        "ask for less with `memory` and `cpus`, or add a node"
    } else if message.contains("untolerated taint") {
        "add a toleration, or a node without the taint"
    } else if message.contains("node affinity") || message.contains("node selector") {
        "no node has the labels or the architecture that are asked for"
    } else if message.contains("persistentvolumeclaim") || message.contains("PersistentVolumeClaim") {
        "check the claim and its storage class"
    } else {
        "see `kubectl describe pod`"
    };
    Reason::new(ReasonKind::Unschedulable, format!("no node takes it ({message}): {fix}"))
}

fn container(pod: &Value, status: &Value) -> Option<Reason> {
    let name = text(status, "/name");
    let waiting = &status["state"]["waiting"];
    let message = clip(text(waiting, "/message"));
    match text(waiting, "/reason") {
        "ImagePullBackOff"
        | "ErrImagePull"
        | "ErrImageNeverPull"
        | "RegistryUnavailable"
        | "ImageInspectError" => {
            return Some(image(pod, status, &message));
        }
        "InvalidImageName" => {
            return Some(Reason::new(
                ReasonKind::Image,
                format!("`{}` is no image name: correct it", text(status, "/image")),
            ));
        }
        "CreateContainerConfigError" => {
            return Some(Reason::new(
                ReasonKind::Configuration,
                format!(
                    "container {name} cannot be set up ({message}): make what is missing, or correct its name"
                ),
            ));
        }
        "CreateContainerError" | "RunContainerError" => {
            return Some(Reason::new(
                ReasonKind::Configuration,
                format!("container {name} cannot be started ({message}): check its command and mounts"),
            ));
        }
        "CrashLoopBackOff" => return Some(crash(status, true)),
        _ => {}
    }
    let restarts = status["restartCount"].as_u64().unwrap_or_default();
    if !status["state"]["terminated"].is_null() && status["state"]["terminated"]["exitCode"] != 0 {
        return Some(crash(status, restarts > 0));
    }
    // It runs again; that it was killed for its memory is still what must be known while it is not ready.
    (status["ready"] == false && restarts > 0 && !status["lastState"]["terminated"].is_null())
        .then(|| crash(status, true))
}

fn image(pod: &Value, status: &Value, message: &str) -> Reason {
    let reference = text(status, "/image");
    let lower = message.to_lowercase();
    let (what, fix) = if ["not found", "notfound", "manifest unknown", "404"]
        .iter()
        .any(|s| lower.contains(s))
    {
        ("is not in the registry", "deploy or train it again, which pushes it, or correct its name")
    } else if ["unauthorized", "denied", "forbidden", "401", "403"].iter().any(|s| lower.contains(s)) {
        ("may not be pulled", "give the pods credentials with an image pull secret")
    } else if ["no such host", "connection refused", "timeout", "dial tcp"].iter().any(|s| lower.contains(s))
    {
        ("cannot be pulled, as its registry does not answer", "use a registry that the nodes reach")
    } else if lower.contains("http response to https client")
        || lower.contains("x509")
        || lower.contains("tls")
    {
        ("cannot be pulled, as the nodes do not trust its registry", "give the nodes its certificate")
    } else if lower.contains("no match for platform") {
        ("has no variant for the node's architecture", "build it for that architecture")
    } else {
        ("cannot be pulled", "see the message of the node")
    };
    let node = text(pod, "/spec/nodeName");
    let said = if message.is_empty() || message.starts_with("Back-off") {
        String::new()
    } else {
        format!(" ({message})")
    };
    Reason::new(ReasonKind::Image, format!("image {reference} {what}, says node {node}{said}: {fix}"))
}

fn crash(status: &Value, again: bool) -> Reason {
    let ended = [&status["state"]["terminated"], &status["lastState"]["terminated"]];
    let ended = ended.into_iter().find(|ended| !ended.is_null()).unwrap_or(&Value::Null);
    let name = text(status, "/name");
    if text(ended, "/reason") == "OOMKilled" {
        return Reason::new(
            ReasonKind::OutOfMemory,
            format!(
                "container {name} was killed because it used all of its memory: raise `memory`, or make the batch or the model smaller"
            ),
        );
    }
    let restarts = status["restartCount"].as_u64().unwrap_or_default();
    let times = if again { format!(", {} times so far", restarts.max(1)) } else { String::new() };
    Reason::new(ReasonKind::Crash, format!("container {name} {}{times}: look at its log", how(ended)))
}

/// How the container of a pod ended last, whatever became of it since.
pub(crate) fn last_end(pod: &Value) -> Option<Reason> {
    let all = items(pod, "/status/containerStatuses").iter();
    let status = all.into_iter().find(|status| !status["lastState"]["terminated"].is_null())?;
    Some(crash(status, true))
}

/// How a container ended.
pub(super) fn how(ended: &Value) -> String {
    let code = ended["exitCode"].as_i64().unwrap_or_default();
    let signal = ended["signal"].as_i64().unwrap_or_default();
    let message = clip(text(ended, "/message"));
    match (text(ended, "/reason"), code) {
        ("ContainerCannotRun" | "StartError", _) => format!("could not be started ({message})"),
        ("DeadlineExceeded", _) => "took longer than it may".to_owned(),
        _ if signal > 0 => format!("was killed by signal {signal}"),
        (_, 137) => "was killed (exit code 137)".to_owned(),
        (_, 139) => "crashed with a segmentation fault (exit code 139)".to_owned(),
        _ => format!("ended with exit code {code}"),
    }
}

fn failed(pod: &Value) -> Reason {
    if text(pod, "/status/reason") == "DeadlineExceeded" {
        return Reason::new(
            ReasonKind::Deadline,
            "it took longer than its deadline allows: raise the deadline",
        );
    }
    if text(pod, "/status/reason") == "UnexpectedAdmissionError" {
        let message = clip(text(pod, "/status/message"));
        return Reason::new(ReasonKind::Evicted, format!("its node could not take it ({message})"));
    }
    let ended = containers(pod).find(|status| {
        !status["state"]["terminated"].is_null() && status["state"]["terminated"]["exitCode"] != 0
    });
    match ended {
        Some(status) => crash(status, false),
        None => {
            let message = clip(text(pod, "/status/message"));
            Reason::new(ReasonKind::Crash, format!("it failed ({message})"))
        }
    }
}

/// Not ready, and nothing says that it never will be.
fn starting(pod: &Value, events: &[&Value]) -> Option<Reason> {
    let running = items(pod, "/status/containerStatuses").iter().any(|s| !s["state"]["running"].is_null());
    if running {
        return event::probe(events)
            .or_else(|| Some(Reason::new(ReasonKind::Starting, "it runs and is not ready yet")));
    }
    if text(pod, "/spec/nodeName").is_empty() {
        return Some(Reason::new(ReasonKind::Starting, "it waits for a node"));
    }
    let node = text(pod, "/spec/nodeName");
    let init = items(pod, "/status/initContainerStatuses").iter().find(|s| !s["state"]["running"].is_null());
    Some(Reason::new(
        ReasonKind::Starting,
        match init {
            Some(status) => format!("node {node} runs its step {}", text(status, "/name")),
            None => format!("node {node} prepares it"),
        },
    ))
}
