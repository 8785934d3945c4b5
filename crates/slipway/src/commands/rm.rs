//! `slipway rm`

use super::{Context, for_each};
use crate::failure::Failure;
use crate::query;

/// Remove containers that ended
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Also those that run: they are killed first
    #[arg(short, long)]
    force: bool,
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Removes.
pub fn run(context: &Context, args: &Args) -> Result<u8, Failure> {
    let client = context.client()?;
    let force = if args.force { "true" } else { "false" };
    for_each(context, &args.containers, |name| {
        client.delete(&query::path(&format!("/v1/containers/{}", query::segment(name)), &[("force", force)]))
    })
}
