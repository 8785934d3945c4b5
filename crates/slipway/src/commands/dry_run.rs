//! `--dry-run` of `deploy` and `up`.

use serde_json::{Value, json};
use slipway_types::preview::{Preview, PreviewKind, PreviewOutcome};

use super::Context;
use crate::failure::{Failure, exit};

/// Where a declaration is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum DryRun {
    /// Nowhere: what would be sent to the cluster is written as YAML
    Client,
    /// By the cluster, which checks everything and keeps nothing
    Server,
}

/// Shows what declaring would do; `declare` is the body of the declaration.
pub fn show(context: &Context, dry_run: DryRun, declare: &Value) -> Result<(u8, Preview), Failure> {
    let kind = match dry_run {
        DryRun::Client => PreviewKind::Client,
        DryRun::Server => PreviewKind::Server,
    };
    let body = json!({ "kind": kind, "declare": declare });
    let preview: Preview = context.client()?.post("/v1/services/preview", &body)?;
    for warning in &preview.warnings {
        context.printer.warning(warning);
    }
    context.printer.raw(preview.yaml.as_bytes());
    let mut code = 0;
    for object in &preview.objects {
        let outcome = match object.outcome {
            PreviewOutcome::Created => "created",
            PreviewOutcome::Configured => "configured",
            PreviewOutcome::Unchanged => "unchanged",
            PreviewOutcome::Removed => "removed",
            PreviewOutcome::Refused => {
                code = exit::FAILED;
                "refused"
            }
        };
        let reason = object.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        context.printer.line(format!("{}/{} {outcome}{reason}", object.kind, object.name));
    }
    Ok((code, preview))
}
