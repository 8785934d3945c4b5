//! Where a run writes: the claim, and the folders in it.

use serde_json::{Value, json};

use super::super::labels::Identity;
use super::super::pod::container_security;
use super::super::volumes::{RUNNER, claim_name};
use super::super::{RenderError, Rendered, resources};
use super::variables::{RANK, rank_variable};
use crate::spec::{Storage, TrainingRun};

pub(super) const OUTPUT: &str = "/output";
/// Folder of the checkpoints, which all ranks and attempts share.
pub(super) const CHECKPOINTS: &str = "/output/checkpoints";
/// Folder of a rank's model, in what is its own of the output.
pub const MODEL_FOLDER: &str = "model";
/// File with a rank's metrics, beside it.
pub const METRICS_FILE: &str = "metrics.jsonl";

pub(super) fn claim(run: &TrainingRun, id: &Identity, out: &mut Rendered) -> Result<String, RenderError> {
    match &run.output {
        Storage::Existing { claim } => {
            claim_name(claim)?;
            Ok(claim.clone())
        }
        Storage::New { size, class, shared } => {
            let name = id.derived("output", &[])?;
            out.add(
                "Checkpoints and the model of the run; every attempt goes on from them.",
                json!({
                    "apiVersion": "v1",
                    "kind": "PersistentVolumeClaim",
                    "metadata": id.metadata_as(&name),
                    "spec": {
                        "accessModes": [if *shared { "ReadWriteMany" } else { "ReadWriteOnce" }],
                        "storageClassName": class,
                        "resources": {"requests": {"storage": resources::bytes(*size)}},
                    },
                }),
            );
            Ok(name)
        }
    }
}

/// The claim with the output, and the folder in it.
pub(in crate::render) fn output_mount(
    run: &TrainingRun,
    id: &Identity,
) -> Result<(String, Option<String>), RenderError> {
    let claim = match &run.output {
        Storage::Existing { claim } => claim.clone(),
        Storage::New { .. } => id.derived("output", &[])?,
    };
    Ok((claim, folder(run, id).map(str::to_owned)))
}

/// What of the output is one rank's own: where several write, only the first one's counts.
pub fn rank_output(run: &TrainingRun, rank: &str) -> String {
    if run.ranks == 1 { OUTPUT.to_owned() } else { format!("{OUTPUT}/ranks/{rank}") }
}

/// Makes the folders that the ranks are told of, the model's anew in each attempt.
pub(super) fn folders(run: &TrainingRun) -> Value {
    json!({
        "name": "output",
        "image": run.tools.to_string(),
        "imagePullPolicy": "IfNotPresent",
        "command": [RUNNER, "output", CHECKPOINTS, format!("{}/{MODEL_FOLDER}", rank_output(run, RANK))],
        "env": [rank_variable()],
        "securityContext": container_security(true),
        "resources": {
            "requests": {"cpu": "50m", "memory": "32Mi"},
            "limits": {"cpu": "1", "memory": "256Mi"},
        },
    })
}

/// The same folder in every attempt; in a claim that others use too, one of the run's own.
pub(super) fn folder<'a>(run: &TrainingRun, id: &'a Identity) -> Option<&'a str> {
    matches!(run.output, Storage::Existing { .. }).then_some(id.name.as_str())
}
