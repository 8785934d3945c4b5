//! How often a service's containers were started again, told from what nodes count.

use std::collections::HashMap;

use serde_json::Value;
use slipway_types::service::ReplicaState;

use super::known::Pod;
use super::observe::{container_id, state};
use crate::reason;
use crate::render::REVISION_LABEL;

/// Counts restarts over pods that come and go.
#[derive(Debug, Default)]
pub(super) struct Restarts {
    counted: u64,
    /// What each pod had when it was last seen; absent before the first look.
    pods: Option<HashMap<String, Seen>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    restarts: u64,
    /// It ended as a whole, and another takes its place.
    failed: bool,
}

impl Restarts {
    /// How many there were.
    pub(super) fn counted(&self) -> u64 {
        self.counted
    }

    /// Takes in what there is now, and gives a sentence for each replica that crashed since the last look. `declared` is
    /// what was counted before, maybe by a former process: what happened while there was none shows in the pods that are
    /// still there.
    pub(super) fn look(&mut self, declared: u64, pods: &[Pod<'_>]) -> Vec<String> {
        let now: HashMap<String, Seen> =
            pods.iter().map(|(pod, _)| (text(pod, "/metadata/uid").to_owned(), seen(pod))).collect();
        let Some(before) = self.pods.replace(now) else {
            let kept = pods.iter().filter(|(pod, _)| pod["metadata"]["deletionTimestamp"].is_null());
            let kept: u64 = kept.map(|(pod, _)| seen(pod).restarts).sum();
            self.counted = declared.max(kept);
            return Vec::new();
        };
        self.counted = self.counted.max(declared);
        let mut crashes = Vec::new();
        for (pod, events) in pods {
            let was = before.get(text(pod, "/metadata/uid")).copied();
            let was = was.unwrap_or(Seen { restarts: 0, failed: false });
            let is = seen(pod);
            let more = is.restarts.saturating_sub(was.restarts) + u64::from(is.failed && !was.failed);
            if more > 0 {
                self.counted += more;
                crashes.push(sentence(pod, events));
            }
        }
        crashes
    }
}

fn seen(pod: &Value) -> Seen {
    let statuses = pod["status"]["containerStatuses"].as_array().map_or(&[][..], Vec::as_slice);
    Seen {
        restarts: statuses.iter().filter_map(|status| status["restartCount"].as_u64()).sum(),
        failed: pod["status"]["phase"] == "Failed",
    }
}

fn sentence(pod: &Value, events: &[&Value]) -> String {
    let id = container_id(pod).map(|id| id.short().to_owned()).unwrap_or_default();
    let revision = pod["metadata"]["labels"][REVISION_LABEL].as_str().unwrap_or_default();
    let why = reason::pod(pod, events).or_else(|| reason::last_end(pod)).map(|reason| reason.text);
    let why = why.map(|why| format!(" ({why})")).unwrap_or_default();
    let next = match state(pod, true) {
        ReplicaState::Stopped => "another takes its place",
        _ => "its node starts it again",
    };
    format!("A replica of revision {revision} ({id}) crashed{why}; {next}.")
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(uid: &str, restarts: u64, phase: &str) -> Value {
        json!({"metadata": {"uid": uid, "labels": {REVISION_LABEL: "3"}}, "status": {"phase": phase,
            "containerStatuses": [{"name": "server", "restartCount": restarts, "ready": true, "state": {"running": {}},
                "lastState": {"terminated": {"exitCode": 3}}}],
            "conditions": [{"type": "Ready", "status": "True"}]}})
    }

    fn look(restarts: &mut Restarts, declared: u64, pods: &[Value]) -> Vec<String> {
        let pods: Vec<Pod<'_>> = pods.iter().map(|pod| (pod, Vec::new())).collect();
        restarts.look(declared, &pods)
    }

    const A: &str = "0a1b2c3d-0000-4000-8000-000000000001";
    const B: &str = "1a1b2c3d-0000-4000-8000-000000000002";

    #[test]
    fn each_is_counted_once_and_told_with_its_reason() {
        let mut restarts = Restarts::default();
        assert_eq!(look(&mut restarts, 0, &[pod(A, 0, "Running")]), [""; 0]);
        let told = look(&mut restarts, 0, &[pod(A, 2, "Running"), pod(B, 0, "Running")]);
        assert_eq!(told.len(), 1);
        assert!(
            told[0].starts_with("A replica of revision 3 (0a1b2c3d0000) crashed")
                && told[0].contains("exit code 3"),
            "{told:?}"
        );
        assert_eq!(restarts.counted(), 2);
        assert_eq!(look(&mut restarts, 2, &[pod(A, 2, "Running"), pod(B, 0, "Failed")]).len(), 1);
        assert_eq!(
            look(&mut restarts, 3, &[pod(B, 0, "Failed")]).len(),
            0,
            "a pod that is gone uncounts nothing"
        );
        assert_eq!(restarts.counted(), 3);
    }

    #[test]
    fn goes_on_from_what_a_former_process_counted() {
        let mut restarts = Restarts::default();
        look(&mut restarts, 5, &[pod(A, 2, "Running")]);
        assert_eq!(restarts.counted(), 5, "they are among those that were counted");
        look(&mut restarts, 5, &[pod(A, 3, "Running")]);
        assert_eq!(restarts.counted(), 6);
        let mut restarts = Restarts::default();
        look(&mut restarts, 1, &[pod(A, 4, "Running")]);
        assert_eq!(restarts.counted(), 4, "three happened while nobody looked");
    }
}
