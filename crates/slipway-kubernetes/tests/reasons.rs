//! Reasons, by shapes that clusters were seen with.

#![allow(missing_docs)]

use serde_json::{Value, json};
use slipway_kubernetes::reason::{ReasonKind, RunEnd, deployment, job, pod};

fn status(status: Value) -> Value {
    json!({"metadata": {"name": "a-1", "uid": "u"}, "spec": {"nodeName": "node-1"}, "status": status})
}

fn waiting(reason: &str, message: &str) -> Value {
    status(
        json!({"phase": "Pending", "containerStatuses": [{"name": "server", "ready": false, "restartCount": 0,
        "image": "registry.example.com/team/digits:1", "state": {"waiting": {"reason": reason, "message": message}}}]}),
    )
}

fn condition(kind: &str, value: &str, reason: &str, message: &str) -> Value {
    json!({"type": kind, "status": value, "reason": reason, "message": message})
}

fn terminated(code: i64, reason: &str, restarts: u64) -> Value {
    json!({"name": "server", "ready": false, "restartCount": restarts,
        "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s restarting failed container"}},
        "lastState": {"terminated": {"exitCode": code, "reason": reason, "finishedAt": "2026-11-25T02:00:00Z"}}})
}

fn event(reason: &str, message: &str) -> Value {
    json!({"reason": reason, "message": message, "involvedObject": {"uid": "u"}, "lastTimestamp": "2026-11-25T02:00:00Z"})
}

#[test]
fn why_pods_do_not_run() {
    use ReasonKind::*;
    let unschedulable = |message: &str| {
        status(
            json!({"phase": "Pending", "conditions": [condition("PodScheduled", "False", "Unschedulable", message)]}),
        )
    };
    let running = json!([{"name": "server", "ready": false, "started": true, "restartCount": 0,
        "state": {"running": {"startedAt": "2026-11-25T02:00:00Z"}}}]);
    let cases: Vec<(Value, Vec<Value>, ReasonKind, &str)> = vec![
        (
            waiting(
                "ErrImagePull",
                r#"failed to pull and unpack image "registry.example.com/team/digits:1": failed to resolve reference: registry.example.com/team/digits:1: not found"#,
            ),
            vec![],
            Image,
            "image registry.example.com/team/digits:1 is not in the registry, says node node-1",
        ),
        (
            waiting(
                "ImagePullBackOff",
                r#"Back-off pulling image "x": ErrImagePull: rpc error: unexpected status from HEAD request: 401 Unauthorized"#,
            ),
            vec![],
            Image,
            "may not be pulled, says node node-1: give the pods credentials",
        ),
        (
            waiting(
                "ErrImagePull",
                "failed to do request: dial tcp: lookup registry.example.com: no such host",
            ),
            vec![],
            Image,
            "its registry does not answer",
        ),
        (
            waiting("ErrImagePull", "http: server gave HTTP response to HTTPS client"),
            vec![],
            Image,
            "do not trust its registry",
        ),
        (waiting("ErrImagePull", "no match for platform in manifest: not found"), vec![], Image, ""),
        (waiting("InvalidImageName", "couldn't parse"), vec![], Image, "is no image name"),
        (
            waiting("CreateContainerConfigError", r#"secret "keys" not found"#),
            vec![],
            Configuration,
            r#"cannot be set up (secret "keys" not found): make what is missing"#,
        ),
        (
            waiting(
                "CreateContainerConfigError",
                "container has runAsNonRoot and image will run as root (pod: \"a\")",
            ),
            vec![],
            Configuration,
            "runAsNonRoot",
        ),
        (
            waiting("RunContainerError", "exec: \"python\": executable file not found in $PATH"),
            vec![],
            Configuration,
            "check its command and mounts",
        ),
        (
            unschedulable(
                "0/3 nodes are available: 3 Insufficient memory. preemption: 0/3 nodes are available.",
            ),
            vec![],
            Unschedulable,
            "ask for less with `memory` and `cpus`",
        ),
        (
            unschedulable("0/1 nodes are available: 1 Insufficient nvidia.com/gpu."),
            vec![],
            Unschedulable,
            "free a GPU",
        ),
        (
            unschedulable("0/1 nodes are available: 1 node(s) had untolerated taint {gpu: true}."),
            vec![],
            Unschedulable,
            "add a toleration",
        ),
        (
            unschedulable("0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector."),
            vec![],
            Unschedulable,
            "no node has the labels",
        ),
        (
            unschedulable("0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims."),
            vec![],
            Unschedulable,
            "check the claim",
        ),
        (
            status(
                json!({"phase": "Pending", "conditions": [condition("PodScheduled", "False", "SchedulingGated", "gated")]}),
            ),
            vec![],
            Starting,
            "the cluster's queue",
        ),
        (
            status(json!({"phase": "Running", "containerStatuses": [terminated(137, "OOMKilled", 4)]})),
            vec![],
            OutOfMemory,
            "used all of its memory: raise `memory`",
        ),
        (
            status(json!({"phase": "Running", "containerStatuses": [terminated(1, "Error", 4)]})),
            vec![],
            Crash,
            "container server ended with exit code 1, 4 times so far: look at its log",
        ),
        (
            status(json!({"phase": "Running", "containerStatuses": [terminated(139, "Error", 1)]})),
            vec![],
            Crash,
            "segmentation fault",
        ),
        (
            status(
                json!({"phase": "Pending", "initContainerStatuses": [{"name": "copy-model", "restartCount": 2, "image": "m",
                "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": {"exitCode": 1}}}]}),
            ),
            vec![],
            Crash,
            "container copy-model ended with exit code 1, 2 times so far",
        ),
        (
            status(json!({"phase": "Running", "containerStatuses": running,
                "conditions": [condition("Ready", "False", "ContainersNotReady", "containers with unready status: [server]")]})),
            vec![event(
                "Unhealthy",
                "Startup probe failed: Get \"http://10.0.0.1:8080/v2/health/ready\": connection refused",
            )],
            Probe,
            "does not answer as it should (Startup probe failed",
        ),
        (
            status(json!({"phase": "Running", "containerStatuses": running,
                "conditions": [condition("Ready", "False", "ContainersNotReady", "x")]})),
            vec![],
            Starting,
            "it runs and is not ready yet",
        ),
        (
            waiting("ContainerCreating", ""),
            vec![event(
                "FailedMount",
                "MountVolume.SetUp failed for volume \"config\" : configmap \"c\" not found",
            )],
            Volume,
            "a volume cannot be mounted (MountVolume.SetUp failed",
        ),
        (waiting("PodInitializing", ""), vec![], Starting, "node node-1 prepares it"),
        (
            status(
                json!({"phase": "Running", "conditions": [condition("Ready", "False", "NodeNotReady", "")],
                "containerStatuses": running}),
            ),
            vec![],
            NodeLost,
            "node node-1 does not answer",
        ),
        (
            status(
                json!({"phase": "Failed", "conditions": [condition("DisruptionTarget", "True", "DeletionByTaintManager", "m")]}),
            ),
            vec![],
            NodeLost,
            "node node-1 does not answer",
        ),
        (
            status(
                json!({"phase": "Failed", "conditions": [condition("DisruptionTarget", "True", "PreemptionByScheduler", "m")]}),
            ),
            vec![],
            Evicted,
            "higher priority",
        ),
        (
            status(
                json!({"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory. "}),
            ),
            vec![],
            Evicted,
            "evicted it (The node was low on resource: memory): set `memory`",
        ),
        (
            status(json!({"phase": "Failed", "reason": "DeadlineExceeded", "message": "m"})),
            vec![],
            Deadline,
            "raise the deadline",
        ),
    ];
    for (object, events, kind, expected) in cases {
        let events: Vec<&Value> = events.iter().collect();
        let reason = pod(&object, &events).unwrap_or_else(|| panic!("no reason: {object:#}"));
        assert!(reason.text.contains(expected), "{}\nexpected: {expected}", reason.text);
        assert_eq!(reason.kind, kind, "{}", reason.text);
        assert!(!reason.text.contains('\n') && !reason.text.ends_with('.'), "{}", reason.text);
    }
}

#[test]
fn nothing_is_wrong_with_what_runs_or_is_done() {
    let ready = status(json!({"phase": "Running", "conditions": [condition("Ready", "True", "", "")],
        "containerStatuses": [{"name": "server", "ready": true, "restartCount": 3, "state": {"running": {}},
            "lastState": {"terminated": {"exitCode": 1}}}]}));
    let old = event("Unhealthy", "Readiness probe failed");
    assert_eq!(pod(&ready, &[&old]), None);
    assert_eq!(pod(&status(json!({"phase": "Succeeded"})), &[]), None);
}

#[test]
fn deployments_tell_quotas_and_the_worst_pod() {
    let live = json!({"status": {"conditions": [condition("ReplicaFailure", "True", "FailedCreate",
        r#"pods "a-1" is forbidden: exceeded quota: few, requested: pods=1, used: pods=1, limited: pods=1"#)]}});
    let reason = deployment(&live, &[]);
    assert!(reason.is_some_and(|r| r.kind == ReasonKind::Quota && r.text.contains("quota `few`")));
    let live = json!({"status": {"conditions": [condition("ReplicaFailure", "True", "FailedCreate",
        r#"pods "a-1" is forbidden: violates PodSecurity "restricted:v1.33": seccompProfile"#)]}});
    let reason = deployment(&live, &[]);
    assert!(reason.is_some_and(|r| r.kind == ReasonKind::Admission && r.text.contains("no pod can be made")));
    let (starting, stuck) = (waiting("PodInitializing", ""), waiting("ErrImagePull", "not found"));
    let reason = deployment(&json!({}), &[(&starting, vec![]), (&stuck, vec![])]);
    assert_eq!(reason.map(|r| r.kind), Some(ReasonKind::Image));
    let late = json!({"status": {"conditions": [condition("Progressing", "False", "ProgressDeadlineExceeded",
        "ReplicaSet \"a-1\" has timed out progressing.")]}});
    assert_eq!(deployment(&late, &[]).map(|r| r.kind), Some(ReasonKind::Deadline));
    assert_eq!(deployment(&json!({"status": {}}), &[]), None);
}

fn rank(index: u32, status: Value) -> Value {
    json!({"metadata": {"name": format!("r-{index}"), "annotations": {"batch.kubernetes.io/job-completion-index": index.to_string()}},
        "spec": {"nodeName": "node-1"}, "status": status})
}

fn exited(code: i64, at: &str) -> Value {
    json!({"phase": "Failed", "containerStatuses": [{"name": "rank", "restartCount": 0,
        "state": {"terminated": {"exitCode": code, "finishedAt": at}}}]})
}

#[test]
fn how_attempts_end() {
    let with =
        |kind: &str, reason: &str| json!({"status": {"conditions": [condition(kind, "True", reason, "m")]}});
    assert_eq!(job(&json!({"status": {}}), &[]), None);
    assert_eq!(job(&with("Complete", ""), &[]), Some(RunEnd::Succeeded));
    // The peers of the one that failed first fail because of it.
    let (first, second) =
        (rank(1, exited(3, "2026-11-25T02:00:01Z")), rank(0, exited(1, "2026-11-25T02:00:09Z")));
    let pods = [(&second, vec![]), (&first, vec![])];
    let Some(RunEnd::Failed { rank: Some(1), exit_code: Some(3), reason }) =
        job(&with("Failed", "BackoffLimitExceeded"), &pods)
    else {
        panic!("{:?}", job(&with("Failed", ""), &pods));
    };
    assert!(reason.text.starts_with("rank 1: container rank ended with exit code 3"), "{}", reason.text);
    // A lost node explains all other failures, also earlier ones.
    let lost = rank(
        1,
        json!({"phase": "Failed", "conditions": [condition("DisruptionTarget", "True", "DeletionByTaintManager", "m")]}),
    );
    let end = job(&with("Failed", "PodFailurePolicy"), &[(&second, vec![]), (&lost, vec![])]);
    assert!(end.as_ref().is_some_and(RunEnd::is_disruption), "{end:?}");
    let end = job(&with("Failed", "DeadlineExceeded"), &[(&second, vec![])]);
    assert!(
        matches!(&end, Some(RunEnd::Failed { reason, .. }) if reason.kind == ReasonKind::Deadline),
        "{end:?}"
    );
    let gone = json!({"status": {"conditions": [condition("Failed", "True", "PodFailurePolicy",
        "Pod n/r-1 has condition DisruptionTarget matching FailJob rule at index 0")]}});
    assert!(job(&gone, &[]).is_some_and(|end| end.is_disruption()));
}
