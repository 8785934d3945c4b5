//! `/v1/services`, `/v1/service`

use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::extract::{Query, State};
use axum::response::Response;
use axum::routing::{get, post};
use serde::Deserialize;
use slipway_types::engine::ClusterFacts;
use slipway_types::expose::ExposeRequest;
use slipway_types::image::TransferEvent;
use slipway_types::preview::Preview;
use slipway_types::publish::{PublishEvent, PublishRequest};
use slipway_types::service::{ReplicaUsage, ServiceStatus};

use super::super::{App, declare, preview, publish, services};
use super::{Answer, Body, blocking, stream};

pub fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/v1/services", get(list).post(declare))
        .route("/v1/service", get(status).delete(delete))
        .route("/v1/top", get(top))
        .route("/v1/services/scale", post(scale))
        .route("/v1/services/expose", post(expose))
        .route("/v1/services/publish", post(publish))
        .route("/v1/services/preview", post(preview))
        .route("/v1/service/diff", get(diff))
        .route("/v1/service/cluster", get(cluster))
}

async fn list(State(app): State<Arc<App>>) -> Answer<Vec<ServiceStatus>> {
    blocking(move || services::list(&app)).await.map(Json)
}

async fn declare(State(app): State<Arc<App>>, Body(body): Body<declare::Declare>) -> Answer<ServiceStatus> {
    blocking(move || declare::declare(&app, body).map(|(status, _)| status)).await.map(Json)
}

#[derive(Deserialize)]
struct One {
    name: String,
}

async fn status(State(app): State<Arc<App>>, Query(one): Query<One>) -> Answer<ServiceStatus> {
    blocking(move || services::status(&app, &one.name)).await.map(Json)
}

async fn delete(State(app): State<Arc<App>>, Query(one): Query<One>) -> Answer<()> {
    blocking(move || services::delete(&app, &one.name)).await.map(Json)
}

#[derive(Deserialize)]
struct Top {
    service: Option<String>,
}

async fn top(State(app): State<Arc<App>>, Query(top): Query<Top>) -> Answer<Vec<ReplicaUsage>> {
    blocking(move || services::top(&app, top.service.as_deref())).await.map(Json)
}

#[derive(Deserialize)]
struct Scale {
    name: String,
    replicas: u32,
    #[serde(default)]
    take_over: bool,
}

async fn scale(State(app): State<Arc<App>>, Body(asked): Body<Scale>) -> Answer<ServiceStatus> {
    blocking(move || services::scale(&app, &asked.name, asked.replicas, asked.take_over)).await.map(Json)
}

async fn expose(State(app): State<Arc<App>>, Body(asked): Body<ExposeRequest>) -> Answer<ServiceStatus> {
    blocking(move || services::expose(&app, &asked)).await.map(Json)
}

async fn preview(State(app): State<Arc<App>>, Body(asked): Body<preview::PreviewRequest>) -> Answer<Preview> {
    blocking(move || preview::declaration(&app, asked)).await.map(Json)
}

async fn cluster(State(app): State<Arc<App>>, Query(one): Query<One>) -> Answer<Option<ClusterFacts>> {
    blocking(move || preview::facts(&app, &one.name)).await.map(Json)
}

async fn diff(State(app): State<Arc<App>>, Query(one): Query<One>) -> Answer<Preview> {
    blocking(move || preview::differences(&app, &one.name)).await.map(Json)
}

async fn publish(State(app): State<Arc<App>>, Body(request): Body<PublishRequest>) -> Response {
    stream::respond(move |lines| {
        let progress = lines.clone();
        let on_event: publish::OnPublish = Arc::new(move |event| match &event {
            // Some blobs more or less are no matter, and come from threads that may not wait.
            PublishEvent::Transfer(TransferEvent::Blob { .. }) => progress.offer(&event),
            _ => drop(progress.send(&event)),
        });
        let outcome = publish::publish(&app, &request, &on_event);
        let _ = lines
            .send(&outcome.map_or_else(PublishEvent::Failed, |done| PublishEvent::Finished(Box::new(done))));
    })
}
