//! `GET /v1/events`

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Query, State};
use axum::response::Response;
use axum::routing::get;
use serde::Deserialize;

use super::super::App;
use super::stream;

/// How often a follower looks for more.
const POLL: Duration = Duration::from_millis(100);

pub fn routes() -> Router<Arc<App>> {
    Router::new().route("/v1/events", get(list))
}

#[derive(Deserialize)]
struct Asked {
    subject: Option<String>,
    tail: Option<u32>,
    #[serde(default)]
    follow: bool,
}

async fn list(State(app): State<Arc<App>>, Query(asked): Query<Asked>) -> Response {
    stream::respond(move |lines| {
        let mut after = 0;
        let mut limit = asked.tail.unwrap_or(100);
        loop {
            let events = match app.state.events(asked.subject.as_deref(), after, limit) {
                Ok(events) => events,
                Err(error) => {
                    tracing::error!(%error, "cannot list events");
                    return;
                }
            };
            for event in &events {
                after = event.sequence;
                if lines.send(event).is_err() {
                    return;
                }
            }
            if !asked.follow || lines.is_closed() || app.is_stopping() {
                return;
            }
            limit = 1000;
            std::thread::sleep(POLL);
        }
    })
}
