//! `POST /v1/build`

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::response::Response;
use axum::routing::post;
use slipway_types::build::BuildRequest;

use super::super::{App, builds};
use super::{Body, stream};

/// Longest request: a Dockerfile and a good number of secrets, each as long as they may be and written as JSON.
const MAX_REQUEST: usize = 64 << 20;

pub fn routes() -> Router<Arc<App>> {
    Router::new().route("/v1/build", post(build).layer(DefaultBodyLimit::max(MAX_REQUEST)))
}

async fn build(State(app): State<Arc<App>>, Body(request): Body<BuildRequest>) -> Response {
    stream::respond(move |lines| {
        // The outcome is the stream's last event; there is nobody else to tell.
        let _ = builds::build(&app, &request, &|event| lines.send(&event).is_ok(), &|| lines.is_closed());
    })
}
