//! `slipway inspect`

use super::Context;
use crate::failure::{Failure, exit};
use crate::query;

/// Show everything that is known of containers or images, as JSON
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Names or ids of containers or images
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

/// Shows.
pub fn run(context: &Context, args: &Args) -> Result<u8, Failure> {
    let client = context.client()?;
    let mut found: Vec<serde_json::Value> = Vec::new();
    let mut code = 0;
    for name in &args.names {
        match client.get(&query::path("/v1/inspect", &[("name", name)])) {
            Ok(value) => found.push(value),
            Err(failure) if failure.exit_code == exit::NOT_FOUND => {
                if let Some(error) = &failure.error {
                    context.printer.error(error);
                }
                code = exit::NOT_FOUND;
            }
            Err(failure) => return Err(failure),
        }
    }
    context.printer.json(&found);
    Ok(code)
}
