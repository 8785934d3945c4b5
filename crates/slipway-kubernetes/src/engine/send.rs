//! Applies what differs from what was applied, or from what is there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::state::{Applied, Context, FAILED_ANNOTATION, State};
use crate::apply::{ApplyError, ApplyOptions, Mark};
use crate::names;
use crate::object::ObjectKey;
use crate::render::{RenderError, Rendered, render_service};
use crate::spec::ServiceDeployment;

/// How long our copy may lag behind what we applied before a difference is somebody else's doing.
pub(super) const LAG: Duration = Duration::from_secs(10);

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// It is in the cluster.
    There,
    /// It failed a moment ago, and waits; or it waits for its turn.
    Waits,
}

/// Applies a service, whose name in the cluster is `mapped`. `note` is a revision that failed, which the Deployment
/// remembers.
pub(super) async fn service(
    context: &Context<'_>,
    mapped: &str,
    spec: &ServiceDeployment,
    note: Option<&(u64, String)>,
    state: &mut State,
) -> Result<Sent, ApplyError> {
    if spec.namespace != context.applier.cluster().namespace() {
        let reason = format!("`{}` is not the namespace of the engine", spec.namespace);
        return Err(RenderError::Contradiction { what: "namespace", reason }.into());
    }
    if spec.autoscaling.is_none() {
        // First of all: it would count against the number that is declared.
        let scalers = context.known.of_service(mapped, &spec.spec.name);
        let scalers = scalers.filter(|own| own["kind"] == "HorizontalPodAutoscaler");
        for doomed in context.inventory.set().prune_all_but(scalers, &BTreeSet::new()) {
            context.inventory.delete(&doomed).await?;
        }
    }
    let render = || {
        let mut rendered = render_service(spec, context.caps)?;
        for object in rendered.objects.iter_mut().filter(|object| object.kind() == "Deployment") {
            // An autoscaler begins with what is there, and a new one would have to come from a single pod.
            if object.json()["spec"]["replicas"].is_null() && context.known.get(&object.key()).is_none() {
                object.json_mut()["spec"]["replicas"] = spec.spec.replicas.into();
            }
        }
        if let Some((number, reason)) = note {
            let deployments = rendered.objects.iter_mut().filter(|object| object.kind() == "Deployment");
            deployments.for_each(|object| {
                object.json_mut()["metadata"]["annotations"][FAILED_ANNOTATION] =
                    format!("{number}: {reason}").into();
            });
        }
        Ok(rendered)
    };
    let number = note.map(|(number, _)| *number);
    let input = serde_json::to_vec(&(spec, context.caps, number)).unwrap_or_default();
    if_needed(context, names::hash(&input), state, render).await
}

/// Applies what `hash` is the hash of.
pub(super) async fn if_needed(
    context: &Context<'_>,
    hash: String,
    state: &mut State,
    render: impl FnOnce() -> Result<Rendered, RenderError>,
) -> Result<Sent, ApplyError> {
    if !state.take_over && state.tried == hash && state.retry_at.is_some_and(|at| at > context.now) {
        return Ok(Sent::Waits);
    }
    let applied = &mut state.applied;
    if !state.take_over && applied.hash == hash && !applied.marks.is_empty() {
        if is_as_applied(context, &applied.marks) {
            applied.settled = true;
            return Ok(Sent::There);
        }
        if !applied.settled && context.now < applied.at + LAG {
            return Ok(Sent::There);
        }
    }
    let turn = context.turns.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
    if turn.is_err() {
        state.retry_at = None;
        return Ok(Sent::Waits);
    }
    state.tried.clone_from(&hash);
    let mut rendered = render()?;
    context.inventory.adopt(&mut rendered.objects).await?;
    // All names are looked at before anything is sent: what belongs to another gets no half of ours.
    let mut bases = Vec::with_capacity(rendered.objects.len());
    for object in &rendered.objects {
        bases.push(context.applier.base(object, context.known.get(&object.key())).await?);
    }
    let mut marks = BTreeMap::new();
    let mut scalers = Vec::new();
    for (object, base) in rendered.objects.iter().zip(&bases) {
        let options = ApplyOptions { force: state.take_over, ..ApplyOptions::default() };
        let applied = context.applier.send(object, base.as_ref(), options).await?;
        scalers.extend(applied.scaled_by);
        marks.insert(applied.key, applied.mark);
    }
    for scaler in scalers {
        rendered.warn(format!("HorizontalPodAutoscaler `{scaler}` decides how many pods run"));
    }
    let settled = is_as_applied(context, &marks);
    state.applied = Applied { hash, marks, at: context.now, settled, warnings: rendered.warnings };
    state.tried.clear();
    state.failures = 0;
    state.retry_at = None;
    state.error = None;
    state.refused = None;
    state.take_over = false;
    Ok(Sent::There)
}

/// Whether our copy shows every object as it was applied.
fn is_as_applied(context: &Context<'_>, marks: &BTreeMap<ObjectKey, Mark>) -> bool {
    marks.iter().all(|(key, mark)| context.known.get(key).is_some_and(|live| Mark::of(live) == *mark))
}

/// Removes what the service's former revisions had and this one has not.
pub(super) async fn prune(
    context: &Context<'_>,
    mapped: &str,
    name: &str,
    state: &State,
) -> Result<(), ApplyError> {
    if !state.applied.settled {
        return Ok(());
    }
    let wanted: BTreeSet<ObjectKey> = state.applied.marks.keys().cloned().collect();
    let own = context.known.of_service(mapped, name);
    for doomed in context.inventory.set().prune_all_but(own, &wanted) {
        context.inventory.delete(&doomed).await?;
    }
    Ok(())
}
