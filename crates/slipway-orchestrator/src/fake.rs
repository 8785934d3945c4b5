//! Replicas in memory with a clock of their own, for tests of whatever drives [`Replicas`].

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use slipway_types::container::{ContainerId, LogLine, LogNext, LogOptions, OutputStream};
use slipway_types::service::ReplicaState;

use crate::engine::{EngineError, LogLines, ObservedReplica};
use crate::replicas::{Consumption, Replicas, StartReplica};

/// How replicas of a revision behave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Behaviour {
    /// Time from start to ready; `None` never gets ready.
    pub ready_after: Option<Duration>,
    /// Time from start until it ends by itself.
    pub crash_after: Option<Duration>,
    /// Time from the request to end until it ends; `None` waits for force.
    pub ends_after: Option<Duration>,
    /// [`Replicas::start`] fails.
    pub start_fails: bool,
    /// Why its model cannot be loaded, as it says from its start on.
    pub load_fails: Option<String>,
    /// Time from start until it tries again and does not say so any more.
    pub loads_again_after: Option<Duration>,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            ready_after: Some(Duration::from_millis(500)),
            crash_after: None,
            ends_after: Some(Duration::from_millis(100)),
            start_fails: false,
            load_fails: None,
            loads_again_after: None,
        }
    }
}

/// Replicas in memory. Time passes only in [`FakeReplicas::advance`].
#[derive(Debug, Default)]
pub struct FakeReplicas {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    now: Duration,
    next_id: u64,
    starts: u64,
    behaviours: BTreeMap<(String, u64), Behaviour>,
    replicas: BTreeMap<ContainerId, Replica>,
}

#[derive(Debug)]
struct Replica {
    start: StartReplica,
    behaviour: Behaviour,
    started: Duration,
    unready: bool,
    draining: bool,
    /// When it ends, by request or by force.
    ends_at: Option<Duration>,
    ended: Option<String>,
}

impl FakeReplicas {
    /// None, at time zero.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how replicas of a revision that start from now on behave.
    pub fn behave(&self, service: &str, revision: u64, behaviour: Behaviour) {
        self.lock().behaviours.insert((service.to_owned(), revision), behaviour);
    }

    /// Lets time pass.
    pub fn advance(&self, by: Duration) {
        let mut state = self.lock();
        state.now += by;
        let now = state.now;
        for replica in state.replicas.values_mut().filter(|r| r.ended.is_none()) {
            if replica.ends_at.is_some_and(|at| at <= now) {
                replica.ended = Some("exited with code 0".to_owned());
            } else if replica.behaviour.crash_after.is_some_and(|after| replica.started + after <= now) {
                replica.ended = Some("exited with code 1".to_owned());
            }
        }
    }

    /// The replicas' clock.
    pub fn now(&self) -> Duration {
        self.lock().now
    }

    /// Ends a replica as a fault of its own would.
    pub fn crash(&self, container: &ContainerId) {
        if let Some(replica) = self.lock().replicas.get_mut(container) {
            replica.ended.get_or_insert_with(|| "killed by signal 9".to_owned());
        }
    }

    /// Makes a replica's health check fail or pass.
    pub fn set_unready(&self, container: &ContainerId, unready: bool) {
        if let Some(replica) = self.lock().replicas.get_mut(container) {
            replica.unready = unready;
        }
    }

    /// Makes a replica vanish without a trace.
    pub fn lose(&self, container: &ContainerId) {
        self.lock().replicas.remove(container);
    }

    /// Replicas that were begun since this was made.
    pub fn starts(&self) -> u64 {
        self.lock().starts
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Replica {
    fn cannot_load(&self, now: Duration) -> bool {
        let again = self.behaviour.loads_again_after.is_some_and(|after| now >= self.started + after);
        self.behaviour.load_fails.is_some() && !again
    }

    fn state(&self, now: Duration) -> ReplicaState {
        if self.ended.is_some() {
            ReplicaState::Stopped
        } else if self.draining {
            ReplicaState::Draining
        } else if self.behaviour.ready_after.is_none_or(|after| now < self.started + after) {
            ReplicaState::Starting
        } else if self.unready {
            ReplicaState::Unready
        } else {
            ReplicaState::Ready
        }
    }
}

impl Replicas for FakeReplicas {
    fn start(&self, replica: &StartReplica) -> Result<ContainerId, EngineError> {
        let mut state = self.lock();
        let spec = &replica.revision.spec;
        let same = |other: &Replica| {
            other.ended.is_none()
                && other.start.revision.spec.name == spec.name
                && other.start.revision.number == replica.revision.number
                && other.start.slot == replica.slot
        };
        if let Some((id, _)) = state.replicas.iter().find(|(_, other)| same(other)) {
            return Ok(id.clone());
        }
        let key = (spec.name.clone(), replica.revision.number);
        let behaviour = state.behaviours.get(&key).cloned().unwrap_or_default();
        if behaviour.start_fails {
            return Err(EngineError::ImageMissing(replica.revision.image_id.clone()));
        }
        state.next_id += 1;
        state.starts += 1;
        let mut bytes = [0; 12];
        bytes[4..].copy_from_slice(&state.next_id.to_be_bytes());
        let id = ContainerId::from_random(bytes);
        let started = state.now;
        let replica = Replica {
            start: replica.clone(),
            behaviour,
            started,
            unready: false,
            draining: false,
            ends_at: None,
            ended: None,
        };
        state.replicas.insert(id.clone(), replica);
        Ok(id)
    }

    fn list(&self) -> Result<Vec<ObservedReplica>, EngineError> {
        let state = self.lock();
        Ok(state
            .replicas
            .iter()
            .map(|(id, replica)| ObservedReplica {
                container: id.clone(),
                service: replica.start.revision.spec.name.clone(),
                revision: replica.start.revision.number,
                slot: replica.start.slot,
                state: replica.state(state.now),
                started_at: None,
                reason: replica.ended.clone().or_else(|| replica.behaviour.load_fails.clone()),
                load_failed: replica.cannot_load(state.now),
                socket: Some(PathBuf::from(format!("/run/slipway/{id}/http.sock"))),
            })
            .collect())
    }

    fn drain(&self, container: &ContainerId) -> Result<(), EngineError> {
        let mut state = self.lock();
        let replica = state.replicas.get_mut(container).ok_or(EngineError::NotFound(container.clone()))?;
        replica.draining = true;
        Ok(())
    }

    fn stop(&self, container: &ContainerId, grace: Duration) -> Result<(), EngineError> {
        let mut state = self.lock();
        let now = state.now;
        let replica = state.replicas.get_mut(container).ok_or(EngineError::NotFound(container.clone()))?;
        replica.draining = true;
        let ends_at = now + replica.behaviour.ends_after.map_or(grace, |after| after.min(grace));
        replica.ends_at = Some(replica.ends_at.map_or(ends_at, |at| at.min(ends_at)));
        Ok(())
    }

    fn remove(&self, container: &ContainerId) -> Result<(), EngineError> {
        let mut state = self.lock();
        match state.replicas.get(container) {
            Some(replica) if replica.ended.is_none() => Err(EngineError::NotStopped(container.clone())),
            _ => {
                state.replicas.remove(container);
                Ok(())
            }
        }
    }

    fn consumption(&self, container: &ContainerId) -> Result<Option<Consumption>, EngineError> {
        let state = self.lock();
        let replica = state.replicas.get(container).ok_or(EngineError::NotFound(container.clone()))?;
        let cpu = state.now.saturating_sub(replica.started);
        Ok(replica.ended.is_none().then_some(Consumption { cpu, memory: 1 << 20, memory_limit: None }))
    }

    fn log(&self, container: &ContainerId, options: &LogOptions) -> Result<Box<dyn LogLines>, EngineError> {
        let started = match self.lock().replicas.get(container) {
            Some(replica) => replica.started,
            None => return Err(EngineError::NotFound(container.clone())),
        };
        let line = LogLine {
            time: Timestamp::UNIX_EPOCH + started,
            stream: OutputStream::Stdout,
            text: "hello".to_owned(),
        };
        let wanted = options.since.is_none_or(|since| line.time >= since) && options.tail != Some(0);
        Ok(Box::new(FakeLog {
            state: Arc::clone(&self.state),
            container: container.clone(),
            lines: wanted.then_some(line).into_iter().collect(),
            follow: options.follow,
        }))
    }
}

/// Every replica writes one line.
struct FakeLog {
    state: Arc<Mutex<State>>,
    container: ContainerId,
    lines: VecDeque<LogLine>,
    follow: bool,
}

impl LogLines for FakeLog {
    fn next_within(&mut self, _wait: Duration) -> Result<LogNext, EngineError> {
        if let Some(line) = self.lines.pop_front() {
            return Ok(LogNext::Line(line));
        }
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let runs = state.replicas.get(&self.container).is_some_and(|replica| replica.ended.is_none());
        Ok(if self.follow && runs { LogNext::Idle } else { LogNext::End })
    }
}
