//! `slipway gateway`: a role of the binary, started by the daemon or by a pod.

mod in_cluster;

use std::net::SocketAddr;
use std::time::Duration;

use slipway_gateway::{AccessLog, GatewayConfig};
use slipway_types::{ApiError, ErrorCode};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Context;
use crate::failure::Failure;

/// Run the data plane
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    action: Option<Action>,
    /// Route to the pods of the cluster that it runs in
    #[arg(long, requires_all = ["namespace", "listen"])]
    in_cluster: bool,
    /// Namespace whose services it routes to
    #[arg(long, requires = "in_cluster", value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// Address to listen on [default: what the settings say]
    #[arg(long, requires = "in_cluster", value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Do nothing for a while: what a pod does before it ends, while everyone learns of it
    Wait {
        /// How long
        #[arg(value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(..=86_400))]
        seconds: u64,
    },
}

/// Runs until it is asked to end.
pub fn run(context: &Context, args: &Args) -> Result<u8, Failure> {
    match (&args.action, &args.namespace, args.listen) {
        (Some(Action::Wait { seconds }), ..) => {
            std::thread::sleep(Duration::from_secs(*seconds));
            Ok(0)
        }
        (None, Some(namespace), Some(listen)) => in_cluster::run(namespace, listen),
        (None, ..) => on_host(context),
    }
}

fn on_host(context: &Context) -> Result<u8, Failure> {
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
    runtime()?.block_on(async {
        let mut end = End::new()?;
        let gateway = slipway_gateway::start(config).await.map_err(unavailable)?;
        end.asked().await;
        gateway.shutdown().await;
        Ok(0)
    })
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.map_err(internal)
}

/// Signals that ask it to end.
struct End {
    terminate: Signal,
    interrupt: Signal,
}

impl End {
    fn new() -> Result<Self, Failure> {
        let listen = |kind| signal(kind).map_err(internal);
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

fn internal(error: std::io::Error) -> Failure {
    ApiError::new(ErrorCode::Internal, error.to_string()).into()
}

fn unavailable(error: slipway_gateway::GatewayError) -> Failure {
    ApiError::from_error(ErrorCode::Unavailable, &error).into()
}
