//! `slipway diff`

use std::path::Path;

use slipway_types::preview::Preview;

use super::Context;
use crate::failure::{Failure, exit};
use crate::project_file::LoadedProject;
use crate::query;

/// Exit code where something differs; as of `diff`, and of `kubectl diff`.
const DIFFERENT: u8 = 1;
/// Exit code where it could not be told; every other code of a failure is larger already.
const TROUBLE: u8 = 2;

/// Show how what a cluster has of a service differs from what is declared
///
/// The exit code is 0 where nothing differs, 1 where something does, and larger where that could not be told. Values of
/// Secrets are not shown.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Service [default: that of the project in this folder]
    #[arg(value_name = "SERVICE")]
    service: Option<String>,
}

/// Compares.
pub fn run(context: &Context, args: &Args) -> Result<u8, Failure> {
    compare(context, args)
        .map_err(|failure| if failure.exit_code == exit::FAILED { failure.exiting(TROUBLE) } else { failure })
}

fn compare(context: &Context, args: &Args) -> Result<u8, Failure> {
    let name = match &args.service {
        Some(name) => name.clone(),
        None => {
            LoadedProject::load(Path::new("."))
                .map_err(|failure| failure.hint("name a service, or run it in the folder of a project"))?
                .project
                .name
        }
    };
    let preview: Preview = context.client()?.get(&query::path("/v1/service/diff", &[("name", &name)]))?;
    for object in &preview.objects {
        context.printer.raw(object.diff.as_bytes());
        if let Some(reason) = &object.reason {
            context.printer.warning(format!("{}/{}: {reason}", object.kind, object.name));
        }
    }
    Ok(if preview.objects.is_empty() { 0 } else { DIFFERENT })
}
