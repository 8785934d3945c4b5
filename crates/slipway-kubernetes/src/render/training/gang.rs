//! What starts all ranks together, and the Job itself.

use serde_json::{Value, json};

use super::super::Rendered;
use super::super::labels::{ATTEMPT_LABEL, Identity};
use crate::Capabilities;
use crate::spec::{Gang, TrainingRun};

/// Name of the only replicated job of a JobSet. Short, since the names of pods have it in them.
const NODE: &str = "n";
/// Label by which Kueue finds what waits in a queue.
const QUEUE_LABEL: &str = "kueue.x-k8s.io/queue-name";

/// Name of the Job of an attempt, whose own name is `name`.
pub(crate) fn job_of(gang: &Gang, name: &str) -> String {
    if *gang == Gang::JobSet { format!("{name}-{NODE}-0") } else { name.to_owned() }
}

/// The object that is the attempt.
pub(super) fn attempt(
    run: &TrainingRun,
    caps: &Capabilities,
    id: &Identity,
    name: &str,
    template: &Value,
    out: &mut Rendered,
) {
    let spec = job_spec(run, template);
    if run.gang == Gang::JobSet {
        return job_set(run, caps, id, name, spec, out);
    }
    let mut metadata = labelled(id, name, run);
    if let Gang::Kueue { queue } = &run.gang {
        metadata["labels"][QUEUE_LABEL] = queue.as_str().into();
    }
    out.add(
        "One attempt of the run: all ranks, which start and end together. The next attempt is another Job.",
        json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}),
    );
}

/// Metadata of objects of this attempt only.
fn labelled(id: &Identity, name: &str, run: &TrainingRun) -> Value {
    let mut metadata = id.metadata_as(name);
    metadata["labels"][ATTEMPT_LABEL] = run.attempt.to_string().into();
    metadata
}

fn job_spec(run: &TrainingRun, template: &Value) -> Value {
    json!({
        "completionMode": "Indexed",
        "completions": run.ranks,
        "parallelism": run.ranks,
        // The reconciler starts the next attempt, once the logs of this one are kept.
        "backoffLimit": 0,
        "activeDeadlineSeconds": run.deadline,
        "suspend": matches!(run.gang, Gang::Kueue { .. }).then_some(true),
        // A pod that was evicted or preempted ends the attempt too, and is told apart from one that failed by itself.
        "podFailurePolicy": {"rules": [{
            "action": "FailJob",
            "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
        }]},
        "podReplacementPolicy": "Failed",
        "template": template,
    })
}

/// What makes the cluster's schedulers start all ranks or none.
pub(super) fn group(
    run: &TrainingRun,
    caps: &Capabilities,
    id: &Identity,
    name: &str,
    template: &mut Value,
    out: &mut Rendered,
) {
    let fewest = run.min_ranks.unwrap_or(run.ranks);
    match &run.gang {
        Gang::Volcano { queue } => {
            out.add(
                "Starts all ranks or none.",
                json!({
                    "apiVersion": "scheduling.volcano.sh/v1beta1", "kind": "PodGroup",
                    "metadata": labelled(id, name, run),
                    "spec": {
                        "minMember": fewest, "queue": queue,
                        "priorityClassName": run.placement.priority_class,
                    },
                }),
            );
            template["metadata"]["annotations"]["scheduling.k8s.io/group-name"] = name.into();
            template["spec"]["schedulerName"] = "volcano".into();
        }
        Gang::PodGroup => {
            let version = caps.pod_group.as_deref().unwrap_or("v1beta1");
            out.add(
                "Starts all ranks or none.",
                json!({
                    "apiVersion": format!("scheduling.k8s.io/{version}"), "kind": "PodGroup",
                    "metadata": labelled(id, name, run),
                    "spec": {
                        "schedulingPolicy": {"gang": {"minCount": fewest}},
                        "priorityClassName": run.placement.priority_class,
                    },
                }),
            );
            template["spec"]["schedulingGroup"] = json!({ "podGroupName": name });
        }
        Gang::Emulated | Gang::JobSet | Gang::Kueue { .. } => {}
    }
}

fn job_set(
    run: &TrainingRun,
    caps: &Capabilities,
    id: &Identity,
    name: &str,
    spec: Value,
    out: &mut Rendered,
) {
    let version = caps.jobset.as_deref().unwrap_or("v1alpha2");
    let metadata = labelled(id, name, run);
    // The Job is found by the same labels as one of ours.
    let job = json!({"labels": metadata["labels"], "annotations": metadata["annotations"]});
    out.add(
        "One attempt of the run: all ranks, which start and end together. The next attempt is another JobSet.",
        json!({
            "apiVersion": format!("jobset.x-k8s.io/{version}"),
            "kind": "JobSet",
            "metadata": metadata,
            "spec": {
                "failurePolicy": {"maxRestarts": 0},
                "network": {"enableDNSHostnames": true, "publishNotReadyAddresses": true, "subdomain": id.pods},
                "replicatedJobs": [{"name": NODE, "replicas": 1, "template": {"metadata": job, "spec": spec}}],
            },
        }),
    );
}
