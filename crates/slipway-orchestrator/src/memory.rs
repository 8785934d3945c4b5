//! What the reconciler remembers of one service between passes.

use std::collections::BTreeMap;
use std::time::Duration;

use slipway_types::container::ContainerId;
use slipway_types::service::ReplicaState;

use crate::plan::{Action, Notice};
use crate::policy::Policy;

/// What the reconciler remembers of one service between passes: back-off, what it has asked for and not seen yet.
///
/// A daemon that starts makes an empty one; running replicas are then adopted and back-off begins anew.
#[derive(Clone, Debug, Default)]
pub struct ServiceMemory {
    pub(crate) restarts: u64,
    pub(crate) slots: BTreeMap<(u64, u32), SlotMemory>,
    pub(crate) replicas: BTreeMap<ContainerId, ReplicaMemory>,
    pub(crate) rollout: RolloutMemory,
    /// Notices that arose outside a pass.
    pub(crate) notices: Vec<Notice>,
    /// The completion of the rollout was told in a notice.
    pub(crate) completed: bool,
}

/// Back-off of one slot of one revision.
#[derive(Clone, Debug, Default)]
pub(crate) struct SlotMemory {
    /// Crashes in a row.
    pub crashes: u32,
    /// Replicas in a row that ended, or could not be started, before they were ready.
    pub failed_starts: u32,
    /// How the last of these ended.
    pub why: String,
    /// No start before this.
    pub not_before: Duration,
    /// A start was asked for then and its replica is not observed yet.
    pub starting: Option<Duration>,
}

/// One replica that was observed.
#[derive(Clone, Debug)]
pub(crate) struct ReplicaMemory {
    pub revision: u64,
    pub slot: u32,
    pub state: ReplicaState,
    /// It took requests once: before it ends it is `Draining`, which does not say so.
    pub was_ready: bool,
    /// When it was first observed in this state.
    pub since: Duration,
    /// Order of first observation: later is newer.
    pub first_seen: Duration,
    /// Since when it says that its model cannot be loaded, and why.
    pub load_failed: Option<(Duration, String)>,
    /// Why it was told to end, if it was.
    pub ending: Option<Ending>,
    /// The last step asked for, and when it is asked for again if its effect is not observed.
    pub asked: Option<(Step, Duration)>,
}

/// Why a replica was told to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It is not needed: its end is no crash.
    Retired,
    /// It did not get ready, or answered no more: its end counts as a crash.
    Sick,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Drain,
    Stop,
    Remove,
}

/// How the rollout of the declared revision goes.
#[derive(Clone, Debug, Default)]
pub(crate) struct RolloutMemory {
    /// The declared revision that this is about.
    pub revision: u64,
    /// Its crashes since it was declared, or since its rollout resumed.
    pub crashes: u32,
    /// When the last one was.
    pub last_crash: Duration,
    /// How the last one ended.
    pub reason: String,
    /// Its start was announced.
    pub announced: bool,
    /// That it stalled was announced.
    pub stalled: bool,
}

impl ServiceMemory {
    /// An empty memory of a service that had so many restarts before the daemon started.
    pub fn with_restarts(restarts: u64) -> Self {
        Self { restarts, ..Self::default() }
    }

    /// Replicas that were started in place of crashed ones.
    pub fn restarts(&self) -> u64 {
        self.restarts
    }

    /// Why the declared revision, by its number, does not come up: in one slot, as many of its replicas in a row as
    /// make a rollout stall ended before they were ready. Slots that start at once fail at once for one passing cause,
    /// so they are not counted together.
    pub fn failing(&self, policy: &Policy) -> Option<(u64, &str)> {
        let revision = self.rollout.revision;
        let slots = self.slots.range((revision, 0)..=(revision, u32::MAX)).map(|(_, slot)| slot);
        let worst = slots.max_by_key(|slot| slot.failed_starts)?;
        (worst.failed_starts >= policy.stall_after).then_some((revision, worst.why.as_str()))
    }

    /// A user asked for the service again, perhaps after mending what was outside of it: what failed before counts no
    /// more and waits for nothing.
    pub fn try_again(&mut self) {
        for slot in self.slots.values_mut() {
            *slot = SlotMemory { starting: slot.starting, ..SlotMemory::default() };
        }
    }

    /// The service is not to be: one that is declared under its name later has nothing to do with it.
    pub(crate) fn absent(&mut self) {
        self.rollout = RolloutMemory::default();
        self.slots.retain(|_, slot| slot.starting.is_some());
        self.try_again();
    }

    /// Tells that an action of the last plan failed. A failed start counts as a crash of its slot; other actions are
    /// issued again a second later.
    pub fn action_failed(&mut self, action: &Action, reason: &str, policy: &Policy, now: Duration) {
        match action {
            Action::Start(start) => {
                let (revision, slot) = (start.revision.number, start.slot);
                let wait = self.count_crash(revision, slot, reason, Life::NeverReady, policy, now);
                self.notices.push(Notice {
                    subject: format!("service/{}", start.revision.spec.name),
                    kind: "replica.start_failed",
                    message: format!(
                        "Replica {slot} of revision {revision} could not start ({}){}.",
                        first_line(reason),
                        next_start(wait)
                    ),
                });
            }
            Action::Drain { container } | Action::Stop { container, .. } | Action::Remove { container } => {
                if let Some(replica) = self.replicas.get_mut(container)
                    && let Some((_, again)) = &mut replica.asked
                {
                    *again = now + Duration::from_secs(1);
                }
            }
            // Decided again by the next pass.
            Action::CompleteRollout { .. } | Action::Forget { .. } => {}
        }
    }

    /// Counts a crash against a slot, and against the rollout of its revision. Gives the wait until the next start.
    pub(crate) fn count_crash(
        &mut self,
        revision: u64,
        slot: u32,
        reason: &str,
        life: Life,
        policy: &Policy,
        now: Duration,
    ) -> Duration {
        let memory = self.slots.entry((revision, slot)).or_default();
        memory.crashes = if life == Life::Healthy { 1 } else { memory.crashes.saturating_add(1) };
        memory.starting = None;
        let wait = policy.backoff(memory.crashes);
        memory.not_before = now + wait;
        if life == Life::NeverReady {
            memory.failed_starts = memory.failed_starts.saturating_add(1);
            reason.clone_into(&mut memory.why);
        }
        if revision == self.rollout.revision {
            self.rollout.crashes = self.rollout.crashes.saturating_add(1);
            self.rollout.last_crash = now;
            reason.clone_into(&mut self.rollout.reason);
        }
        wait
    }
}

/// What a replica that crashed had come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    NeverReady,
    Ready,
    /// Ready for [`Policy::healthy_after`].
    Healthy,
}

/// What of a reason goes into a sentence: tracebacks follow the first line.
pub(crate) fn first_line(reason: &str) -> &str {
    reason.lines().next().unwrap_or_default()
}

/// The end of a sentence about a crash: nothing when the next start is immediate.
pub(crate) fn next_start(wait: Duration) -> String {
    if wait.is_zero() { String::new() } else { format!("; the next start waits {} s", wait.as_secs_f64()) }
}
