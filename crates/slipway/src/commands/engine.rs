//! `slipway engine`

mod ls;
mod rbac;
mod rm;
mod use_engine;

use super::Context;
use crate::failure::Failure;

/// Choose where services and training runs run: this host, or namespaces of Kubernetes clusters
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    kind: Kind,
}

#[derive(Debug, clap::Subcommand)]
enum Kind {
    Use(Box<use_engine::Args>),
    Ls(ls::Args),
    Rm(rm::Args),
    Rbac(rbac::Args),
}

/// Does it.
pub fn run(context: &Context, args: &Args) -> Result<u8, Failure> {
    match &args.kind {
        Kind::Use(args) => use_engine::run(context, args),
        Kind::Ls(args) => ls::run(context, args),
        Kind::Rm(args) => rm::run(context, args),
        Kind::Rbac(args) => rbac::run(context, args),
    }
}
