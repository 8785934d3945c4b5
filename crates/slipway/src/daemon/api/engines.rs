//! `/v1/engines`

use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::extract::{Query, State};
use axum::routing::get;
use serde::Deserialize;
use slipway_types::engine::{EngineStatus, UseEngine};

use super::super::{App, engines};
use super::{Answer, Body, blocking};

pub fn routes() -> Router<Arc<App>> {
    Router::new().route("/v1/engines", get(list).put(use_engine).delete(remove))
}

async fn list(State(app): State<Arc<App>>) -> Answer<Vec<EngineStatus>> {
    blocking(move || engines::list(&app)).await.map(Json)
}

async fn use_engine(State(app): State<Arc<App>>, Body(body): Body<UseEngine>) -> Answer<EngineStatus> {
    blocking(move || engines::use_engine(&app, &body)).await.map(Json)
}

#[derive(Deserialize)]
struct One {
    name: String,
}

async fn remove(State(app): State<Arc<App>>, Query(one): Query<One>) -> Answer<()> {
    blocking(move || engines::remove(&app, &one.name)).await.map(Json)
}
