//! When a revision is said not to come up, and when that ends.

use crate::fake::Behaviour;
use crate::tests::{SECOND, World, revision};
use crate::{Absence, Desired};
use slipway_types::service::ReplicaState;

fn broken() -> Behaviour {
    Behaviour { ready_after: None, load_fails: Some("no module".to_owned()), ..Behaviour::default() }
}

fn failing(world: &World) -> Option<(u64, &str)> {
    world.memory.failing(&world.policy)
}

#[test]
fn a_replica_that_takes_its_time_to_end_was_still_never_ready() {
    let mut world = World::new(1);
    world.engine.behave("s", 1, Behaviour { ends_after: Some(SECOND), ..broken() });
    world.run(40 * SECOND);
    assert_eq!(failing(&world), Some((1, "no module")));
}

#[test]
fn what_was_ready_once_and_got_sick_does_come_up() {
    let mut world = World::new(1);
    world.engine.behave("s", 1, Behaviour { ends_after: Some(SECOND), ..Behaviour::default() });
    for _ in 0..4 {
        world.run(30 * SECOND);
        world.engine.set_unready(&world.any(1, ReplicaState::Ready), true);
        world.run(70 * SECOND);
    }
    assert!(world.happened("replica.crashed") >= 3);
    assert_eq!(failing(&world), None);
}

#[test]
fn a_service_does_not_inherit_from_a_deleted_one_of_its_name() {
    let mut world = World::new(1);
    world.engine.behave("s", 1, broken());
    world.run(60 * SECOND);
    assert!(failing(&world).is_some());
    world.desired = Desired::Absent { service: "s".into(), why: Absence::Deleted };
    world.tick();
    assert_eq!(failing(&world), None);
    world.run(10 * SECOND);
    assert!(world.forgotten);

    world.engine.behave("s", 1, Behaviour::default());
    world.desired = Desired::Present { target: revision("s", 1, 1), stable: None, restarts: 0 };
    let before = world.engine.starts();
    world.tick();
    assert_eq!((failing(&world), world.engine.starts()), (None, before + 1), "it waits for nothing");
    world.run(10 * SECOND);
    assert!(matches!(&world.desired, Desired::Present { stable: Some(_), .. }));
}

#[test]
fn one_fault_that_all_starts_of_a_wave_meet_is_one_in_a_row() {
    let mut world = World::new(4);
    world.engine.behave("s", 1, Behaviour { start_fails: true, ..Behaviour::default() });
    world.tick();
    assert_eq!(world.happened("replica.starting"), 4);
    assert_eq!(failing(&world), None);
    world.engine.behave("s", 1, Behaviour::default());
    world.run(10 * SECOND);
    assert_eq!((world.count(1, ReplicaState::Ready), failing(&world)), (4, None));
}

#[test]
fn once_fewer_replicas_are_wanted_the_failed_ones_are_forgotten() {
    let mut world = World::new(1);
    world.run(10 * SECOND);
    world.engine.behave("s", 1, broken());
    world.declare(1, 2);
    world.run(60 * SECOND);
    assert_eq!((world.count(1, ReplicaState::Ready), failing(&world)), (1, Some((1, "no module"))));
    world.declare(1, 1);
    world.tick();
    assert_eq!(failing(&world), None, "all that is wanted is ready");
    world.run(10 * SECOND);
    world.declare(1, 2);
    world.tick();
    assert_eq!(failing(&world), None);
}

#[test]
fn a_user_who_tries_again_does_not_wait() {
    let mut world = World::new(1);
    world.engine.behave("s", 1, Behaviour { start_fails: true, ..Behaviour::default() });
    world.run(100 * SECOND);
    assert!(failing(&world).is_some());
    world.engine.behave("s", 1, Behaviour::default());
    world.memory.try_again();
    assert_eq!(failing(&world), None);
    world.tick();
    assert_eq!(world.engine.starts(), 1);
    world.run(10 * SECOND);
    assert_eq!(world.count(1, ReplicaState::Ready), 1);
}

#[test]
fn a_long_load_after_one_that_failed_is_not_cut_short() {
    let mut world = World::new(1);
    let slow = Behaviour { ready_after: Some(60 * SECOND), loads_again_after: Some(SECOND), ..broken() };
    world.engine.behave("s", 1, slow);
    world.run(70 * SECOND);
    assert_eq!((world.count(1, ReplicaState::Ready), world.engine.starts()), (1, 1));
    assert_eq!(world.happened("replica.load_failed"), 0);
}
