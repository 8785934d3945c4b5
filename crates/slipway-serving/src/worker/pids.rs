//! Which processes are workers.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Process ids of workers that were started and not yet waited for. Clones share it.
///
/// A process that reaps orphans, as the first one of a container must, leaves these alone.
#[derive(Clone, Debug, Default)]
pub struct WorkerPids(Arc<Mutex<BTreeSet<u32>>>);

impl WorkerPids {
    /// All of them.
    pub fn all(&self) -> Vec<u32> {
        self.lock().iter().copied().collect()
    }

    /// Whether `pid` is one.
    pub fn contains(&self, pid: u32) -> bool {
        self.lock().contains(&pid)
    }

    pub(super) fn register(&self, pid: Option<u32>) -> Registered {
        self.lock().extend(pid);
        Registered { pids: self.clone(), pid }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes the id out again when it is dropped.
#[derive(Debug)]
pub(super) struct Registered {
    pids: WorkerPids,
    pid: Option<u32>,
}

impl Drop for Registered {
    fn drop(&mut self) {
        if let Some(pid) = self.pid {
            self.pids.lock().remove(&pid);
        }
    }
}
