//! `slipway scale`

use serde_json::json;
use slipway_types::service::ServiceStatus;

use super::Context;
use super::services::wait_until_ready;
use crate::failure::Failure;

/// Change how many replicas of a service run
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Take over what others, such as `kubectl edit`, own of its objects in a cluster; that is an error otherwise
    #[arg(long)]
    take_over: bool,
    /// Do not wait until they are ready
    #[arg(short, long)]
    detach: bool,
    /// Service
    #[arg(value_name = "SERVICE")]
    service: String,
    /// How many
    #[arg(value_name = "REPLICAS")]
    replicas: u32,
}

/// Scales.
pub fn run(context: &Context, args: &Args) -> Result<u8, Failure> {
    let client = context.client()?;
    let body = json!({ "name": args.service, "replicas": args.replicas, "take_over": args.take_over });
    let status: ServiceStatus = client.post("/v1/services/scale", &body)?;
    if !args.detach {
        wait_until_ready(context, &client, &status.spec.name)?;
    }
    context.printer.line(format!("{}: {} replicas", status.spec.name, args.replicas));
    Ok(0)
}
