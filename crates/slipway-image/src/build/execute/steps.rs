//! Numbering steps and reporting them.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use slipway_types::build::BuildEvent;
use slipway_types::container::OutputStream;

use crate::build::builder::Events;

/// The steps of one build, numbered as they begin.
pub(super) struct Steps<'a> {
    events: &'a Events<'a>,
    /// Steps begun; locked while the event goes out, so that numbers come in order.
    begun: Mutex<u32>,
    total: AtomicU32,
    executed: AtomicU32,
    cached: AtomicU32,
}

/// A step that has begun.
pub(super) struct Step<'a> {
    pub(super) number: u32,
    events: &'a Events<'a>,
    started: Instant,
}

impl<'a> Steps<'a> {
    pub(super) fn new(events: &'a Events<'a>, total: u32) -> Self {
        Self {
            events,
            begun: Mutex::new(0),
            total: AtomicU32::new(total),
            executed: AtomicU32::new(0),
            cached: AtomicU32::new(0),
        }
    }

    /// Steps that nobody knew of before: ONBUILD triggers.
    pub(super) fn add(&self, more: u32) {
        self.total.fetch_add(more, Ordering::Relaxed);
    }

    pub(super) fn begin(&self, stage: &str, instruction: &str) -> Step<'a> {
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        *begun += 1;
        let step = Step { number: *begun, events: self.events, started: Instant::now() };
        (self.events)(BuildEvent::StepStarted {
            step: step.number,
            total: self.total.load(Ordering::Relaxed).max(step.number),
            stage: stage.to_owned(),
            instruction: instruction.to_owned(),
        });
        step
    }

    pub(super) fn finish(&self, step: &Step<'_>, cached: bool) {
        let counter = if cached { &self.cached } else { &self.executed };
        counter.fetch_add(1, Ordering::Relaxed);
        let seconds = step.started.elapsed().as_secs_f64();
        (self.events)(BuildEvent::StepFinished { step: step.number, cached, seconds });
    }

    pub(super) fn counts(&self) -> (u32, u32) {
        (self.executed.load(Ordering::Relaxed), self.cached.load(Ordering::Relaxed))
    }
}

impl Step<'_> {
    pub(super) fn progress(&self, what: &str, done: u64, total: Option<u64>) {
        (self.events)(BuildEvent::Progress { step: self.number, what: what.to_owned(), done, total });
    }

    pub(super) fn output(&self, stream: OutputStream, text: String) {
        if !text.is_empty() {
            (self.events)(BuildEvent::Output { step: self.number, stream, text });
        }
    }
}
