//! One service in one pass.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::Value;
use slipway_orchestrator::{Desired, Revision};

use super::found::Found;
use super::observe;
use super::publisher::Publication;
use super::rollout::{Progress, progress};
use super::send::{self, LAG, Sent};
use super::state::{Context, Outcome, State, notice, subject};
use super::{leave, stuck};
use crate::apply::{ApplyError, chain};
use crate::names;
use crate::render::REVISION_LABEL;

/// How soon to come again for what another part of us is doing.
pub(super) const SOON: Duration = Duration::from_secs(1);

/// One service.
pub(super) async fn step(context: &Context<'_>, desired: &Desired, mut state: State) -> (State, Outcome) {
    let outcome = match desired {
        Desired::Present { target, stable, restarts } => {
            present(context, target, stable.as_ref(), *restarts, &mut state).await
        }
        Desired::Absent { service, .. } => leave::absent(context, service, &mut state).await,
    };
    (state, outcome)
}

async fn present(
    context: &Context<'_>,
    target: &Revision,
    stable: Option<&Revision>,
    restarts: u64,
    state: &mut State,
) -> Outcome {
    let name = &target.spec.name;
    let mut outcome = Outcome::default();
    let mapped = names::map(name);
    let found = Found::new(context, target, stable, mapped.clone().unwrap_or_default());
    if let Err(error) = mapped {
        let error = error.to_string();
        outcome.notices.extend(state.tell(&subject(name), "service.refused", error.clone()));
        outcome.report = Some(found.refused(state, error));
        return outcome;
    }
    state.remember_failure(found.deployment, target.number);
    let crashes = state.restarts.look(restarts, &found.pods);
    outcome.notices.extend(crashes.iter().map(|crash| notice(&subject(name), "replica.crashed", crash)));
    // What failed is taken back to what did not.
    let back = found.stable.filter(|_| state.failed.is_some());
    let effective = back.unwrap_or(target);
    let spec = match context.publisher.service(effective) {
        Ok(Publication::Ready(spec)) => spec,
        Ok(Publication::Underway(what)) => {
            found.recall_address(context, state);
            outcome.report = Some(found.waiting(state, Some(what)));
            outcome.wake(context.now + SOON);
            return outcome;
        }
        Err(error) => {
            let why = chain(&*error);
            let told = format!("Replicas of revision {} cannot be started: {why}", effective.number);
            outcome.notices.extend(state.tell(&subject(name), "replica.start_failed", told));
            found.recall_address(context, state);
            outcome.report = Some(found.refused(state, why));
            outcome.wake(context.now + context.options.retry_most);
            return outcome;
        }
    };
    let address = found.address(context, &spec);
    state.address = address.clone().ok();
    if context.unreachable.load(Ordering::Relaxed) {
        outcome.report = Some(found.waiting(state, state.error.clone()));
        outcome.wake(context.now + context.options.retry_first);
        return outcome;
    }
    let note = back.and(state.failed.clone());
    match send::service(context, &found.mapped, &spec, note.as_ref(), state).await {
        Ok(Sent::There) => {}
        Ok(Sent::Waits) => {
            outcome.wake(state.retry_at.unwrap_or(context.now));
            outcome.report = Some(found.failed(context, state));
            return outcome;
        }
        Err(error) => return failed(context, &found, state, &error, outcome),
    }
    // Only now, when what its pods wait for is published.
    stuck::try_again(context, &found, state, &mut outcome).await;
    begun(&found, effective, state, &mut outcome);
    let far = progress(found.deployment.filter(|_| state.applied.settled), effective.number, &found.pods);
    let rollout = stuck::judge(context, &found, far.clone(), effective, state, &mut outcome);
    if far == Progress::Complete && back.is_none() {
        completed(&found, state, &mut outcome);
        if let Err(error) = send::prune(context, &found.mapped, name, state).await {
            return failed(context, &found, state, &error, outcome);
        }
    }
    let mut report = found.report(state, rollout, address);
    report.reason = match far {
        Progress::Under { reason, .. } => reason.map(|reason| reason.text),
        _ => None,
    };
    if spec.gateway().is_some() {
        report.answers &= context.known.gateway_pods().iter().any(|pod| observe::serves(pod));
    }
    if let Some((_, why)) = &state.failed {
        report.reason = Some(why.clone());
        report.failing = Some(why.clone());
    } else if let Some((_, since)) = state.stuck {
        let until = since + context.options.telling;
        if context.now < until {
            outcome.wake(until);
        } else if !found.proven {
            report.failing.clone_from(&report.reason);
        }
    }
    outcome.report = Some(report);
    if !state.applied.settled {
        outcome.wake(state.applied.at + LAG);
    }
    outcome
}

/// Tells that a revision replaces another, unless a former process began it.
fn begun(found: &Found<'_>, effective: &Revision, state: &mut State, outcome: &mut Outcome) {
    let number = effective.number;
    if number != found.target.number || state.begun == Some(number) {
        return;
    }
    state.begun = Some(number);
    let label = |live: &Value| {
        live["spec"]["template"]["metadata"]["labels"][REVISION_LABEL].as_str().map(str::to_owned)
    };
    if found.deployment.and_then(label) != Some(number.to_string()) {
        let text = format!("Revision {number} is rolled out.");
        outcome.notices.push(notice(&subject(found.name()), "rollout.started", &text));
        let warnings = state.applied.warnings.iter();
        outcome.notices.extend(warnings.map(|text| notice(&subject(found.name()), "service.warning", text)));
    }
}

fn completed(found: &Found<'_>, state: &mut State, outcome: &mut Outcome) {
    let number = found.target.number;
    if found.proven {
        return;
    }
    outcome.completed = Some(number);
    if state.completed != Some(number) {
        state.completed = Some(number);
        // The copy may show the Deployment before it shows the pods.
        let available = found.deployment.and_then(|live| live["status"]["availableReplicas"].as_u64());
        let ready = available.unwrap_or_default();
        let text = format!("Revision {number} runs: {ready} replicas are ready.");
        outcome.notices.push(notice(&subject(found.name()), "rollout.completed", &text));
    }
}

/// Something of it could not be applied, or not be removed.
fn failed(
    context: &Context<'_>,
    found: &Found<'_>,
    state: &mut State,
    error: &ApplyError,
    mut outcome: Outcome,
) -> Outcome {
    // What was applied of it is looked at again as a whole.
    state.applied.hash.clear();
    state.applied.marks.clear();
    state.applied.settled = false;
    state.back_off(context);
    outcome.notices.extend(context.failed(state, &subject(found.name()), "service.refused", error));
    outcome.wake_at = state.retry_at;
    outcome.report = Some(found.failed(context, state));
    outcome
}
