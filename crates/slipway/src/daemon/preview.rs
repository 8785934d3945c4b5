//! What a declaration would do on its engine. Nothing is recorded, sent to a registry or changed.

use std::sync::Arc;

use serde::Deserialize;
use slipway_orchestrator::Revision;
use slipway_types::engine::{ClusterFacts, NATIVE};
use slipway_types::expose::Exposure;
use slipway_types::preview::{Preview, PreviewKind};
use slipway_types::{ApiError, ErrorCode};

use super::declare::{self, Declare};
use super::state::ServiceRecord;
use super::{App, services};

/// An engine that tells what it would do.
pub trait Previews: Send + Sync {
    /// What is to be known of it to write what it would do. Of no service in particular.
    fn facts(&self) -> Result<ClusterFacts, ApiError>;

    /// What running a revision would do; it is reached as the engine has it where `exposure` is absent.
    fn preview(
        &self,
        revision: &Revision,
        exposure: Option<&Exposure>,
        kind: PreviewKind,
    ) -> Result<Preview, ApiError>;
}

/// Body of `POST /v1/services/preview`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PreviewRequest {
    /// How it is told.
    pub kind: PreviewKind,
    /// What would be declared.
    pub declare: Declare,
}

/// What a declaration would do.
pub fn declaration(app: &Arc<App>, request: PreviewRequest) -> Result<Preview, ApiError> {
    let _lease = app.store.lease();
    let record = declare::would_be(app, request.declare)?;
    of(app, &record, request.kind)
}

/// How what a service's cluster has differs from what is declared.
pub fn differences(app: &App, name: &str) -> Result<Preview, ApiError> {
    let _lease = app.store.lease();
    let record = services::find(app, name)?;
    if record.deleting {
        let message = format!("the service `{name}` is being deleted");
        return Err(ApiError::new(ErrorCode::Conflict, message));
    }
    of(app, &record, PreviewKind::Diff)
}

/// What is to be known to write what a service is on its cluster; nothing for a service on this host.
pub fn facts(app: &App, name: &str) -> Result<Option<ClusterFacts>, ApiError> {
    let record = services::find(app, name)?;
    if record.engine == NATIVE {
        return Ok(None);
    }
    let Some(previews) = app.engines.get(&record.engine)?.previews else { return Ok(None) };
    Ok(Some(ClusterFacts { exposure: record.exposure, ..previews.facts()? }))
}

fn of(app: &App, record: &ServiceRecord, kind: PreviewKind) -> Result<Preview, ApiError> {
    let name = &record.target.spec.name;
    let connected = app.engines.get(&record.engine)?;
    let Some(previews) = connected.previews else {
        let message = format!(
            "`{name}` would run on the engine `{}`, which keeps no objects that could be shown or compared",
            record.engine
        );
        return Err(ApiError::new(ErrorCode::InvalidArgument, message).with_hint(
            "`diff` and `--dry-run` are for clusters: `--engine NAME` names one of `slipway engine ls`",
        ));
    };
    previews.preview(&record.target, record.exposure.as_ref(), kind)
}
