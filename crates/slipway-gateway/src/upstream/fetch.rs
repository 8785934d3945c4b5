//! Small GET requests of the gateway's own to a replica.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{HOST, HeaderValue};
use http::{Request, StatusCode};
use hyper::body::{Body as _, Incoming};
use slipway_types::service::Address;

use super::link::Link;
use crate::body::RequestBody;

/// Why nothing could be fetched.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    #[error("cannot connect")]
    Connect(#[source] io::Error),
    #[error("the exchange failed")]
    Exchange(#[source] hyper::Error),
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
}

/// Gets a page from a replica over a connection of its own.
pub(crate) async fn fetch(
    address: &Address,
    path: &'static str,
    max_bytes: usize,
    timeout: Duration,
) -> Result<(StatusCode, Bytes), FetchError> {
    tokio::time::timeout(timeout, exchange(address, path, max_bytes, timeout))
        .await
        .map_err(|_| FetchError::TimedOut(timeout))?
}

async fn exchange(
    address: &Address,
    path: &'static str,
    max_bytes: usize,
    timeout: Duration,
) -> Result<(StatusCode, Bytes), FetchError> {
    let mut link = Link::connect(address, timeout).await.map_err(FetchError::Connect)?;
    let mut request = Request::new(RequestBody::Full(None));
    *request.uri_mut() = http::Uri::from_static(path);
    request.headers_mut().insert(HOST, HeaderValue::from_static("localhost"));
    let response = link.send(request).await.map_err(|failure| FetchError::Exchange(failure.error))?;
    let status = response.status();
    let mut body = response.into_body();
    let mut bytes = BytesMut::new();
    while let Some(frame) = next_frame(&mut link, &mut body).await {
        let frame = frame.map_err(FetchError::Exchange)?;
        if let Some(data) = frame.data_ref() {
            if bytes.len() + data.len() > max_bytes {
                return Err(FetchError::TooLarge(max_bytes));
            }
            bytes.extend_from_slice(data);
        }
    }
    Ok((status, bytes.freeze()))
}

async fn next_frame(
    link: &mut Link,
    body: &mut Incoming,
) -> Option<Result<hyper::body::Frame<Bytes>, hyper::Error>> {
    std::future::poll_fn(|cx| {
        let mut body = std::pin::Pin::new(&mut *body);
        if let std::task::Poll::Ready(frame) = body.as_mut().poll_frame(cx) {
            return std::task::Poll::Ready(frame);
        }
        link.drive(cx);
        body.poll_frame(cx)
    })
    .await
}
