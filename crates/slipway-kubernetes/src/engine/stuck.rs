//! A revision that does not come up: how long that is waited for, what is told of it, and what happens when a user asks again.

use slipway_orchestrator::{Revision, Rollout};

use super::found::Found;
use super::rollout::Progress;
use super::state::{Context, Outcome, State, notice, subject};
use crate::client::{Dependents, Resource};
use crate::reason::{self, Reason, ReasonKind};
use crate::render::REVISION_LABEL;

/// Judges how far a revision is, and gives up what does not get on.
pub(super) fn judge(
    context: &Context<'_>,
    found: &Found<'_>,
    far: Progress,
    effective: &Revision,
    state: &mut State,
    outcome: &mut Outcome,
) -> Rollout {
    let is_target = effective.number == found.target.number;
    let mut rollout = Rollout::Progressing { available: 0, wanted: found.target.spec.replicas };
    match far {
        Progress::Complete => {
            state.stuck = None;
            state.image_lost = false;
            if is_target {
                state.failed = None;
                rollout = Rollout::Steady;
            }
        }
        Progress::Unseen => {}
        Progress::Late { reason } => {
            tell(found, effective, &reason, state, outcome);
            if is_target && context.now < state.patient_until {
                outcome.wake(state.patient_until);
            } else if is_target && reason.kind != ReasonKind::Quota {
                give_up(context, found, &reason.text, state, outcome);
            }
        }
        Progress::Under { available, wanted, reason } => {
            let stuck = reason.filter(|reason| reason.kind.is_stuck());
            state.image_lost |= stuck.as_ref().is_some_and(|reason| reason.kind == ReasonKind::Image);
            if let Some(reason) = &stuck {
                tell(found, effective, reason, state, outcome);
            }
            match (stuck, state.stuck) {
                (None, _) => state.stuck = None,
                (Some(reason), Some((revision, since))) if revision == effective.number => {
                    let until = since + context.options.patience;
                    if context.now < until {
                        outcome.wake(until);
                    } else if is_target && reason.kind != ReasonKind::Quota {
                        // What a quota keeps out is nothing wrong with the revision: it comes once there is room.
                        give_up(context, found, &reason.text, state, outcome);
                    }
                }
                (Some(_), _) => {
                    state.stuck = Some((effective.number, context.now));
                    outcome.wake(context.now + context.options.patience);
                }
            }
            if is_target {
                rollout = Rollout::Progressing { available, wanted };
            }
        }
    }
    match &state.failed {
        Some((_, reason)) => Rollout::Stalled { reason: reason.clone(), crashes: stuck_pods(found).max(1) },
        None => rollout,
    }
}

/// A stable revision is put back in the next pass, at once; without one, all that is left is to go on trying.
fn give_up(context: &Context<'_>, found: &Found<'_>, reason: &str, state: &mut State, outcome: &mut Outcome) {
    // One that ran comes back, and there is nothing to put in its place.
    if state.failed.is_some() || found.proven {
        return;
    }
    let number = found.target.number;
    state.failed = Some((number, reason.to_owned()));
    let text = match found.stable {
        Some(stable) => {
            format!("Revision {number} does not come up and revision {} is put back: {reason}", stable.number)
        }
        None => format!("Revision {number} does not come up: {reason}"),
    };
    outcome.notices.push(notice(&subject(found.name()), "rollout.stalled", &text));
    outcome.wake(context.now);
}

/// That containers crash is told as it happens; what keeps them from starting is told once.
fn tell(found: &Found<'_>, effective: &Revision, reason: &Reason, state: &mut State, outcome: &mut Outcome) {
    let told = (effective.number, reason.kind);
    let crashes = matches!(reason.kind, ReasonKind::Crash | ReasonKind::OutOfMemory);
    if crashes || state.start_failed == Some(told) {
        return;
    }
    state.start_failed = Some(told);
    let text = format!("Replicas of revision {} cannot be started: {}", effective.number, reason.text);
    outcome.notices.push(notice(&subject(found.name()), "replica.start_failed", &text));
}

fn stuck_pods(found: &Found<'_>) -> u32 {
    u32::try_from(of_target(found).count()).unwrap_or(u32::MAX)
}

/// Pods of the declared revision that waiting does not mend.
fn of_target<'a>(found: &'a Found<'_>) -> impl Iterator<Item = &'a serde_json::Value> {
    let number = found.target.number.to_string();
    found
        .pods
        .iter()
        .filter(move |(pod, _)| pod["metadata"]["labels"][REVISION_LABEL] == number.as_str())
        .filter(|(pod, _)| pod["metadata"]["deletionTimestamp"].is_null())
        .filter(|(pod, events)| reason::pod(pod, events).is_some_and(|reason| reason.kind.is_stuck()))
        .map(|(pod, _)| *pod)
}

/// Where a user asked again: pods that are stuck are replaced, since nodes wait longer after each failure.
pub(super) async fn try_again(
    context: &Context<'_>,
    found: &Found<'_>,
    state: &mut State,
    outcome: &mut Outcome,
) {
    if !std::mem::take(&mut state.again) {
        return;
    }
    state.patient_until = context.now + context.options.patience;
    let cluster = context.applier.cluster();
    let pods = Resource::well_known("", "v1", "Pod", "pods");
    for pod in of_target(found) {
        let text = |key: &str| pod["metadata"][key].as_str().unwrap_or_default();
        let deleted =
            cluster.delete(&pods, cluster.namespace(), text("name"), text("uid"), Dependents::Background);
        if let Err(error) = deleted.await {
            // The node comes to it by itself, later.
            let why = format!("A replica that failed is not replaced yet: {error}");
            outcome.notices.push(notice(&subject(found.name()), "service.refused", &why));
            return;
        }
    }
}
