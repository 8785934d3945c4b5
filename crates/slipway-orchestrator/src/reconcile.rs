//! One pass over one service.

use std::collections::BTreeSet;
use std::time::Duration;

use slipway_types::service::ReplicaState;

use crate::decide::{Live, decide, runs};
use crate::engine::{ObservedReplica, Revision};
use crate::memory::{Ending, ReplicaMemory, RolloutMemory, ServiceMemory, Step, first_line};
use crate::observe::{name, observe};
use crate::plan::{Absence, Action, Desired, Notice, Plan, Rollout};
use crate::policy::Policy;
use crate::replicas::StartReplica;

/// Decides what to do about one service.
///
/// - A missing replica is started; after a crash at once, then with [`Policy::backoff`] between starts, per slot.
/// - A replica that stays `Starting` or `Unready` too long, or cannot load its model, is stopped, which counts as a
///   crash.
/// - Surplus replicas drain, those first that are not ready, then the newest.
/// - A new revision comes in by surge: one more replica is started, and once it is available an old one drains.
///   The number of ready replicas never falls below the declared one through this.
/// - A new revision whose replicas keep failing stalls: the stable one is kept at the declared number, and one new
///   replica at a time is tried. See [`Rollout::Stalled`].
/// - A replica that is to go drains, is stopped a moment later, and is removed once it ended.
/// - An action is not repeated while its effect may still show; see [`Policy::retry_after`].
///
/// `observed` may hold replicas of other services: they are ignored. `now` must not run backwards.
pub fn reconcile(
    desired: &Desired,
    observed: &[ObservedReplica],
    memory: &mut ServiceMemory,
    policy: &Policy,
    now: Duration,
) -> Plan {
    let service = desired.service();
    let observed: Vec<&ObservedReplica> = observed.iter().filter(|r| r.service == service).collect();
    let mut pass = Pass {
        subject: format!("service/{service}"),
        policy,
        now,
        actions: Vec::new(),
        notices: std::mem::take(&mut memory.notices),
        wake_at: None,
    };
    if let Desired::Present { target, .. } = desired
        && memory.rollout.revision != target.number
    {
        memory.rollout = RolloutMemory { revision: target.number, ..RolloutMemory::default() };
        memory.completed = false;
    }
    observe(service, &observed, memory, policy, now, &mut pass.notices);
    let rollout = match desired {
        Desired::Present { target, stable, .. } => pass.present(target, stable.as_ref(), memory),
        Desired::Absent { why, .. } => {
            pass.absent(service, *why, observed.is_empty(), memory);
            Rollout::Steady
        }
    };
    pass.advance_endings(memory);
    Plan { actions: pass.actions, notices: pass.notices, wake_at: pass.wake_at, rollout }
}

/// Names of services that have replicas and are not declared. Reconcile each with [`Absence::Unknown`].
pub fn unknown_services<'a>(
    declared: impl IntoIterator<Item = &'a str>,
    observed: &[ObservedReplica],
) -> BTreeSet<String> {
    let declared: BTreeSet<&str> = declared.into_iter().collect();
    observed.iter().filter(|r| !declared.contains(r.service.as_str())).map(|r| r.service.clone()).collect()
}

/// What one pass gathers.
struct Pass<'a> {
    subject: String,
    policy: &'a Policy,
    now: Duration,
    actions: Vec<Action>,
    notices: Vec<Notice>,
    wake_at: Option<Duration>,
}

impl Pass<'_> {
    fn present(
        &mut self,
        target: &Revision,
        stable: Option<&Revision>,
        memory: &mut ServiceMemory,
    ) -> Rollout {
        memory.slots.retain(|(revision, _), slot| {
            slot.starting.is_some()
                || *revision == target.number
                || stable.is_some_and(|s| s.number == *revision)
        });
        self.expire_starts(memory);
        let ready = |r: &&ReplicaMemory| r.revision == target.number && r.state == ReplicaState::Ready;
        if memory.replicas.values().filter(ready).count() >= target.spec.replicas as usize {
            // Slots that are not needed any more would say for ever that they fail.
            let slots = memory.slots.range_mut((target.number, 0)..=(target.number, u32::MAX));
            slots.for_each(|(_, slot)| slot.failed_starts = 0);
        }
        self.stop_sick(memory);
        let live = self.live(memory);
        // A sick replica keeps its place until it stopped: its replacement then waits out the back-off.
        let pending = |revision: u64| {
            let slots = memory.slots.range((revision, 0)..=(revision, u32::MAX));
            let starting = slots.filter(|(_, slot)| slot.starting.is_some()).count();
            let sick = memory.replicas.values().filter(|replica| {
                replica.revision == revision && runs(replica.state) && replica.ending == Some(Ending::Sick)
            });
            u32::try_from(starting + sick.count()).unwrap_or(u32::MAX)
        };
        let wanted = decide(target, stable, &live, pending, memory, self.policy, self.now);
        self.announce(target, &wanted.rollout, memory);
        for container in &wanted.retire {
            if let Some(replica) = memory.replicas.get_mut(container) {
                replica.ending = Some(Ending::Retired);
                let message = format!("{} is not needed any more and drains.", name(container, replica));
                self.note("replica.draining", message);
            }
        }
        // The stable revision first: while a rollout is stalled, it is the one that serves.
        if let Some(stable) = stable {
            self.start(stable, wanted.start_stable, memory);
        }
        self.start(target, wanted.start_target, memory);
        if wanted.complete && stable.is_none_or(|stable| stable.number != target.number) {
            self.complete(target, stable, memory);
        }
        wanted.rollout
    }

    fn absent(&mut self, service: &str, why: Absence, nothing_left: bool, memory: &mut ServiceMemory) {
        memory.absent();
        self.expire_starts(memory);
        let starting = memory.slots.values().any(|slot| slot.starting.is_some());
        if nothing_left && !starting {
            self.actions.push(Action::Forget { service: service.to_owned() });
            return;
        }
        let mut notices = Vec::new();
        for (container, replica) in &mut memory.replicas {
            if runs(replica.state) && replica.ending.is_none() {
                replica.ending = Some(Ending::Retired);
                let replica = name(container, replica);
                notices.push(match why {
                    Absence::Deleted => {
                        ("replica.draining", format!("{replica} drains: its service was deleted."))
                    }
                    Absence::Unknown => {
                        ("orphan.draining", format!("{replica} drains: no service `{service}` is declared."))
                    }
                });
            }
        }
        for (kind, message) in notices {
            self.note(kind, message);
        }
    }

    /// A start whose replica never showed counts as never asked; the engine returns the same replica if it has it.
    fn expire_starts(&mut self, memory: &mut ServiceMemory) {
        let limit = self.policy.retry_after.max(Duration::from_secs(60));
        for slot in memory.slots.values_mut() {
            if let Some(at) = slot.starting
                && self.due(Some(at + limit))
            {
                slot.starting = None;
            }
        }
    }

    fn stop_sick(&mut self, memory: &mut ServiceMemory) {
        for (container, replica) in &mut memory.replicas {
            if replica.ending.is_some() {
                continue;
            }
            let too_long = |limit: Duration, what: &str| {
                let tail = format!("{what} for {} s and is stopped.", limit.as_secs());
                (replica.since, limit, "replica.timed_out", tail)
            };
            let (since, limit, kind, tail) = match (replica.state, &replica.load_failed) {
                (ReplicaState::Starting, Some((since, why))) => {
                    let tail = format!("cannot load its model ({}) and is stopped.", first_line(why));
                    (*since, self.policy.load_limit, "replica.load_failed", tail)
                }
                (ReplicaState::Starting, None) => too_long(self.policy.start_limit, "did not get ready"),
                (ReplicaState::Unready, _) => too_long(self.policy.unready_limit, "was not ready"),
                _ => continue,
            };
            if !self.due(Some(since + limit)) {
                continue;
            }
            replica.ending = Some(Ending::Sick);
            self.note(kind, format!("{} {tail}", name(container, replica)));
        }
    }

    fn live(&mut self, memory: &ServiceMemory) -> Vec<Live> {
        let mut live = Vec::new();
        for (container, replica) in &memory.replicas {
            if !runs(replica.state) || replica.ending.is_some() {
                continue;
            }
            let ready = replica.state == ReplicaState::Ready;
            live.push(Live {
                container: container.clone(),
                revision: replica.revision,
                slot: replica.slot,
                ready,
                available: ready && self.due(Some(replica.since + self.policy.min_ready)),
                first_seen: replica.first_seen,
            });
        }
        live
    }

    /// Starts up to `count` replicas in the lowest free slots whose back-off has passed.
    fn start(&mut self, revision: &Revision, count: u32, memory: &mut ServiceMemory) {
        if count == 0 {
            return;
        }
        let taken: BTreeSet<u32> = memory
            .replicas
            .values()
            .filter(|r| r.revision == revision.number && r.state != ReplicaState::Stopped)
            .map(|r| r.slot)
            .chain(memory.slots.iter().filter_map(|((number, slot), memory)| {
                (*number == revision.number && memory.starting.is_some()).then_some(*slot)
            }))
            .collect();
        let starting = memory.replicas.values().filter(|r| r.state == ReplicaState::Starting).count()
            + memory.slots.values().filter(|slot| slot.starting.is_some()).count();
        let mut free = (self.policy.max_starting as usize).saturating_sub(starting);
        for slot in (0..).filter(|slot| !taken.contains(slot)).take(count as usize) {
            if free == 0 {
                return;
            }
            let (restart, wait_until) = memory
                .slots
                .get(&(revision.number, slot))
                .map_or((false, Duration::ZERO), |m| (m.crashes > 0, m.not_before));
            if !self.due(Some(wait_until)) {
                continue;
            }
            free -= 1;
            memory.slots.entry((revision.number, slot)).or_default().starting = Some(self.now);
            memory.restarts += u64::from(restart);
            let (kind, verb) = if restart {
                ("replica.restarting", "started again")
            } else {
                ("replica.starting", "started")
            };
            self.note(kind, format!("Replica {slot} of revision {} is {verb}.", revision.number));
            self.actions.push(Action::Start(Box::new(StartReplica { revision: revision.clone(), slot })));
        }
    }

    fn announce(&mut self, target: &Revision, rollout: &Rollout, memory: &mut ServiceMemory) {
        let number = target.number;
        match rollout {
            Rollout::Steady => {}
            Rollout::Progressing { .. } => {
                if !memory.rollout.announced {
                    self.note("rollout.started", format!("Revision {number} is rolled out."));
                } else if memory.rollout.stalled {
                    memory.rollout.crashes = 0;
                    self.note(
                        "rollout.resumed",
                        format!("Revision {number} is available; its rollout goes on."),
                    );
                }
                memory.rollout.announced = true;
                memory.rollout.stalled = false;
            }
            Rollout::Stalled { reason, crashes } => {
                if !memory.rollout.stalled {
                    self.note(
                        "rollout.stalled",
                        format!(
                            "Revision {number} keeps failing ({crashes} times, the last: {}); the revision before it stays.",
                            first_line(reason)
                        ),
                    );
                }
                memory.rollout.announced = true;
                memory.rollout.stalled = true;
                self.due(Some(memory.rollout.last_crash + self.policy.calm_after));
            }
        }
    }

    fn complete(&mut self, target: &Revision, stable: Option<&Revision>, memory: &mut ServiceMemory) {
        if !std::mem::replace(&mut memory.completed, true) {
            let message = match stable {
                Some(before) => {
                    format!("Revision {} has replaced revision {}.", target.number, before.number)
                }
                None => format!("Revision {} is available.", target.number),
            };
            self.note("rollout.completed", message);
        }
        self.actions.push(Action::CompleteRollout { revision: target.number });
    }

    /// Takes every replica that is to go one step further: drain, stop, remove.
    fn advance_endings(&mut self, memory: &mut ServiceMemory) {
        for (container, replica) in &mut memory.replicas {
            let step = match (replica.state, replica.ending) {
                (ReplicaState::Stopped, _) => Step::Remove,
                _ if replica.asked.is_some_and(|(asked, _)| asked == Step::Stop) => Step::Stop,
                // Neither takes requests, so there is nothing to drain.
                (ReplicaState::Starting, Some(_)) | (_, Some(Ending::Sick)) => Step::Stop,
                (ReplicaState::Draining, _) => {
                    if !self.due(Some(replica.since + self.policy.drain_delay)) {
                        continue;
                    }
                    Step::Stop
                }
                (_, Some(Ending::Retired)) => Step::Drain,
                (_, None) => continue,
            };
            if !self.due(replica.asked.filter(|(asked, _)| *asked == step).map(|(_, again)| again)) {
                continue;
            }
            let container = container.clone();
            let (action, effect_after) = match step {
                Step::Drain => (Action::Drain { container }, Duration::ZERO),
                Step::Stop => {
                    let grace = self.policy.stop_grace;
                    (Action::Stop { container, grace }, grace)
                }
                Step::Remove => (Action::Remove { container }, Duration::ZERO),
            };
            replica.asked = Some((step, self.now + effect_after + self.policy.retry_after));
            self.actions.push(action);
        }
    }

    /// Whether a moment has come; if it has not, the next pass is then at the latest.
    fn due(&mut self, at: Option<Duration>) -> bool {
        let Some(at) = at else { return true };
        if at <= self.now {
            return true;
        }
        self.wake_at = Some(self.wake_at.map_or(at, |wake| wake.min(at)));
        false
    }

    fn note(&mut self, kind: &'static str, message: String) {
        self.notices.push(Notice { subject: self.subject.clone(), kind, message });
    }
}
