//! One replica: its load, its health and its idle connections.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use slipway_types::service::{Address, Backend as Row, ReplicaId};

use super::link::Link;

/// Most idle connections kept per replica and worker.
const MAX_IDLE: usize = 256;
/// Idle connections older than this are closed.
const MAX_IDLE_AGE: Duration = Duration::from_secs(60);
/// How long a replica is set aside after a refused connection; doubles up to the longest.
const EJECTION: Duration = Duration::from_millis(500);
const MAX_EJECTION: Duration = Duration::from_secs(10);
/// Health checks in a row that must fail before a replica is set aside.
const FAILED_CHECKS: u32 = 2;

/// Connections that wait for a request. Boxed, because they are large and change hands with each.
type Idle = Vec<Box<Link>>;

/// One replica.
#[derive(Debug)]
pub(crate) struct Backend {
    pub id: ReplicaId,
    /// What logs and metrics call it.
    pub name: String,
    pub address: Address,
    outstanding: AtomicU32,
    /// Refused connections in a row.
    refused: AtomicU32,
    /// Milliseconds of the gateway's clock until which it is set aside.
    ejected_until: AtomicU64,
    /// Failed health checks in a row.
    failed_checks: AtomicU32,
    retired: AtomicBool,
    /// Idle connections, one list per worker: a connection belongs to the runtime that opened it.
    idle: Box<[Mutex<Idle>]>,
}

/// One request under way at a replica; ends when dropped.
#[derive(Debug)]
pub(crate) struct Lease(Arc<Backend>);

impl Lease {
    pub(crate) fn backend(&self) -> &Arc<Backend> {
        &self.0
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.outstanding.fetch_sub(1, Relaxed);
    }
}

impl Backend {
    pub(crate) fn new(row: &Row, workers: usize) -> Self {
        Self {
            id: row.id.clone(),
            name: row.name.clone().unwrap_or_else(|| row.id.short().to_owned()),
            address: row.address.clone(),
            outstanding: AtomicU32::new(0),
            refused: AtomicU32::new(0),
            ejected_until: AtomicU64::new(0),
            failed_checks: AtomicU32::new(0),
            retired: AtomicBool::new(false),
            idle: std::iter::repeat_with(Mutex::default).take(workers.max(1)).collect(),
        }
    }

    pub(crate) fn lease(self: &Arc<Self>) -> Lease {
        self.outstanding.fetch_add(1, Relaxed);
        Lease(Arc::clone(self))
    }

    /// Requests under way.
    pub(crate) fn outstanding(&self) -> u32 {
        self.outstanding.load(Relaxed)
    }

    /// Whether nothing speaks against sending it a request at `now`, in milliseconds of the gateway's clock.
    pub(crate) fn usable(&self, now: u64) -> bool {
        self.ejected_until.load(Relaxed) <= now && self.failed_checks.load(Relaxed) < FAILED_CHECKS
    }

    /// Sets it aside for a moment: it took no connection.
    pub(crate) fn connect_failed(&self, now: u64) {
        let times = self.refused.fetch_add(1, Relaxed).min(10);
        let pause = EJECTION.saturating_mul(1 << times).min(MAX_EJECTION);
        self.ejected_until.store(now + u64::try_from(pause.as_millis()).unwrap_or(u64::MAX / 2), Relaxed);
    }

    /// It answered: nothing is held against it.
    pub(crate) fn answered(&self) {
        // Nearly always zero already, and a load does not take the cache line from the other workers.
        if self.refused.load(Relaxed) != 0 {
            self.refused.store(0, Relaxed);
            self.ejected_until.store(0, Relaxed);
        }
    }

    /// Takes a health check's result. Says whether it was set aside by this one.
    pub(crate) fn checked(&self, passed: bool) -> bool {
        if passed {
            self.failed_checks.store(0, Relaxed);
            self.answered();
            return false;
        }
        self.failed_checks.fetch_add(1, Relaxed) + 1 == FAILED_CHECKS
    }

    /// It is in no table any more: connections close as they become idle.
    pub(crate) fn retire(&self) {
        self.retired.store(true, Relaxed);
        for idle in &self.idle {
            let closed = std::mem::take(&mut *lock(idle));
            drop(closed);
        }
    }

    #[cfg(test)]
    pub(crate) fn retired(&self) -> bool {
        self.retired.load(Relaxed)
    }

    /// An idle connection that is still open.
    pub(crate) fn take_idle(&self, worker: usize) -> Option<Box<Link>> {
        loop {
            let mut link = lock(self.idle.get(worker)?).pop()?;
            if link.is_open() {
                return Some(link);
            }
        }
    }

    /// Keeps a connection for the next request, if it can take one.
    pub(crate) fn put_idle(&self, worker: usize, mut link: Box<Link>) {
        if self.retired.load(Relaxed) || !link.settle() {
            return;
        }
        if let Some(idle) = self.idle.get(worker) {
            let mut idle = lock(idle);
            if idle.len() < MAX_IDLE {
                idle.push(link);
            }
        }
        // If it retires between the check above and here, the link goes with it once no table and no lease holds it.
    }

    /// Closes connections that were idle for long.
    pub(crate) fn close_old(&self, now: Instant) {
        for idle in &self.idle {
            let mut old = Vec::new();
            {
                // The last used are at the end, so the old ones are in front.
                let mut idle = lock(idle);
                let count = idle.iter().take_while(|link| link.idle_for(now) > MAX_IDLE_AGE).count();
                old.extend(idle.drain(..count));
            }
            drop(old);
        }
    }
}

fn lock(idle: &Mutex<Idle>) -> MutexGuard<'_, Idle> {
    idle.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend() -> Backend {
        let (id, address) = ("a".to_owned().try_into().unwrap(), Address::Socket("/x".into()));
        Backend::new(&Row { id, name: None, address, labels: Vec::new() }, 1)
    }

    #[test]
    fn a_refused_connection_sets_it_aside_for_longer_each_time() {
        let backend = backend();
        let mut pauses = Vec::new();
        for _ in 0..7 {
            backend.connect_failed(1000);
            pauses.push(backend.ejected_until.load(Relaxed) - 1000);
        }
        assert_eq!(pauses, [500, 1000, 2000, 4000, 8000, 10_000, 10_000]);
        assert!(!backend.usable(10_999) && backend.usable(11_000));
        backend.answered();
        assert!(backend.usable(1000));
    }

    #[test]
    fn two_failed_checks_set_it_aside_and_one_success_brings_it_back() {
        let backend = backend();
        assert!(!backend.checked(false) && backend.usable(0));
        assert!(backend.checked(false) && !backend.usable(0));
        assert!(!backend.checked(false) && !backend.usable(0));
        assert!(!backend.checked(true) && backend.usable(0));
    }
}
