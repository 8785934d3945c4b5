//! How an attempt of a training run stands, and how it ended.

use serde_json::Value;

use super::{Reason, ReasonKind, clip, condition, event, pod, text};

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunEnd {
    /// Every rank ended with 0.
    Succeeded,
    /// It failed.
    Failed {
        /// The rank that failed first, where one did.
        rank: Option<u32>,
        /// Its exit code.
        exit_code: Option<i64>,
        /// Why, with what to do.
        reason: Reason,
    },
}

impl RunEnd {
    /// Whether the cluster took a rank's place away: no fault of the program.
    pub fn is_disruption(&self) -> bool {
        matches!(self, Self::Failed { reason, .. } if reason.kind.is_disruption())
    }
}

/// How a Job ended, or `None` while it goes on. `pods` are those of the attempt, `events` those about the Job and its pods.
pub fn job(job: &Value, pods: &[(&Value, Vec<&Value>)]) -> Option<RunEnd> {
    let is = |kind: &str| condition(job, kind).filter(|c| c["status"] == "True");
    if is("Complete").or_else(|| is("SuccessCriteriaMet")).is_some() {
        return Some(RunEnd::Succeeded);
    }
    let failure = is("Failed").or_else(|| is("FailureTarget"))?;
    let mut failed: Vec<(&str, Option<u32>, &Value, Reason)> = pods
        .iter()
        .filter(|(one, _)| text(one, "/status/phase") == "Failed" || disrupted(one))
        .filter_map(|(one, events)| Some((finished(one), rank(one), *one, pod(one, events)?)))
        .collect();
    // The first failure is the cause; the others lost their peers. A disruption explains all of them.
    failed.sort_by_key(|(at, rank, _, reason)| (!reason.kind.is_disruption(), (*at).to_owned(), *rank));
    if text(failure, "/reason") == "DeadlineExceeded" {
        let text = "the attempt took longer than its deadline allows: raise the deadline";
        return Some(RunEnd::Failed {
            rank: None,
            exit_code: None,
            reason: Reason::new(ReasonKind::Deadline, text),
        });
    }
    match failed.into_iter().next() {
        Some((_, rank, one, reason)) => {
            let reason = match rank {
                Some(rank) => Reason { text: format!("rank {rank}: {}", reason.text), ..reason },
                None => reason,
            };
            Some(RunEnd::Failed { rank, exit_code: exit_code(one), reason })
        }
        None => {
            let message = text(failure, "/message");
            let reason = if text(failure, "/reason") == "PodFailurePolicy"
                && message.contains("DisruptionTarget")
            {
                Reason::new(ReasonKind::Evicted, format!("a rank lost its place ({})", clip(message)))
            } else {
                Reason::new(ReasonKind::Crash, format!("a rank failed ({}): look at the log", clip(message)))
            };
            Some(RunEnd::Failed { rank: None, exit_code: None, reason })
        }
    }
}

/// Why a Job makes no pods.
pub(crate) fn no_pods(events: &[&Value]) -> Option<Reason> {
    event::newest(events, &["FailedCreate"]).map(|event| event::failed_create(text(event, "/message")))
}

fn disrupted(pod: &Value) -> bool {
    condition(pod, "DisruptionTarget").is_some_and(|c| c["status"] == "True")
}

/// The rank of a pod.
pub(crate) fn rank(pod: &Value) -> Option<u32> {
    pod["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"].as_str()?.parse().ok()
}

fn ended(pod: &Value) -> Option<&Value> {
    super::items(pod, "/status/containerStatuses")
        .iter()
        .map(|status| &status["state"]["terminated"])
        .find(|ended| !ended.is_null())
}

fn exit_code(pod: &Value) -> Option<i64> {
    ended(pod)?["exitCode"].as_i64()
}

fn finished(pod: &Value) -> &str {
    ended(pod).map_or("9999", |ended| text(ended, "/finishedAt"))
}
