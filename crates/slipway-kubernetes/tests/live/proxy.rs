//! A proxy before the API server that cuts watches every few seconds and answers some requests with 429 and 500 itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

type Answer = Response<UnsyncBoxBody<Bytes, kube::Error>>;

#[derive(Default)]
pub struct Faults {
    requests: AtomicU64,
    pub refused: AtomicU64,
    pub cut: AtomicU64,
}

/// Starts it before the server that `client` speaks to; returns its address.
pub async fn start(client: kube::Client, life: Duration) -> (String, Arc<Faults>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let faults = Arc::new(Faults::default());
    let counted = faults.clone();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (client, faults) = (client.clone(), counted.clone());
            let service = service_fn(move |request| pass(client.clone(), faults.clone(), request, life));
            tokio::spawn(async move {
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    (format!("http://{address}"), faults)
}

async fn pass(
    client: kube::Client,
    faults: Arc<Faults>,
    request: Request<Incoming>,
    life: Duration,
) -> Result<Answer, kube::Error> {
    let count = faults.requests.fetch_add(1, Ordering::Relaxed);
    if count % 7 == 3 || count % 11 == 5 {
        faults.refused.fetch_add(1, Ordering::Relaxed);
        let (code, after) = if count % 7 == 3 { (429, "1") } else { (500, "0") };
        let status = format!(
            r#"{{"kind":"Status","status":"Failure","code":{code},"reason":"Fault","message":"a fault"}}"#
        );
        let body = Full::new(Bytes::from(status)).map_err(|never| match never {}).boxed_unsync();
        return Ok(Response::builder().status(code).header("retry-after", after).body(body).unwrap());
    }
    let (parts, body) = request.into_parts();
    let watch = parts.uri.query().is_some_and(|query| query.contains("watch=true"));
    let bytes = body.collect().await.map_err(|error| kube::Error::Service(error.into()))?.to_bytes();
    let mut builder =
        Request::builder().method(parts.method).uri(parts.uri.path_and_query().unwrap().as_str());
    for name in ["accept", "content-type"] {
        if let Some(value) = parts.headers.get(name) {
            builder = builder.header(name, value);
        }
    }
    let answer = client.send(builder.body(kube::client::Body::from(bytes.to_vec())).unwrap()).await?;
    let (parts, body) = answer.into_parts();
    let body = if watch {
        let end = Box::pin(tokio::time::sleep(life));
        let stream = body.into_data_stream().map(|chunk| chunk.map(Frame::data)).take_until(async move {
            end.await;
            faults.cut.fetch_add(1, Ordering::Relaxed);
        });
        StreamBody::new(stream).boxed_unsync()
    } else {
        body.boxed_unsync()
    };
    let mut answer = Response::new(body);
    *answer.status_mut() = parts.status;
    Ok(answer)
}
