//! What every [`Engine`] must do.
//!
//! Each case gets a fresh harness and leaves nothing running. A failed expectation panics with what was waited for.

use std::time::Duration;

use slipway_types::container::{ContainerId, LogNext, LogOptions};
use slipway_types::service::ReplicaState;

use super::caller::{Caller, deleted, expect, ids, ready};
use crate::engine::{Endpoint, Engine, EngineError, ObservedReplica, Pass, Revision};
use crate::plan::{Notice, Rollout};

/// Passes after which what did not happen counts as not going to.
const A_WHILE: u32 = 20;

/// An engine under test and the means to set up its services.
pub trait Harness {
    /// The engine.
    fn engine(&self) -> &dyn Engine;

    /// A revision whose replicas get ready and end when asked to.
    fn good(&self, service: &str, number: u64, replicas: u32) -> Revision;

    /// A revision whose replicas fail, one after the other, before they get ready.
    fn failing(&self, service: &str, number: u64, replicas: u32) -> Revision;

    /// A revision whose replicas cannot be started: its image is not there.
    fn impossible(&self, service: &str, number: u64, replicas: u32) -> Revision;

    /// Kills a replica behind the engine's back.
    fn kill(&self, replica: &ContainerId);

    /// Time since a fixed moment, real or virtual.
    fn now(&self) -> Duration;

    /// Lets a little time pass between two passes: less than a replica drains for.
    fn pass_time(&self);

    /// The same engine after a restart of its process: a new value over the same state.
    fn reopen(self) -> Self
    where
        Self: Sized;

    /// Longest time, by [`Harness::now`], that a service may need to come to where it shall be.
    fn patience(&self) -> Duration {
        Duration::from_secs(120)
    }

    /// How many replicas of a service with so many stay ready during a rollout.
    fn least_ready(&self, declared: u32) -> u32 {
        declared
    }
}

/// Runs every case, each on a harness of its own.
pub fn run<H: Harness>(harness: impl Fn() -> H) {
    runs_what_is_declared_and_scales(harness());
    says_where_a_service_answers_and_what_it_logs(harness());
    does_nothing_when_there_is_nothing_to_do(harness());
    does_nothing_when_routes_cannot_be_published(harness());
    replaces_a_revision_without_a_gap(harness());
    keeps_the_old_revision_while_the_new_one_fails(harness());
    brings_back_what_dies_and_counts(harness());
    adopts_what_runs(harness());
    deletes_everything_and_says_so(harness());
    removes_what_nobody_declared(harness());
    serves_the_others_while_some_fail(harness());
}

fn runs_what_is_declared_and_scales<H: Harness>(harness: H) {
    let mut caller = Caller::new(harness);
    caller.declare(caller.harness.good("digits", 1, 2));
    let pass = caller.until("two replicas", |pass| ready(pass, "digits", 1).len() == 2);
    let first = ready(&pass, "digits", 1);
    caller.until_recorded("digits", 1);
    assert!(caller.notices.iter().any(|n| n.subject == "service/digits"), "{:?}", caller.notices);

    caller.declare(caller.harness.good("digits", 1, 3));
    let pass = caller.until("a third replica", |pass| ready(pass, "digits", 1).len() == 3);
    assert!(ready(&pass, "digits", 1).is_superset(&first), "to scale up replaces nothing: {pass:?}");

    caller.declare(caller.harness.good("digits", 1, 1));
    let pass = caller.until("one replica alone", |pass| pass.replicas.len() == 1);
    assert_eq!(ready(&pass, "digits", 1).len(), 1);

    caller.declare(caller.harness.good("digits", 1, 0));
    let pass = caller.until("no replica", |pass| pass.replicas.is_empty());
    assert!(pass.services.contains_key("digits"), "a service without replicas is one: {pass:?}");
    caller.finish();
}

fn says_where_a_service_answers_and_what_it_logs<H: Harness>(harness: H) {
    let mut caller = Caller::new(harness);
    caller.declare(caller.harness.good("digits", 1, 1));
    let pass = caller.until("a replica", |pass| ready(pass, "digits", 1).len() == 1);
    let engine = caller.harness.engine();
    assert_eq!(ids(&expect(engine.observe(), "observe")), ids(&pass.replicas));
    if let Endpoint::Gateway = engine.endpoint("digits") {
        assert!(pass.replicas.iter().all(|r| r.socket.is_some()), "the gateway needs sockets: {pass:?}");
    } else {
        caller.until_harness("an address that answers", |harness| {
            match harness.engine().endpoint("digits") {
                Endpoint::Url { url, reachable } => reachable && url.contains("://"),
                Endpoint::Gateway | Endpoint::Nowhere | Endpoint::Pending { .. } => false,
            }
        });
    }
    let engine = caller.harness.engine();
    let mut log = expect(engine.log(&pass.replicas[0].container, &LogOptions::default()), "log");
    while expect(log.next_within(Duration::from_secs(5)), "read the log") != LogNext::End {}
    let nobody = ContainerId::from_random([0xee; 12]);
    let log = engine.log(&nobody, &LogOptions::default());
    assert!(matches!(log, Err(EngineError::NotFound(id)) if id == nobody));
    caller.finish();
}

fn does_nothing_when_there_is_nothing_to_do<H: Harness>(harness: H) {
    let mut caller = Caller::new(harness);
    let pass = caller.pass();
    assert_eq!((pass.replicas, pass.notices, pass.busy), (vec![], vec![], false), "nothing is declared");
    caller.declare(caller.harness.good("digits", 1, 2));
    caller.until_recorded("digits", 1);
    let before = caller.until("rest", |pass| !pass.busy && pass.notices.is_empty());
    for _ in 0..A_WHILE {
        caller.harness.pass_time();
        let pass = caller.pass();
        assert!(!pass.busy && pass.notices.is_empty() && pass.completed.is_empty(), "{pass:?}");
        assert_eq!(ids(&pass.replicas), ids(&before.replicas));
        assert_eq!(pass.services, before.services);
        assert_eq!(pass.services["digits"].rollout, Rollout::Steady);
    }
    caller.finish();
}

fn does_nothing_when_routes_cannot_be_published<H: Harness>(harness: H) {
    let mut caller = Caller::new(harness);
    caller.declare(caller.harness.good("digits", 1, 1));
    caller.until_recorded("digits", 1);
    caller.desired.insert("digits".into(), deleted("digits"));
    let desired = deleted("digits");
    for _ in 0..A_WHILE {
        let refuse = &mut |_: &[ObservedReplica]| {
            Err(EngineError::Failed { operation: "publish".into(), source: "a full disk".into() })
        };
        let pass = caller.harness.engine().pass(std::slice::from_ref(&desired), caller.harness.now(), refuse);
        assert!(
            matches!(&pass, Err(EngineError::Failed { operation, .. }) if operation == "publish"),
            "{pass:?}"
        );
        caller.harness.pass_time();
    }
    let replicas = expect(caller.harness.engine().observe(), "observe");
    assert!(replicas.iter().all(|r| r.state == ReplicaState::Ready) && replicas.len() == 1, "{replicas:?}");
    caller.finish();
}

fn replaces_a_revision_without_a_gap<H: Harness>(harness: H) {
    let mut caller = Caller::new(harness);
    caller.declare(caller.harness.good("digits", 1, 2));
    caller.until_recorded("digits", 1);
    caller.declare(caller.harness.good("digits", 2, 2));
    let least = caller.harness.least_ready(2) as usize;
    let pass = caller.until("the new revision alone", |pass| {
        let serving = ready(pass, "digits", 1).len() + ready(pass, "digits", 2).len();
        assert!(serving >= least, "{serving} ready during the rollout: {:?}", pass.replicas);
        ready(pass, "digits", 2).len() == 2 && pass.replicas.len() == 2
    });
    assert_eq!(pass.services["digits"].restarts, 0, "to replace is not to restart");
    caller.until_recorded("digits", 2);
    caller.finish();
}

fn keeps_the_old_revision_while_the_new_one_fails<H: Harness>(harness: H) {
    let mut caller = Caller::new(harness);
    caller.declare(caller.harness.good("digits", 1, 2));
    caller.until_recorded("digits", 1);
    caller.notices.clear();
    caller.declare(caller.harness.failing("digits", 2, 2));
    let least = caller.harness.least_ready(2) as usize;
    let serves = |pass: &Pass| {
        let serving = ready(pass, "digits", 1).len();
        assert!(serving >= least, "{serving} of the old revision are ready: {:?}", pass.replicas);
        assert!(ready(pass, "digits", 2).is_empty(), "{:?}", pass.replicas);
    };
    let pass = caller.until("a stalled rollout", |pass| {
        serves(pass);
        let progress = &pass.services["digits"];
        matches!(progress.rollout, Rollout::Stalled { .. }) && progress.failing.is_some()
    });
    let Rollout::Stalled { reason, .. } = &pass.services["digits"].rollout else { unreachable!() };
    assert!(!reason.is_empty(), "it says why");
    let told: Vec<&Notice> = caller.notices.iter().filter(|n| n.kind == "rollout.stalled").collect();
    assert_eq!(told.len(), 1, "it is told once: {:?}", caller.notices);
    for _ in 0..A_WHILE {
        caller.harness.pass_time();
        let pass = caller.pass();
        serves(&pass);
        assert_eq!(pass.completed, []);
    }
    caller.declare(caller.harness.good("digits", 3, 2));
    let pass = caller.until("a good revision alone", |pass| {
        ready(pass, "digits", 3).len() == 2 && pass.replicas.len() == 2
    });
    assert_eq!(pass.services["digits"].failing, None);
    caller.until_recorded("digits", 3);
    caller.finish();
}

fn brings_back_what_dies_and_counts<H: Harness>(harness: H) {
    let mut caller = Caller::new(harness);
    caller.declare(caller.harness.good("digits", 1, 2));
    let pass = caller.until("two replicas", |pass| ready(pass, "digits", 1).len() == 2);
    caller.notices.clear();
    let mut all = ready(&pass, "digits", 1).into_iter();
    let (victim, other) = (all.next().unwrap(), all.next().unwrap());
    caller.kill(&victim);
    let pass = caller.until("two replicas again", |pass| {
        pass.services["digits"].restarts > 0 && ready(pass, "digits", 1).len() == 2
    });
    assert_eq!(pass.services["digits"].restarts, 1);
    assert!(ready(&pass, "digits", 1).contains(&other), "the other one stays: {:?}", pass.replicas);
    assert!(caller.notices.iter().any(|n| n.kind == "replica.crashed"), "{:?}", caller.notices);
    caller.finish();
}

fn adopts_what_runs<H: Harness>(harness: H) {
    let mut caller = Caller::new(harness);
    caller.declare(caller.harness.good("digits", 1, 2));
    let pass = caller.until("two replicas", |pass| ready(pass, "digits", 1).len() == 2);
    caller.kill(ready(&pass, "digits", 1).first().unwrap());
    let before = caller.until("a restart", |pass| {
        pass.services["digits"].restarts == 1 && ready(pass, "digits", 1).len() == 2
    });
    let before = ready(&before, "digits", 1);
    let mut caller = caller.reopen();
    for _ in 0..A_WHILE {
        let pass = caller.pass();
        assert_eq!(ready(&pass, "digits", 1), before, "what runs is adopted: {:?}", pass.replicas);
        assert_eq!(pass.services["digits"].restarts, 1, "the count goes on");
        caller.harness.pass_time();
    }
    caller.finish();
}

fn deletes_everything_and_says_so<H: Harness>(harness: H) {
    let mut caller = Caller::new(harness);
    caller.declare(caller.harness.good("digits", 1, 2));
    caller.declare(caller.harness.good("other", 1, 1));
    caller.until_recorded("digits", 1);
    caller.desired.insert("digits".into(), deleted("digits"));
    caller.records = false;
    let forgets = |pass: &Pass| pass.forgotten == ["digits"];
    let pass = caller.until("the end of the service", forgets);
    assert!(pass.replicas.iter().all(|r| r.service == "other"), "nothing is left: {:?}", pass.replicas);
    assert!(!pass.services.contains_key("digits"), "{:?}", pass.services);
    assert!(forgets(&caller.pass()), "it is told until it is recorded");
    caller.records = true;
    caller.pass();
    assert_eq!(caller.pass().forgotten, [""; 0], "then no more");
    caller.until_recorded("other", 1);
    caller.desired.insert("never-ran".into(), deleted("never-ran"));
    caller.until("the end of one that never ran", |pass| pass.forgotten == ["never-ran"]);
    caller.finish();
}

fn removes_what_nobody_declared<H: Harness>(harness: H) {
    let mut caller = Caller::new(harness);
    caller.declare(caller.harness.good("digits", 1, 2));
    caller.declare(caller.harness.good("kept", 1, 1));
    caller.until_recorded("digits", 1);
    caller.until_recorded("kept", 1);
    caller.desired.remove("digits");
    let mut caller = caller.reopen();
    caller.until("the declared service alone", |pass| {
        assert_eq!(pass.forgotten, [""; 0], "there is no record to forget");
        assert_eq!(ready(pass, "kept", 1).len(), 1, "{:?}", pass.replicas);
        pass.replicas.len() == 1
    });
    caller.finish();
}

fn serves_the_others_while_some_fail<H: Harness>(harness: H) {
    let mut caller = Caller::new(harness);
    caller.declare(caller.harness.failing("a", 1, 1));
    caller.declare(caller.harness.impossible("b", 1, 1));
    caller.declare(caller.harness.good("c", 1, 1));
    caller.until_recorded("c", 1);
    caller.declare(caller.harness.good("c", 2, 1));
    caller.until_recorded("c", 2);
    let pass = caller.until("reasons", |pass| ["a", "b"].iter().all(|s| pass.services[*s].failing.is_some()));
    assert_eq!(pass.services["c"].failing, None);
    caller.harness.engine().try_again("a");
    let pass = caller.pass();
    assert_eq!(pass.services["a"].failing, None, "what failed before counts no more");
    assert!(pass.services["b"].failing.is_some());
    caller.until("the same reason again", |pass| pass.services["a"].failing.is_some());
    for service in ["a", "b"] {
        let subject = format!("service/{service}");
        caller.until_caller("a reason", |caller| {
            caller
                .notices
                .iter()
                .any(|n| n.subject == subject && matches!(n.kind, "replica.crashed" | "replica.start_failed"))
        });
    }
    caller.finish();
}
