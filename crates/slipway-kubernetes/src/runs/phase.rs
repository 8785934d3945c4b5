//! How an attempt stands. Pure.

use serde_json::Value;

use crate::reason::{Reason, ReasonKind, RunEnd, condition, job, no_pods, pod, rank_of};
use crate::render::{ATTEMPT_LABEL, RUN_LABEL, job_of};
use crate::spec::{Gang, TrainingRun};
use crate::watch::Snapshot;

/// How an attempt stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunPhase {
    /// The cluster has no such attempt.
    Missing,
    /// Not all ranks run yet.
    Pending {
        /// Ranks that run.
        running: u32,
        /// Why, where it is known.
        reason: Option<Reason>,
    },
    /// All ranks run, or ran.
    Running {
        /// Ranks that still run.
        running: u32,
        /// What may end it, where something may: a node that does not answer.
        reason: Option<Reason>,
    },
    /// It ended.
    Ended(RunEnd),
}

pub(super) fn mapped(run: &TrainingRun) -> String {
    // A name that cannot be mapped was refused when the run was rendered.
    run.name().unwrap_or_default()
}

/// Name of the object that the current attempt is.
pub(super) fn attempt_name(run: &TrainingRun) -> String {
    run.attempt_name().unwrap_or_default()
}

/// Pods of the current attempt.
pub(super) fn pods<'a>(run: &TrainingRun, snapshot: &'a Snapshot) -> Vec<&'a Value> {
    let (run_label, attempt) = (mapped(run), run.attempt.to_string());
    let of = |pod: &&Value| {
        let labels = &pod["metadata"]["labels"];
        labels[RUN_LABEL] == run_label.as_str() && labels[ATTEMPT_LABEL] == attempt.as_str()
    };
    snapshot.of("Pod").iter().map(|pod| &**pod).filter(of).collect()
}

/// How the current attempt of a run stands.
pub fn phase(run: &TrainingRun, snapshot: &Snapshot) -> RunPhase {
    let events = snapshot.events();
    let about = |object: &Value| {
        let uid = object["metadata"]["uid"].as_str().unwrap_or_default();
        events.get(uid).cloned().unwrap_or_default()
    };
    let pods: Vec<(&Value, Vec<&Value>)> =
        pods(run, snapshot).into_iter().map(|pod| (pod, about(pod))).collect();
    let Some(live) = snapshot.get("Job", &job_of(&run.gang, &attempt_name(run))) else {
        return without_job(run, snapshot, &pods, &about);
    };
    if let Some(end) = job(live, &pods) {
        return RunPhase::Ended(if is_stopped(run, live) { taken_away(end) } else { end });
    }
    let is = |pod: &Value, phase: &str| pod["status"]["phase"] == phase;
    let count = |phase: &str| {
        u32::try_from(pods.iter().filter(|(pod, _)| is(pod, phase)).count()).unwrap_or(u32::MAX)
    };
    let (running, done) = (count("Running"), count("Succeeded"));
    if let Some(end) = lost(&pods) {
        return RunPhase::Ended(end);
    }
    if running + done >= run.ranks {
        let reasons = pods.iter().filter_map(|(one, events)| reason_of(run, one, events));
        return RunPhase::Running { running, reason: reasons.into_iter().find(|r| r.kind.is_disruption()) };
    }
    let mut reasons: Vec<Reason> = pods
        .iter()
        .filter(|(one, _)| one["metadata"]["deletionTimestamp"].is_null())
        .filter_map(|(one, events)| reason_of(run, one, events))
        .collect();
    reasons.sort_by_key(|reason| (!reason.kind.is_stuck(), reason.kind == ReasonKind::Starting));
    // Admission and quotas keep pods from being made at all.
    let made = u32::try_from(pods.len()).unwrap_or(u32::MAX);
    let unmade = if made < run.ranks { no_pods(&about(live)) } else { None };
    let suspended = is_suspended(live).then(|| Reason { kind: ReasonKind::Starting, text: waits(run) });
    RunPhase::Pending { running, reason: unmade.or(suspended).or_else(|| reasons.into_iter().next()) }
}

/// Why a rank does not run, or may not for long.
fn reason_of(run: &TrainingRun, one: &Value, events: &[&Value]) -> Option<Reason> {
    let reason = pod(one, events).filter(|reason| reason.kind != ReasonKind::Probe)?;
    Some(match rank_of(one) {
        Some(rank) if run.ranks > 1 => Reason { text: format!("rank {rank}: {}", reason.text), ..reason },
        _ => reason,
    })
}

/// A rank that the cluster took from a node which does not answer: nobody there ends its pod, so its Job would go on for
/// ever, and so would ranks that wait for it.
fn lost(pods: &[(&Value, Vec<&Value>)]) -> Option<RunEnd> {
    let taken = |one: &Value| {
        let target = condition(one, "DisruptionTarget").filter(|target| target["status"] == "True");
        !one["metadata"]["deletionTimestamp"].is_null()
            && target.is_some_and(|target| target["reason"] == "DeletionByTaintManager")
    };
    let (one, events) = pods.iter().find(|(one, _)| taken(one))?;
    let rank = rank_of(one);
    let reason = pod(one, events)?;
    let text = rank.map_or_else(|| reason.text.clone(), |rank| format!("rank {rank}: {}", reason.text));
    Some(RunEnd::Failed { rank, exit_code: None, reason: Reason { text, ..reason } })
}

/// There is no Job, or none yet.
fn without_job<'a>(
    run: &TrainingRun,
    snapshot: &'a Snapshot,
    pods: &[(&Value, Vec<&Value>)],
    about: &impl Fn(&Value) -> Vec<&'a Value>,
) -> RunPhase {
    let set = if run.gang == Gang::JobSet { snapshot.get("JobSet", &attempt_name(run)) } else { None };
    let Some(set) = set.filter(|set| set["metadata"]["deletionTimestamp"].is_null()) else {
        return RunPhase::Missing;
    };
    if condition(set, "Completed").is_some_and(|one| one["status"] == "True") {
        return RunPhase::Ended(RunEnd::Succeeded);
    }
    if let Some(end) = job(set, pods) {
        return RunPhase::Ended(end);
    }
    let nobody = || Reason {
        kind: ReasonKind::Starting,
        text: "no Job was made of its JobSet yet: is the controller of JobSet running?".to_owned(),
    };
    RunPhase::Pending { running: 0, reason: Some(no_pods(&about(set)).unwrap_or_else(nobody)) }
}

fn is_suspended(job: &Value) -> bool {
    job["spec"]["suspend"] == true
}

/// What the current attempt waits for, while its Job is suspended.
fn waits(run: &TrainingRun) -> String {
    match &run.gang {
        Gang::Kueue { queue } => format!("it waits in the queue {queue}"),
        _ => "its Job is suspended".to_owned(),
    }
}

/// Uid of the current attempt's Job, if that waits in a queue.
pub(super) fn queued(run: &TrainingRun, snapshot: &Snapshot) -> Option<String> {
    let Gang::Kueue { .. } = run.gang else { return None };
    let job = snapshot.get("Job", &attempt_name(run)).filter(|job| is_suspended(job))?;
    job["metadata"]["uid"].as_str().map(str::to_owned)
}

/// Whether a Job failed because its queue stopped it: the programs were told to end, and that counts as their failure.
fn is_stopped(run: &TrainingRun, job: &Value) -> bool {
    matches!(run.gang, Gang::Kueue { .. }) && is_suspended(job)
}

fn taken_away(end: RunEnd) -> RunEnd {
    match end {
        RunEnd::Failed { rank, exit_code, reason } if !reason.kind.is_disruption() => {
            let text = "its queue took its place away for another".to_owned();
            RunEnd::Failed { rank, exit_code, reason: Reason { kind: ReasonKind::Evicted, text } }
        }
        other => other,
    }
}
