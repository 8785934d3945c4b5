//! Asks every replica now and then whether it is ready.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use futures_util::StreamExt;

use super::backend::Backend;
use super::fetch::fetch;
use crate::shared::Shared;
use crate::stats::ServiceStats;

/// Replicas asked at once.
const AT_ONCE: usize = 32;
const MAX_ANSWER: usize = 64 << 10;

/// Asks every replica in the table each `interval`, and closes old idle connections. Runs until it is dropped.
pub(crate) async fn watch(shared: Arc<Shared>, interval: Duration) {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let timeout = interval.clamp(Duration::from_millis(100), Duration::from_secs(2));
    loop {
        ticks.tick().await;
        let table = shared.table();
        let mut checks = Vec::new();
        for service in table.services() {
            for backend in &service.backends {
                checks.push(check(Arc::clone(&service.stats), Arc::clone(backend), timeout));
            }
        }
        drop(table);
        futures_util::stream::iter(checks).buffer_unordered(AT_ONCE).for_each(|()| async {}).await;
    }
}

async fn check(stats: Arc<ServiceStats>, backend: Arc<Backend>, timeout: Duration) {
    let answer = fetch(&backend.address, "/v2/health/ready", MAX_ANSWER, timeout).await;
    // A server of the user's own may not know this page: any answer that is no failure will do.
    let passed = matches!(&answer, Ok((status, _)) if !status.is_server_error());
    if backend.checked(passed) {
        stats.ejections.fetch_add(1, Relaxed);
        tracing::warn!(replica = backend.name, ?answer, "replica fails its health check");
    }
    backend.close_old(Instant::now());
}
