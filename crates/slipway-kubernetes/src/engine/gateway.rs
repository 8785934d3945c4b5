//! The gateway of the namespace.

use std::collections::BTreeSet;

use super::observe::{Address, address};
use super::publisher::Publication;
use super::send::{self, Sent};
use super::service::SOON;
use super::state::{Context, Outcome, State};
use crate::apply::chain;
use crate::names;
use crate::object::ObjectKey;
use crate::render::render_gateway;
use crate::spec::GatewayDeployment;

const SUBJECT: &str = "gateway";
const REFUSED: &str = "gateway.refused";

/// The gateway, or its removal.
pub(super) async fn gateway(context: &Context<'_>, state: &mut State) -> Outcome {
    let mut outcome = Outcome::default();
    let spec = match context.publisher.gateway() {
        Ok(Some(Publication::Ready(spec))) => spec,
        Ok(Some(Publication::Underway(_))) => {
            outcome.wake(context.now + SOON);
            return outcome;
        }
        Ok(None) => {
            *state = State { error: state.error.take(), ..State::default() };
            let own = context.known.of_gateway();
            for doomed in context.inventory.set().prune_all_but(own, &BTreeSet::new()) {
                if let Err(error) = context.inventory.delete(&doomed).await {
                    outcome.notices.extend(context.failed(state, SUBJECT, REFUSED, &error));
                    outcome.wake(context.now + context.options.retry_first);
                    break;
                }
            }
            return outcome;
        }
        Err(error) => {
            outcome.notices.extend(state.tell(SUBJECT, REFUSED, chain(&*error)));
            outcome.wake(context.now + context.options.retry_most);
            return outcome;
        }
    };
    let hash = names::hash(&serde_json::to_vec(&(&spec, context.caps)).unwrap_or_default());
    match send::if_needed(context, hash, state, || render_gateway(&spec, context.caps)).await {
        Ok(Sent::There) => state.address = place(context, &spec),
        Ok(Sent::Waits) => outcome.wake(state.retry_at.unwrap_or(context.now)),
        Err(error) => {
            outcome.wake(state.back_off(context));
            outcome.notices.extend(context.failed(state, SUBJECT, REFUSED, &error));
        }
    }
    outcome
}

fn place(context: &Context<'_>, spec: &GatewayDeployment) -> Option<Address> {
    let key = ObjectKey {
        group: String::new(),
        kind: "Service".to_owned(),
        namespace: spec.namespace.clone(),
        name: names::map(&spec.name).ok()?,
    };
    address(&spec.exposure, &spec.namespace, context.known.get(&key), context.known.gateway_pods())
}
