//! `slipway pull`

use hyper::Method;
use serde_json::json;
use slipway_types::Digest;
use slipway_types::image::TransferEvent;

use super::Context;
use crate::failure::Failure;
use crate::progress::TransferProgress;

/// Fetch an image from its registry
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Platform of the image [default: this machine's]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<String>,
    /// Print only the digest
    #[arg(short, long)]
    quiet: bool,
    /// Reference of the image
    #[arg(value_name = "NAME[:TAG|@DIGEST]")]
    image: String,
}

/// Pulls.
pub fn run(context: &Context, args: &Args) -> Result<u8, Failure> {
    let body = json!({ "reference": args.image, "platform": args.platform });
    transfer(context, "/v1/images/pull", &body, "pulled", args.quiet)
}

/// A pull or a push: shows its progress, then the digest.
pub fn transfer(
    context: &Context,
    path: &str,
    body: &serde_json::Value,
    verb: &'static str,
    quiet: bool,
) -> Result<u8, Failure> {
    let manifest = transferred(context, path, body, verb, quiet)?;
    context.printer.line(manifest.as_str());
    Ok(0)
}

/// Moves something to or from a registry; gives the digest of its manifest.
pub fn transferred(
    context: &Context,
    path: &str,
    body: &serde_json::Value,
    verb: &'static str,
    quiet: bool,
) -> Result<Digest, Failure> {
    let mut progress = TransferProgress::new(context.printer, verb);
    let mut outcome = Err(context.no_result("the transfer"));
    context.client()?.stream(Method::POST, path, Some(body), |event: TransferEvent| {
        if !quiet {
            progress.show(&event);
        }
        match event {
            TransferEvent::Finished { reference, manifest, .. } => {
                progress.finish();
                if !quiet {
                    context.printer.note(format!("{verb} {reference}"));
                }
                outcome = Ok(manifest);
            }
            TransferEvent::Failed(error) => {
                progress.finish();
                outcome = Err(error.into());
            }
            TransferEvent::Blob { .. } => {}
        }
        Ok(())
    })?;
    outcome
}
