//! Answers that are newline-delimited JSON, written while the work goes on.

use axum::body::{Body, Bytes};
use axum::http::HeaderValue;
use axum::response::Response;
use serde::Serialize;
use tokio::sync::mpsc;

/// Lines under way to a client. Sending blocks while the client is slow and fails once it is gone.
#[derive(Clone, Debug)]
pub struct Lines(mpsc::Sender<Result<Bytes, std::convert::Infallible>>);

/// The client is gone.
#[derive(Debug, PartialEq, Eq)]
pub struct Gone;

impl Lines {
    /// Sends one item from a blocking thread.
    pub fn send(&self, item: &impl Serialize) -> Result<(), Gone> {
        self.0.blocking_send(Ok(encode(item))).map_err(|_| Gone)
    }

    /// Sends an item that may be lost, from any thread: progress that a slow client has no use for.
    pub fn offer(&self, item: &impl Serialize) {
        let _ = self.0.try_send(Ok(encode(item)));
    }

    /// Whether the client is gone.
    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
}

fn encode(item: &impl Serialize) -> Bytes {
    let mut line = serde_json::to_vec(item).unwrap_or_default();
    line.push(b'\n');
    line.into()
}

/// An answer whose lines `work` writes on a blocking thread.
pub fn respond(work: impl FnOnce(Lines) + Send + 'static) -> Response {
    let (sender, receiver) = mpsc::channel(64);
    tokio::task::spawn_blocking(move || work(Lines(sender)));
    let stream = futures_util::stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|item| (item, receiver))
    });
    let mut response = Response::new(Body::from_stream(stream));
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/x-ndjson"));
    response
}
