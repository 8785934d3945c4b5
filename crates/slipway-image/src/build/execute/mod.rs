//! Executing a plan: stages side by side, steps one after the other, nothing that the cache has.

mod copy;
mod hints;
mod lent;
mod metadata;
mod mounts;
mod order;
mod output;
mod remote;
mod roots;
mod run;
mod stage;
mod steps;
mod stubs;
mod trust;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use slipway_types::Reference;
use slipway_types::build::BuildRequest;
use slipway_types::image::Platform;

use super::builder::{Events, Machine};
use super::cache::{Made, StepKey};
use super::context::Context;
use super::dockerfile::{Dockerfile, LineIndex};
use super::error::{BuildError, Fault, StepErrorKind};
use super::image_config::ImageConfig;
use super::plan::{Globals, Plan};
use super::runner::CancelFlag;
use crate::store::Staging;

pub(crate) use mounts::CacheMounts;
use stage::{Advance, Cursor, StageState};
use steps::Steps;
pub(crate) use trust::Trust;

/// Steps that run at the same time.
const THREADS: usize = 2;

/// What one build works with.
pub(crate) struct Parts<'a> {
    pub(crate) machine: &'a Machine,
    pub(crate) request: &'a BuildRequest,
    pub(crate) dockerfile: &'a Dockerfile,
    pub(crate) plan: &'a Plan,
    pub(crate) globals: &'a Globals,
    pub(crate) context: &'a Context,
    pub(crate) lines: LineIndex<'a>,
    pub(crate) host: &'a Platform,
    pub(crate) trust: Option<Trust>,
    pub(crate) epoch: Option<Timestamp>,
    pub(crate) events: &'a Events<'a>,
    /// Set by this build itself too, when one of its steps fails.
    pub(crate) cancel: CancelFlag,
}

/// One build.
pub(crate) struct Build<'a> {
    parts: Parts<'a>,
    steps: Steps<'a>,
    schedule: Mutex<Schedule<'a>>,
    changed: Condvar,
    bases: Mutex<HashMap<Reference, Arc<Mutex<Option<ImageConfig>>>>>,
}

/// Which stages run, wait and are done.
#[derive(Default)]
struct Schedule<'a> {
    ready: VecDeque<Cursor<'a>>,
    /// Stages that wait for another, by its number.
    waiting: HashMap<usize, Vec<Cursor<'a>>>,
    started: Vec<bool>,
    done: Vec<Option<Arc<StageState>>>,
    running: usize,
    failed: Option<BuildError>,
}

impl<'a> Build<'a> {
    pub(crate) fn new(parts: Parts<'a>) -> Self {
        let steps = Steps::new(parts.events, parts.plan.steps);
        let count = parts.dockerfile.stages.len();
        let mut schedule =
            Schedule { started: vec![false; count], done: vec![None; count], ..Schedule::default() };
        for number in 0..count {
            if parts.plan.stages[number].is_some() {
                schedule.start(number);
            }
        }
        Self {
            parts,
            steps,
            schedule: Mutex::new(schedule),
            changed: Condvar::new(),
            bases: Mutex::default(),
        }
    }

    /// Executes everything; the target's configuration.
    pub(crate) fn run(&self) -> Result<ImageConfig, BuildError> {
        std::thread::scope(|scope| {
            for _ in 1..THREADS {
                scope.spawn(|| self.work());
            }
            self.work();
        });
        let mut schedule = self.lock();
        if let Some(error) = schedule.failed.take() {
            return Err(error);
        }
        let target = schedule.done[self.parts.plan.target].take();
        let state = target.expect("the workers end when the target is done or something failed");
        Ok(state.finished())
    }

    /// Steps executed, and steps from the cache.
    pub(crate) fn counts(&self) -> (u32, u32) {
        self.steps.counts()
    }

    fn lock(&self) -> MutexGuard<'_, Schedule<'a>> {
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let mut schedule = self.lock();
        loop {
            if schedule.failed.is_some() || schedule.done[self.parts.plan.target].is_some() {
                self.changed.notify_all();
                return;
            }
            let Some(mut cursor) = schedule.ready.pop_front() else {
                schedule = self.changed.wait(schedule).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            schedule.running += 1;
            drop(schedule);
            let abandon = Abandon(self);
            let advance = cursor.advance(self);
            std::mem::forget(abandon);
            schedule = self.lock();
            schedule.running -= 1;
            match advance {
                Ok(Advance::Done(state)) => {
                    schedule.done[cursor.number] = Some(Arc::from(state));
                    let waiting = schedule.waiting.remove(&cursor.number).unwrap_or_default();
                    schedule.ready.extend(waiting);
                }
                // Stages only ever wait for earlier ones, so somebody can always go on.
                Ok(Advance::Needs(number)) if schedule.done[number].is_some() => {
                    schedule.ready.push_back(cursor)
                }
                Ok(Advance::Needs(number)) => {
                    schedule.start(number);
                    schedule.waiting.entry(number).or_default().push(cursor);
                }
                Err(error) => {
                    // What the other threads then report is only the cancellation.
                    self.parts.cancel.cancel();
                    schedule.failed.get_or_insert(error);
                }
            }
            self.changed.notify_all();
        }
    }

    /// A stage that is done.
    fn finished_stage(&self, number: usize) -> Option<Arc<StageState>> {
        self.lock().done[number].clone()
    }

    fn check_cancel(&self) -> Result<(), Fault> {
        if self.parts.cancel.is_cancelled() { Err(StepErrorKind::Cancelled.into()) } else { Ok(()) }
    }

    /// What the cache has for a step; nothing when it is not to be asked.
    fn cached(&self, key: &StepKeyDigest) -> Result<Option<Made>, Fault> {
        if self.parts.request.no_cache {
            return Ok(None);
        }
        Ok(self.parts.machine.store.cache_get(key)?.and_then(Made::from_entry))
    }

    /// Takes a step from the cache or executes it: `make` writes into a fresh overlay, whose upper folder becomes
    /// the layer. Tells whether it was cached.
    fn layered(
        &self,
        key: StepKey,
        created_by: &str,
        make: &mut dyn FnMut(&Staging) -> Result<(), Fault>,
    ) -> Result<(Made, bool), Fault> {
        let key = key.finish();
        if let Some(made) = self.cached(&key)? {
            return Ok((made, true));
        }
        let store = &self.parts.machine.store;
        let claim = self.parts.machine.flights.claim(&key, &self.parts.cancel);
        let (_claim, waited) = claim.ok_or(StepErrorKind::Cancelled)?;
        if waited && let Some(made) = self.cached(&key)? {
            return Ok((made, true));
        }
        self.check_cancel()?;
        let staging = store.staging("build")?;
        make(&staging)?;
        let layer = store.commit_upper(staging, created_by)?;
        let made = Made { layer: layer.map(|layer| layer.diff_id), created: Timestamp::now() };
        store.cache_put(&key, &made.to_entry(created_by))?;
        Ok((made, false))
    }

    /// Adds what a step made to its stage. It counts as made when the request says, else when it was.
    fn add(&self, state: &mut StageState, made: &Made, created_by: &str) {
        if let Some(layer) = &made.layer {
            state.config.rootfs.diff_ids.push(layer.clone());
        }
        let created = self.parts.epoch.unwrap_or(made.created);
        state.created = self.parts.epoch.or(state.created.max(Some(created)));
        state.config.record(Some(created), created_by, made.layer.is_none());
    }
}

/// Wakes the other thread when this one panics in a step, so that it does not wait for ever.
struct Abandon<'b, 'a>(&'b Build<'a>);

impl Drop for Abandon<'_, '_> {
    fn drop(&mut self) {
        self.0.parts.cancel.cancel();
        self.0.lock().failed.get_or_insert(BuildError::Cancelled);
        self.0.changed.notify_all();
    }
}

/// The digest of a step's inputs.
type StepKeyDigest = slipway_types::Digest;

impl Schedule<'_> {
    fn start(&mut self, number: usize) {
        if !std::mem::replace(&mut self.started[number], true) {
            self.ready.push_back(Cursor::new(number));
        }
    }
}
