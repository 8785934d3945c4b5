//! `/v1/images`, `/v1/image`, `/v1/inspect`, `/v1/login`, `/v1/logout`

use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::body::Body as RawBody;
use axum::extract::Query;
use axum::extract::{RawQuery, State};
use axum::response::Response;
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::{Value, json};
use slipway_types::Digest;
use slipway_types::image::{Credentials, ImageSummary, TransferEvent};

use super::super::{App, containers, images};
use super::{Answer, Body, blocking, stream};

pub fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/v1/images", get(list))
        .route("/v1/image", get(details).delete(remove))
        .route("/v1/images/tag", post(tag))
        .route("/v1/images/pull", post(pull))
        .route("/v1/images/push", post(push))
        .route("/v1/images/import", post(import))
        .route("/v1/inspect", get(inspect))
        .route("/v1/login", post(login))
        .route("/v1/logout", post(logout))
}

#[derive(Deserialize)]
struct Named {
    name: String,
    #[serde(default)]
    force: bool,
}

async fn list(State(app): State<Arc<App>>) -> Answer<Vec<ImageSummary>> {
    blocking(move || images::list(&app)).await.map(Json)
}

async fn details(State(app): State<Arc<App>>, Query(named): Query<Named>) -> Answer<Value> {
    blocking(move || images::details(&app, &named.name)).await.map(Json)
}

async fn remove(State(app): State<Arc<App>>, Query(named): Query<Named>) -> Answer<Value> {
    let report = blocking(move || images::remove(&app, &named.name, named.force)).await?;
    Ok(Json(json!({ "untagged": report.untagged, "deleted": report.deleted })))
}

/// A container by that name, else an image.
async fn inspect(State(app): State<Arc<App>>, Query(named): Query<Named>) -> Answer<Value> {
    blocking(move || match containers::find(&app, &named.name) {
        Ok(record) => containers::status(&app, &record).map(|status| json!(status)),
        Err(missing) if missing.code == slipway_types::ErrorCode::NotFound => {
            images::details(&app, &named.name).map_err(|error| {
                if error.code == slipway_types::ErrorCode::NotFound {
                    slipway_types::ApiError::new(
                        error.code,
                        format!("no container and no image is called `{}`", named.name),
                    )
                } else {
                    error
                }
            })
        }
        Err(error) => Err(error),
    })
    .await
    .map(Json)
}

#[derive(Deserialize)]
struct Tag {
    source: String,
    target: String,
}

async fn tag(State(app): State<Arc<App>>, Body(tag): Body<Tag>) -> Answer<()> {
    blocking(move || images::tag(&app, &tag.source, &tag.target)).await.map(Json)
}

#[derive(Deserialize)]
struct Pull {
    reference: String,
    platform: Option<String>,
}

async fn pull(State(app): State<Arc<App>>, Body(pull): Body<Pull>) -> Response {
    stream::respond(move |lines| {
        let progress = lines.clone();
        let on_event = Arc::new(move |event: TransferEvent| {
            progress.offer(&event);
        });
        let outcome = images::pull(&app, &pull.reference, pull.platform.as_deref(), on_event);
        let _ = lines.send(&outcome.unwrap_or_else(TransferEvent::Failed));
    })
}

#[derive(Deserialize)]
struct Push {
    reference: String,
    compression: Option<String>,
}

async fn push(State(app): State<Arc<App>>, Body(push): Body<Push>) -> Response {
    stream::respond(move |lines| {
        let progress = lines.clone();
        let on_event = Arc::new(move |event: TransferEvent| {
            progress.offer(&event);
        });
        let outcome = images::push(&app, &push.reference, push.compression.as_deref(), on_event);
        let _ = lines.send(&outcome.unwrap_or_else(TransferEvent::Failed));
    })
}

async fn import(State(app): State<Arc<App>>, RawQuery(query): RawQuery, body: RawBody) -> Answer<Digest> {
    use futures_util::TryStreamExt;
    let pairs = images::query_pairs(query.as_deref().unwrap_or(""));
    let reader = tokio_util::io::StreamReader::new(body.into_data_stream().map_err(std::io::Error::other));
    let reader = tokio_util::io::SyncIoBridge::new(Box::pin(reader));
    blocking(move || images::import(&app, &pairs, reader)).await.map(Json)
}

#[derive(Deserialize)]
struct Login {
    registry: String,
    credentials: Credentials,
}

async fn login(State(app): State<Arc<App>>, Body(login): Body<Login>) -> Answer<()> {
    blocking(move || images::login(&app, &login.registry, login.credentials)).await.map(Json)
}

#[derive(Deserialize)]
struct Logout {
    registry: String,
}

async fn logout(State(app): State<Arc<App>>, Body(logout): Body<Logout>) -> Answer<()> {
    blocking(move || images::logout(&app, &logout.registry)).await.map(Json)
}
