//! `slipway export`

mod kubernetes;
mod target;

use super::Context;
use crate::failure::Failure;

/// Write a service as plain files that other tools run
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    kind: Kind,
}

#[derive(Debug, clap::Subcommand)]
enum Kind {
    Kubernetes(Box<kubernetes::Args>),
}

/// Exports.
pub fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let Kind::Kubernetes(kubernetes) = args.kind;
    kubernetes::run(context, &kubernetes)
}
