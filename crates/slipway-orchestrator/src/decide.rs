//! How many replicas of which revision shall run, and which ones go.

use std::time::Duration;

use slipway_types::container::ContainerId;
use slipway_types::service::ReplicaState;

use crate::engine::Revision;
use crate::memory::ServiceMemory;
use crate::plan::Rollout;
use crate::policy::Policy;

/// A replica that runs and was not told to end.
#[derive(Clone, Debug)]
pub(crate) struct Live {
    pub container: ContainerId,
    pub revision: u64,
    pub slot: u32,
    pub ready: bool,
    /// Ready for [`Policy::min_ready`].
    pub available: bool,
    pub first_seen: Duration,
}

/// What a pass wants of replica counts.
#[derive(Debug, PartialEq)]
pub(crate) struct Wanted {
    /// Replicas of the declared revision to start, back-off permitting.
    pub start_target: u32,
    /// Replicas of the stable revision to start, back-off permitting.
    pub start_stable: u32,
    /// Replicas to retire.
    pub retire: Vec<ContainerId>,
    pub rollout: Rollout,
    /// Every replica is an available one of the declared revision.
    pub complete: bool,
}

/// Decides counts. `pending` gives, of a revision, the replicas that take a place without being live: starts that are
/// not observed yet, and sick ones that have not stopped.
pub(crate) fn decide(
    target: &Revision,
    stable: Option<&Revision>,
    live: &[Live],
    pending: impl Fn(u64) -> u32,
    memory: &ServiceMemory,
    policy: &Policy,
    now: Duration,
) -> Wanted {
    let wanted = target.spec.replicas;
    let older_stable = stable.filter(|stable| stable.number != target.number);
    let (mut new, mut old): (Vec<&Live>, Vec<&Live>) =
        live.iter().partition(|replica| replica.revision == target.number);
    let new_pending = pending(target.number);
    let old_pending = older_stable.map_or(0, |stable| pending(stable.number));
    let available = count(&new, |replica| replica.available);
    let new_count = count(&new, |_| true) + new_pending;
    let old_count = count(&old, |_| true) + old_pending;
    let in_rollout = old_count > 0 || older_stable.is_some();

    let crashes = memory.rollout.crashes;
    let calm = available > 0 && now.saturating_sub(memory.rollout.last_crash) >= policy.calm_after;
    let stalled = in_rollout && wanted > 0 && crashes >= policy.stall_after && !calm;

    let room = (wanted + policy.surge).saturating_sub(new_count + old_count);
    let mut start_target = wanted.saturating_sub(new_count);
    let mut start_stable = 0;
    if in_rollout {
        start_target = start_target.min(room);
        if stalled {
            start_target = start_target.min((available + 1).saturating_sub(new_count));
            if older_stable.is_some() {
                start_stable = wanted.saturating_sub(available).saturating_sub(old_count);
            }
        }
    }

    let mut retire = Vec::new();
    let old_ready = count(&old, |replica| replica.ready);
    let mut serving = available + old_ready;
    // The worst goes first: not ready, then of neither known revision, then the newest.
    let superseded = |replica: &Live| older_stable.is_none_or(|stable| stable.number != replica.revision);
    old.sort_by_key(|r| {
        (r.ready, !superseded(r), std::cmp::Reverse(r.first_seen), std::cmp::Reverse(r.slot))
    });
    let kept = if stalled { wanted + policy.surge } else { wanted };
    let mut surplus = (old_count + available).saturating_sub(kept);
    for replica in old {
        if surplus == 0 || (replica.ready && serving <= wanted) {
            continue;
        }
        surplus -= 1;
        serving -= u32::from(replica.ready);
        retire.push(replica.container.clone());
    }
    new.sort_by_key(|r| (r.available, r.ready, std::cmp::Reverse(r.first_seen), std::cmp::Reverse(r.slot)));
    let mut surplus = count(&new, |_| true).saturating_sub(wanted);
    for replica in new {
        if surplus == 0 || (replica.available && serving <= wanted) {
            continue;
        }
        surplus -= 1;
        serving -= u32::from(replica.available);
        retire.push(replica.container.clone());
    }

    let rollout = if stalled {
        Rollout::Stalled { reason: memory.rollout.reason.clone(), crashes }
    } else if in_rollout {
        Rollout::Progressing { available, wanted }
    } else {
        Rollout::Steady
    };
    let complete = wanted > 0 && old_count == 0 && available >= wanted;
    Wanted { start_target, start_stable, retire, rollout, complete }
}

/// Whether a replica in this state runs.
pub(crate) fn runs(state: ReplicaState) -> bool {
    matches!(state, ReplicaState::Starting | ReplicaState::Ready | ReplicaState::Unready)
}

fn count(replicas: &[&Live], which: impl Fn(&Live) -> bool) -> u32 {
    u32::try_from(replicas.iter().filter(|replica| which(replica)).count()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::revision;

    #[test]
    fn a_start_that_is_not_observed_yet_retires_nothing_that_serves() {
        let ready = |n: u8| Live {
            container: ContainerId::from_random([n; 12]),
            revision: 1,
            slot: u32::from(n),
            ready: true,
            available: true,
            first_seen: Duration::ZERO,
        };
        let (target, stable) = (revision("s", 2, 2), revision("s", 1, 2));
        let decided = decide(
            &target,
            Some(&stable),
            &[ready(0), ready(1)],
            |revision| u32::from(revision == 1),
            &ServiceMemory::default(),
            &Policy::default(),
            Duration::ZERO,
        );
        assert_eq!(decided.retire, []);
        assert_eq!((decided.start_target, decided.start_stable), (0, 0), "the surge is taken");
    }
}
