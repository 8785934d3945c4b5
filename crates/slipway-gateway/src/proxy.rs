//! Passes a request to a replica and the answer back.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use http::uri::PathAndQuery;
use http::{Method, Request, Response, StatusCode, Uri, Version, request};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};

use crate::body::{Body, RequestBody};
use crate::connection::{Connection, Wait};
use crate::exchange::Exchange;
use crate::headers;
use crate::refusal::Refusal;
use crate::shared::Worker;
use crate::table::Service;
use crate::upstream::{Lease, Link, SendFailure};

/// Bodies up to this size are read whole before a replica is asked: a slow client then holds no connection to one, the
/// request goes out in one write, and it can go to another replica if this one did not get it.
const MAX_BUFFERED: u64 = 64 << 10;

/// Longest part of a label that an error message repeats.
const MAX_LABEL_SHOWN: usize = 128;

/// Passes a request to a replica and gives its answer.
pub(crate) async fn forward(
    connection: &Connection,
    exchange: &mut Exchange,
    service: &Arc<Service>,
    strip: usize,
    request: Request<Incoming>,
) -> Result<Response<Body>, Refusal> {
    if !exchange.admit(service) {
        return Err(Refusal::Busy(service.name.clone()));
    }
    if service.backends.is_empty() {
        return Err(Refusal::NoReplica(service.name.clone()));
    }
    let (mut head, incoming) = request.into_parts();
    if incoming.size_hint().lower() > service.max_body {
        return Err(Refusal::BodyTooLarge(service.max_body));
    }
    let authority = head.uri.authority().cloned();
    let (uri, label) = without_label(origin_form(&head.uri, strip)?, service)?;
    head.uri = uri;
    let others = label.as_deref().map(|label| service.without_label(label)).unwrap_or_default();
    if let Some(label) = label.filter(|_| others.len() == service.backends.len()) {
        return Err(Refusal::NoLabelled { service: service.name.clone(), label });
    }
    head.version = Version::HTTP_11;
    head.extensions.clear();
    let authority = authority.as_ref().map(http::uri::Authority::as_str);
    headers::to_replica(&mut head.headers, &connection.client_text, authority, &exchange.id);

    let timeout = service.timeout;
    connection.begin(Wait::Answer, exchange.started(), timeout);
    let outcome = {
        let mut exchanged = pin!(async {
            let body = receive(incoming, service.max_body, exchange).await?;
            exchange.sent = Some(Instant::now());
            send(&connection.worker, exchange, service, others, Outgoing { head, body }).await
        });
        poll_fn(|cx| match exchanged.as_mut().poll(cx) {
            Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
            Poll::Pending if connection.expired(Wait::Answer) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        })
        .await
    };
    connection.end(Wait::Answer);
    exchange.upstream = exchange.sent.map(|sent| sent.elapsed());
    let millis = timeout.as_millis();
    let streaming =
        |exchange: &Exchange| exchange.progress.as_ref().is_some_and(|p| !p.complete.load(Relaxed));
    match outcome {
        Some(Ok(answer)) => Ok(answer.into_response(connection.worker.index, timeout)),
        Some(Err(refusal)) => Err(refusal),
        None if exchange.sent.is_none() || streaming(exchange) => Err(Refusal::BodyTooSlow(millis)),
        None => Err(Refusal::TimedOut(service.name.clone(), millis)),
    }
}

/// A request on its way.
struct Outgoing {
    head: request::Parts,
    body: RequestBody,
}

/// A replica's answer, with what its body needs.
struct Answer {
    response: Response<Incoming>,
    link: Box<Link>,
    lease: Lease,
}

impl Outgoing {
    /// A copy, where the body is not being streamed.
    fn copy(&self) -> Option<Self> {
        self.body.copy().map(|body| Self { head: self.head.clone(), body })
    }

    /// Whether to send it twice does no harm.
    fn repeatable(&self) -> bool {
        self.body.is_empty() && matches!(self.head.method, Method::GET | Method::HEAD)
    }

    fn into_request(self) -> Request<RequestBody> {
        Request::from_parts(self.head, self.body)
    }

    fn from_request(request: Request<RequestBody>) -> Self {
        let (head, body) = request.into_parts();
        Self { head, body }
    }
}

impl Answer {
    fn into_response(self, worker: usize, stall: std::time::Duration) -> Response<Body> {
        let (mut head, incoming) = self.response.into_parts();
        head.version = Version::HTTP_11;
        head.extensions.clear();
        Response::from_parts(head, Body::replica(incoming, self.link, self.lease, worker, stall))
    }
}

/// Reads a small body whole; leaves a large one, or one of unknown size, to be streamed.
async fn receive(
    mut incoming: Incoming,
    limit: u64,
    exchange: &mut Exchange,
) -> Result<RequestBody, Refusal> {
    let Some(length) = incoming.size_hint().exact().filter(|length| *length <= MAX_BUFFERED) else {
        let (body, progress) = RequestBody::stream(incoming, limit);
        exchange.progress = Some(progress);
        return Ok(body);
    };
    if length == 0 {
        return Ok(RequestBody::Full(None));
    }
    let mut whole = Bytes::new();
    let mut parts: Option<BytesMut> = None;
    while let Some(frame) = incoming.frame().await {
        let Ok(data) = frame.map_err(|_| Refusal::BodyBroken)?.into_data() else { continue };
        exchange.request_bytes += data.len() as u64;
        if whole.is_empty() && parts.is_none() {
            // Nearly always all of it, and then nothing is copied.
            whole = data;
        } else {
            parts.get_or_insert_with(|| BytesMut::from(&whole[..])).extend_from_slice(&data);
        }
    }
    Ok(RequestBody::Full(Some(parts.map_or(whole, BytesMut::freeze))))
}

/// Sends a request to one replica after the other until one takes it.
async fn send(
    worker: &Worker,
    exchange: &mut Exchange,
    service: &Arc<Service>,
    others: Vec<usize>,
    mut outgoing: Outgoing,
) -> Result<Answer, Refusal> {
    let not_tried = others.len();
    let mut tried = others;
    while let Some(index) = service.pick(&tried, worker.shared.now()) {
        let lease = service.backends[index].lease();
        exchange.backend = Some(Arc::clone(lease.backend()));
        if tried.len() > not_tried {
            service.stats.retries.fetch_add(1, Relaxed);
        }
        match attempt(worker, service, lease, outgoing).await {
            Ok(answer) => return Ok(answer),
            Err(Failed::Unsent(unsent)) => outgoing = *unsent,
            Err(Failed::Sent) => {
                service.stats.upstream_errors.fetch_add(1, Relaxed);
                return Err(
                    body_refusal(exchange, service).unwrap_or(Refusal::BrokenOff(service.name.clone()))
                );
            }
        }
        service.stats.upstream_errors.fetch_add(1, Relaxed);
        tried.push(index);
    }
    exchange.backend = None;
    Err(Refusal::Unreachable(service.name.clone()))
}

/// How a replica failed a request.
enum Failed {
    /// It got nothing of it.
    Unsent(Box<Outgoing>),
    /// It may have got it.
    Sent,
}

/// Sends a request to one replica, over a kept connection if there is one, else over a new one.
async fn attempt(
    worker: &Worker,
    service: &Service,
    lease: Lease,
    mut outgoing: Outgoing,
) -> Result<Answer, Failed> {
    if let Some(mut link) = lease.backend().take_idle(worker.index) {
        let copy = outgoing.copy();
        let repeatable = outgoing.repeatable();
        match link.send(outgoing.into_request()).await {
            Ok(response) => return finish(response, link, lease),
            // The replica closed the connection while it was idle. That it is gone shows at the next connection.
            Err(failure) => outgoing = recover(failure, copy, repeatable).ok_or(Failed::Sent)?,
        }
        service.stats.retries.fetch_add(1, Relaxed);
    }
    let limit = worker.shared.limits.connect_timeout;
    let mut link = match Link::connect(&lease.backend().address, limit).await {
        Ok(link) => link,
        Err(error) => {
            tracing::debug!(replica = lease.backend().name, %error, "cannot connect");
            // A full backlog says that it is busy, not that it is gone.
            if error.kind() != std::io::ErrorKind::WouldBlock {
                lease.backend().connect_failed(worker.shared.now());
                service.stats.ejections.fetch_add(1, Relaxed);
            }
            return Err(Failed::Unsent(Box::new(outgoing)));
        }
    };
    match link.send(outgoing.into_request()).await {
        Ok(response) => finish(response, link, lease),
        Err(failure) => match recover(failure, None, false) {
            Some(outgoing) => Err(Failed::Unsent(Box::new(outgoing))),
            None => Err(Failed::Sent),
        },
    }
}

fn finish(response: Response<Incoming>, link: Box<Link>, lease: Lease) -> Result<Answer, Failed> {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Err(Failed::Sent);
    }
    lease.backend().answered();
    Ok(Answer { response, link, lease })
}

/// The request, if it may be sent again: nothing of it was written, or to repeat it does no harm.
fn recover(failure: SendFailure, copy: Option<Outgoing>, repeatable: bool) -> Option<Outgoing> {
    if let Some(unsent) = failure.unsent {
        return Some(Outgoing::from_request(unsent));
    }
    tracing::debug!(error = %failure.error, nothing_written = failure.nothing_written, "exchange failed");
    copy.filter(|_| failure.nothing_written || repeatable)
}

/// Whether a failed exchange is the fault of the body that the client sent.
fn body_refusal(exchange: &Exchange, service: &Service) -> Option<Refusal> {
    let progress = exchange.progress.as_ref()?;
    if progress.too_large.load(Relaxed) {
        return Some(Refusal::BodyTooLarge(service.max_body));
    }
    progress.broken.load(Relaxed).then_some(Refusal::BodyBroken)
}

/// The request target for a replica: path and query, less a prefix.
fn origin_form(uri: &Uri, strip: usize) -> Result<Uri, Refusal> {
    let target = uri.path_and_query().ok_or(Refusal::Malformed("no path"))?;
    if strip == 0 {
        return Ok(Uri::from(target.clone()));
    }
    let rest = target.as_str().get(strip..).unwrap_or_default();
    let rest =
        if rest.starts_with('/') { PathAndQuery::try_from(rest) } else { format!("/{rest}").try_into() };
    rest.map(Uri::from).map_err(|_| Refusal::Malformed("the path cannot be passed on"))
}

/// The target without `/labels/<label>`, and the label, which must be one of a version that is declared or served.
/// Replicas know only the labels that there were when they started.
fn without_label(uri: Uri, service: &Service) -> Result<(Uri, Option<String>), Refusal> {
    const LABELS: &str = "/labels/";
    let Some((name, rest)) = uri.path().strip_prefix("/v1/models/").and_then(|rest| rest.split_once(LABELS))
    else {
        return Ok((uri, None));
    };
    if name.contains(['/', ':']) {
        return Ok((uri, None));
    }
    let (label, action) = rest.split_at(rest.find(['/', ':']).unwrap_or(rest.len()));
    if !service.labels.iter().any(|known| known == label) {
        let label = label.chars().take(MAX_LABEL_SHOWN).collect();
        return Err(Refusal::UnknownLabel { label, known: service.labels.join(", ") });
    }
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let target = PathAndQuery::try_from(format!("/v1/models/{name}{action}{query}"));
    let target = target.map_err(|_| Refusal::Malformed("the path cannot be passed on"))?;
    Ok((target.into(), Some(label.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prefix_goes_and_the_query_stays() {
        for (uri, strip, expected) in [
            ("/v1/models/m:predict?x=1", 0, "/v1/models/m:predict?x=1"),
            ("http://host:1/v1/m", 0, "/v1/m"),
            ("/digits/v1/models/m", 7, "/v1/models/m"),
            ("/digits", 7, "/"),
            ("/digits?x=/y", 7, "/?x=/y"),
            ("/digits/", 7, "/"),
            ("/digits//evil/x", 7, "//evil/x"),
            ("http://host/digits/a?b", 7, "/a?b"),
        ] {
            let uri = origin_form(&uri.parse().unwrap(), strip).unwrap();
            assert_eq!(uri.to_string(), expected);
            assert_eq!(uri.authority(), None);
        }
    }
}
