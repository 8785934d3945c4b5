//! `slipway engine rm`

use super::super::Context;
use crate::failure::Failure;
use crate::query;

/// Forget clusters that nothing runs on any more; what they have of Slipway's gateway is removed
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Engines
    #[arg(required = true, value_name = "ENGINE")]
    engines: Vec<String>,
}

/// Forgets.
pub fn run(context: &Context, args: &Args) -> Result<u8, Failure> {
    let client = context.client()?;
    super::super::for_each(context, &args.engines, |name| {
        client.delete::<()>(&query::path("/v1/engines", &[("name", name)]))?;
        context.printer.line(name);
        Ok(())
    })
}
