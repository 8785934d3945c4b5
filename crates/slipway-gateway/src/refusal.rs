//! Answers that the gateway gives itself instead of a replica's.

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};

use crate::body::Body;

/// Why a request is not answered by a replica. All but the last six are the client's doing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("the request is malformed: {0}")]
    Malformed(&'static str),
    #[error("this gateway does not open tunnels (CONNECT); send the request itself")]
    Tunnel,
    #[error("this gateway does not switch protocols (`Upgrade: {0}`); send a plain HTTP/1.1 request")]
    Upgrade(String),
    #[error("transfer coding `{0}` is not supported; use `chunked` or a Content-Length")]
    TransferCoding(String),
    #[error("only GET and HEAD are answered here")]
    OnlyGet,
    #[error("the request's line and headers are {0}; the limit is {1}")]
    HeadTooLarge(String, String),
    #[error("the request's body is larger than the limit of {0} bytes")]
    BodyTooLarge(u64),
    #[error("the request's body did not arrive within {0} ms")]
    BodyTooSlow(u128),
    #[error("the client's connection broke while it sent the body")]
    BodyBroken,
    #[error("no service or model `{name}`; {known}")]
    UnknownService { name: String, known: String },
    #[error("there is no path {path}: see /v1/models/NAME:predict, /v2/models/NAME/infer, /metrics; {known}")]
    UnknownPath { path: String, known: String },
    #[error("{}", unknown_label(label, known))]
    UnknownLabel { label: String, known: String },
    #[error("service `{0}` has as many requests under way as it may have; try again shortly")]
    Busy(String),
    #[error("service `{0}` has no ready replica; try again shortly")]
    NoReplica(String),
    #[error("service `{service}` has no ready replica of the version with label {label}; try again shortly")]
    NoLabelled { service: String, label: String },
    #[error("no replica of service `{0}` can be reached; try again shortly")]
    Unreachable(String),
    #[error("the replica of service `{0}` broke off before it answered; try again shortly")]
    BrokenOff(String),
    #[error("service `{0}` did not answer within {1} ms")]
    TimedOut(String, u128),
    #[error("metrics are being collected for other requests; try again shortly")]
    ScrapeBusy,
}

impl Refusal {
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Malformed(_) | Self::BodyBroken | Self::UnknownLabel { .. } => StatusCode::BAD_REQUEST,
            Self::Tunnel | Self::OnlyGet => StatusCode::METHOD_NOT_ALLOWED,
            Self::Upgrade(_) | Self::TransferCoding(_) => StatusCode::NOT_IMPLEMENTED,
            Self::HeadTooLarge(..) => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::BodyTooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyTooSlow(_) => StatusCode::REQUEST_TIMEOUT,
            Self::UnknownService { .. } | Self::UnknownPath { .. } => StatusCode::NOT_FOUND,
            // A replica that dies answers for its requests as a worker that dies does.
            Self::Busy(_)
            | Self::NoReplica(_)
            | Self::NoLabelled { .. }
            | Self::Unreachable(_)
            | Self::BrokenOff(_)
            | Self::ScrapeBusy => StatusCode::SERVICE_UNAVAILABLE,
            Self::TimedOut(..) => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// The answer: `{"error": "<message>"}`, which is the error body of both inference protocols.
    pub(crate) fn response(&self) -> Response<Body> {
        let mut response = json(self.status(), &serde_json::json!({ "error": self.to_string() }));
        let headers = response.headers_mut();
        if self.status() == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if matches!(self, Self::Tunnel | Self::OnlyGet) {
            headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        }
        response
    }
}

/// Clients of TensorFlow Serving look for the first words.
fn unknown_label(label: &str, known: &str) -> String {
    let has = if known.is_empty() { "no label".to_owned() } else { known.to_owned() };
    format!("Unrecognized servable version label: {label}; the version that is served has {has}")
}

/// An answer with a JSON body.
pub(crate) fn json(status: StatusCode, value: &serde_json::Value) -> Response<Body> {
    let mut text = value.to_string();
    text.push('\n');
    full(status, "application/json", text.into())
}

/// An answer with a body of a known type.
pub(crate) fn full(status: StatusCode, content_type: &'static str, body: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::full(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
