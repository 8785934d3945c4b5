//! The protocols over HTTP, whoever listens.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::header::{
    ALLOW, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HeaderMap, HeaderValue, RETRY_AFTER,
};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Body;
use slipway_types::name::decoded;

use crate::metrics::{self, Metrics, Protocol};
use crate::model::{Model, Readiness};
use crate::protocol::oip::{self, BINARY_HEADER};
use crate::protocol::route::{ModelRoute, OipAction, Route, Selector, TfsAction};
use crate::protocol::{ProtocolError, tfs};

/// How long a body may take to arrive.
const BODY_TIME: Duration = Duration::from_secs(60);
/// How much, and for how long, is read of a body that is too large.
const DISCARD_BYTES: usize = 256 << 20;
const DISCARD_TIME: Duration = Duration::from_secs(5);
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const BINARY: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// Answers requests for some models. Clones share it.
#[derive(Clone, Debug)]
pub struct Frontend(Arc<Inner>);

struct Inner {
    models: Vec<Model>,
    metrics: Arc<Metrics>,
    /// Bytes of bodies that may be in memory at once, and that are.
    body_budget: usize,
    body_bytes: AtomicUsize,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frontend").field("models", &self.models).finish_non_exhaustive()
    }
}

/// A reply, whole.
pub type Reply = Response<Full<Bytes>>;

impl Frontend {
    /// For these models.
    pub fn new(models: Vec<Model>, metrics: Arc<Metrics>) -> Self {
        let largest = models.iter().map(|m| m.options().max_body).max().unwrap_or(0);
        let body_budget = largest.saturating_mul(4).max(64 << 20);
        Self(Arc::new(Inner { models, metrics, body_budget, body_bytes: AtomicUsize::new(0) }))
    }

    /// The models.
    pub fn models(&self) -> &[Model] {
        &self.0.models
    }

    /// Answers one request. Never fails: errors are replies. Dropping the future cancels the request.
    pub async fn handle<B>(&self, request: Request<B>) -> Reply
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: fmt::Display,
    {
        let started = Instant::now();
        let (head, body) = request.into_parts();
        let path = head.uri.path();
        let route = Route::parse(path);
        let (protocol, target) = match route {
            Route::Tfs(target, TfsAction::Predict) => (Protocol::Tfs, target),
            Route::Oip(target, OipAction::Infer) => (Protocol::Oip, target),
            other => {
                return self.describe(&head.method, path, other).unwrap_or_else(|error| error_reply(&error));
            }
        };
        let (model, result) = match self.find(target, protocol) {
            Ok(model) => {
                let result = match method_is(&head.method, &Method::POST) {
                    Err(error) => Err(error),
                    Ok(()) if protocol == Protocol::Tfs => self.tfs(model, &head.headers, body).await,
                    Ok(()) => self.oip(model, &head.headers, body).await,
                };
                (Some(model), result)
            }
            Err(error) => (None, Err(error)),
        };
        let reply = result.unwrap_or_else(|error| error_reply(&error));
        // Names that nobody serves are not counted: clients could make any number of them.
        if let Some(model) = model {
            model.metrics().request(protocol, reply.status().as_u16(), started.elapsed().as_secs_f64());
        }
        reply
    }

    async fn tfs<B>(&self, model: &Model, headers: &HeaderMap, body: B) -> Result<Reply, ProtocolError>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: fmt::Display,
    {
        accept_type(headers, false)?;
        let signature = model.ready_signature()?;
        let body = self.read(body, headers, model).await?;
        let request = tfs::parse(&body.bytes, &signature)?;
        let prediction = model.predict(&signature, request.inputs, None).await?;
        let body = tfs::write(&prediction, request.form)?;
        Ok(json_reply(StatusCode::OK, body.into()))
    }

    async fn oip<B>(&self, model: &Model, headers: &HeaderMap, body: B) -> Result<Reply, ProtocolError>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: fmt::Display,
    {
        let json_len = match headers.get(BINARY_HEADER) {
            None => None,
            Some(value) => {
                let value = value.to_str().ok().and_then(|v| v.parse().ok());
                Some(value.ok_or_else(|| {
                    ProtocolError::invalid("Inference-Header-Content-Length must be a number of bytes")
                })?)
            }
        };
        accept_type(headers, json_len.is_some())?;
        let signature = model.ready_signature()?;
        let body = self.read(body, headers, model).await?;
        let request = oip::parse(&body.bytes, json_len, &signature)?;
        let options = model.options();
        let prediction = model.predict(&signature, request.inputs, request.timeout).await?;
        let id = request.id.as_deref();
        let reply = oip::write(&prediction, &options.name, options.version, id, &request.wanted)?;
        let Some(json_len) = reply.json_len else { return Ok(json_reply(StatusCode::OK, reply.body.into())) };
        let mut response = Response::new(Full::new(reply.body.into()));
        response.headers_mut().insert(CONTENT_TYPE, BINARY);
        response.headers_mut().insert(BINARY_HEADER, json_len.into());
        Ok(response)
    }

    /// Everything but inference.
    fn describe(&self, method: &Method, path: &str, route: Route<'_>) -> Result<Reply, ProtocolError> {
        let ok = |body| Ok(json_reply(StatusCode::OK, body));
        match route {
            Route::Tfs(_, TfsAction::Classify | TfsAction::Regress) => {
                return Err(ProtocolError::unimplemented(
                    "classify and regress over tf.Example are not supported: use :predict with the input tensors",
                ));
            }
            Route::Malformed => {
                return Err(ProtocolError::invalid(format!("Malformed request: {method} {}", cut(path))));
            }
            Route::Unknown => {
                return Err(ProtocolError::not_found(format!(
                    "there is no path {}: see /v1/models/NAME:predict, /v2/models/NAME/infer, /v2/health/ready, /metrics",
                    cut(path)
                )));
            }
            _ => method_is(method, &Method::GET)?,
        }
        match route {
            Route::Root => ok(Bytes::from_static(b"{\"status\":\"alive\"}")),
            Route::Server => ok(oip::server_metadata()),
            Route::Live => ok(oip::live()),
            Route::Metrics => {
                let mut response = Response::new(Full::new(self.0.metrics.encode().into()));
                let content_type = HeaderValue::from_static(metrics::CONTENT_TYPE);
                response.headers_mut().insert(CONTENT_TYPE, content_type);
                Ok(response)
            }
            Route::Ready => {
                let reason = self.0.models.iter().find_map(not_ready);
                let load_failed = self.0.models.iter().any(Model::load_failed);
                Ok(json_reply(ready_status(&reason), oip::ready(reason.as_deref(), load_failed)))
            }
            Route::Oip(target, action) => {
                let model = self.find(target, Protocol::Oip)?;
                let options = model.options();
                if action == OipAction::Ready {
                    let reason = not_ready(model);
                    let body = oip::model_ready(&options.name, reason.as_deref());
                    return Ok(json_reply(ready_status(&reason), body));
                }
                let signature = model.signature().ok_or_else(|| unknown_yet(model))?;
                ok(oip::model_metadata(&options.name, options.version, &signature))
            }
            Route::Tfs(target, action) => {
                let model = self.find(target, Protocol::Tfs)?;
                let options = model.options();
                if action == TfsAction::Status {
                    return ok(tfs::status(options.version, &model.readiness()));
                }
                let signature = model.signature().ok_or_else(|| unknown_yet(model))?;
                ok(tfs::metadata(&options.name, options.version, &signature))
            }
            Route::Malformed | Route::Unknown => Err(ProtocolError::not_found("there is no such path")),
        }
    }

    fn find(&self, target: ModelRoute<'_>, protocol: Protocol) -> Result<&Model, ProtocolError> {
        let ModelRoute { name, selector } = target;
        let name = decoded(name);
        let is_named = |m: &&Model| m.options().name == *name || m.options().alias == *name;
        let Some(model) = self.0.models.iter().find(is_named) else {
            let known: Vec<_> = self.0.models.iter().map(|m| format!("\"{}\"", m.options().name)).collect();
            // Clients of TensorFlow Serving look for the word.
            let what = if protocol == Protocol::Tfs {
                "Servable not found for request: there is no model"
            } else {
                "there is no model"
            };
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return Err(ProtocolError::not_found(format!("{what} \"{}\"; there is {known}", cut(&name))));
        };
        let options = model.options();
        match selector {
            Selector::Any => Ok(model),
            Selector::Version(version) if version.parse() == Ok(options.version) => Ok(model),
            Selector::Version(version) => Err(ProtocolError::not_found(format!(
                "Servable not found for request: model \"{}\" has no version {}; version {} is served",
                options.name,
                cut(version),
                options.version
            ))),
            Selector::Label(label) if options.labels.iter().any(|l| l == label) => Ok(model),
            Selector::Label(label) => Err(ProtocolError::invalid(format!(
                "Unrecognized servable version label: {}; there is {}",
                cut(label),
                if options.labels.is_empty() { "none".to_owned() } else { options.labels.join(", ") }
            ))),
        }
    }

    /// Reads a body of at most the model's size, within the memory that all bodies share.
    async fn read<B>(
        &self,
        mut body: B,
        headers: &HeaderMap,
        model: &Model,
    ) -> Result<Budgeted<'_>, ProtocolError>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: fmt::Display,
    {
        let limit = model.options().max_body;
        let too_large = || {
            let message = format!("the request body is larger than the limit of {limit} bytes");
            ProtocolError::new(StatusCode::PAYLOAD_TOO_LARGE, message)
        };
        if headers.contains_key(CONTENT_ENCODING) {
            let message = "compressed request bodies are not supported: send it without Content-Encoding";
            return Err(ProtocolError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
        }
        let declared =
            headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<usize>().ok());
        if declared.is_some_and(|len| len > limit) {
            if !headers.contains_key(EXPECT) {
                discard(&mut body).await;
            }
            return Err(too_large());
        }
        let reserved = declared.unwrap_or(limit);
        let before = self.0.body_bytes.fetch_add(reserved, Ordering::Relaxed);
        let mut budgeted = Budgeted { inner: &self.0, reserved, bytes: Bytes::new() };
        if before.saturating_add(reserved) > self.0.body_budget && before > 0 {
            return Err(ProtocolError::unavailable("too many bytes of request bodies are in memory"));
        }
        let collect = async {
            let (mut first, mut rest) = (Bytes::new(), BytesMut::new());
            let mut len = 0_usize;
            while let Some(frame) = body.frame().await {
                let frame =
                    frame.map_err(|e| ProtocolError::invalid(format!("the request body is cut off: {e}")))?;
                let Ok(data) = frame.into_data() else { continue };
                len = len.saturating_add(data.len());
                if len > limit {
                    discard(&mut body).await;
                    return Err(too_large());
                }
                if first.is_empty() {
                    first = data;
                    continue;
                }
                if rest.is_empty() {
                    rest.reserve(reserved.min(len * 2));
                    rest.extend_from_slice(&first);
                }
                rest.extend_from_slice(&data);
            }
            Ok(if rest.is_empty() { first } else { rest.freeze() })
        };
        budgeted.bytes = match tokio::time::timeout(BODY_TIME, collect).await {
            Ok(bytes) => bytes?,
            Err(_) => {
                let message = format!("the request body did not arrive within {BODY_TIME:?}");
                return Err(ProtocolError::new(StatusCode::REQUEST_TIMEOUT, message));
            }
        };
        Ok(budgeted)
    }
}

/// Reads on for a while without keeping anything: a client that is still sending when the connection is closed may
/// never see the reply.
async fn discard<B: Body<Data = Bytes> + Unpin>(body: &mut B) {
    let read = async {
        let mut left = DISCARD_BYTES;
        while let Some(Ok(frame)) = body.frame().await {
            left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
            if left == 0 {
                return;
            }
        }
    };
    // Whether it came to an end or not, the reply is the same.
    let _ = tokio::time::timeout(DISCARD_TIME, read).await;
}

/// A body, and its share of the memory for bodies.
struct Budgeted<'a> {
    inner: &'a Inner,
    reserved: usize,
    bytes: Bytes,
}

impl Drop for Budgeted<'_> {
    fn drop(&mut self) {
        self.inner.body_bytes.fetch_sub(self.reserved, Ordering::Relaxed);
    }
}

fn not_ready(model: &Model) -> Option<String> {
    match model.readiness() {
        Readiness::Ready => None,
        Readiness::Starting { reason: None } => Some("the model is being loaded".to_owned()),
        Readiness::Starting { reason: Some(reason) } => Some(reason),
        Readiness::Stopped => Some("the server is being stopped".to_owned()),
    }
}

fn ready_status(reason: &Option<String>) -> StatusCode {
    if reason.is_none() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

fn unknown_yet(model: &Model) -> ProtocolError {
    let reason = not_ready(model).unwrap_or_default();
    ProtocolError::unavailable(format!("the signature is not known yet: {reason}"))
}

fn method_is(method: &Method, wanted: &Method) -> Result<(), ProtocolError> {
    if method == wanted {
        return Ok(());
    }
    let allow = if *wanted == Method::POST { "POST" } else { "GET" };
    let message = format!("the method {method} is not allowed here: use {allow}");
    Err(ProtocolError { allow: Some(allow), ..ProtocolError::new(StatusCode::METHOD_NOT_ALLOWED, message) })
}

/// Accepts JSON, and what clients send that do not say: `curl -d` calls it a form.
fn accept_type(headers: &HeaderMap, binary: bool) -> Result<(), ProtocolError> {
    let Some(value) = headers.get(CONTENT_TYPE) else { return Ok(()) };
    let text = value.to_str().unwrap_or("");
    let media = text.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    let json = matches!(
        media.as_str(),
        "" | "application/json" | "text/json" | "text/plain" | "application/x-www-form-urlencoded"
    ) || (media.starts_with("application/") && media.ends_with("+json"));
    if json || (binary && media == "application/octet-stream") {
        return Ok(());
    }
    let hint = if media == "application/octet-stream" {
        ", or raw tensors with the header Inference-Header-Content-Length"
    } else {
        ""
    };
    let message = format!("the content type \"{}\" is not supported: send application/json{hint}", cut(text));
    Err(ProtocolError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message))
}

/// What a client sent, cut for an error message.
fn cut(text: &str) -> String {
    text.chars().take(100).collect()
}

fn json_reply(status: StatusCode, body: Bytes) -> Reply {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

fn error_reply(error: &ProtocolError) -> Reply {
    let mut response = json_reply(error.status, error.body());
    if let Some(seconds) = error.retry_after {
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    if let Some(allow) = error.allow {
        response.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    }
    response
}
