//! `slipway rm`

use super::{Context, for_each};
use crate::failure::{Failure, exit};
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
        let path = query::path(&format!("/v1/containers/{}", query::segment(name)), &[("force", force)]);
        client.delete(&path).map_err(|failure: Failure| {
            // As Docker has it: what is to be gone by all means may be gone already.
            let gone = args.force && failure.exit_code == exit::NOT_FOUND;
            if gone { failure.exiting(0) } else { failure }
        })
    })
}
