//! Scenarios with simulated replicas and a virtual clock.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use slipway_types::Digest;
use slipway_types::container::ContainerId;
use slipway_types::model::ModelFormat;
use slipway_types::service::{Address, ReplicaState, RoutingTable, ServiceSpec};

use crate::contract::{self, replicas::Harness};
use crate::fake::{Behaviour, FakeReplicas};
use crate::reconciling::settle;
use crate::{
    Absence, Action, Desired, Engine, ModelPin, ObservedReplica, Plan, Policy, Reconciling, Replicas,
    Revision, Rollout, RouteLimits, ServedService, ServiceMemory, StartReplica, routes, unknown_services,
};

pub(crate) fn revision(service: &str, number: u64, replicas: u32) -> Revision {
    Revision {
        number,
        spec: ServiceSpec { name: service.into(), model: "m".into(), replicas, ..ServiceSpec::default() },
        image_id: Digest::from_sha256([1; 32]),
        model: Some(ModelPin {
            manifest: Digest::from_sha256([2; 32]),
            format: ModelFormat::Onnx,
            labels: Vec::new(),
        }),
    }
}

/// One service, its replicas and a clock; `tick` reconciles and applies.
pub(crate) struct World {
    pub engine: FakeReplicas,
    pub memory: ServiceMemory,
    pub policy: Policy,
    pub desired: Desired,
    pub kinds: Vec<&'static str>,
    pub last: Option<Plan>,
    pub forgotten: bool,
    /// When a start was asked for, with its revision and slot.
    pub starts: Vec<(Duration, u64, u32)>,
}

impl World {
    pub fn new(replicas: u32) -> Self {
        Self {
            engine: FakeReplicas::new(),
            memory: ServiceMemory::default(),
            policy: Policy::default(),
            desired: Desired::Present { target: revision("s", 1, replicas), stable: None, restarts: 0 },
            kinds: Vec::new(),
            last: None,
            forgotten: false,
            starts: Vec::new(),
        }
    }

    pub fn declare(&mut self, number: u64, replicas: u32) {
        if let Desired::Present { target, .. } = &mut self.desired {
            *target = revision("s", number, replicas);
        }
    }

    pub fn tick(&mut self) {
        let now = self.engine.now();
        let observed = self.engine.list().unwrap();
        let plan = settle(&self.engine, &self.desired, &observed, &mut self.memory, &self.policy, now);
        self.kinds.extend(plan.notices.iter().map(|notice| notice.kind));
        for action in &plan.actions {
            match action {
                Action::Start(start) => self.starts.push((now, start.revision.number, start.slot)),
                Action::CompleteRollout { revision } => {
                    if let Desired::Present { target, stable, .. } = &mut self.desired {
                        assert_eq!(target.number, *revision);
                        *stable = Some(target.clone());
                    }
                }
                Action::Forget { .. } => self.forgotten = true,
                Action::Drain { .. } | Action::Stop { .. } | Action::Remove { .. } => {}
            }
        }
        self.last = Some(plan);
    }

    pub fn run(&mut self, time: Duration) {
        let until = self.engine.now() + time;
        while self.engine.now() < until {
            self.tick();
            self.engine.advance(Duration::from_millis(250));
        }
        self.tick();
    }

    pub fn count(&self, revision: u64, state: ReplicaState) -> usize {
        self.engine.list().unwrap().iter().filter(|r| r.revision == revision && r.state == state).count()
    }

    pub fn any(&self, revision: u64, state: ReplicaState) -> ContainerId {
        let all = self.engine.list().unwrap();
        all.into_iter().find(|r| r.revision == revision && r.state == state).unwrap().container
    }

    pub fn happened(&self, kind: &str) -> usize {
        self.kinds.iter().filter(|k| **k == kind).count()
    }
}

pub(crate) const SECOND: Duration = Duration::from_secs(1);

#[test]
fn starts_the_declared_number_and_completes_once() {
    let mut world = World::new(3);
    world.run(20 * SECOND);
    assert_eq!(world.count(1, ReplicaState::Ready), 3);
    assert_eq!(world.engine.starts(), 3);
    assert_eq!(world.happened("rollout.completed"), 1);
    assert!(matches!(&world.desired, Desired::Present { stable: Some(stable), .. } if stable.number == 1));
    let plan = world.last.unwrap();
    assert_eq!((plan.actions, plan.wake_at, plan.rollout), (vec![], None, Rollout::Steady));
}

#[test]
fn starts_at_most_four_at_once() {
    let mut world = World::new(10);
    world.tick();
    assert_eq!(world.engine.starts(), 4);
    world.tick();
    assert_eq!(world.engine.starts(), 4, "four still start");
    world.run(10 * SECOND);
    assert_eq!(world.count(1, ReplicaState::Ready), 10);
}

#[test]
fn a_crash_is_restarted_at_once_then_with_growing_waits() {
    let mut world = World::new(1);
    let crashing = Behaviour { crash_after: Some(Duration::ZERO), ready_after: None, ..Behaviour::default() };
    world.engine.behave("s", 1, crashing);
    world.run(400 * SECOND);
    let times: Vec<f64> = world.starts.iter().map(|(at, ..)| at.as_secs_f64()).collect();
    let waits: Vec<u64> = times.windows(2).map(|pair| (pair[1] - pair[0]) as u64).collect();
    assert_eq!(waits[..8], [0, 1, 2, 4, 8, 16, 32, 60], "{times:?}");
    assert!(waits[8..].iter().all(|wait| *wait == 60));
    assert_eq!(world.memory.restarts(), times.len() as u64 - 1);
    assert_eq!(world.happened("replica.starting"), 1);
}

#[test]
fn ten_healthy_minutes_reset_the_back_off() {
    let mut world = World::new(1);
    world.run(10 * SECOND);
    for _ in 0..4 {
        world.engine.crash(&world.any(1, ReplicaState::Ready));
        world.run(30 * SECOND);
    }
    assert_eq!(world.memory.slots[&(1, 0)].crashes, 4);
    world.run(601 * SECOND);
    world.engine.crash(&world.any(1, ReplicaState::Ready));
    world.tick();
    assert_eq!(world.memory.slots[&(1, 0)].crashes, 1);
    assert_eq!(world.starts.last().unwrap().0, world.engine.now(), "the first restart is immediate");
}

#[test]
fn a_start_that_fails_in_the_engine_backs_off_and_is_reported() {
    let mut world = World::new(1);
    world.engine.behave("s", 1, Behaviour { start_fails: true, ..Behaviour::default() });
    world.run(8 * SECOND);
    assert_eq!(world.starts.len(), 5, "at 0, 0, 1, 3, 7 s: {:?}", world.starts);
    assert!(world.happened("replica.start_failed") >= 4);
    world.engine.behave("s", 1, Behaviour::default());
    world.run(20 * SECOND);
    assert_eq!(world.count(1, ReplicaState::Ready), 1);
}

#[test]
fn a_replica_that_never_gets_ready_is_stopped_and_counts_as_crashed() {
    let mut world = World::new(1);
    world.engine.behave("s", 1, Behaviour { ready_after: None, ..Behaviour::default() });
    world.run(301 * SECOND);
    assert_eq!(world.happened("replica.timed_out"), 1);
    assert_eq!(world.happened("replica.crashed"), 1);
    assert_eq!(world.memory.restarts(), 1);
}

#[test]
fn a_replica_that_answers_no_more_is_replaced() {
    let mut world = World::new(2);
    world.run(10 * SECOND);
    let sick = world.any(1, ReplicaState::Ready);
    world.engine.set_unready(&sick, true);
    world.run(30 * SECOND);
    world.engine.set_unready(&sick, false);
    world.run(5 * SECOND);
    assert_eq!(world.engine.starts(), 2, "one that recovers stays");
    world.engine.set_unready(&sick, true);
    world.run(70 * SECOND);
    assert_eq!(world.engine.starts(), 3);
    assert_eq!(world.count(1, ReplicaState::Ready), 2);
    assert!(world.engine.list().unwrap().iter().all(|replica| replica.container != sick));
}

#[test]
fn scales_down_the_unready_first_then_the_newest() {
    let mut world = World::new(3);
    world.run(10 * SECOND);
    world.declare(1, 4);
    world.run(10 * SECOND);
    let oldest: Vec<_> = world.engine.list().unwrap().into_iter().take(3).map(|r| r.container).collect();
    world.engine.set_unready(&oldest[0], true);
    world.run(SECOND);
    world.declare(1, 2);
    world.run(10 * SECOND);
    let left: Vec<_> = world.engine.list().unwrap().into_iter().map(|r| r.container).collect();
    assert_eq!(left, oldest[1..], "the unready one and the newest are gone");
    assert_eq!((world.happened("replica.crashed"), world.memory.restarts()), (0, 0));
    world.declare(1, 0);
    world.run(10 * SECOND);
    assert_eq!(world.engine.list().unwrap(), []);
}

#[test]
fn a_rollout_replaces_one_by_one_and_never_serves_with_fewer() {
    let mut world = World::new(3);
    world.run(20 * SECOND);
    world.declare(2, 3);
    for _ in 0..400 {
        world.tick();
        let all = world.engine.list().unwrap();
        let ready = all.iter().filter(|r| r.state == ReplicaState::Ready).count();
        let live = all.iter().filter(|r| crate::decide::runs(r.state)).count();
        assert!(ready >= 3, "{all:?}");
        assert!(live <= 4, "a surge of one: {all:?}");
        world.engine.advance(Duration::from_millis(250));
    }
    assert_eq!((world.count(2, ReplicaState::Ready), world.engine.list().unwrap().len()), (3, 3));
    assert_eq!((world.happened("rollout.started"), world.happened("rollout.completed")), (1, 2));
}

#[test]
fn a_rollout_that_keeps_failing_stays_on_the_old_revision_and_says_why() {
    let mut world = World::new(2);
    world.run(20 * SECOND);
    let failing = Behaviour { ready_after: None, crash_after: Some(SECOND), ..Behaviour::default() };
    world.engine.behave("s", 2, failing);
    world.declare(2, 2);
    world.run(60 * SECOND);
    assert_eq!(world.count(1, ReplicaState::Ready), 2);
    let Rollout::Stalled { reason, crashes } = world.last.clone().unwrap().rollout else {
        panic!("{:?}", world.last)
    };
    assert_eq!(reason, "exited with code 1");
    assert!(crashes >= 3);
    assert_eq!(world.happened("rollout.stalled"), 1);

    world.engine.crash(&world.any(1, ReplicaState::Ready));
    world.run(10 * SECOND);
    assert_eq!(world.count(1, ReplicaState::Ready), 2, "the old revision is kept at its number");

    world.engine.behave("s", 2, Behaviour::default());
    world.run(300 * SECOND);
    assert_eq!(world.happened("rollout.resumed"), 1);
    assert_eq!((world.count(2, ReplicaState::Ready), world.engine.list().unwrap().len()), (2, 2));
}

#[test]
fn a_rollout_over_a_broken_revision_goes_through() {
    let mut world = World::new(2);
    world.engine.behave("s", 1, Behaviour { ready_after: None, ..Behaviour::default() });
    world.run(10 * SECOND);
    world.declare(2, 2);
    world.run(60 * SECOND);
    assert_eq!((world.count(2, ReplicaState::Ready), world.engine.list().unwrap().len()), (2, 2));
}

#[test]
fn going_back_to_the_stable_revision_drops_the_new_one() {
    let mut world = World::new(2);
    world.run(20 * SECOND);
    world.engine.behave("s", 2, Behaviour { ready_after: None, ..Behaviour::default() });
    world.declare(2, 2);
    world.run(20 * SECOND);
    world.declare(1, 2);
    world.run(20 * SECOND);
    assert_eq!((world.count(1, ReplicaState::Ready), world.engine.list().unwrap().len()), (2, 2));
    assert_eq!(world.last.unwrap().rollout, Rollout::Steady);
}

#[test]
fn deletion_drains_stops_removes_and_forgets_once() {
    let mut world = World::new(2);
    world.run(20 * SECOND);
    world.desired = Desired::Absent { service: "s".into(), why: Absence::Deleted };
    world.tick();
    assert_eq!(world.count(1, ReplicaState::Draining), 2);
    world.engine.advance(Duration::from_millis(500));
    world.tick();
    assert_eq!(world.last.as_ref().unwrap().actions, [], "gateways get time to read the new table");
    assert_eq!(world.last.as_ref().unwrap().wake_at, Some(world.engine.now() + SECOND));
    world.run(9 * SECOND);
    assert_eq!(world.engine.list().unwrap(), []);
    assert!(world.forgotten);
    assert_eq!((world.happened("replica.crashed"), world.happened("replica.stopped")), (0, 2));
}

#[test]
fn a_new_daemon_adopts_what_runs_and_finishes_what_drains() {
    let mut world = World::new(3);
    world.run(20 * SECOND);
    let draining = world.any(1, ReplicaState::Ready);
    world.engine.drain(&draining).unwrap();
    world.memory = ServiceMemory::with_restarts(7);
    world.run(10 * SECOND);
    assert_eq!(world.engine.starts(), 4, "two adopted, one in place of the draining one");
    assert_eq!((world.happened("replica.adopted"), world.memory.restarts()), (3, 7));
    assert!(world.engine.list().unwrap().iter().all(|replica| replica.container != draining));
}

#[test]
fn after_a_machine_restart_everything_declared_starts_again() {
    let mut world = World::new(2);
    world.run(20 * SECOND);
    for replica in world.engine.list().unwrap() {
        world.engine.crash(&replica.container);
    }
    world.memory = ServiceMemory::default();
    world.tick();
    assert_eq!(world.engine.starts(), 4);
    world.run(5 * SECOND);
    assert_eq!((world.count(1, ReplicaState::Ready), world.engine.list().unwrap().len()), (2, 2));
    assert_eq!(world.happened("replica.crashed"), 0);
}

#[test]
fn a_replica_that_vanishes_counts_as_crashed() {
    let mut world = World::new(1);
    world.run(10 * SECOND);
    world.engine.lose(&world.any(1, ReplicaState::Ready));
    world.run(5 * SECOND);
    assert_eq!((world.count(1, ReplicaState::Ready), world.happened("replica.crashed")), (1, 1));
}

#[test]
fn a_failed_stop_is_tried_again_soon_and_a_pending_one_is_not_repeated() {
    let mut world = World::new(1);
    let slow = Behaviour { ends_after: Some(20 * SECOND), ..Behaviour::default() };
    world.engine.behave("s", 1, slow);
    world.run(10 * SECOND);
    world.declare(1, 0);
    let mut stops = 0;
    for _ in 0..40 {
        world.tick();
        let plan = world.last.as_ref().unwrap();
        stops += plan.actions.iter().filter(|action| matches!(action, Action::Stop { .. })).count();
        world.engine.advance(SECOND / 4);
    }
    assert_eq!(stops, 1);
    let stop =
        Action::Stop { container: world.any(1, ReplicaState::Draining), grace: world.policy.stop_grace };
    world.memory.action_failed(&stop, "no such process", &world.policy, world.engine.now());
    world.tick();
    assert_eq!(world.last.as_ref().unwrap().actions, []);
    world.engine.advance(SECOND);
    world.tick();
    assert_eq!(world.last.as_ref().unwrap().actions, [stop]);
}

#[test]
fn unknown_services_are_found_and_drained() {
    let mut world = World::new(1);
    world.run(10 * SECOND);
    let observed = world.engine.list().unwrap();
    assert!(unknown_services(["s"], &observed).is_empty());
    assert_eq!(unknown_services(["other"], &observed), ["s".to_owned()].into());
    world.memory = ServiceMemory::default();
    world.desired = Desired::Absent { service: "s".into(), why: Absence::Unknown };
    world.run(10 * SECOND);
    assert_eq!(world.engine.list().unwrap(), []);
    assert_eq!(world.happened("orphan.draining"), 1);
}

#[test]
fn routes_hold_ready_replicas_and_count_generations() {
    let replica = |service: &str, n: u8, state, socket: bool| ObservedReplica {
        container: ContainerId::from_random([n; 12]),
        service: service.into(),
        revision: u64::from(n),
        slot: 0,
        state,
        started_at: None,
        reason: None,
        load_failed: false,
        socket: socket.then(|| format!("/{n}").into()),
    };
    let observed = [
        replica("b", 9, ReplicaState::Ready, true),
        replica("b", 2, ReplicaState::Ready, true),
        replica("b", 3, ReplicaState::Ready, false),
        replica("b", 4, ReplicaState::Starting, true),
        replica("b", 5, ReplicaState::Unready, true),
        replica("b", 6, ReplicaState::Draining, true),
        replica("b", 7, ReplicaState::Stopped, true),
        replica("gone", 8, ReplicaState::Ready, true),
    ];
    let services = [ServiceSpec { max_body: Some(5), ..revision("b", 1, 2).spec }, revision("a", 1, 0).spec];
    let limits = RouteLimits { max_body: 9, timeout_ms: 8, concurrency_per_replica: 7 };
    let labels = BTreeMap::from([(1, vec!["new".to_owned()]), (2, vec!["old".to_owned(), "eu".to_owned()])]);
    let services = || services.iter().map(|spec| ServedService { spec, revision: 1, labels: labels.clone() });
    let table = routes(services(), &observed, &limits, &RoutingTable::default());
    assert_eq!(table.generation, 1);
    let [a, b] = &table.services[..] else { panic!("{table:?}") };
    assert_eq!((a.service.as_str(), a.backends.len(), a.max_body, a.max_concurrency), ("a", 0, 9, 7));
    assert_eq!((b.service.as_str(), b.max_body, b.timeout_ms, b.max_concurrency), ("b", 5, 8, 14));
    let addresses: Vec<_> = b.backends.iter().map(|backend| backend.address.clone()).collect();
    assert_eq!(addresses, ["/2", "/9"].map(|path| Address::Socket(path.into())));
    let of_replicas: Vec<_> = b.backends.iter().map(|backend| backend.labels.join(" ")).collect();
    assert_eq!(of_replicas, ["old eu", ""], "of each one's own revision, and none of a third one");
    assert_eq!((a.labels.join(" "), b.labels.join(" ")), ("new".to_owned(), "eu new old".to_owned()));
    assert_eq!(routes(services(), &observed, &limits, &table), table, "nothing changed");
    assert_eq!(routes(services(), &observed[1..], &limits, &table).generation, 2);
}

/// The fake replicas pass the suite that the real ones pass.
struct FakeHarness(Arc<FakeReplicas>);

impl Harness for FakeHarness {
    fn replicas(&self) -> &dyn Replicas {
        &*self.0
    }

    fn good(&self, service: &str, number: u64, slot: u32) -> StartReplica {
        StartReplica { revision: revision(service, number, 1), slot }
    }

    fn failing(&self, service: &str) -> StartReplica {
        self.with(service, Behaviour { ready_after: None, crash_after: Some(SECOND), ..Behaviour::default() })
    }

    fn stubborn(&self, service: &str) -> StartReplica {
        self.with(service, Behaviour { ends_after: None, ..Behaviour::default() })
    }

    fn without_image(&self, service: &str) -> StartReplica {
        self.with(service, Behaviour { start_fails: true, ..Behaviour::default() })
    }

    fn kill(&self, container: &ContainerId) {
        self.0.crash(container);
    }

    fn pass_time(&self) {
        self.0.advance(SECOND / 4);
    }

    fn reopen(self) -> Self {
        self
    }
}

impl FakeHarness {
    fn with(&self, service: &str, behaviour: Behaviour) -> StartReplica {
        self.0.behave(service, 1, behaviour);
        self.good(service, 1, 0)
    }
}

#[test]
fn the_fake_replicas_keep_the_contract() {
    contract::replicas::run(|| FakeHarness(Arc::new(FakeReplicas::new())));
}

/// The engine over the fake replicas passes the suite that the real ones pass, in virtual time.
struct EngineHarness {
    replicas: Arc<FakeReplicas>,
    engine: Reconciling<Arc<FakeReplicas>>,
}

impl EngineHarness {
    fn over(replicas: Arc<FakeReplicas>) -> Self {
        Self { engine: Reconciling::new(Arc::clone(&replicas), Policy::default()), replicas }
    }

    fn with(&self, service: &str, number: u64, replicas: u32, behaviour: Behaviour) -> Revision {
        self.replicas.behave(service, number, behaviour);
        revision(service, number, replicas)
    }
}

impl contract::engine::Harness for EngineHarness {
    fn engine(&self) -> &dyn Engine {
        &self.engine
    }

    fn good(&self, service: &str, number: u64, replicas: u32) -> Revision {
        self.with(service, number, replicas, Behaviour::default())
    }

    fn failing(&self, service: &str, number: u64, replicas: u32) -> Revision {
        let failing = Behaviour { ready_after: None, crash_after: Some(SECOND), ..Behaviour::default() };
        self.with(service, number, replicas, failing)
    }

    fn impossible(&self, service: &str, number: u64, replicas: u32) -> Revision {
        let impossible = Behaviour { start_fails: true, ..Behaviour::default() };
        self.with(service, number, replicas, impossible)
    }

    fn kill(&self, replica: &ContainerId) {
        self.replicas.crash(replica);
    }

    fn now(&self) -> Duration {
        self.replicas.now()
    }

    fn pass_time(&self) {
        self.replicas.advance(SECOND / 4);
    }

    fn reopen(self) -> Self {
        Self::over(self.replicas)
    }
}

#[test]
fn the_reconciling_engine_keeps_the_contract() {
    contract::engine::run(|| EngineHarness::over(Arc::new(FakeReplicas::new())));
}

#[test]
fn an_engine_wakes_for_the_service_that_is_due_first() {
    let engine = EngineHarness::over(Arc::new(FakeReplicas::new()));
    let one = |service, replicas| Desired::Present {
        target: revision(service, 1, replicas),
        stable: None,
        restarts: 0,
    };
    let desired = [one("a", 1), one("b", 0)];
    let pass = |now| engine.engine.pass(&desired, now, &mut |_| Ok(())).unwrap();
    pass(Duration::ZERO);
    engine.replicas.advance(SECOND);
    pass(SECOND);
    let calm = pass(SECOND);
    assert_eq!((calm.busy, calm.wake_at), (false, Some(6 * SECOND)), "when the replica counts as available");
}

#[test]
fn a_model_that_cannot_be_loaded_is_told_long_before_a_slow_one_would_be() {
    let mut world = World::new(2);
    world.run(20 * SECOND);
    assert_eq!(world.memory.failing(&world.policy), None);
    let broken = Behaviour {
        ready_after: None,
        load_fails: Some("TypeError: no\n  File \"serve.py\", line 1".to_owned()),
        ..Behaviour::default()
    };
    world.engine.behave("s", 2, broken);
    world.declare(2, 2);
    world.run(30 * SECOND);
    assert_eq!(world.count(1, ReplicaState::Ready), 2, "the old revision serves");
    let (revision, reason) = world.memory.failing(&world.policy).unwrap();
    assert_eq!((revision, reason), (2, "TypeError: no\n  File \"serve.py\", line 1"));
    assert_eq!((world.happened("rollout.stalled"), world.happened("replica.timed_out")), (1, 0));
    assert!(world.happened("replica.load_failed") >= 3);

    world.engine.behave("s", 2, Behaviour::default());
    world.run(200 * SECOND);
    assert_eq!(world.count(2, ReplicaState::Ready), 2);
    assert_eq!(world.memory.failing(&world.policy), None, "one that got ready clears it");
}
