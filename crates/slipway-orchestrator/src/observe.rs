//! Takes observations into the memory: what is new, what changed, what crashed.

use std::collections::BTreeSet;
use std::time::Duration;

use slipway_types::container::ContainerId;
use slipway_types::service::ReplicaState;

use crate::engine::ObservedReplica;
use crate::memory::{Ending, Life, ReplicaMemory, ServiceMemory, first_line, next_start};
use crate::plan::Notice;
use crate::policy::Policy;

/// Brings `memory` up to date with what is observed and records what happened since the pass before.
pub(crate) fn observe(
    service: &str,
    observed: &[&ObservedReplica],
    memory: &mut ServiceMemory,
    policy: &Policy,
    now: Duration,
    notices: &mut Vec<Notice>,
) {
    let mut note = |kind: &'static str, message: String| {
        notices.push(Notice { subject: format!("service/{service}"), kind, message });
    };
    let present: BTreeSet<&ContainerId> = observed.iter().map(|replica| &replica.container).collect();
    let gone: Vec<ContainerId> = memory.replicas.keys().filter(|id| !present.contains(id)).cloned().collect();
    for id in gone {
        let Some(replica) = memory.replicas.remove(&id) else { continue };
        if replica.state != ReplicaState::Stopped {
            ended(&id, &replica, "its container is gone", memory, policy, now, &mut note);
        }
    }
    for replica in observed {
        let Some(known) = memory.replicas.get_mut(&replica.container) else {
            let slot = memory.slots.get_mut(&(replica.revision, replica.slot));
            let started_by_us = slot.is_some_and(|slot| slot.starting.take().is_some());
            let known = first_seen(replica, now);
            match (started_by_us, replica.state) {
                (true, ReplicaState::Stopped) => {
                    let reason = replica.reason.as_deref().unwrap_or("it ended at once");
                    ended(&replica.container, &known, reason, memory, policy, now, &mut note);
                }
                (false, state) if state != ReplicaState::Stopped => {
                    note(
                        "replica.adopted",
                        format!("{} was found running.", name(&replica.container, &known)),
                    );
                }
                _ => {}
            }
            memory.replicas.insert(replica.container.clone(), known);
            continue;
        };
        if !replica.load_failed && known.ending.is_none() {
            // It tries again, which may take longer than it had to say that it cannot.
            known.load_failed = None;
        } else if replica.load_failed && replica.state == ReplicaState::Starting {
            let reason = replica.reason.clone().unwrap_or_default();
            match &mut known.load_failed {
                Some((_, known)) => *known = reason,
                none => *none = Some((now, reason)),
            }
        }
        if known.state == replica.state {
            continue;
        }
        let before = known.clone();
        known.state = replica.state;
        known.was_ready |= took_requests(replica.state);
        known.since = now;
        match replica.state {
            ReplicaState::Stopped => {
                known.asked = None;
                let reason = replica.reason.as_deref().unwrap_or("its container ended");
                ended(&replica.container, &before, reason, memory, policy, now, &mut note);
            }
            ReplicaState::Ready => {
                known.load_failed = None;
                if let Some(slot) = memory.slots.get_mut(&(replica.revision, replica.slot)) {
                    slot.failed_starts = 0;
                }
                note("replica.ready", format!("{} is ready.", name(&replica.container, &before)));
            }
            ReplicaState::Unready => {
                let reason = first_line(replica.reason.as_deref().unwrap_or("its health check fails"));
                note(
                    "replica.unready",
                    format!("{} is not ready: {reason}.", name(&replica.container, &before)),
                );
            }
            ReplicaState::Starting | ReplicaState::Draining => {}
        }
    }
    for replica in memory.replicas.values() {
        let healthy =
            replica.state == ReplicaState::Ready && now.saturating_sub(replica.since) >= policy.healthy_after;
        if healthy && let Some(slot) = memory.slots.get_mut(&(replica.revision, replica.slot)) {
            slot.crashes = 0;
        }
    }
}

/// How a replica is called in messages.
pub(crate) fn name(container: &ContainerId, replica: &ReplicaMemory) -> String {
    format!("Replica {} of revision {} ({})", replica.slot, replica.revision, container.short())
}

fn first_seen(replica: &ObservedReplica, now: Duration) -> ReplicaMemory {
    ReplicaMemory {
        revision: replica.revision,
        slot: replica.slot,
        state: replica.state,
        was_ready: took_requests(replica.state),
        since: now,
        first_seen: now,
        load_failed: None,
        // The mark outlives the daemon; why it was set does not, and to retire is the usual reason.
        ending: (replica.state == ReplicaState::Draining).then_some(Ending::Retired),
        asked: None,
    }
}

/// Whether a replica in this state was ready, now or before.
fn took_requests(state: ReplicaState) -> bool {
    matches!(state, ReplicaState::Ready | ReplicaState::Unready)
}

/// Records the end of a replica. `last` is how it was known before it ended.
fn ended(
    container: &ContainerId,
    last: &ReplicaMemory,
    reason: &str,
    memory: &mut ServiceMemory,
    policy: &Policy,
    now: Duration,
    note: &mut impl FnMut(&'static str, String),
) {
    if last.ending == Some(Ending::Retired) {
        note("replica.stopped", format!("{} stopped.", name(container, last)));
        return;
    }
    let life = match last.state {
        _ if !last.was_ready => Life::NeverReady,
        ReplicaState::Ready if now.saturating_sub(last.since) >= policy.healthy_after => Life::Healthy,
        _ => Life::Ready,
    };
    // It was stopped for this; how its process ended then says nothing.
    let reason = last.load_failed.as_ref().map_or(reason, |(_, why)| why);
    let wait = memory.count_crash(last.revision, last.slot, reason, life, policy, now);
    let (name, why, wait) = (name(container, last), first_line(reason), next_start(wait));
    note("replica.crashed", format!("{name} crashed ({why}){wait}."));
}
