//! What all [`Replicas`] must do.
//!
//! Each case gets a fresh harness. A failed expectation panics with the name of the case.

use std::time::{Duration, Instant};

use slipway_types::container::{ContainerId, LogNext, LogOptions};
use slipway_types::service::ReplicaState;

use crate::engine::{EngineError, ObservedReplica};
use crate::replicas::{Replicas, StartReplica};

/// Replicas under test and the means to set them up.
pub trait Harness {
    /// What runs them.
    fn replicas(&self) -> &dyn Replicas;

    /// A replica that writes the line `hello` to its standard output, gets ready and ends when asked to.
    fn good(&self, service: &str, revision: u64, slot: u32) -> StartReplica;

    /// A replica that ends by itself, with an exit code other than 0, before it gets ready.
    fn failing(&self, service: &str) -> StartReplica;

    /// A replica that gets ready and ignores the request to end.
    fn stubborn(&self, service: &str) -> StartReplica;

    /// A replica whose image is not in the store.
    fn without_image(&self, service: &str) -> StartReplica;

    /// Kills a replica behind the back of what runs it.
    fn kill(&self, container: &ContainerId);

    /// Lets a little time pass: sleeps, or moves a virtual clock.
    fn pass_time(&self);

    /// The same replicas after a restart of its process: a new value over the same state.
    fn reopen(self) -> Self
    where
        Self: Sized;

    /// Longest real time that a replica may need to change its state.
    fn patience(&self) -> Duration {
        Duration::from_secs(60)
    }
}

/// Runs every case, each on a harness of its own.
pub fn run<H: Harness>(harness: impl Fn() -> H) {
    starts_and_gets_ready(&harness());
    starts_a_slot_once(&harness());
    keeps_slots_and_services_apart(&harness());
    refuses_a_missing_image(&harness());
    shows_why_a_replica_ended(&harness());
    shows_a_killed_replica_as_stopped(&harness());
    drains_then_stops_then_removes(&harness());
    refuses_to_remove_what_runs(&harness());
    stops_by_force_after_the_grace(&harness());
    every_call_may_be_repeated(&harness());
    keeps_logs_until_removal(&harness());
    knows_only_its_own_replicas(&harness());
    finds_its_replicas_after_a_restart(harness());
}

fn starts_and_gets_ready<H: Harness>(harness: &H) {
    let id = start(harness, &harness.good("digits", 3, 1));
    let replica = wait_for(harness, &id, ReplicaState::Ready);
    assert_eq!((replica.service.as_str(), replica.revision, replica.slot), ("digits", 3, 1));
    assert!(replica.socket.is_some(), "a ready replica has a socket");
    end(harness, &id);
}

fn starts_a_slot_once<H: Harness>(harness: &H) {
    let replica = harness.good("digits", 1, 0);
    let first = start(harness, &replica);
    assert_eq!(start(harness, &replica), first, "a living slot is not started twice");
    assert_eq!(list(harness).len(), 1);
    harness.kill(&first);
    wait_for(harness, &first, ReplicaState::Stopped);
    let second = start(harness, &replica);
    assert_ne!(second, first, "a slot whose replica stopped is started anew");
    end(harness, &first);
    end(harness, &second);
}

fn keeps_slots_and_services_apart<H: Harness>(harness: &H) {
    let mut ids = Vec::new();
    for (service, revision, slot) in [("a", 1, 0), ("a", 1, 1), ("a", 2, 0), ("b", 1, 0)] {
        ids.push(start(harness, &harness.good(service, revision, slot)));
    }
    let mut seen: Vec<_> = list(harness).into_iter().map(|r| (r.service, r.revision, r.slot)).collect();
    seen.sort();
    let expected = [("a", 1, 0), ("a", 1, 1), ("a", 2, 0), ("b", 1, 0)];
    assert_eq!(seen, expected.map(|(service, revision, slot)| (service.to_owned(), revision, slot)));
    for id in ids {
        end(harness, &id);
    }
}

fn refuses_a_missing_image<H: Harness>(harness: &H) {
    let error = harness.replicas().start(&harness.without_image("digits"));
    assert!(matches!(error, Err(EngineError::ImageMissing(_))), "{error:?}");
    assert_eq!(list(harness), [], "a failed start leaves nothing");
}

fn shows_why_a_replica_ended<H: Harness>(harness: &H) {
    let id = start(harness, &harness.failing("digits"));
    let replica = wait_for(harness, &id, ReplicaState::Stopped);
    assert!(replica.reason.is_some_and(|reason| !reason.is_empty()), "an ended replica says why");
    end(harness, &id);
}

fn shows_a_killed_replica_as_stopped<H: Harness>(harness: &H) {
    let id = start(harness, &harness.good("digits", 1, 0));
    wait_for(harness, &id, ReplicaState::Ready);
    harness.kill(&id);
    let replica = wait_for(harness, &id, ReplicaState::Stopped);
    assert!(replica.reason.is_some(), "an ended replica says why");
    end(harness, &id);
}

fn drains_then_stops_then_removes<H: Harness>(harness: &H) {
    let id = start(harness, &harness.good("digits", 1, 0));
    wait_for(harness, &id, ReplicaState::Ready);
    expect(harness.replicas().drain(&id), "drain");
    wait_for(harness, &id, ReplicaState::Draining);
    harness.pass_time();
    assert_eq!(
        find(harness, &id).map(|r| r.state),
        Some(ReplicaState::Draining),
        "draining runs on until stopped"
    );
    expect(harness.replicas().stop(&id, Duration::from_secs(10)), "stop");
    wait_for(harness, &id, ReplicaState::Stopped);
    expect(harness.replicas().remove(&id), "remove");
    assert_eq!(list(harness), []);
}

fn refuses_to_remove_what_runs<H: Harness>(harness: &H) {
    let id = start(harness, &harness.good("digits", 1, 0));
    let error = harness.replicas().remove(&id);
    assert!(matches!(&error, Err(EngineError::NotStopped(running)) if *running == id), "{error:?}");
    assert!(find(harness, &id).is_some());
    end(harness, &id);
}

fn stops_by_force_after_the_grace<H: Harness>(harness: &H) {
    let id = start(harness, &harness.stubborn("digits"));
    wait_for(harness, &id, ReplicaState::Ready);
    let began = Instant::now();
    expect(harness.replicas().stop(&id, Duration::from_secs(1)), "stop");
    assert!(began.elapsed() < Duration::from_secs(1), "stop does not wait for the end");
    let state = find(harness, &id).map(|r| r.state);
    assert!(
        matches!(state, Some(ReplicaState::Draining | ReplicaState::Stopped)),
        "stopping is not ready: {state:?}"
    );
    wait_for(harness, &id, ReplicaState::Stopped);
    end(harness, &id);
}

fn every_call_may_be_repeated<H: Harness>(harness: &H) {
    let id = start(harness, &harness.good("digits", 1, 0));
    wait_for(harness, &id, ReplicaState::Ready);
    for _ in 0..2 {
        expect(harness.replicas().drain(&id), "drain");
    }
    for _ in 0..2 {
        expect(harness.replicas().stop(&id, Duration::from_secs(10)), "stop");
    }
    wait_for(harness, &id, ReplicaState::Stopped);
    expect(harness.replicas().stop(&id, Duration::from_secs(10)), "stop of a stopped replica");
    expect(harness.replicas().drain(&id), "drain of a stopped replica");
    assert_eq!(find(harness, &id).map(|r| r.state), Some(ReplicaState::Stopped), "stopped is final");
    for _ in 0..2 {
        expect(harness.replicas().remove(&id), "remove");
    }
}

fn keeps_logs_until_removal<H: Harness>(harness: &H) {
    let id = start(harness, &harness.good("digits", 1, 0));
    wait_for(harness, &id, ReplicaState::Ready);
    assert_eq!(read(harness, &id, &LogOptions::default()), ["hello"]);
    assert_eq!(read(harness, &id, &LogOptions { tail: Some(0), ..LogOptions::default() }), [""; 0]);
    let follow = LogOptions { follow: true, ..LogOptions::default() };
    let mut followed = expect(harness.replicas().log(&id, &follow), "log");
    let mut next = || expect(followed.next_within(Duration::from_millis(10)), "read the log");
    assert!(matches!(next(), LogNext::Line(line) if line.text == "hello"));
    assert_eq!(next(), LogNext::Idle, "what runs may write more");
    expect(harness.replicas().stop(&id, Duration::from_secs(1)), "stop");
    wait_for(harness, &id, ReplicaState::Stopped);
    let began = Instant::now();
    while next() != LogNext::End {
        assert!(began.elapsed() < harness.patience(), "the log of a stopped replica ends");
    }
    assert_eq!(read(harness, &id, &LogOptions::default()), ["hello"], "a stopped replica has its log");
    end(harness, &id);
    let log = harness.replicas().log(&id, &LogOptions::default());
    assert!(matches!(log, Err(EngineError::NotFound(removed)) if removed == id));
}

fn knows_only_its_own_replicas<H: Harness>(harness: &H) {
    let nobody = ContainerId::from_random([0xee; 12]);
    let replicas = harness.replicas();
    assert!(matches!(replicas.drain(&nobody), Err(EngineError::NotFound(id)) if id == nobody));
    assert!(matches!(replicas.stop(&nobody, Duration::ZERO), Err(EngineError::NotFound(id)) if id == nobody));
    expect(replicas.remove(&nobody), "remove of nothing");
}

fn finds_its_replicas_after_a_restart<H: Harness>(harness: H) {
    let ready = start(&harness, &harness.good("digits", 7, 2));
    let draining = start(&harness, &harness.good("digits", 7, 3));
    wait_for(&harness, &ready, ReplicaState::Ready);
    wait_for(&harness, &draining, ReplicaState::Ready);
    expect(harness.replicas().drain(&draining), "drain");
    let harness = harness.reopen();
    let replica = wait_for(&harness, &ready, ReplicaState::Ready);
    assert_eq!((replica.service.as_str(), replica.revision, replica.slot), ("digits", 7, 2));
    wait_for(&harness, &draining, ReplicaState::Draining);
    end(&harness, &ready);
    end(&harness, &draining);
}

/// The lines of a log that is not followed.
fn read<H: Harness>(harness: &H, id: &ContainerId, options: &LogOptions) -> Vec<String> {
    let mut log = expect(harness.replicas().log(id, options), "log");
    let mut lines = Vec::new();
    loop {
        match expect(log.next_within(Duration::from_secs(1)), "read the log") {
            LogNext::Line(line) => lines.push(line.text),
            LogNext::Idle => panic!("a log that is not followed waits"),
            LogNext::End => return lines,
        }
    }
}

fn start<H: Harness>(harness: &H, replica: &StartReplica) -> ContainerId {
    expect(harness.replicas().start(replica), "start")
}

fn list<H: Harness>(harness: &H) -> Vec<ObservedReplica> {
    expect(harness.replicas().list(), "list")
}

fn find<H: Harness>(harness: &H, id: &ContainerId) -> Option<ObservedReplica> {
    list(harness).into_iter().find(|replica| replica.container == *id)
}

/// Waits for a state, and checks that every state on the way may follow the one before.
fn wait_for<H: Harness>(harness: &H, id: &ContainerId, state: ReplicaState) -> ObservedReplica {
    let began = Instant::now();
    let mut last: Option<ReplicaState> = None;
    loop {
        let replica = find(harness, id);
        if let Some(replica) = replica {
            if let Some(before) = last.filter(|before| *before != replica.state) {
                assert!(before.can_become(replica.state), "{before:?} became {:?}", replica.state);
            }
            last = Some(replica.state);
            if replica.state == state {
                return replica;
            }
        }
        assert!(began.elapsed() < harness.patience(), "waited for {state:?}, last seen {last:?}");
        harness.pass_time();
    }
}

/// Ends and removes a replica, whatever its state.
fn end<H: Harness>(harness: &H, id: &ContainerId) {
    expect(harness.replicas().stop(id, Duration::from_secs(1)), "stop");
    wait_for(harness, id, ReplicaState::Stopped);
    expect(harness.replicas().remove(id), "remove");
    assert!(find(harness, id).is_none(), "a removed replica is not listed");
}

fn expect<T>(result: Result<T, EngineError>, operation: &str) -> T {
    result.unwrap_or_else(|error| panic!("{operation} failed: {error} ({error:?})"))
}
