//! The pod through which a run's output comes back: it mounts the claim and waits.

use serde_json::json;

use super::labels::{Identity, RUN_LABEL};
use super::pod::{container_security, pod_security};
use super::training::output_mount;
use super::volumes::RUNNER;
use super::{RenderError, Rendered, resources};
use crate::spec::TrainingRun;

/// Label of the pod: its run. It has not the run's own label, by which ranks are found.
pub const COLLECTOR_LABEL: &str = "slipway.dev/collects";
/// How long it waits at most, in seconds.
const SECONDS: u64 = 3600;
const OUTPUT: &str = "/output";

pub(super) fn render(run: &TrainingRun, out: &mut Rendered) -> Result<(), RenderError> {
    let id = Identity::run(run)?;
    let (claim, sub_path) = output_mount(run, &id)?;
    let mut metadata = id.metadata_as(&id.derived("collect", &[])?);
    metadata["labels"][COLLECTOR_LABEL] = id.name.as_str().into();
    let mut pod_metadata = id.pod_metadata();
    if let Some(labels) = pod_metadata["labels"].as_object_mut() {
        labels.remove(RUN_LABEL);
        labels.insert(COLLECTOR_LABEL.to_owned(), id.name.as_str().into());
    }
    let mut pod = json!({
        "restartPolicy": "Never",
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "serviceAccountName": id.own,
        "securityContext": pod_security(run.image.run_as),
        "terminationGracePeriodSeconds": 1,
        "containers": [{
            "name": "collector",
            "image": run.tools.to_string(),
            "imagePullPolicy": "IfNotPresent",
            "command": [RUNNER, "wait", SECONDS.to_string()],
            "securityContext": container_security(true),
            "resources": {
                "requests": {"cpu": "50m", "memory": "32Mi"},
                "limits": {"cpu": "1", "memory": "256Mi"},
            },
            "volumeMounts": [{"name": "output", "mountPath": OUTPUT, "subPath": sub_path, "readOnly": true}],
        }],
        "volumes": [{"name": "output", "persistentVolumeClaim": {"claimName": claim}}],
    });
    resources::place(&mut pod, &run.placement, &run.image, None, &id)?;
    out.add(
        "Waits with the run's output mounted, so that it can be fetched.",
        json!({
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": metadata,
            "spec": {
                "backoffLimit": 2,
                "activeDeadlineSeconds": SECONDS,
                "ttlSecondsAfterFinished": 60,
                "template": {"metadata": pod_metadata, "spec": pod},
            },
        }),
    );
    Ok(())
}
