//! What happens to replicas, as events.

use std::collections::BTreeMap;

use slipway_orchestrator::{Notice, ObservedReplica};
use slipway_types::container::ContainerId;
use slipway_types::service::ReplicaState;

use super::state::{notice, subject};

/// Each replica as it was told of last; absent before the first look, which adopts what runs.
#[derive(Debug, Default)]
pub(super) struct Lives(Option<BTreeMap<ContainerId, ObservedReplica>>);

impl Lives {
    /// Tells how replicas fared since the last look.
    pub(super) fn look(&mut self, seen: &[ObservedReplica]) -> Vec<Notice> {
        let now: BTreeMap<ContainerId, ObservedReplica> =
            seen.iter().map(|replica| (replica.container.clone(), replica.clone())).collect();
        let mut notices = Vec::new();
        if let Some(before) = &self.0 {
            notices.extend(seen.iter().filter_map(|replica| change(before.get(&replica.container), replica)));
            let gone = before.values().filter(|replica| !now.contains_key(&replica.container));
            let gone = gone.filter(|replica| replica.state != ReplicaState::Stopped);
            notices.extend(gone.map(|replica| tell(replica, "replica.stopped", "is gone")));
        }
        self.0 = Some(now);
        notices
    }
}

fn change(before: Option<&ObservedReplica>, replica: &ObservedReplica) -> Option<Notice> {
    let because = || replica.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    if let Some(before) = before.filter(|before| before.state == replica.state) {
        let news = replica.reason.is_some() && replica.reason != before.reason;
        return (news && replica.state != ReplicaState::Draining)
            .then(|| tell(replica, "replica.waiting", &format!("waits{}", because())));
    }
    Some(match replica.state {
        ReplicaState::Starting => tell(replica, "replica.starting", "is started"),
        ReplicaState::Ready => tell(replica, "replica.ready", "is ready"),
        ReplicaState::Unready => {
            tell(replica, "replica.unready", &format!("does not answer any more{}", because()))
        }
        ReplicaState::Draining => tell(replica, "replica.draining", "drains"),
        ReplicaState::Stopped => tell(replica, "replica.stopped", &format!("stopped{}", because())),
    })
}

fn tell(replica: &ObservedReplica, kind: &'static str, what: &str) -> Notice {
    let (slot, revision, id) = (replica.slot, replica.revision, replica.container.short());
    notice(&subject(&replica.service), kind, &format!("Replica {slot} of revision {revision} ({id}) {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_to_replicas_is_told_once() {
        let replica = |state, reason: Option<&str>| ObservedReplica {
            container: ContainerId::from_random([7; 12]),
            service: "s".into(),
            revision: 2,
            slot: 0,
            state,
            started_at: None,
            reason: reason.map(str::to_owned),
            load_failed: false,
            socket: None,
        };
        let mut lives = Lives::default();
        let mut kinds =
            |seen: &[ObservedReplica]| lives.look(seen).iter().map(|notice| notice.kind).collect::<Vec<_>>();
        assert_eq!(kinds(&[]), [""; 0]);
        let starting = replica(ReplicaState::Starting, None);
        assert_eq!(kinds(std::slice::from_ref(&starting)), ["replica.starting"]);
        assert_eq!(kinds(&[starting]), [""; 0]);
        let waiting = replica(ReplicaState::Starting, Some("no node takes it"));
        assert_eq!(kinds(std::slice::from_ref(&waiting)), ["replica.waiting"]);
        assert_eq!(kinds(&[waiting]), [""; 0]);
        let ready = replica(ReplicaState::Ready, None);
        assert_eq!(kinds(std::slice::from_ref(&ready)), ["replica.ready"]);
        assert_eq!(kinds(&[]), ["replica.stopped"]);
        assert_eq!(kinds(&[]), [""; 0]);
        assert_eq!(Lives::default().look(&[ready]), [], "what runs is adopted");
    }
}
