//! `slipway stop`

use serde_json::json;

use super::{Context, for_each};
use crate::failure::Failure;
use crate::query;

/// Ask containers to end, and end them after a while
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Seconds to wait before SIGKILL
    #[arg(short, long, default_value_t = 10, value_name = "SECONDS")]
    time: u32,
    /// Signal to ask with [default: the image's, else SIGTERM]
    #[arg(short, long, value_name = "SIGNAL")]
    signal: Option<String>,
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Stops.
pub fn run(context: &Context, args: &Args) -> Result<u8, Failure> {
    let client = context.client()?;
    let body = json!({ "signal": args.signal, "grace_seconds": args.time });
    for_each(context, &args.containers, |name| {
        client.post(&format!("/v1/containers/{}/stop", query::segment(name)), &body)
    })
}
