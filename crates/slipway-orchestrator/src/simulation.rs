//! Random faults and declarations against invariants, and convergence once the faults end.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use slipway_types::service::ReplicaState;

use crate::decide::runs;
use crate::fake::Behaviour;
use crate::tests::World;
use crate::{Action, Desired, Replicas, ServiceMemory};

#[derive(Clone, Debug)]
enum Fault {
    /// Time passes.
    Nothing,
    Crash(usize),
    Lose(usize),
    Unready(usize, bool),
    DaemonRestart,
    Declare {
        new_revision: bool,
        replicas: u32,
    },
    /// How replicas of the newest revision behave from now on.
    Behave(Behaviour),
}

fn behaviours() -> impl Strategy<Value = Behaviour> {
    let millis = |range: std::ops::Range<u64>| range.prop_map(Duration::from_millis);
    (
        proptest::option::weighted(0.9, millis(0..8000)),
        proptest::option::weighted(0.2, millis(0..20_000)),
        proptest::option::weighted(0.8, millis(0..5000)),
        proptest::bool::weighted(0.1),
        proptest::bool::weighted(0.1),
    )
        .prop_map(|(ready_after, crash_after, ends_after, start_fails, load_fails)| Behaviour {
            ready_after,
            crash_after,
            ends_after,
            start_fails,
            load_fails: load_fails.then(|| "no module".to_owned()),
            loads_again_after: None,
        })
}

fn faults() -> impl Strategy<Value = Fault> {
    prop_oneof![
        8 => Just(Fault::Nothing),
        4 => any::<usize>().prop_map(Fault::Crash),
        1 => any::<usize>().prop_map(Fault::Lose),
        2 => (any::<usize>(), any::<bool>()).prop_map(|(which, unready)| Fault::Unready(which, unready)),
        1 => Just(Fault::DaemonRestart),
        2 => (any::<bool>(), 0u32..5).prop_map(|(new_revision, replicas)| Fault::Declare { new_revision, replicas }),
        1 => behaviours().prop_map(Fault::Behave),
    ]
}

/// A world with what the invariants need to remember.
struct Checked {
    world: World,
    revision: u64,
    replicas: u32,
    /// Actions that were issued and whose effect is not observed.
    pending: BTreeMap<String, Duration>,
}

impl Checked {
    fn new(replicas: u32) -> Self {
        Self { world: World::new(replicas), revision: 1, replicas, pending: BTreeMap::new() }
    }

    fn apply(&mut self, fault: &Fault) {
        let engine = &self.world.engine;
        let all = engine.list().unwrap();
        let pick = |which: usize| (!all.is_empty()).then(|| &all[which % all.len()].container);
        match fault {
            Fault::Nothing => {}
            Fault::Crash(which) => pick(*which).into_iter().for_each(|id| engine.crash(id)),
            Fault::Lose(which) => pick(*which).into_iter().for_each(|id| engine.lose(id)),
            Fault::Unready(which, unready) => {
                pick(*which).into_iter().for_each(|id| engine.set_unready(id, *unready));
            }
            Fault::DaemonRestart => {
                self.world.memory = ServiceMemory::default();
                self.world.starts.clear();
                self.pending.clear();
            }
            Fault::Declare { new_revision, replicas } => {
                self.revision += u64::from(*new_revision);
                self.replicas = *replicas;
                self.world.declare(self.revision, *replicas);
            }
            Fault::Behave(behaviour) => engine.behave("s", self.revision, behaviour.clone()),
        }
    }

    fn run(&mut self, time: Duration) {
        let until = self.world.engine.now() + time;
        while self.world.engine.now() < until {
            self.step();
            self.world.engine.advance(Duration::from_millis(500));
        }
    }

    fn step(&mut self) {
        let before = self.world.engine.list().unwrap();
        self.world.tick();
        let plan = self.world.last.clone().unwrap();
        let now = self.world.engine.now();

        // No retirement lowers the number of ready replicas below the declared one.
        let ready = before.iter().filter(|r| r.state == ReplicaState::Ready).count();
        let drained = plan
            .actions
            .iter()
            .filter(|action| {
                matches!(action, Action::Drain { container } if before
                .iter()
                .any(|r| r.container == *container && r.state == ReplicaState::Ready))
            })
            .count();
        if drained > 0 {
            assert!(ready - drained >= self.replicas as usize, "{ready} ready, {drained} drained");
        }

        // Nothing is asked for twice while its effect may still show.
        self.pending.retain(|_, until| *until > now);
        for action in &plan.actions {
            let (key, quiet) = match action {
                Action::Start(_) | Action::Forget { .. } | Action::CompleteRollout { .. } => continue,
                Action::Drain { container } => (format!("drain {container}"), self.world.policy.retry_after),
                Action::Stop { container, grace } => {
                    (format!("stop {container}"), *grace + self.world.policy.retry_after)
                }
                Action::Remove { container } => {
                    (format!("remove {container}"), self.world.policy.retry_after)
                }
            };
            assert!(self.pending.insert(key.clone(), now + quiet).is_none(), "{key} was repeated");
        }

        // A slot lives once, the surge is one, and only so many start at a time.
        let after = self.world.engine.list().unwrap();
        let mut slots = BTreeMap::new();
        for replica in after.iter().filter(|r| runs(r.state)) {
            *slots.entry((replica.revision, replica.slot)).or_insert(0) += 1;
        }
        assert!(slots.values().all(|n| *n == 1), "{slots:?}");
        let starting = after.iter().filter(|r| r.state == ReplicaState::Starting).count();
        let began = plan.actions.iter().any(|action| matches!(action, Action::Start(_)));
        assert!(!began || starting <= self.world.policy.max_starting as usize, "{after:?}");
    }

    /// No slot starts more often than its back-off allows, from a fresh memory on.
    fn check_back_off(&self) {
        let policy = &self.world.policy;
        let mut by_slot: BTreeMap<(u64, u32), Vec<Duration>> = BTreeMap::new();
        for (at, revision, slot) in &self.world.starts {
            by_slot.entry((*revision, *slot)).or_default().push(*at);
        }
        for ((revision, slot), starts) in by_slot {
            let Desired::Present { target, .. } = &self.world.desired else { continue };
            if revision != target.number {
                continue;
            }
            let crashes = self.world.memory.slots.get(&(revision, slot)).map_or(0, |slot| slot.crashes);
            let least: Duration = (1..crashes).map(|n| policy.backoff(n)).sum();
            let spent = self.world.engine.now() - starts[0];
            assert!(crashes < 2 || spent >= least, "{crashes} crashes in {spent:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn faults_break_no_invariant_and_the_service_converges(
        replicas in 0u32..5,
        script in vec((faults(), 0u64..12), 1..30),
        last in 1u32..5,
    ) {
        let mut checked = Checked::new(replicas);
        for (fault, seconds) in &script {
            checked.apply(fault);
            checked.run(Duration::from_secs(*seconds));
            checked.check_back_off();
        }
        // The faults end and a good revision is declared: it must come to serve, alone and in full.
        checked.apply(&Fault::Declare { new_revision: true, replicas: last });
        checked.run(Duration::from_secs(900));
        let all = checked.world.engine.list().unwrap();
        prop_assert_eq!(all.len(), last as usize, "{:?}", all);
        prop_assert!(all.iter().all(|r| r.revision == checked.revision && r.state == ReplicaState::Ready), "{:?}", all);
        let plan = checked.world.last.clone().unwrap();
        prop_assert!(plan.actions.is_empty(), "{:?}", plan);
        let Desired::Present { stable, .. } = &checked.world.desired else { unreachable!() };
        prop_assert_eq!(stable.as_ref().map(|stable| stable.number), Some(checked.revision));
    }

    #[test]
    fn the_same_inputs_give_the_same_plan(script in vec((faults(), 0u64..5), 1..12)) {
        let mut one = Checked::new(2);
        let mut two = Checked::new(2);
        for (fault, seconds) in &script {
            for checked in [&mut one, &mut two] {
                checked.apply(fault);
                checked.run(Duration::from_secs(*seconds));
            }
            prop_assert_eq!(&one.world.last, &two.world.last);
        }
    }

    #[test]
    fn a_pass_at_the_wake_up_time_is_enough(script in vec(faults(), 1..8)) {
        // Between passes nothing but time changes, so the plan must not have been different before `wake_at`.
        let mut checked = Checked::new(2);
        for fault in &script {
            checked.apply(fault);
            checked.run(Duration::from_secs(3));
            let plan = checked.world.last.clone().unwrap();
            let observed = checked.world.engine.list().unwrap();
            let now = checked.world.engine.now();
            let mut memory = checked.world.memory.clone();
            let settled = crate::reconcile(&checked.world.desired, &observed, &mut memory, &checked.world.policy, now);
            let Some(wake) = settled.wake_at else { continue };
            prop_assert!(wake > now, "{:?} {:?}", plan, settled);
            let early = wake - Duration::from_millis(1);
            if early > now && settled.actions.is_empty() {
                let again =
                    crate::reconcile(&checked.world.desired, &observed, &mut memory, &checked.world.policy, early);
                prop_assert!(again.actions.is_empty(), "{:?} before the wake-up", again.actions);
            }
        }
    }
}
