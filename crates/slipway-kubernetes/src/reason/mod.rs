//! Why something does not start, or ended, in one sentence with what to do. Pure: objects of a cluster in, a reason out.

mod event;
mod job;
mod pod;
mod refusal;
mod workload;

pub(crate) use event::newest_warning;
pub use job::{RunEnd, job};
pub(crate) use job::{no_pods, rank as rank_of};
pub(crate) use pod::last_end;
pub use pod::pod;
pub use refusal::refusal;
pub use workload::deployment;

use serde_json::Value;

/// Why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// What kind of reason.
    pub kind: ReasonKind,
    /// One sentence, with what to do.
    pub text: String,
}

/// Kinds of reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReasonKind {
    /// It is on its way: pulling, creating.
    Starting,
    /// No node takes it.
    Unschedulable,
    /// An image cannot be had.
    Image,
    /// A ConfigMap, Secret, claim or command is wrong.
    Configuration,
    /// A volume cannot be mounted.
    Volume,
    /// A quota is used up.
    Quota,
    /// A policy refuses it.
    Admission,
    /// A container was killed for its memory.
    OutOfMemory,
    /// A container ends again and again.
    Crash,
    /// It runs and a probe fails.
    Probe,
    /// Its node is gone or does not answer.
    NodeLost,
    /// It was evicted or preempted.
    Evicted,
    /// It took longer than it may.
    Deadline,
}

impl ReasonKind {
    /// Whether waiting alone does not help: somebody must change something.
    pub fn is_stuck(self) -> bool {
        matches!(
            self,
            Self::Image
                | Self::Configuration
                | Self::Quota
                | Self::Admission
                | Self::OutOfMemory
                | Self::Crash
                | Self::Deadline
        )
    }

    /// Whether the cluster took its place away, and the program itself did nothing wrong.
    pub fn is_disruption(self) -> bool {
        matches!(self, Self::NodeLost | Self::Evicted)
    }
}

impl Reason {
    fn new(kind: ReasonKind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into() }
    }
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn items<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

pub(crate) fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    items(object, "/status/conditions").iter().find(|condition| condition["type"] == kind)
}

/// A message of the cluster's as the middle of a sentence: one line, no final stop, not endless.
pub(crate) fn clip(message: &str) -> String {
    const MOST: usize = 300;
    let line = message.split_whitespace().collect::<Vec<_>>().join(" ");
    // It may come from a program in a pod, and goes to terminals.
    let line = line.replace(char::is_control, "");
    let line = line.trim_end_matches('.');
    match line.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}
