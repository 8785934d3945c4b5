//! `/v1/system`, `/v1/version`, `/v1/shutdown`

use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::extract::{Query, State};
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::{App, leftovers};
use super::{Answer, Body, blocking};

pub fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/v1/system/check", get(check))
        .route("/v1/system/prune", post(prune))
        .route("/v1/system/df", get(df))
        .route("/v1/version", get(version))
        .route("/v1/shutdown", post(shutdown))
}

#[derive(Deserialize)]
struct Deep {
    #[serde(default)]
    deep: bool,
}

async fn check(State(app): State<Arc<App>>, Query(asked): Query<Deep>) -> Answer<Vec<leftovers::Finding>> {
    blocking(move || leftovers::check(&app, asked.deep)).await.map(Json)
}

async fn prune(
    State(app): State<Arc<App>>,
    Body(scope): Body<leftovers::Scope>,
) -> Answer<leftovers::Pruned> {
    blocking(move || leftovers::prune(&app, scope)).await.map(Json)
}

async fn df(State(app): State<Arc<App>>) -> Answer<Vec<leftovers::Usage>> {
    blocking(move || leftovers::usage(&app)).await.map(Json)
}

async fn version(State(app): State<Arc<App>>) -> Json<Value> {
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
        "root": app.settings.root,
    }))
}

async fn shutdown(State(app): State<Arc<App>>) -> Json<()> {
    app.stop();
    Json(())
}
