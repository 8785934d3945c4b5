//! One service in one pass.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;
use slipway_orchestrator::{Desired, Notice, Revision, Rollout};

use super::observe::{Address, Reach, address, no_address};
use super::publisher::{Publication, Publisher};
use super::renew::renew;
use super::rollout::{Progress, progress};
use super::{EngineOptions, ServiceReport};
use crate::Capabilities;
use crate::apply::{Applier, ApplyError, ApplyOptions, Inventory, Mark};
use crate::names::{self, NAME_ANNOTATION};
use crate::object::ObjectKey;
use crate::reason::ReasonKind;
use crate::render::{GATEWAY_LABEL, RenderError, Rendered, SERVICE_LABEL, render_gateway, render_service};
use crate::spec::{Exposure, GatewayDeployment, ServiceDeployment};
use crate::watch::Snapshot;

/// Annotation of a Deployment that was put back: the revision that failed, and why.
const FAILED_ANNOTATION: &str = "slipway.dev/failed-revision";
/// How long our copy may lag behind what we applied before a difference is somebody else's doing.
const LAG: Duration = Duration::from_secs(10);
/// How soon to come again for what another part of us is doing.
const SOON: Duration = Duration::from_secs(1);

/// What is remembered of a service between passes.
#[derive(Debug, Default)]
pub(super) struct State {
    /// Hash of what was applied last.
    hash: String,
    /// Hash of what could not be applied.
    tried: String,
    /// Each object that was applied.
    marks: BTreeMap<ObjectKey, Mark>,
    applied_at: Duration,
    /// Our copy has shown everything as it was applied.
    settled: bool,
    warnings: Vec<String>,
    failures: u32,
    retry_at: Option<Duration>,
    error: Option<String>,
    /// A revision that failed, and why.
    failed: Option<(u64, String)>,
    /// A revision that a user asked for again after it failed.
    forgiven: Option<u64>,
    /// The revision that is stuck, since when.
    stuck: Option<(u64, Duration)>,
    /// From when on waiting does not help it to be applied.
    refused: Option<Duration>,
    /// A user asked for the fields of its objects that others own.
    take_over: bool,
    /// A node did not get its image.
    image_lost: bool,
    /// Its images are sent anew, and pods that wait for them are made anew.
    renew: bool,
    /// Where it answered last.
    address: Option<Address>,
}

/// What one service gave.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub report: Option<ServiceReport>,
    pub completed: Option<(String, u64)>,
    pub forgotten: Option<String>,
    pub notices: Vec<Notice>,
    pub wake_at: Option<Duration>,
    pub unreachable: Option<ApplyError>,
    /// Of the gateway.
    pub address: Option<Address>,
}

/// What all services of a pass share.
pub(super) struct Context<'a> {
    pub applier: &'a Applier,
    pub inventory: &'a Inventory,
    pub publisher: &'a dyn Publisher,
    pub options: &'a EngineOptions,
    pub caps: &'a Capabilities,
    pub known: &'a Known<'a>,
    pub now: Duration,
    /// Set by the first that finds no API server: the others need not wait for it as well.
    pub unreachable: &'a AtomicBool,
    /// How many more are applied in this pass.
    pub turns: &'a AtomicUsize,
    /// Where the gateway answers, once it is known.
    pub gateway_address: Option<Address>,
}

/// The copy, sorted for look-ups.
pub(super) struct Known<'a> {
    objects: HashMap<ObjectKey, &'a Value>,
    by_service: HashMap<&'a str, Vec<&'a Value>>,
    by_gateway: Vec<&'a Value>,
    pods: BTreeMap<&'a str, Vec<&'a Value>>,
    gateway_pods: Vec<&'a Value>,
    events: BTreeMap<&'a str, Vec<&'a Value>>,
}

impl<'a> Known<'a> {
    pub(super) fn new(snapshot: &'a Snapshot) -> Self {
        let mut known = Self {
            objects: HashMap::new(),
            by_service: HashMap::new(),
            by_gateway: Vec::new(),
            pods: snapshot.by_label("Pod", SERVICE_LABEL),
            gateway_pods: snapshot.by_label("Pod", GATEWAY_LABEL).into_values().flatten().collect(),
            events: snapshot.events(),
        };
        for object in snapshot.all().filter(|object| object["kind"] != "Pod") {
            known.objects.insert(key(object), object);
            let labels = &object["metadata"]["labels"];
            if let Some(service) = labels[SERVICE_LABEL].as_str() {
                known.by_service.entry(service).or_default().push(object);
            } else if labels[GATEWAY_LABEL].is_string() {
                known.by_gateway.push(object);
            }
        }
        known
    }

    /// Names of services that have objects or pods.
    pub(super) fn services(&self) -> impl Iterator<Item = &'a str> {
        let objects = self.by_service.values().filter_map(|objects| objects.first());
        let pods = self.pods.values().filter_map(|pods| pods.first());
        let names: BTreeSet<&'a str> = objects
            .chain(pods)
            .filter_map(|one| one["metadata"]["annotations"][NAME_ANNOTATION].as_str())
            .collect();
        names.into_iter()
    }

    fn pods(&self, mapped: &str) -> Vec<(&'a Value, Vec<&'a Value>)> {
        let pods = self.pods.get(mapped).map_or(&[][..], Vec::as_slice);
        pods.iter()
            .map(|pod| {
                let uid = pod["metadata"]["uid"].as_str().unwrap_or_default();
                (*pod, self.events.get(uid).cloned().unwrap_or_default())
            })
            .collect()
    }
}

fn key(object: &Value) -> ObjectKey {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    ObjectKey {
        group: text("/apiVersion").split_once('/').map_or("", |(group, _)| group).to_owned(),
        kind: text("/kind").to_owned(),
        namespace: text("/metadata/namespace").to_owned(),
        name: text("/metadata/name").to_owned(),
    }
}

/// One service.
pub(super) async fn step(context: &Context<'_>, desired: &Desired, mut state: State) -> (State, Outcome) {
    if context.unreachable.load(Ordering::Relaxed) {
        return (state, Outcome::default());
    }
    let outcome = match desired {
        Desired::Present { target, stable, .. } => {
            present(context, target, stable.as_ref(), &mut state).await
        }
        Desired::Absent { service, .. } => absent(context, service).await,
    };
    if outcome.unreachable.is_some() {
        context.unreachable.store(true, Ordering::Relaxed);
    }
    (state, outcome)
}

async fn present(
    context: &Context<'_>,
    target: &Revision,
    stable: Option<&Revision>,
    state: &mut State,
) -> Outcome {
    let name = &target.spec.name;
    let mapped = match names::map(name) {
        Ok(mapped) => mapped,
        Err(error) => return refused(state, name, error.to_string()),
    };
    let deployment_key = ObjectKey {
        group: "apps".to_owned(),
        kind: "Deployment".to_owned(),
        namespace: context.applier.cluster().namespace().to_owned(),
        name: mapped.clone(),
    };
    let live = context.known.objects.get(&deployment_key).copied();
    remember_failure(state, live, target.number);
    let back = stable.filter(|stable| stable.number != target.number && state.failed.is_some());
    let effective = back.unwrap_or(target);

    let spec = match context.publisher.service(effective) {
        Ok(Publication::Ready(spec)) => spec,
        Ok(Publication::Underway(what)) => {
            let mut outcome = report(state, name, progressing(0, target), Some(what), false);
            outcome.wake_at = Some(context.now + SOON);
            return outcome;
        }
        Err(error) => {
            let text = crate::apply::chain(&*error);
            let mut outcome = report(state, name, progressing(0, target), Some(text.clone()), true);
            outcome.notices = state.tell(&format!("service/{name}"), "service.refused", text);
            outcome.wake_at = Some(context.now + context.options.retry_most);
            return outcome;
        }
    };
    let mut notices = Vec::new();
    match apply(context, &spec, state).await {
        Ok(true) => {}
        Ok(false) => {
            let hopeless = state.refused.is_some_and(|at| at <= context.now);
            let mut outcome = report(state, name, progressing(0, target), state.error.clone(), hopeless);
            outcome.wake_at = state.retry_at.or(Some(context.now));
            return outcome;
        }
        Err(error) => return failed_to_apply(context, state, name, target, error),
    }
    let pods = context.known.pods(&mapped);
    if std::mem::take(&mut state.renew)
        && let Err(error) = renew(context.applier, effective.number, &pods).await
    {
        return failed_to_apply(context, state, name, target, error);
    }
    let far = progress(live.filter(|_| state.settled), effective.number, &pods);
    let mut outcome = Outcome::default();
    let (rollout, reason) = match far {
        Progress::Complete if back.is_none() => {
            state.stuck = None;
            state.image_lost = false;
            if stable.is_none_or(|stable| stable.number != target.number) {
                outcome.completed = Some((name.clone(), target.number));
            }
            if let Err(error) = prune(context, &mapped, name, state).await {
                return failed_to_apply(context, state, name, target, error);
            }
            (Rollout::Steady, None)
        }
        Progress::Complete | Progress::Unseen if back.is_some() => {
            let reason = state.failed.as_ref().map(|(_, reason)| reason.clone()).unwrap_or_default();
            (Rollout::Stalled { reason: reason.clone(), crashes: 1 }, Some(reason))
        }
        Progress::Complete | Progress::Unseen => (progressing(0, target), None),
        Progress::Late { reason } => {
            if reason.kind != ReasonKind::Quota {
                give_up(context, state, target, stable, &reason.text, &mut notices, &mut outcome);
            }
            (Rollout::Stalled { reason: reason.text.clone(), crashes: 1 }, Some(reason.text))
        }
        Progress::Under { available, wanted, reason } => {
            let stuck = reason.as_ref().filter(|reason| reason.kind.is_stuck());
            state.image_lost |= stuck.is_some_and(|reason| reason.kind == ReasonKind::Image);
            match (stuck, state.stuck) {
                (None, _) => state.stuck = None,
                (Some(stuck), Some((revision, since))) if revision == effective.number => {
                    let until = since + context.options.patience;
                    if context.now < until {
                        outcome.wake_at = Some(until);
                    } else if stuck.kind != ReasonKind::Quota {
                        // What a quota keeps out is nothing wrong with the revision: it comes once there is room.
                        let text = stuck.text.clone();
                        give_up(context, state, target, stable, &text, &mut notices, &mut outcome);
                    }
                }
                (Some(_), _) => {
                    state.stuck = Some((effective.number, context.now));
                    outcome.wake_at = Some(context.now + context.options.patience);
                }
            }
            (Rollout::Progressing { available, wanted }, reason.map(|reason| reason.text))
        }
    };
    let service_key = ObjectKey { group: String::new(), kind: "Service".to_owned(), ..deployment_key };
    let only: Vec<&Value> = pods.iter().map(|(pod, _)| *pod).collect();
    let live = context.known.objects.get(&service_key).copied();
    let own = || address(&spec.exposure, &spec.namespace, live, &only);
    // Behind a gateway that is reached from outside, that is the way in.
    let through = context.gateway_address.clone().filter(|at| {
        spec.gateway().is_some() && spec.exposure == Exposure::ClusterIp && at.reach != Reach::Cluster
    });
    let address = through.or_else(own);
    state.address.clone_from(&address);
    let no_address = address.is_none().then(|| {
        let uid = live.and_then(|live| live["metadata"]["uid"].as_str()).unwrap_or_default();
        no_address(&spec, live, context.known.events.get(uid).map_or(&[][..], Vec::as_slice))
    });
    if !state.settled {
        let until = state.applied_at + LAG;
        outcome.wake_at = Some(outcome.wake_at.map_or(until, |at| at.min(until)));
    }
    let stuck_for = |(number, since): (u64, Duration)| {
        number == effective.number && context.now >= since + context.options.telling
    };
    let failing = match &rollout {
        Rollout::Stalled { reason, .. } => Some(reason.clone()),
        _ if state.stuck.is_some_and(stuck_for) => reason.clone(),
        _ => None,
    };
    if let Some((_, since)) = state.stuck {
        let until = since + context.options.telling;
        if until > context.now {
            outcome.wake_at = Some(outcome.wake_at.map_or(until, |at| at.min(until)));
        }
    }
    outcome.report = Some(ServiceReport {
        service: name.clone(),
        rollout,
        address,
        no_address,
        reason,
        failing,
        warnings: state.warnings.clone(),
    });
    outcome.notices = notices;
    outcome
}

fn progressing(available: u32, target: &Revision) -> Rollout {
    Rollout::Progressing { available, wanted: target.spec.replicas }
}

/// Of a service that is not looked at further. What runs of it goes on, where it did.
fn report(state: &State, name: &str, rollout: Rollout, reason: Option<String>, hopeless: bool) -> Outcome {
    let report = ServiceReport {
        service: name.to_owned(),
        failing: match &rollout {
            Rollout::Stalled { reason, .. } => Some(reason.clone()),
            _ => reason.clone().filter(|_| hopeless),
        },
        rollout,
        address: state.address.clone(),
        no_address: None,
        reason,
        warnings: state.warnings.clone(),
    };
    Outcome { report: Some(report), ..Outcome::default() }
}

fn refused(state: &State, name: &str, reason: String) -> Outcome {
    report(state, name, Rollout::Stalled { reason: reason.clone(), crashes: 0 }, Some(reason), true)
}

/// A failure of another revision is history; one that a former daemon saw is told by the Deployment.
fn remember_failure(state: &mut State, live: Option<&Value>, target: u64) {
    if state.failed.is_none()
        && let Some(text) = live.and_then(|live| live["metadata"]["annotations"][FAILED_ANNOTATION].as_str())
        && let Some((number, reason)) = text.split_once(": ")
        && let Ok(number) = number.parse()
        && state.forgiven != Some(number)
    {
        state.failed = Some((number, reason.to_owned()));
    }
    state.failed.take_if(|(number, _)| *number != target);
}

/// The stable revision is put back in the next pass, at once; without one, all that is left is to go on trying.
fn give_up(
    context: &Context<'_>,
    state: &mut State,
    target: &Revision,
    stable: Option<&Revision>,
    reason: &str,
    notices: &mut Vec<Notice>,
    outcome: &mut Outcome,
) {
    let Some(stable) = stable.filter(|stable| stable.number != target.number && state.failed.is_none())
    else {
        return;
    };
    state.failed = Some((target.number, reason.to_owned()));
    state.stuck = None;
    notices.push(Notice {
        subject: format!("service/{}", target.spec.name),
        kind: "rollout.failed",
        message: format!(
            "revision {} failed and revision {} is put back: {reason}",
            target.number, stable.number
        ),
    });
    outcome.wake_at = Some(context.now);
}

/// Applies what differs from what was applied, or from what is there. `false`: it failed a moment ago and waits, or it waits
/// for its turn.
async fn apply(
    context: &Context<'_>,
    spec: &ServiceDeployment,
    state: &mut State,
) -> Result<bool, ApplyError> {
    if spec.namespace != context.applier.cluster().namespace() {
        let reason = format!("`{}` is not the namespace of the engine", spec.namespace);
        return Err(RenderError::Contradiction { what: "namespace", reason }.into());
    }
    let failed = state.failed.clone();
    let render = || {
        let mut rendered = render_service(spec, context.caps)?;
        if let Some((number, reason)) = &failed {
            let deployments = rendered.objects.iter_mut().filter(|object| object.kind() == "Deployment");
            deployments.for_each(|object| {
                object.json_mut()["metadata"]["annotations"][FAILED_ANNOTATION] =
                    format!("{number}: {reason}").into();
            });
        }
        Ok(rendered)
    };
    let number = failed.as_ref().map(|(number, _)| *number);
    let input = serde_json::to_vec(&(spec, context.caps, number)).unwrap_or_default();
    apply_if_needed(context, names::hash(&input), state, render).await
}

async fn apply_if_needed(
    context: &Context<'_>,
    hash: String,
    state: &mut State,
    render: impl FnOnce() -> Result<Rendered, RenderError>,
) -> Result<bool, ApplyError> {
    if !state.take_over && state.tried == hash && state.retry_at.is_some_and(|at| at > context.now) {
        return Ok(false);
    }
    if !state.take_over && state.hash == hash && !state.marks.is_empty() {
        if is_as_applied(context, &state.marks) {
            state.settled = true;
            return Ok(true);
        }
        if !state.settled && context.now < state.applied_at + LAG {
            return Ok(true);
        }
    }
    let turn = context.turns.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
    if turn.is_err() {
        state.retry_at = None;
        return Ok(false);
    }
    state.tried.clone_from(&hash);
    let mut rendered = render()?;
    context.inventory.adopt(&mut rendered.objects).await?;
    // All names are looked at before anything is sent: what belongs to another gets no half of ours.
    let mut bases = Vec::with_capacity(rendered.objects.len());
    for object in &rendered.objects {
        let known = context.known.objects.get(&object.key()).copied();
        bases.push(context.applier.base(object, known).await?);
    }
    let mut marks = BTreeMap::new();
    for (object, base) in rendered.objects.iter().zip(&bases) {
        let options = ApplyOptions { force: state.take_over, ..ApplyOptions::default() };
        let applied = context.applier.send(object, base.as_ref(), options).await?;
        marks.insert(applied.key, applied.mark);
    }
    *state = State {
        hash,
        settled: is_as_applied(context, &marks),
        marks,
        applied_at: context.now,
        warnings: rendered.warnings,
        failed: state.failed.take(),
        stuck: state.stuck.take(),
        forgiven: state.forgiven,
        image_lost: state.image_lost,
        renew: state.renew,
        address: state.address.take(),
        ..State::default()
    };
    Ok(true)
}

/// Whether our copy shows every object as it was applied.
fn is_as_applied(context: &Context<'_>, marks: &BTreeMap<ObjectKey, Mark>) -> bool {
    marks.iter().all(|(key, mark)| context.known.objects.get(key).is_some_and(|live| Mark::of(live) == *mark))
}

impl State {
    /// What failed before counts no more.
    pub(super) fn try_again(&mut self) {
        self.renew = std::mem::take(&mut self.image_lost);
        self.refused = None;
        self.retry_at = None;
        self.failures = 0;
        self.stuck = None;
        if let Some((number, _)) = self.failed.take() {
            self.forgiven = Some(number);
        }
    }

    /// Fields that others own become ours with the next application, and that alone.
    pub(super) fn take_over(&mut self) {
        self.take_over = true;
    }

    /// Whether a node did not get its image.
    pub(super) fn image_lost(&self) -> bool {
        self.image_lost
    }

    /// The wait after one more failure.
    fn back_off(&mut self, context: &Context<'_>) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let doubled = context.options.retry_first.saturating_mul(1 << (self.failures - 1).min(16));
        let at = context.now + doubled.min(context.options.retry_most);
        self.retry_at = Some(at);
        at
    }

    /// An event, unless it is the one that was told last.
    fn tell(&mut self, subject: &str, kind: &'static str, message: String) -> Vec<Notice> {
        if self.error.as_deref() == Some(&message) {
            return Vec::new();
        }
        self.error = Some(message.clone());
        vec![Notice { subject: subject.to_owned(), kind, message }]
    }
}

fn failed_to_apply(
    context: &Context<'_>,
    state: &mut State,
    name: &str,
    target: &Revision,
    error: ApplyError,
) -> Outcome {
    if error.is_unreachable() {
        return Outcome { unreachable: Some(error), ..Outcome::default() };
    }
    let text = error.sentence();
    let transient = error.is_transient();
    state.take_over &= transient;
    // A server that has just started refuses what it allows a moment later.
    let telling = if error.is_refusal() { context.options.telling } else { Duration::ZERO };
    let at = *state.refused.get_or_insert(context.now + telling);
    let hopeless = !transient && at <= context.now;
    let mut outcome = report(state, name, progressing(0, target), Some(text.clone()), hopeless);
    if transient {
        state.refused = None;
    }
    // What was applied of it is looked at again as a whole.
    state.hash.clear();
    state.marks.clear();
    state.settled = false;
    let again = state.back_off(context);
    outcome.wake_at = Some(state.refused.filter(|at| *at > context.now).map_or(again, |at| again.min(at)));
    outcome.notices = state.tell(&format!("service/{name}"), "service.refused", text);
    outcome
}

/// Removes what the service's former revisions had and this one has not.
async fn prune(context: &Context<'_>, mapped: &str, name: &str, state: &State) -> Result<(), ApplyError> {
    if !state.settled {
        return Ok(());
    }
    let wanted: BTreeSet<ObjectKey> = state.marks.keys().cloned().collect();
    let own = own(context, mapped, name);
    for doomed in context.inventory.set().prune_all_but(own, &wanted) {
        context.inventory.delete(&doomed).await?;
    }
    Ok(())
}

fn own<'a>(context: &Context<'a>, mapped: &str, name: &'a str) -> impl Iterator<Item = &'a Value> {
    let all = context.known.by_service.get(mapped).map_or(&[][..], Vec::as_slice);
    all.iter().copied().filter(move |object| object["metadata"]["annotations"][NAME_ANNOTATION] == name)
}

async fn absent(context: &Context<'_>, name: &str) -> Outcome {
    let mut outcome = Outcome::default();
    let Ok(mapped) = names::map(name) else {
        outcome.forgotten = Some(name.to_owned());
        return outcome;
    };
    let members: Vec<&Value> =
        own(context, &mapped, name).filter(|object| context.inventory.set().has(object)).collect();
    for doomed in context.inventory.set().prune_all_but(members.iter().copied(), &BTreeSet::new()) {
        if let Err(error) = context.inventory.delete(&doomed).await {
            if error.is_unreachable() {
                outcome.unreachable = Some(error);
            } else {
                outcome.notices.push(Notice {
                    subject: format!("service/{name}"),
                    kind: "service.refused",
                    message: error.sentence(),
                });
            }
            outcome.wake_at = Some(context.now + context.options.retry_first);
            return outcome;
        }
    }
    if members.is_empty() && context.known.pods(&mapped).is_empty() {
        outcome.forgotten = Some(name.to_owned());
    } else {
        outcome.wake_at = Some(context.now + SOON);
    }
    outcome
}

/// The gateway of the namespace, or its removal.
pub(super) async fn gateway(context: &Context<'_>, mut state: State) -> (State, Outcome) {
    let mut outcome = Outcome::default();
    let notice = |message: String| Notice { subject: "gateway".to_owned(), kind: "gateway.refused", message };
    let spec = match context.publisher.gateway() {
        Ok(Some(Publication::Ready(spec))) => spec,
        Ok(Some(Publication::Underway(_))) => {
            outcome.wake_at = Some(context.now + SOON);
            return (state, outcome);
        }
        Ok(None) => {
            let doomed = context
                .inventory
                .set()
                .prune_all_but(context.known.by_gateway.iter().copied(), &BTreeSet::new());
            for one in doomed {
                match context.inventory.delete(&one).await {
                    Ok(_) => {}
                    Err(error) if error.is_unreachable() => outcome.unreachable = Some(error),
                    Err(error) => outcome.notices.push(notice(error.sentence())),
                }
            }
            return (State::default(), outcome);
        }
        Err(error) => {
            outcome.notices.push(notice(crate::apply::chain(&*error)));
            outcome.wake_at = Some(context.now + context.options.retry_most);
            return (state, outcome);
        }
    };
    let hash = names::hash(&serde_json::to_vec(&(&spec, context.caps)).unwrap_or_default());
    match apply_if_needed(context, hash, &mut state, || render_gateway(&spec, context.caps)).await {
        Ok(true) => outcome.address = gateway_address(context, &spec),
        Ok(false) => outcome.wake_at = state.retry_at,
        Err(error) if error.is_unreachable() => outcome.unreachable = Some(error),
        Err(error) => {
            state.take_over &= error.is_transient();
            outcome.wake_at = Some(state.back_off(context));
            outcome.notices = state.tell("gateway", "gateway.refused", error.sentence());
        }
    }
    (state, outcome)
}

fn gateway_address(context: &Context<'_>, spec: &GatewayDeployment) -> Option<Address> {
    let key = ObjectKey {
        group: String::new(),
        kind: "Service".to_owned(),
        namespace: spec.namespace.clone(),
        name: names::map(&spec.name).ok()?,
    };
    let pods: Vec<&Value> = context.known.gateway_pods.clone();
    address(&spec.exposure, &spec.namespace, context.known.objects.get(&key).copied(), &pods)
}
