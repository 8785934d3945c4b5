//! What every worker of one gateway shares.

use std::io::Read;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::time::Instant;

use http::HeaderValue;
use slipway_types::service::RoutingTable;

use crate::access_log::Logger;
use crate::config::Limits;
use crate::connection::Connection;
use crate::error::GatewayError;
use crate::stats::ServiceStats;
use crate::table::{Table, TableError};

/// What every worker of one gateway shares.
#[derive(Debug)]
pub(crate) struct Shared {
    table: RwLock<Arc<Table>>,
    pub limits: Limits,
    pub workers: usize,
    pub log: Option<Logger>,
    /// Requests that found no service, and those for pages of the gateway's own.
    pub own_stats: ServiceStats,
    pub routes: RoutesState,
    /// The gateway is about to end: it says so, and asks clients for new connections elsewhere.
    pub leaving: AtomicBool,
    pub connections: AtomicUsize,
    pub connections_refused: AtomicU64,
    pub containers_metrics_file: Option<PathBuf>,
    /// Scrapes under way.
    pub scrapes: AtomicU32,
    ids: RequestIds,
    epoch: Instant,
}

/// How the routing table's source fares.
#[derive(Debug, Default)]
pub(crate) struct RoutesState {
    /// A table was read at least once.
    pub loaded: AtomicBool,
    /// The table in force is an old one: the source cannot be read or used as it is now.
    pub stale: AtomicBool,
    /// Times that a changed table could not be used.
    pub failures: AtomicU64,
}

/// One worker: a thread with its own runtime and its own connections to replicas.
#[derive(Debug)]
pub(crate) struct Worker {
    pub index: usize,
    pub shared: Arc<Shared>,
    /// The gateway's clock, in milliseconds, at the last look at the deadlines.
    pub clock: AtomicU64,
    /// Connections end after the request under way.
    pub draining: AtomicBool,
    pub connections: Mutex<Vec<Weak<Connection>>>,
}

impl Worker {
    pub(crate) fn new(index: usize, shared: Arc<Shared>) -> Arc<Self> {
        let clock = AtomicU64::new(shared.now());
        Arc::new(Self {
            index,
            shared,
            clock,
            draining: AtomicBool::new(false),
            connections: Mutex::default(),
        })
    }

    /// Looks at the deadlines of all connections.
    pub(crate) fn look(&self) {
        let now = self.shared.now();
        self.clock.store(now, Relaxed);
        self.each(|connection| connection.look(now));
    }

    /// Tells all connections to end after the request under way.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Relaxed);
        self.each(|connection| connection.task.wake());
    }

    fn each(&self, act: impl Fn(&Connection)) {
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        connections.retain(|connection| connection.upgrade().inspect(|connection| act(connection)).is_some());
    }
}

impl Shared {
    pub(crate) fn new(
        limits: Limits,
        workers: usize,
        log: Option<Logger>,
        containers_metrics_file: Option<PathBuf>,
    ) -> Result<Arc<Self>, GatewayError> {
        Ok(Arc::new(Self {
            table: RwLock::default(),
            limits,
            workers,
            log,
            own_stats: ServiceStats::default(),
            routes: RoutesState::default(),
            leaving: AtomicBool::new(false),
            connections: AtomicUsize::new(0),
            connections_refused: AtomicU64::new(0),
            containers_metrics_file,
            scrapes: AtomicU32::new(0),
            ids: RequestIds::new().map_err(GatewayError::Random)?,
            epoch: Instant::now(),
        }))
    }

    /// The table in force. The lock is held for the copy of a pointer only.
    pub(crate) fn table(&self) -> Arc<Table> {
        Arc::clone(&self.table.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts a table into force.
    pub(crate) fn take(&self, new: &RoutingTable) -> Result<(), TableError> {
        let table = self.table().next(new, &self.limits, self.workers)?;
        tracing::info!(generation = table.generation, services = new.services.len(), "routing table taken");
        self.set_table(Arc::new(table));
        self.routes.loaded.store(true, Relaxed);
        self.routes.stale.store(false, Relaxed);
        Ok(())
    }

    fn set_table(&self, next: Arc<Table>) {
        let before = {
            let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *table, Arc::clone(&next))
        };
        before.retire_missing(&next);
    }

    /// Milliseconds since the gateway started.
    pub(crate) fn now(&self) -> u64 {
        self.millis(Instant::now())
    }

    /// A moment as milliseconds since the gateway started.
    pub(crate) fn millis(&self, moment: Instant) -> u64 {
        u64::try_from(moment.saturating_duration_since(self.epoch).as_millis()).unwrap_or(u64::MAX)
    }

    /// A request id that no other request has, of this or another run.
    pub(crate) fn request_id(&self) -> HeaderValue {
        self.ids.next()
    }
}

#[derive(Debug)]
struct RequestIds {
    run: u64,
    next: AtomicU64,
}

impl RequestIds {
    fn new() -> std::io::Result<Self> {
        let mut bytes = [0; 8];
        std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
        Ok(Self { run: u64::from_ne_bytes(bytes), next: AtomicU64::new(0) })
    }

    fn next(&self) -> HeaderValue {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let number = (u128::from(self.run) << 64) | u128::from(self.next.fetch_add(1, Relaxed));
        let mut text = [0; 32];
        for (place, digit) in text.iter_mut().rev().enumerate() {
            *digit = HEX[(number >> (4 * place)) as usize & 15];
        }
        HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static("0"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_ids_are_hexadecimal_and_count() {
        let ids = RequestIds { run: 0xabc, next: AtomicU64::new(0x1f) };
        assert_eq!(ids.next(), "0000000000000abc000000000000001f");
        assert_eq!(ids.next(), "0000000000000abc0000000000000020");
        assert_ne!(RequestIds::new().unwrap().run, RequestIds::new().unwrap().run);
    }
}
