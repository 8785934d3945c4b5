//! Keys of steps, and who executes one at the moment.

use std::collections::HashSet;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use slipway_types::Digest;

use super::runner::CancelFlag;
use crate::store::CachedStep;

/// Raised when what a step writes changes for the same inputs.
const VERSION: &[u8] = b"slipway build step 1";

/// Collects the inputs of a step. Every field is written with its length, so no two sets of inputs look alike.
pub(crate) struct StepKey(Sha256);

impl StepKey {
    /// A key of a step `kind` on top of `layers`, lowest first.
    pub(crate) fn new(kind: &str, layers: &[Digest]) -> Self {
        let mut key = Self(Sha256::new()).bytes("version", VERSION).text("kind", kind);
        key = key.list("layers", layers.iter().map(Digest::as_str));
        key
    }

    pub(crate) fn bytes(mut self, field: &str, value: &[u8]) -> Self {
        for part in [field.as_bytes(), value] {
            self.0.update((part.len() as u64).to_le_bytes());
            self.0.update(part);
        }
        self
    }

    pub(crate) fn text(self, field: &str, value: &str) -> Self {
        self.bytes(field, value.as_bytes())
    }

    /// A value that may be absent, which differs from every value.
    pub(crate) fn option(self, field: &str, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.text("some", field).text(field, value),
            None => self.text("none", field),
        }
    }

    pub(crate) fn list<'a>(mut self, field: &str, values: impl IntoIterator<Item = &'a str>) -> Self {
        let mut count: u64 = 0;
        self = self.text("list", field);
        for value in values {
            self = self.text(field, value);
            count += 1;
        }
        self.bytes("count", &count.to_le_bytes())
    }

    pub(crate) fn finish(self) -> Digest {
        Digest::from_sha256(self.0.finalize().into())
    }
}

/// What the cache says about a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Made {
    /// The layer that it added; none when it changed nothing.
    pub(crate) layer: Option<Digest>,
    /// When it was executed.
    pub(crate) created: Timestamp,
}

impl Made {
    pub(crate) fn to_entry(&self, created_by: &str) -> CachedStep {
        let payload = serde_json::json!({ "created": self.created, "created_by": created_by });
        CachedStep { layer: self.layer.clone(), payload }
    }

    /// `None` for an entry that this program does not understand.
    pub(crate) fn from_entry(entry: CachedStep) -> Option<Self> {
        let created = entry.payload.get("created")?.as_str()?.parse().ok()?;
        Some(Self { layer: entry.layer, created })
    }
}

/// Steps that are being executed, over all builds of this process: nobody executes one that another has begun.
#[derive(Default)]
pub(crate) struct InFlight {
    keys: Mutex<HashSet<Digest>>,
    changed: Condvar,
}

/// The right to execute a step; given back on drop.
pub(crate) struct Claim<'a> {
    owner: &'a InFlight,
    key: Digest,
}

impl InFlight {
    /// Waits until nobody else executes the step. `None` when the build was cancelled meanwhile. The flag tells
    /// whether somebody did, so that the cache is worth another look.
    pub(crate) fn claim(&self, key: &Digest, cancel: &CancelFlag) -> Option<(Claim<'_>, bool)> {
        let mut keys = self.lock();
        let mut waited = false;
        while keys.contains(key) {
            if cancel.is_cancelled() {
                return None;
            }
            waited = true;
            let wait = self.changed.wait_timeout(keys, Duration::from_millis(100));
            keys = wait.unwrap_or_else(PoisonError::into_inner).0;
        }
        keys.insert(key.clone());
        Some((Claim { owner: self, key: key.clone() }, waited))
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<Digest>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.owner.lock().remove(&self.key);
        self.owner.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_never_run_into_each_other() {
        let key = |parts: &[(&str, &str)]| {
            parts.iter().fold(StepKey::new("run", &[]), |key, (f, v)| key.text(f, v)).finish()
        };
        assert_eq!(key(&[("a", "b")]), key(&[("a", "b")]));
        assert_ne!(key(&[("a", "bc")]), key(&[("ab", "c")]));
        assert_ne!(
            StepKey::new("r", &[]).list("a", ["x", "y"]).finish(),
            StepKey::new("r", &[]).list("a", ["xy"]).finish()
        );
        assert_ne!(
            StepKey::new("r", &[]).option("a", None).finish(),
            StepKey::new("r", &[]).option("a", Some("")).finish()
        );
        let layer = Digest::from_sha256([1; 32]);
        assert_ne!(StepKey::new("r", &[]).finish(), StepKey::new("r", &[layer]).finish());
    }

    #[test]
    fn entries_are_read_back() {
        let made = Made { layer: None, created: Timestamp::from_second(1_700_000_000).unwrap() };
        assert_eq!(Made::from_entry(made.to_entry("RUN x")), Some(made));
        let odd = CachedStep { layer: None, payload: serde_json::json!({"created": 7}) };
        assert_eq!(Made::from_entry(odd), None);
    }

    #[test]
    fn one_at_a_time() {
        let flights = InFlight::default();
        let key = Digest::from_sha256([2; 32]);
        let cancel = CancelFlag::new();
        let first = flights.claim(&key, &cancel).unwrap();
        assert!(!first.1);
        std::thread::scope(|scope| {
            let second = scope.spawn(|| flights.claim(&key, &cancel).map(|(_, waited)| waited));
            std::thread::sleep(Duration::from_millis(20));
            drop(first);
            assert_eq!(second.join().unwrap(), Some(true));
        });
        let _held = flights.claim(&key, &cancel).unwrap();
        cancel.cancel();
        assert!(flights.claim(&key, &cancel).is_none());
    }
}
