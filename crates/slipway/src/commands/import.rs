//! `slipway import`

mod kubernetes;

use std::path::{Path, PathBuf};

use slipway_types::Digest;

use super::Context;
use crate::failure::{self, Failure};
use crate::query;

/// Make an image from the tar of a root file system, or a project from Kubernetes manifests
///
/// A tar that is called `kubernetes` is written `./kubernetes`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Args {
    #[command(subcommand)]
    kind: Option<Kind>,
    #[command(flatten)]
    tar: Option<Tar>,
}

#[derive(Debug, clap::Subcommand)]
enum Kind {
    Kubernetes(kubernetes::Args),
}

#[derive(Debug, clap::Args)]
struct Tar {
    /// The tar, plain or compressed with gzip or zstd; `-` is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Name of the image
    #[arg(value_name = "NAME[:TAG]")]
    name: String,
    /// Set an instruction of the image: ENV, CMD, ENTRYPOINT, WORKDIR, USER, EXPOSE, LABEL (repeatable)
    #[arg(short, long = "change", value_name = "INSTRUCTION")]
    changes: Vec<String>,
}

/// Imports.
pub fn run(context: &Context, args: &Args) -> Result<u8, Failure> {
    let args = match (&args.kind, &args.tar) {
        (Some(Kind::Kubernetes(args)), _) => return kubernetes::run(context, args),
        (None, Some(tar)) => tar,
        (None, None) => return Err(Failure::usage("name the tar, and the image that it becomes")),
    };
    let id = if args.file == Path::new("-") {
        upload(context, &args.name, &args.changes, std::io::stdin())?
    } else {
        let file = std::fs::File::open(&args.file).map_err(|e| failure::io("open", &args.file, &e))?;
        upload(context, &args.name, &args.changes, file)?
    };
    context.printer.line(id.as_str());
    Ok(0)
}

/// Sends a tar to the daemon, which makes an image of it.
pub fn upload(
    context: &Context,
    name: &str,
    changes: &[String],
    reader: impl std::io::Read + Send + 'static,
) -> Result<Digest, Failure> {
    let mut pairs = vec![("name", name)];
    pairs.extend(changes.iter().map(|change| ("change", change.as_str())));
    context.client()?.upload(&query::path("/v1/images/import", &pairs), reader)
}
