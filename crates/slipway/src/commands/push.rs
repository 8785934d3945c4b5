//! `slipway push`

use serde_json::json;

use super::Context;
use super::pull::transfer;
use crate::failure::Failure;

/// Send an image to its registry
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Compression of layers that no registry has yet
    #[arg(long, value_parser = ["gzip", "zstd"], default_value = "gzip", value_name = "KIND")]
    compression: String,
    /// Print only the digest
    #[arg(short, long)]
    quiet: bool,
    /// Reference of the image
    #[arg(value_name = "NAME[:TAG]")]
    image: String,
}

/// Pushes.
pub fn run(context: &Context, args: &Args) -> Result<u8, Failure> {
    let body = json!({ "reference": args.image, "compression": args.compression });
    transfer(context, "/v1/images/push", &body, "pushed", args.quiet)
}
