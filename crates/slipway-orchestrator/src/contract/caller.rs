//! The caller of an engine, as the daemon is one.

use std::collections::{BTreeMap, BTreeSet};

use slipway_types::container::ContainerId;
use slipway_types::service::ReplicaState;

use super::engine::Harness;
use crate::engine::{EngineError, ObservedReplica, Pass, Revision};
use crate::plan::{Absence, Desired, Notice};

/// What the daemon does with an engine: it declares, records what passes tell it, and checks that no pass takes away a
/// replica that may still get requests.
pub(super) struct Caller<H> {
    pub(super) harness: H,
    pub(super) desired: BTreeMap<String, Desired>,
    /// Whether what passes tell is recorded.
    pub(super) records: bool,
    pub(super) notices: Vec<Notice>,
    killed: BTreeSet<ContainerId>,
    routed: BTreeSet<ContainerId>,
}

impl<H: Harness> Caller<H> {
    pub(super) fn new(harness: H) -> Self {
        Self {
            harness,
            desired: BTreeMap::new(),
            records: true,
            notices: Vec::new(),
            killed: BTreeSet::new(),
            routed: BTreeSet::new(),
        }
    }

    /// The same after a restart of the daemon.
    pub(super) fn reopen(self) -> Self {
        Self { harness: self.harness.reopen(), ..self }
    }

    pub(super) fn declare(&mut self, revision: Revision) {
        let (before, counted) = match self.desired.remove(&revision.spec.name) {
            Some(Desired::Present { stable, restarts, .. }) => (stable, restarts),
            Some(Desired::Absent { .. }) | None => (None, 0),
        };
        let name = revision.spec.name.clone();
        let desired = Desired::Present { target: revision, stable: before, restarts: counted };
        self.desired.insert(name, desired);
    }

    pub(super) fn kill(&mut self, replica: &ContainerId) {
        self.killed.insert(replica.clone());
        self.harness.kill(replica);
    }

    pub(super) fn pass(&mut self) -> Pass {
        let desired: Vec<Desired> = self.desired.values().cloned().collect();
        let mut published = Vec::new();
        let publish = &mut |replicas: &[ObservedReplica]| {
            for service in self.desired.keys() {
                self.harness.engine().endpoint(service);
            }
            published.push(replicas.to_vec());
            Ok(())
        };
        let pass = expect(self.harness.engine().pass(&desired, self.harness.now(), publish), "pass");
        assert_eq!(published, std::slice::from_ref(&pass.replicas), "what was seen is published, once");
        for id in self.routed.difference(&self.killed) {
            let state = pass.replicas.iter().find(|r| r.container == *id).map(|r| r.state);
            let has_ended = matches!(state, None | Some(ReplicaState::Stopped | ReplicaState::Starting));
            assert!(!has_ended, "{id} was {state:?} while requests went to it");
        }
        let serving = pass.replicas.iter().filter(|r| r.state == ReplicaState::Ready);
        self.routed = serving.map(|r| r.container.clone()).collect();
        for notice in &pass.notices {
            assert!(
                !notice.message.contains('\n') && notice.message.ends_with('.'),
                "a sentence: {notice:?}"
            );
        }
        self.notices.extend(pass.notices.iter().cloned());
        let expected: BTreeSet<&str> =
            desired.iter().filter(|d| is_present(d)).map(Desired::service).collect();
        assert_eq!(pass.services.keys().map(String::as_str).collect::<BTreeSet<_>>(), expected);
        if self.records {
            self.record(&pass);
        }
        pass
    }

    fn record(&mut self, pass: &Pass) {
        for (service, number) in &pass.completed {
            let Some(Desired::Present { target, stable, .. }) = self.desired.get_mut(service) else {
                panic!("{service} is not declared and completed")
            };
            assert_eq!(target.number, *number, "the declared revision completes");
            assert_ne!(stable.as_ref().map(|s| s.number), Some(*number), "it is recorded already");
            *stable = Some(target.clone());
        }
        for service in &pass.forgotten {
            let removed = self.desired.remove(service);
            assert!(matches!(removed, Some(Desired::Absent { .. })), "{service} was forgotten: {removed:?}");
        }
        for (service, progress) in &pass.services {
            if let Some(Desired::Present { restarts, .. }) = self.desired.get_mut(service) {
                assert!(progress.restarts >= *restarts, "{service}: restarts are not uncounted");
                *restarts = progress.restarts;
            }
        }
    }

    /// Passes until one is as wanted; gives that one.
    pub(super) fn until(&mut self, what: &str, wanted: impl Fn(&Pass) -> bool) -> Pass {
        let began = self.harness.now();
        loop {
            let pass = self.pass();
            if wanted(&pass) {
                return pass;
            }
            assert!(
                self.harness.now() - began < self.harness.patience(),
                "waited for {what}: {pass:?} {:?}",
                self.notices
            );
            self.harness.pass_time();
        }
    }

    pub(super) fn until_caller(&mut self, what: &str, wanted: impl Fn(&Self) -> bool) {
        let began = self.harness.now();
        while !wanted(self) {
            let pass = self.pass();
            let waited = self.harness.now() - began;
            assert!(waited < self.harness.patience(), "waited for {what}: {pass:?} {:?}", self.notices);
            self.harness.pass_time();
        }
    }

    pub(super) fn until_harness(&mut self, what: &str, wanted: impl Fn(&H) -> bool) {
        self.until_caller(what, |caller| wanted(&caller.harness));
    }

    /// Passes until a revision was told as completed.
    pub(super) fn until_recorded(&mut self, service: &str, number: u64) {
        self.until_caller("a completed rollout", |caller| {
            matches!(
                caller.desired.get(service),
                Some(Desired::Present { stable: Some(stable), .. }) if stable.number == number
            )
        });
    }

    /// Deletes everything and waits until it is gone.
    pub(super) fn finish(mut self) {
        let services: Vec<String> = self.desired.keys().cloned().collect();
        for service in services {
            let absent = deleted(&service);
            self.desired.insert(service, absent);
        }
        self.until("nothing", |pass| pass.replicas.is_empty());
        self.until_caller("no record", |caller| caller.desired.is_empty());
        let pass = self.pass();
        assert_eq!((pass.replicas, pass.forgotten, pass.busy), (vec![], vec![], false));
    }
}

pub(super) fn deleted(service: &str) -> Desired {
    Desired::Absent { service: service.to_owned(), why: Absence::Deleted }
}

fn is_present(desired: &Desired) -> bool {
    matches!(desired, Desired::Present { .. })
}

/// The ready replicas of a revision.
pub(super) fn ready(pass: &Pass, service: &str, revision: u64) -> BTreeSet<ContainerId> {
    let of = |r: &&ObservedReplica| r.service == service && r.revision == revision;
    let all = pass.replicas.iter().filter(of);
    all.filter(|r| r.state == ReplicaState::Ready).map(|r| r.container.clone()).collect()
}

pub(super) fn ids(replicas: &[ObservedReplica]) -> BTreeSet<&ContainerId> {
    replicas.iter().map(|replica| &replica.container).collect()
}

pub(super) fn expect<T>(result: Result<T, EngineError>, operation: &str) -> T {
    result.unwrap_or_else(|error| panic!("{operation} failed: {error} ({error:?})"))
}
