//! `slipway rmi`

use serde::Deserialize;

use super::Context;
use crate::failure::{Failure, exit};
use crate::query;

/// Remove images, or names of images that have several
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Also all names of an image that has several, or the name of one that a container that ended or a model version uses:
    /// the image stays for them
    #[arg(short, long)]
    force: bool,
    /// Names or ids
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

#[derive(Deserialize)]
struct Removed {
    untagged: Vec<String>,
    deleted: Option<String>,
}

/// Removes.
pub fn run(context: &Context, args: &Args) -> Result<u8, Failure> {
    let client = context.client()?;
    let force = if args.force { "true" } else { "false" };
    let mut code = 0;
    for image in &args.images {
        match client.delete::<Removed>(&query::path("/v1/image", &[("name", image), ("force", force)])) {
            Ok(removed) => {
                removed.untagged.iter().for_each(|name| context.printer.line(format!("Untagged: {name}")));
                removed.deleted.iter().for_each(|id| context.printer.line(format!("Deleted: {id}")));
            }
            Err(failure) => {
                if let Some(error) = &failure.error {
                    context.printer.error(error);
                }
                if !(args.force && failure.exit_code == exit::NOT_FOUND) {
                    code = failure.exit_code;
                }
            }
        }
    }
    Ok(code)
}
