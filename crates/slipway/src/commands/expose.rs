//! `slipway expose`

use slipway_types::expose::ExposeRequest;
use slipway_types::service::ServiceStatus;

use super::Context;
use super::exposure::ExposureArgs;
use super::services::{print_address, wait_until_ready};
use crate::failure::Failure;

/// Change how a service on a cluster is reached from outside of it
///
/// An address that the cluster does not give within seconds, such as that of a load balancer, is not waited for.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    exposure: ExposureArgs,
    /// Take over what others, such as `kubectl edit`, own of its objects in a cluster; that is an error otherwise
    #[arg(long)]
    take_over: bool,
    /// Do not wait until it answers there
    #[arg(short, long)]
    detach: bool,
    /// Service
    #[arg(value_name = "SERVICE")]
    service: String,
}

/// Exposes.
pub fn run(context: &Context, args: &Args) -> Result<u8, Failure> {
    let request = ExposeRequest {
        service: args.service.clone(),
        exposure: args.exposure.exposure()?,
        port: args.exposure.named_port(),
        take_over: args.take_over,
    };
    let client = context.client()?;
    let mut status: ServiceStatus = client.post("/v1/services/expose", &request)?;
    if !args.detach {
        status = wait_until_ready(context, &client, &status.spec.name)?;
    }
    print_address(context, &status);
    Ok(0)
}
