//! `/v1/runs`, `/v1/run`

use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::extract::{Query, State};
use axum::response::Response;
use axum::routing::{get, post};
use serde::Deserialize;
use slipway_types::run::{RunEvent, RunSpec, RunStatus};

use super::super::{App, runs};
use super::{Answer, Body, blocking, stream};

pub fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/v1/runs", get(list).post(start))
        .route("/v1/run", get(status))
        .route("/v1/runs/cancel", post(cancel))
        .route("/v1/runs/discard", post(discard))
}

#[derive(Deserialize)]
struct OfProject {
    project: Option<String>,
}

async fn list(State(app): State<Arc<App>>, Query(asked): Query<OfProject>) -> Answer<Vec<RunStatus>> {
    blocking(move || app.state.runs(asked.project.as_deref())).await.map(Json)
}

#[derive(Deserialize)]
struct One {
    run: String,
}

async fn status(State(app): State<Arc<App>>, Query(one): Query<One>) -> Answer<RunStatus> {
    blocking(move || runs::find(&app, &one.run).map(|(status, _)| status)).await.map(Json)
}

async fn cancel(State(app): State<Arc<App>>, Query(one): Query<One>) -> Answer<()> {
    blocking(move || runs::cancel(&app, &one.run)).await.map(Json)
}

async fn discard(State(app): State<Arc<App>>, Query(one): Query<One>) -> Answer<()> {
    blocking(move || runs::discard(&app, &one.run)).await.map(Json)
}

#[derive(Deserialize)]
struct Detach {
    #[serde(default)]
    detach: bool,
}

/// The run goes on when the client goes away: cancelling is a request of its own.
async fn start(
    State(app): State<Arc<App>>,
    Query(asked): Query<Detach>,
    Body(spec): Body<RunSpec>,
) -> Response {
    stream::respond(move |lines| {
        match runs::start(&app, &spec, None, &|| !asked.detach && lines.is_closed()) {
            Ok(status) if asked.detach => {
                let _ = lines.send(&RunEvent::Started(Box::new(status)));
            }
            Ok(status) => {
                runs::stream(&app, &status, &|| lines.is_closed(), &mut |event| lines.send(&event).is_ok())
            }
            Err(error) => {
                let _ = lines.send(&RunEvent::Failed(error));
            }
        }
    })
}
