//! `slipway tag`

use serde_json::json;

use super::Context;
use crate::failure::Failure;

/// Give an image one more name
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name or id of the image
    #[arg(value_name = "SOURCE")]
    source: String,
    /// The new name
    #[arg(value_name = "TARGET[:TAG]")]
    target: String,
}

/// Tags.
pub fn run(context: &Context, args: &Args) -> Result<u8, Failure> {
    let body = json!({ "source": args.source, "target": args.target });
    context.client()?.post::<_, ()>("/v1/images/tag", &body)?;
    Ok(0)
}
