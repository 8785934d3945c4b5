//! Why a Deployment is not as it shall be.

use serde_json::Value;

use super::{Reason, ReasonKind, clip, condition, pod, text};

/// Why a Deployment has fewer pods than it shall have; `None` when nothing keeps it. `pods` are its pods, each with the
/// events about it.
pub fn deployment(deployment: &Value, pods: &[(&Value, Vec<&Value>)]) -> Option<Reason> {
    if let Some(failure) = condition(deployment, "ReplicaFailure")
        && failure["status"] == "True"
    {
        return Some(super::event::failed_create(text(failure, "/message")));
    }
    let mut reasons: Vec<Reason> = pods
        .iter()
        .filter(|(one, _)| one["metadata"]["deletionTimestamp"].is_null())
        .filter_map(|(one, events)| pod(one, events))
        .collect();
    // What somebody must do something about comes before what passes by itself.
    reasons.sort_by_key(|reason| !reason.kind.is_stuck());
    let late = condition(deployment, "Progressing").filter(|c| c["reason"] == "ProgressDeadlineExceeded");
    match (reasons.into_iter().next(), late) {
        (Some(reason), _) => Some(reason),
        (None, Some(condition)) => Some(Reason::new(
            ReasonKind::Deadline,
            format!(
                "its pods do not get ready in time ({}): look at their logs",
                clip(text(condition, "/message"))
            ),
        )),
        (None, None) => None,
    }
}
