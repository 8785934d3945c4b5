//! What is remembered of a service between passes, and what one pass gives.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;
use slipway_orchestrator::Notice;

use super::EngineOptions;
use super::known::Known;
use super::observe::Address;
use super::publisher::Publisher;
use super::report::ServiceReport;
use super::restarts::Restarts;
use crate::Capabilities;
use crate::apply::{Applier, ApplyError, Inventory, Mark};
use crate::object::ObjectKey;
use crate::reason::ReasonKind;

/// Annotation of a Deployment that was put back: the revision that failed, and why.
pub(super) const FAILED_ANNOTATION: &str = "slipway.dev/failed-revision";

/// What all services of a pass share.
pub(super) struct Context<'a> {
    pub applier: &'a Applier,
    pub inventory: &'a Inventory,
    pub publisher: &'a dyn Publisher,
    pub options: &'a EngineOptions,
    pub caps: &'a Capabilities,
    pub known: &'a Known<'a>,
    pub now: Duration,
    /// Set by the first that finds no API server: the others need not wait for it as well.
    pub unreachable: &'a AtomicBool,
    /// How many more are applied in this pass.
    pub turns: &'a AtomicUsize,
    /// Where the gateway answers, once it is known.
    pub gateway_address: Option<Address>,
}

impl Context<'_> {
    /// What is told of a failed request, if anything, and whether it may pass by itself. That no API server is there is
    /// for the next look to tell, once for all.
    pub(super) fn failed(
        &self,
        state: &mut State,
        subject: &str,
        kind: &'static str,
        error: &ApplyError,
    ) -> Option<Notice> {
        state.transient = error.is_transient();
        state.take_over &= state.transient;
        // A server that has just started refuses what it allows a moment later.
        let telling = if error.is_refusal() { self.options.telling } else { Duration::ZERO };
        let hopeless = *state.refused.get_or_insert(self.now + telling);
        if state.transient {
            state.refused = None;
        } else if hopeless > self.now {
            state.retry_at = state.retry_at.map(|at| at.min(hopeless));
        }
        if error.is_unreachable() {
            self.unreachable.store(true, Ordering::Relaxed);
            state.error = Some(error.sentence());
            return None;
        }
        state.tell(subject, kind, error.sentence())
    }
}

/// What one service gave.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub report: Option<ServiceReport>,
    pub completed: Option<u64>,
    /// Nothing of it is left.
    pub gone: bool,
    pub notices: Vec<Notice>,
    pub wake_at: Option<Duration>,
}

impl Outcome {
    /// To be looked at again at this time, or before.
    pub(super) fn wake(&mut self, at: Duration) {
        self.wake_at = Some(self.wake_at.map_or(at, |before| before.min(at)));
    }
}

/// What was applied.
#[derive(Debug, Default)]
pub(super) struct Applied {
    /// Hash of what it was made from.
    pub hash: String,
    /// Each object.
    pub marks: BTreeMap<ObjectKey, Mark>,
    pub at: Duration,
    /// Our copy has shown everything as it was applied.
    pub settled: bool,
    pub warnings: Vec<String>,
}

/// What is remembered of a service between passes.
#[derive(Debug, Default)]
pub(super) struct State {
    pub applied: Applied,
    /// Hash of what could not be applied, how often, and when it is tried again.
    pub tried: String,
    pub failures: u32,
    pub retry_at: Option<Duration>,
    /// Whether that may pass by itself.
    pub transient: bool,
    /// From when on waiting does not help it to be applied.
    pub refused: Option<Duration>,
    /// A user asked for the fields of its objects that others own: they become ours with the next application, once.
    pub take_over: bool,
    /// A node did not get its image.
    pub image_lost: bool,
    /// What was told last of why.
    pub error: Option<String>,
    /// A revision that failed, and why.
    pub failed: Option<(u64, String)>,
    /// The revision that is stuck, since when.
    pub stuck: Option<(u64, Duration)>,
    /// The revision whose failure a user wants forgotten, whatever the Deployment says.
    pub forgiven: Option<u64>,
    /// A user asked to try again.
    pub again: bool,
    /// Until then a Deployment's deadline is one that passed before a user asked again.
    pub patient_until: Duration,
    /// The revision of which it was told that it is rolled out, and the one that runs.
    pub begun: Option<u64>,
    pub completed: Option<u64>,
    /// What was told of why replicas do not start.
    pub start_failed: Option<(u64, ReasonKind)>,
    pub restarts: Restarts,
    /// Where it answered last.
    pub address: Option<Address>,
}

impl State {
    /// A failure of another revision is history; one that a former process saw is told by the Deployment.
    pub(super) fn remember_failure(&mut self, live: Option<&Value>, target: u64) {
        let note = live.and_then(|live| live["metadata"]["annotations"][FAILED_ANNOTATION].as_str());
        let noted = note.and_then(|note| note.split_once(": "));
        let noted = noted.and_then(|(number, reason)| Some((number.parse::<u64>().ok()?, reason.to_owned())));
        match noted {
            None => self.forgiven = None,
            Some((number, _)) if self.forgiven == Some(number) => {}
            Some(noted) => _ = self.failed.get_or_insert(noted),
        }
        self.failed.take_if(|(number, _)| *number != target);
    }

    /// What failed before counts no more and waits for nothing.
    pub(super) fn try_again(&mut self) {
        self.forgiven = self.failed.take().map(|(number, _)| number).or(self.forgiven);
        self.again = true;
        self.image_lost = false;
        self.refused = None;
        self.tried.clear();
        self.failures = 0;
        self.retry_at = None;
        self.error = None;
        self.stuck = None;
        self.start_failed = None;
    }

    /// The wait after one more failure.
    pub(super) fn back_off(&mut self, context: &Context<'_>) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let doubled = context.options.retry_first.saturating_mul(1 << (self.failures - 1).min(16));
        let at = context.now + doubled.min(context.options.retry_most);
        self.retry_at = Some(at);
        at
    }

    /// An event, unless it is the one that was told last.
    pub(super) fn tell(&mut self, subject: &str, kind: &'static str, message: String) -> Option<Notice> {
        if self.error.as_deref() == Some(&message) {
            return None;
        }
        self.error = Some(message.clone());
        Some(notice(subject, kind, &message))
    }
}

/// An event: one line that ends as a sentence does.
pub(super) fn notice(subject: &str, kind: &'static str, message: &str) -> Notice {
    let mut message = message.split_whitespace().collect::<Vec<_>>().join(" ");
    if !message.ends_with(['.', '!', '?']) {
        message.push('.');
    }
    Notice { subject: subject.to_owned(), kind, message }
}

pub(super) fn subject(service: &str) -> String {
    format!("service/{service}")
}
