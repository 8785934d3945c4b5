//! How far a Deployment is. Pure.

use serde_json::Value;

use crate::reason::{Reason, deployment};
use crate::render::REVISION_LABEL;

/// How far a Deployment is with a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The cluster has not seen the revision yet.
    Unseen,
    /// Pods of the revision come up.
    Under {
        /// Available pods of the revision.
        available: u32,
        /// How many there shall be.
        wanted: u32,
        /// What keeps them, where something does.
        reason: Option<Reason>,
    },
    /// All pods are of the revision, and available.
    Complete,
    /// It took too long, says the Deployment.
    Late {
        /// Why.
        reason: Reason,
    },
}

/// How far a Deployment is with a revision. `pods` are those of the service, each with the events about it.
pub fn progress(live: Option<&Value>, revision: u64, pods: &[(&Value, Vec<&Value>)]) -> Progress {
    let Some(live) = live else { return Progress::Unseen };
    let number = |pointer: &str| live.pointer(pointer).and_then(Value::as_u64).unwrap_or_default();
    let label = live["spec"]["template"]["metadata"]["labels"][REVISION_LABEL].as_str();
    let of =
        |object: &Value| object["metadata"]["labels"][REVISION_LABEL].as_str() == Some(&revision.to_string());
    if label != Some(&revision.to_string())
        || number("/status/observedGeneration") < number("/metadata/generation")
    {
        return Progress::Unseen;
    }
    let wanted = number("/spec/replicas");
    let (updated, all, available) =
        (number("/status/updatedReplicas"), number("/status/replicas"), number("/status/availableReplicas"));
    if updated >= wanted && all == updated && available >= wanted {
        return Progress::Complete;
    }
    let own: Vec<(&Value, Vec<&Value>)> = pods.iter().filter(|(pod, _)| of(pod)).cloned().collect();
    let reason = deployment(live, &own);
    let conditions = live["status"]["conditions"].as_array().map_or(&[][..], Vec::as_slice);
    let late =
        conditions.iter().any(|c| c["type"] == "Progressing" && c["reason"] == "ProgressDeadlineExceeded");
    if let Some(reason) = reason.clone().filter(|_| late) {
        return Progress::Late { reason };
    }
    let ready = own.iter().filter(|(pod, _)| super::observe::is_ready(pod)).count();
    let count = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    Progress::Under { available: count(ready as u64), wanted: count(wanted), reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn live(status: Value) -> Value {
        json!({"metadata": {"generation": 4}, "spec": {"replicas": 2,
            "template": {"metadata": {"labels": {REVISION_LABEL: "7"}}}}, "status": status})
    }

    #[test]
    fn complete_only_when_every_pod_is_new_and_available() {
        let good =
            json!({"observedGeneration": 4, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2});
        assert_eq!(progress(Some(&live(good.clone())), 7, &[]), Progress::Complete);
        assert_eq!(progress(Some(&live(good.clone())), 8, &[]), Progress::Unseen);
        assert_eq!(progress(None, 7, &[]), Progress::Unseen);
        for (key, value) in [("replicas", 3), ("updatedReplicas", 1), ("availableReplicas", 1)] {
            let mut status = good.clone();
            status[key] = value.into();
            let told = progress(Some(&live(status)), 7, &[]);
            assert!(matches!(told, Progress::Under { wanted: 2, .. }), "{key}: {told:?}");
        }
        let mut old = good;
        old["observedGeneration"] = 3.into();
        assert_eq!(progress(Some(&live(old)), 7, &[]), Progress::Unseen);
    }

    #[test]
    fn the_deadline_is_told_with_what_kept_the_pods() {
        let status = json!({"observedGeneration": 4, "replicas": 3, "updatedReplicas": 1, "availableReplicas": 2,
            "conditions": [{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "m"}]});
        let pod = json!({"metadata": {"labels": {REVISION_LABEL: "7"}}, "status": {"phase": "Pending",
            "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
                "message": "0/3 nodes are available: 3 Insufficient memory."}]}});
        let told = progress(Some(&live(status)), 7, &[(&pod, Vec::new())]);
        let Progress::Late { reason } = told else { panic!("{told:?}") };
        assert!(
            reason.text.contains("no node takes it") && reason.text.contains("`memory`"),
            "{}",
            reason.text
        );
    }
}
