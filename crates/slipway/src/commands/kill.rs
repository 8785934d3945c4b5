//! `slipway kill`

use serde_json::json;

use super::{Context, for_each};
use crate::failure::Failure;
use crate::query;

/// Send a signal to containers
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name or number
    #[arg(short, long, default_value = "SIGKILL", value_name = "SIGNAL")]
    signal: String,
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Signals.
pub fn run(context: &Context, args: &Args) -> Result<u8, Failure> {
    let client = context.client()?;
    let body = json!({ "signal": args.signal });
    for_each(context, &args.containers, |name| {
        client.post(&format!("/v1/containers/{}/kill", query::segment(name)), &body)
    })
}
