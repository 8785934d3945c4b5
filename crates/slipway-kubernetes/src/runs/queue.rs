//! Why a run waits in a queue, in Kueue's words.

use serde_json::Value;

use super::Runs;
use crate::client::Selection;
use crate::reason::{Reason, ReasonKind, clip, condition};
use crate::spec::{Gang, TrainingRun};

/// Label of a Workload with the uid of its Job.
const JOB_LABEL: &str = "kueue.x-k8s.io/job-uid";

impl Runs {
    /// Why the Job with this uid waits. Nothing where Kueue says nothing, or not to this user.
    pub(super) async fn queue_reason(&self, run: &TrainingRun, uid: &str) -> Option<Reason> {
        let Gang::Kueue { queue } = &run.gang else { return None };
        let resource = self.applier.discovery().resource_of_group("kueue.x-k8s.io", "Workload").await.ok()?;
        let selection = Selection::labelled(format!("{JOB_LABEL}={uid}"));
        let listed = self.applier.cluster().list(&resource, &run.namespace, &selection).await.ok()?;
        reason(queue, listed.items.first()?)
    }
}

fn reason(queue: &str, workload: &Value) -> Option<Reason> {
    let is = |kind: &str, status: &str| condition(workload, kind).filter(|one| one["status"] == status);
    // One that was put back waits for room like any other, unless it was put aside for good.
    let aside = is("Evicted", "True").filter(|_| workload["spec"]["active"] == false);
    let found = aside.or_else(|| is("QuotaReserved", "False"))?;
    let message = clip(found["message"].as_str().unwrap_or_default());
    let kind = if aside.is_some() || found["reason"] == "Inadmissible" {
        ReasonKind::Configuration
    } else {
        ReasonKind::Starting
    };
    Some(Reason { kind, text: format!("it waits in the queue {queue}: {message}") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn says_what_kueue_says() {
        let pending = json!({"spec": {"active": true}, "status": {"conditions": [{
            "type": "QuotaReserved", "status": "False", "reason": "Pending",
            "message": "couldn't assign flavors to pod set main: insufficient unused quota for cpu in flavor f, 1 more needed.",
        }]}});
        let found = reason("gpus", &pending).unwrap();
        assert!(
            found.text.starts_with("it waits in the queue gpus: couldn't assign flavors"),
            "{}",
            found.text
        );
        assert_eq!(found.kind, ReasonKind::Starting);
        let mut wrong = pending.clone();
        wrong["status"]["conditions"][0]["reason"] = "Inadmissible".into();
        assert_eq!(reason("gpus", &wrong).unwrap().kind, ReasonKind::Configuration);
        let mut aside = pending.clone();
        aside["spec"]["active"] = false.into();
        let evicted = json!({"type": "Evicted", "status": "True", "reason": "Deactivated", "message": "The workload is deactivated"});
        aside["status"]["conditions"].as_array_mut().unwrap().push(evicted);
        assert!(reason("gpus", &aside).unwrap().text.ends_with("The workload is deactivated"));
        let mut admitted = pending;
        admitted["status"]["conditions"][0]["status"] = "True".into();
        assert_eq!(reason("gpus", &admitted), None);
    }
}
