//! `slipway logout`

use serde_json::json;

use super::Context;
use crate::failure::Failure;

/// Forget the credentials of a registry
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Registry
    #[arg(default_value = slipway_types::reference::DEFAULT_REGISTRY, value_name = "REGISTRY")]
    registry: String,
}

/// Logs out.
pub fn run(context: &Context, args: &Args) -> Result<u8, Failure> {
    context.client()?.post::<_, ()>("/v1/logout", &json!({ "registry": args.registry }))?;
    Ok(0)
}
