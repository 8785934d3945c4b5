//! The gateway in a pod: it routes to what the cluster says, writes nothing, and leaves before it ends.

use std::net::SocketAddr;
use std::time::Duration;

use slipway_gateway::{AccessLog, Gateway, GatewayConfig};
use slipway_kubernetes::routes::{Change, RouteWatch};
use slipway_types::service::{PREDICTION_LIMIT_MS, RoutingTable};

use super::{End, runtime, unavailable};
use crate::failure::Failure;
use crate::{daemon, wire};

/// How long it serves on after it was told to end. Most clients know by then: the pod has waited before, and each answer
/// ends its connection now.
const LEAVING: Duration = Duration::from_secs(2);

pub(super) fn run(namespace: &str, listen: SocketAddr) -> Result<u8, Failure> {
    daemon::start_log();
    let mut config = GatewayConfig::without_file(listen);
    config.access_log = AccessLog::Writer(Box::new(std::io::stdout()));
    config.limits.drain = Duration::from_millis(PREDICTION_LIMIT_MS);
    runtime()?.block_on(async {
        let mut end = End::new()?;
        let mut watch = wire::pod_routes(namespace).await?;
        let gateway = slipway_gateway::start(config).await.map_err(unavailable)?;
        tracing::info!(namespace, %listen, version = env!("CARGO_PKG_VERSION"), "the gateway listens");
        let mut table = Table::default();
        table.follow(&mut watch, &gateway, end.asked()).await;
        tracing::info!("asked to end");
        gateway.leave();
        table.follow(&mut watch, &gateway, tokio::time::sleep(LEAVING)).await;
        let drained = gateway.shutdown().await;
        tracing::info!(cut_off = drained.cut_off, "ended");
        Ok(0)
    })
}

/// The table that the gateway was given last.
#[derive(Default)]
struct Table {
    table: RoutingTable,
    refused: bool,
    problems: Vec<String>,
    trouble: Option<String>,
}

impl Table {
    /// Gives the gateway what the cluster says, as it changes, until something happens.
    async fn follow(&mut self, watch: &mut RouteWatch, gateway: &Gateway, until: impl Future<Output = ()>) {
        tokio::pin!(until);
        loop {
            tokio::select! {
                () = &mut until => return,
                change = watch.next() => self.take(change, gateway),
            }
        }
    }

    fn take(&mut self, change: Change, gateway: &Gateway) {
        let Change { routes, trouble } = change;
        for problem in routes.problems.iter().filter(|problem| !self.problems.contains(problem)) {
            tracing::warn!("not routed: {problem}");
        }
        self.problems = routes.problems;
        if trouble != self.trouble {
            match &trouble {
                Some(trouble) => tracing::warn!("the routes stay as they are: {trouble}"),
                None => tracing::info!("the routes are current again"),
            }
            self.trouble = trouble;
        }
        if self.table.generation == 0 || routes.services != self.table.services {
            self.table.generation += 1;
            self.table.services = routes.services;
            let taken = gateway.set_routes(&self.table);
            if let Err(error) = &taken {
                tracing::error!(%error, "routing table not taken; the one before stays");
            }
            self.refused = taken.is_err();
        }
        gateway.set_stale(self.refused || self.trouble.is_some());
    }
}
