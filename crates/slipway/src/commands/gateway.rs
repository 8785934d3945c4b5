//! `slipway gateway`: a role of the binary, started by the daemon.

use slipway_gateway::{AccessLog, GatewayConfig};
use slipway_types::{ApiError, ErrorCode};

use super::Context;
use crate::failure::Failure;

/// Run the data plane
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs until it is asked to end.
pub fn run(context: &Context, _args: &Args) -> Result<u8, Failure> {
    let listen = &context.settings.values.gateway.listen;
    let address = listen.parse().map_err(|_| {
        Failure::usage(format!(
            "{}: `gateway.listen`: `{listen}` is not an address and a port, such as `127.0.0.1:8080`",
            context.settings.file.display()
        ))
    })?;
    let folder = context.settings.root.join("gateway");
    let _lock = crate::daemon::hold_gateway_lock(&folder)?;
    let mut config = GatewayConfig::new(address, folder.join("routes.json"));
    config.access_log = AccessLog::File(folder.join("access.log"));
    config.containers_metrics_file = Some(folder.join("containers.prom"));
    let internal = |error: &dyn std::fmt::Display| ApiError::new(ErrorCode::Internal, error.to_string());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|e| internal(&e))?;
    runtime.block_on(async {
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
            .map_err(|e| internal(&e))?;
        let gateway = slipway_gateway::start(config)
            .await
            .map_err(|e| ApiError::from_error(ErrorCode::Unavailable, &e))?;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        gateway.shutdown().await;
        Ok(0)
    })
}
