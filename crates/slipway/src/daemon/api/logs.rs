//! `GET /v1/logs`

use std::sync::Arc;

use axum::Router;
use axum::extract::{Query, State};
use axum::response::Response;
use axum::routing::get;
use serde::Deserialize;
use slipway_runtime::LogOptions;

use super::super::{App, logs};
use super::{Refusal, blocking, stream};

pub fn routes() -> Router<Arc<App>> {
    Router::new().route("/v1/logs", get(read))
}

#[derive(Deserialize)]
struct Asked {
    name: String,
    since: Option<jiff::Timestamp>,
    tail: Option<usize>,
    #[serde(default)]
    follow: bool,
}

async fn read(State(app): State<Arc<App>>, Query(asked): Query<Asked>) -> Result<Response, Refusal> {
    let options = LogOptions { since: asked.since, tail: asked.tail, follow: asked.follow };
    let owner = Arc::clone(&app);
    let readers = blocking(move || logs::open(&owner, &asked.name, &options)).await?;
    Ok(stream::respond(move |lines| {
        logs::pump(&app, readers, || lines.is_closed(), |line| lines.send(&line).is_ok());
    }))
}
