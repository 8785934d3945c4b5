//! `POST /v1/up`

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::post;
use slipway_types::up::{UpEvent, UpRequest};

use super::super::{App, up};
use super::{Body, stream};

pub fn routes() -> Router<Arc<App>> {
    Router::new().route("/v1/up", post(bring_up))
}

async fn bring_up(State(app): State<Arc<App>>, Body(request): Body<UpRequest>) -> Response {
    stream::respond(move |lines| {
        let outcome = up::up(&app, &request, &|event| lines.send(&event).is_ok(), &|| lines.is_closed());
        let _ = lines.send(&outcome.map_or_else(UpEvent::Failed, UpEvent::Finished));
    })
}
