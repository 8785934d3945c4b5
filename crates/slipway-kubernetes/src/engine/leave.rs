//! A service that shall not be there any more.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use serde_json::Value;

use super::service::SOON;
use super::state::{Context, Outcome, State, subject};
use crate::names;

/// Deletes its objects, and tells when nothing of it is left.
pub(super) async fn absent(context: &Context<'_>, name: &str, state: &mut State) -> Outcome {
    // Of what it was nothing matters any more but what was told of its removal.
    *state = State { error: state.error.take(), ..State::default() };
    let mut outcome = Outcome::default();
    let Ok(mapped) = names::map(name) else {
        outcome.gone = true;
        return outcome;
    };
    let set = context.inventory.set();
    let members: Vec<&Value> =
        context.known.of_service(&mapped, name).filter(|object| set.has(object)).collect();
    let pods_are_gone = context.known.pods(&mapped).is_empty();
    if members.is_empty() && pods_are_gone {
        outcome.gone = true;
        return outcome;
    }
    outcome.wake(context.now + SOON);
    if context.unreachable.load(Ordering::Relaxed) {
        return outcome;
    }
    let all = set.prune_all_but(members, &BTreeSet::new()).into_iter();
    // Pods that end are kept apart until they have ended.
    for doomed in all.filter(|one| one.key.kind != "NetworkPolicy" || pods_are_gone) {
        if let Err(error) = context.inventory.delete(&doomed).await {
            outcome.notices.extend(context.failed(state, &subject(name), "service.refused", &error));
            outcome.wake_at = Some(context.now + context.options.retry_first);
            break;
        }
    }
    outcome
}
