//! `/v1/containers`

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::extract::{Path, Query, State};
use axum::routing::{get, post};
use serde::Deserialize;
use slipway_types::container::{ContainerStatus, CreateContainer, CreatedContainer, CreatedExec, ExecSpec};

use super::super::{App, containers};
use super::{Answer, Body, blocking};

pub fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/v1/containers", get(list).post(create))
        .route("/v1/containers/{name}", get(status).delete(remove))
        .route("/v1/containers/{name}/stop", post(stop))
        .route("/v1/containers/{name}/kill", post(kill))
        .route("/v1/containers/{name}/exec", post(exec))
}

#[derive(Deserialize)]
struct All {
    #[serde(default)]
    all: bool,
}

async fn list(State(app): State<Arc<App>>, Query(asked): Query<All>) -> Answer<Vec<ContainerStatus>> {
    blocking(move || containers::list(&app, asked.all)).await.map(Json)
}

async fn create(State(app): State<Arc<App>>, Body(body): Body<CreateContainer>) -> Answer<CreatedContainer> {
    blocking(move || containers::create(&app, body)).await.map(Json)
}

async fn status(State(app): State<Arc<App>>, Path(name): Path<String>) -> Answer<ContainerStatus> {
    blocking(move || containers::status(&app, &containers::find(&app, &name)?)).await.map(Json)
}

#[derive(Deserialize)]
struct Force {
    #[serde(default)]
    force: bool,
}

async fn remove(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Query(asked): Query<Force>,
) -> Answer<()> {
    blocking(move || containers::remove(&app, &name, asked.force)).await.map(Json)
}

#[derive(Deserialize)]
struct Stop {
    signal: Option<String>,
    grace_seconds: u64,
}

async fn stop(State(app): State<Arc<App>>, Path(name): Path<String>, Body(asked): Body<Stop>) -> Answer<()> {
    let grace = Duration::from_secs(asked.grace_seconds);
    blocking(move || containers::stop(&app, &name, asked.signal.as_deref(), grace)).await.map(Json)
}

#[derive(Deserialize)]
struct Kill {
    signal: String,
}

async fn kill(State(app): State<Arc<App>>, Path(name): Path<String>, Body(asked): Body<Kill>) -> Answer<()> {
    blocking(move || containers::kill(&app, &name, &asked.signal)).await.map(Json)
}

async fn exec(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Body(spec): Body<ExecSpec>,
) -> Answer<CreatedExec> {
    blocking(move || containers::exec(&app, &name, &spec)).await.map(Json)
}
