//! What the services of a cluster would become.

use std::sync::{Arc, Weak};

use slipway_kubernetes::apply::{ApplyError, Difference};
use slipway_kubernetes::engine::{Previewer, Tried, Verdict};
use slipway_kubernetes::export::stream;
use slipway_orchestrator::Revision;
use slipway_types::engine::{ClusterFacts, ClusterSpec};
use slipway_types::expose::Exposure;
use slipway_types::preview::{Preview, PreviewKind, PreviewOutcome, PreviewedObject};
use slipway_types::{ApiError, ErrorCode};

use super::deployment::on_engine;
use crate::daemon::publish::{self, Destination, OnPublish};
use crate::daemon::{App, Previews};

/// For one cluster.
pub struct ClusterPreviews {
    app: Weak<App>,
    spec: ClusterSpec,
    namespace: String,
    previewer: Previewer,
}

impl ClusterPreviews {
    /// Over what applies to the cluster.
    pub fn new(app: &Arc<App>, spec: &ClusterSpec, namespace: &str, previewer: Previewer) -> Self {
        let app = Arc::downgrade(app);
        Self { app, spec: spec.clone(), namespace: namespace.to_owned(), previewer }
    }
}

impl Previews for ClusterPreviews {
    fn facts(&self) -> Result<ClusterFacts, ApiError> {
        let app = self.app.upgrade();
        let app = app.ok_or_else(|| ApiError::new(ErrorCode::Unavailable, "the daemon ends"))?;
        let caps = app.handle.block_on(self.previewer.capabilities()).map_err(refused)?;
        let capabilities = serde_json::to_value(caps);
        let capabilities = capabilities.map_err(|e| ApiError::from_error(ErrorCode::Internal, &e))?;
        let (cluster, namespace) = (self.spec.clone(), self.namespace.clone());
        Ok(ClusterFacts { cluster, namespace, exposure: None, capabilities })
    }

    fn preview(
        &self,
        revision: &Revision,
        exposure: Option<&Exposure>,
        kind: PreviewKind,
    ) -> Result<Preview, ApiError> {
        let app = self.app.upgrade();
        let app = app.ok_or_else(|| ApiError::new(ErrorCode::Unavailable, "the daemon ends"))?;
        let nowhere = Destination { registry: &self.spec.registry, compression: None, push: false };
        let silent: OnPublish = Arc::new(|_| {});
        let published = publish::revision(&app, revision, &nowhere, &silent)?;
        let spec = on_engine(published, exposure.cloned(), &self.spec, &self.namespace);
        let mut preview = Preview {
            content: revision.spec.content(),
            has_model: revision.model.is_some(),
            revision: revision.number,
            ..Preview::default()
        };
        match kind {
            PreviewKind::Client => {
                let rendered = app.handle.block_on(self.previewer.render(&spec)).map_err(refused)?;
                preview.yaml = stream(&rendered.objects);
                preview.warnings = rendered.warnings;
            }
            PreviewKind::Server => {
                let asked = app.handle.block_on(self.previewer.on_server(&spec));
                let (rendered, tried) = asked.map_err(refused)?;
                preview.objects = tried.into_iter().map(verdict).collect();
                preview.warnings = rendered.warnings;
            }
            PreviewKind::Diff => {
                let differences = app.handle.block_on(self.previewer.differences(&spec));
                preview.objects = differences.map_err(refused)?.into_iter().map(difference).collect();
            }
        }
        Ok(preview)
    }
}

fn verdict(tried: Tried) -> PreviewedObject {
    let (outcome, reason) = match tried.verdict {
        Ok(Verdict::Created) => (PreviewOutcome::Created, None),
        Ok(Verdict::Configured) => (PreviewOutcome::Configured, None),
        Ok(Verdict::Unchanged) => (PreviewOutcome::Unchanged, None),
        Ok(Verdict::Removed) => (PreviewOutcome::Removed, None),
        Err(error) => (PreviewOutcome::Refused, Some(error.sentence())),
    };
    let kind = tried.key.kind.to_ascii_lowercase();
    PreviewedObject { kind, name: tried.key.name, outcome, reason, diff: String::new() }
}

fn difference(difference: Difference) -> PreviewedObject {
    let outcome = match (&difference.before, &difference.after) {
        (None, _) => PreviewOutcome::Created,
        (Some(_), None) => PreviewOutcome::Removed,
        (Some(_), Some(_)) => PreviewOutcome::Configured,
    };
    let owned = difference.conflicts.iter().map(|one| format!("{} is owned by `{}`", one.field, one.owner));
    let owned: Vec<String> = owned.collect();
    PreviewedObject {
        kind: difference.key.kind.to_ascii_lowercase(),
        outcome,
        reason: (!owned.is_empty()).then(|| owned.join(", ")),
        diff: difference.unified(),
        name: difference.key.name,
    }
}

/// Why nothing could be told at all.
fn refused(error: ApplyError) -> ApiError {
    let code = match &error {
        _ if error.is_unreachable() => ErrorCode::Unavailable,
        ApplyError::Render(_) | ApplyError::Wrong { .. } => ErrorCode::InvalidArgument,
        ApplyError::Conflict { .. }
        | ApplyError::Taken { .. }
        | ApplyError::Foreign { .. }
        | ApplyError::Ending { .. } => ErrorCode::Conflict,
        ApplyError::Api { .. } | ApplyError::Inventory { .. } | ApplyError::Discover(_) => ErrorCode::Failed,
    };
    ApiError::from_error(code, &error)
}
