//! Answers one request: checks it, finds its destination, and has a page made or a replica asked.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use http::header::{CONNECTION, HeaderValue};
use http::{Method, Request, Response};
use hyper::body::{Body as _, Incoming};

use crate::body::Body;
use crate::connection::Connection;
use crate::exchange::Exchange;
use crate::refusal::Refusal;
use crate::resolve::{Destination, resolve};
use crate::{headers, pages, proxy};

/// Longest part of a name that an error message repeats.
const MAX_NAME_SHOWN: usize = 128;

/// Answers one request.
pub(crate) async fn handle(
    connection: Arc<Connection>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let shared = connection.shared();
    let id = headers::request_id(request.headers()).cloned().unwrap_or_else(|| shared.request_id());
    let mut exchange = Exchange::new(Arc::clone(&connection), id.clone(), &request);
    let bodiless = request.method() == Method::HEAD;
    let has_body = !request.body().is_end_stream();
    let mut response =
        answer(&connection, &mut exchange, request).await.unwrap_or_else(|refusal| refusal.response());
    let unread = has_body && !exchange.body_was_read();
    exchange.status = Some(response.status());
    // The body of an answer to HEAD is never asked for.
    exchange.complete = bodiless;
    headers::to_client(response.headers_mut(), &id);
    if unread || shared.leaving.load(Relaxed) {
        // hyper closes the connection then; a client that is not told sends its next request there.
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response.map(|body| body.ends(exchange)))
}

async fn answer(
    connection: &Connection,
    exchange: &mut Exchange,
    request: Request<Incoming>,
) -> Result<Response<Body>, Refusal> {
    let shared = connection.shared();
    let limits = &shared.limits;
    headers::check(&request, limits.max_header_bytes, limits.max_headers)?;
    let table = shared.table();
    match resolve(&table, headers::host(&request), request.uri().path()) {
        Destination::Own(page) => pages::answer(shared, page, request.method()).await,
        Destination::Unknown(name) => Err(Refusal::UnknownService {
            name: name.chars().take(MAX_NAME_SHOWN).collect(),
            known: table.known(),
        }),
        Destination::NoPath(path) => Err(Refusal::UnknownPath {
            path: path.chars().take(MAX_NAME_SHOWN).collect(),
            known: table.known(),
        }),
        Destination::Service { service, strip } => {
            let service = Arc::clone(service);
            drop(table);
            proxy::forward(connection, exchange, &service, strip, request).await
        }
    }
}
