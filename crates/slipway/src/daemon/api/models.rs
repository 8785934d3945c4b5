//! `/v1/models`, `/v1/model`

use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::extract::{Query, State};
use axum::response::Response;
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::{Value, json};
use slipway_types::image::TransferEvent;
use slipway_types::model::{ModelRef, ModelVersion};
use slipway_types::{ApiError, ErrorCode};

use super::super::{App, models};
use super::{Answer, Body, blocking, stream};

pub fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/v1/models", get(list))
        .route("/v1/model", get(details).delete(remove))
        .route("/v1/models/alias", post(alias))
        .route("/v1/models/import", post(import))
        .route("/v1/models/push", post(push))
        .route("/v1/models/pull", post(pull))
}

fn reference(text: &str) -> Result<ModelRef, ApiError> {
    text.parse().map_err(|reason: String| ApiError::new(ErrorCode::InvalidArgument, reason))
}

#[derive(Deserialize)]
struct OfModel {
    model: Option<String>,
}

async fn list(State(app): State<Arc<App>>, Query(asked): Query<OfModel>) -> Answer<Vec<ModelVersion>> {
    blocking(move || models::list(&app, asked.model.as_deref())).await.map(Json)
}

#[derive(Deserialize)]
struct One {
    model: String,
}

async fn details(State(app): State<Arc<App>>, Query(one): Query<One>) -> Answer<Value> {
    blocking(move || models::details(&app, &reference(&one.model)?).map(|details| json!(details)))
        .await
        .map(Json)
}

async fn remove(State(app): State<Arc<App>>, Query(one): Query<One>) -> Answer<()> {
    blocking(move || models::remove(&app, &reference(&one.model)?)).await.map(Json)
}

#[derive(Deserialize)]
struct Alias {
    model: String,
    alias: String,
    #[serde(default)]
    delete: bool,
}

async fn alias(State(app): State<Arc<App>>, Body(asked): Body<Alias>) -> Answer<()> {
    blocking(move || models::alias(&app, &reference(&asked.model)?, &asked.alias, asked.delete))
        .await
        .map(Json)
}

async fn import(State(app): State<Arc<App>>, Body(asked): Body<models::Import>) -> Answer<ModelVersion> {
    blocking(move || models::import(&app, &asked)).await.map(Json)
}

#[derive(Deserialize)]
struct Transfer {
    model: Option<String>,
    reference: String,
}

async fn push(State(app): State<Arc<App>>, Body(asked): Body<Transfer>) -> Response {
    stream::respond(move |lines| {
        let progress = lines.clone();
        let on_event = Arc::new(move |event: TransferEvent| {
            progress.offer(&event);
        });
        let outcome = reference(asked.model.as_deref().unwrap_or(""))
            .and_then(|model| models::push(&app, &model, &asked.reference, on_event));
        let _ = lines.send(&outcome.unwrap_or_else(TransferEvent::Failed));
    })
}

async fn pull(State(app): State<Arc<App>>, Body(asked): Body<Transfer>) -> Response {
    stream::respond(move |lines| {
        let progress = lines.clone();
        let on_event = Arc::new(move |event: TransferEvent| {
            progress.offer(&event);
        });
        let outcome = models::pull(&app, &asked.reference, asked.model.as_deref(), on_event);
        let _ = lines.send(&outcome.unwrap_or_else(TransferEvent::Failed));
    })
}
