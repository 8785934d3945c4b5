//! `POST /v1/build`

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::post;
use slipway_types::build::BuildRequest;

use super::super::{App, builds};
use super::{Body, stream};

pub fn routes() -> Router<Arc<App>> {
    Router::new().route("/v1/build", post(build))
}

async fn build(State(app): State<Arc<App>>, Body(request): Body<BuildRequest>) -> Response {
    stream::respond(move |lines| {
        // The outcome is the stream's last event; there is nobody else to tell.
        let _ = builds::build(&app, &request, &|event| lines.send(&event).is_ok(), &|| lines.is_closed());
    })
}
