//! Blobs and manifests to a registry.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use reqwest::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION};
use reqwest::{Body, Method, RequestBuilder, Response, StatusCode, Url};
use slipway_types::image::BlobState;
use slipway_types::{Digest, Reference};
use tokio_util::io::ReaderStream;

use super::Progress;
use super::auth::Scope;
use super::error::RequestError;
use super::fetch::{digest_of, manifest_name};
use super::http::{Call, Session};
use super::manifest::Descriptor;
use super::shared::{BlobProgress, Shared};
use crate::carrier::Layer;
use crate::store::Store;

/// An upload that moves no byte, or whose end is not confirmed, for this long is dead.
/// Registries on object storage copy a blob before they confirm it.
const STALL: Duration = Duration::from_secs(180);
/// No upload is cut off for its length; `STALL` ends the dead ones.
const NO_LIMIT: Duration = Duration::from_secs(7 * 24 * 3600);
const READ_SIZE: usize = 128 << 10;

/// Where the bytes of a blob are.
#[derive(Clone)]
pub(crate) enum Content {
    Store(Store),
    Memory(Bytes),
    /// Written while it is sent.
    Layer(Arc<Layer>),
}

/// Sends to one repository.
pub(crate) struct Uploader {
    pub session: Session,
    pub repository: String,
    pub progress: Progress,
}

enum Started {
    Mounted,
    At(Url),
}

impl Uploader {
    /// Gets ready to send to the repository of `reference`.
    pub async fn open(
        shared: &Arc<Shared>,
        reference: &Reference,
        progress: Progress,
    ) -> Result<Self, RequestError> {
        let session = shared.retries.run(|| shared.session(reference.registry())).await?;
        Ok(Self { session, repository: reference.repository().to_owned(), progress })
    }

    fn scope(&self) -> Scope {
        Scope::push(&self.session.repository(&self.repository))
    }

    /// Whether the registry has a blob, in full.
    pub async fn has(&self, blob: &Descriptor) -> Result<bool, RequestError> {
        let call = Call {
            method: Method::HEAD,
            url: self.session.url(&self.repository, &format!("blobs/{}", blob.digest)),
            headers: HeaderMap::new(),
            scope: &self.scope(),
            what: &format!("blob {}", blob.digest),
        };
        match self.session.send(&call).await {
            Ok(response) => Ok(content_length(&response).is_none_or(|length| length == blob.size)),
            // Storage behind a redirect may refuse HEAD; then the upload tells.
            Err(error) => unless_it_only_refuses(error).map(|()| false),
        }
    }

    /// Makes the registry have a blob, whatever it takes.
    pub async fn blob(
        &self,
        blob: &Descriptor,
        content: &Content,
        mount_from: Option<&str>,
    ) -> Result<(), RequestError> {
        let tries = AtomicU64::new(0);
        self.session
            .shared
            .retries
            .run(|| {
                let first = tries.fetch_add(1, Ordering::Relaxed) == 0;
                self.blob_once(blob, content, mount_from.filter(|_| first))
            })
            .await
    }

    async fn blob_once(
        &self,
        blob: &Descriptor,
        content: &Content,
        mount_from: Option<&str>,
    ) -> Result<(), RequestError> {
        if self.has(blob).await? {
            self.report(blob, BlobState::Exists);
            return Ok(());
        }
        if let Some(from) = mount_from {
            // A registry that refuses to mount may refuse in any way; a plain upload decides.
            match self.start(blob, Some(from)).await {
                Ok(Started::Mounted) => {
                    self.report(blob, BlobState::Exists);
                    return Ok(());
                }
                Ok(Started::At(url)) => return self.finish(blob, content, url).await,
                Err(_) => {}
            }
        }
        match self.start(blob, None).await? {
            Started::Mounted => Ok(()),
            Started::At(url) => self.finish(blob, content, url).await,
        }
    }

    async fn start(&self, blob: &Descriptor, mount_from: Option<&str>) -> Result<Started, RequestError> {
        let mut url = self.session.url(&self.repository, "blobs/uploads/");
        let mut scope = self.scope();
        if let Some(from) = mount_from {
            let from = self.session.repository(from);
            url.query_pairs_mut().append_pair("mount", blob.digest.as_str()).append_pair("from", &from);
            scope = scope.and_pull(&from);
        }
        let call = Call {
            method: Method::POST,
            url,
            headers: length_header(0),
            scope: &scope,
            what: &format!("an upload to {}", self.repository),
        };
        let response = self.session.send(&call).await?;
        if response.status() == StatusCode::CREATED {
            return Ok(Started::Mounted);
        }
        Ok(Started::At(self.location(&call.url, &response)?))
    }

    /// Where an upload goes on. Never from HTTPS to HTTP; registries behind a proxy often name the wrong scheme.
    fn location(&self, asked: &Url, response: &Response) -> Result<Url, RequestError> {
        let problem = |problem: &str| RequestError::Protocol {
            host: self.session.endpoint.name.clone(),
            problem: problem.to_owned(),
        };
        let location = response.headers().get(LOCATION).and_then(|v| v.to_str().ok());
        let location = location.ok_or_else(|| problem("it names no address for an upload"))?;
        let mut url = asked
            .join(location)
            .map_err(|_| problem("it names an address for an upload that is not valid"))?;
        if self.session.base.scheme() == "https" && url.scheme() != "https" {
            if url.host_str() != self.session.base.host_str() {
                return Err(problem("it wants an upload without encryption"));
            }
            let fixed = url.set_scheme("https").and_then(|()| url.set_port(self.session.base.port()));
            fixed.map_err(|()| problem("it names an address for an upload that is not valid"))?;
        }
        Ok(url)
    }

    async fn finish(&self, blob: &Descriptor, content: &Content, mut url: Url) -> Result<(), RequestError> {
        url.query_pairs_mut().append_pair("digest", blob.digest.as_str());
        let mut headers = length_header(blob.size);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        let call = Call {
            method: Method::PUT,
            url,
            headers,
            scope: &self.scope(),
            what: &format!("the upload of {}", blob.digest),
        };
        let moved = Arc::new(AtomicU64::new(0));
        let sent = self.session.send_with(&call, NO_LIMIT, |request| {
            moved.fetch_add(1, Ordering::Relaxed);
            self.attach(request, blob, content, &moved)
        });
        let response = tokio::select! {
            sent = sent => sent?,
            () = stalled(&moved) => {
                return Err(RequestError::Timeout {
                    host: self.session.endpoint.name.clone(),
                    seconds: STALL.as_secs(),
                });
            }
        };
        if response.status() == StatusCode::ACCEPTED {
            return Err(RequestError::Protocol {
                host: self.session.endpoint.name.clone(),
                problem: "it did not finish a whole upload".to_owned(),
            });
        }
        self.check_digest(&response, "blob", &blob.digest)?;
        self.report(blob, BlobState::Done);
        Ok(())
    }

    fn attach(
        &self,
        request: RequestBuilder,
        blob: &Descriptor,
        content: &Content,
        moved: &Arc<AtomicU64>,
    ) -> Result<RequestBuilder, RequestError> {
        let pieces = match content {
            Content::Memory(bytes) => return Ok(request.body(bytes.clone())),
            Content::Store(store) => {
                let failed = |source| RequestError::LocalBlob { digest: blob.digest.clone(), source };
                // By its path: the store's own look-up may wait for a collection, and this thread must not.
                let file = std::fs::File::open(store.blob_path(&blob.digest)).map_err(failed)?;
                ReaderStream::with_capacity(tokio::fs::File::from_std(file), READ_SIZE).boxed()
            }
            Content::Layer(layer) => written(Arc::clone(layer)).boxed(),
        };
        let mut progress = BlobProgress::new(
            Arc::clone(&self.progress),
            blob.digest.clone(),
            BlobState::Moving,
            Some(blob.size),
        );
        let moved = Arc::clone(moved);
        let mut done = 0;
        let stream = pieces.inspect(move |piece| {
            if let Ok(piece) = piece {
                done += piece.len() as u64;
                moved.fetch_add(piece.len() as u64, Ordering::Relaxed);
                progress.at(done);
            }
        });
        Ok(request.body(Body::wrap_stream(stream)))
    }

    /// Whether a tag or digest names this manifest already. A registry that does not say so gets it once more.
    pub async fn has_manifest(
        &self,
        digest: &Digest,
        media_type: &str,
        target: &str,
    ) -> Result<bool, RequestError> {
        let mut headers = HeaderMap::new();
        if let Ok(value) = HeaderValue::from_str(media_type) {
            headers.insert(ACCEPT, value);
        }
        let call = Call {
            method: Method::HEAD,
            url: self.session.url(&self.repository, &format!("manifests/{target}")),
            headers,
            scope: &self.scope(),
            what: &manifest_name(&self.repository, target),
        };
        match self.session.shared.retries.run(|| self.session.send(&call)).await {
            Ok(response) => {
                let said = response.headers().get("docker-content-digest").and_then(|v| v.to_str().ok());
                Ok(said.and_then(|text| text.parse::<Digest>().ok()).as_ref() == Some(digest))
            }
            Err(error) => unless_it_only_refuses(error).map(|()| false),
        }
    }

    /// Puts a manifest in place; `target` is a tag or the manifest's digest.
    pub async fn manifest(&self, bytes: &Bytes, media_type: &str, target: &str) -> Result<(), RequestError> {
        let mut headers = HeaderMap::new();
        let value = HeaderValue::from_str(media_type)
            .unwrap_or_else(|_| HeaderValue::from_static(super::manifest::OCI_MANIFEST));
        headers.insert(CONTENT_TYPE, value);
        let call = Call {
            method: Method::PUT,
            url: self.session.url(&self.repository, &format!("manifests/{target}")),
            headers,
            scope: &self.scope(),
            what: &manifest_name(&self.repository, target),
        };
        let send = || self.session.send_with(&call, STALL, |request| Ok(request.body(bytes.clone())));
        let response = self.session.shared.retries.run(send).await?;
        self.check_digest(&response, "manifest", &digest_of(bytes))
    }

    /// The registry's word about what it got, where it gives one.
    fn check_digest(
        &self,
        response: &Response,
        what: &'static str,
        sent: &Digest,
    ) -> Result<(), RequestError> {
        let said = response.headers().get("docker-content-digest").and_then(|v| v.to_str().ok());
        match said.and_then(|text| text.parse::<Digest>().ok()) {
            Some(received) if received != *sent => Err(RequestError::Digest {
                host: self.session.endpoint.name.clone(),
                what,
                promised: sent.clone(),
                received,
            }),
            _ => Ok(()),
        }
    }

    fn report(&self, blob: &Descriptor, state: BlobState) {
        let mut progress =
            BlobProgress::new(Arc::clone(&self.progress), blob.digest.clone(), state, Some(blob.size));
        progress.enter(state, blob.size);
    }
}

/// What is left of an error of HEAD: nothing where the server merely refuses, since a PUT may still succeed.
fn unless_it_only_refuses(error: RequestError) -> Result<(), RequestError> {
    match error {
        RequestError::Unauthorized { .. }
        | RequestError::Certificate { .. }
        | RequestError::Connect { .. } => Err(error),
        _ if error.is_transient() => Err(error),
        _ => Ok(()),
    }
}

/// The bytes of a layer, written by a thread that ends when nobody takes them any more.
fn written(layer: Arc<Layer>) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    let (sender, mut receiver) = tokio::sync::mpsc::channel(4);
    tokio::task::spawn_blocking(move || {
        let mut out = Pieces { sender: sender.clone() };
        let mut buffered = io::BufWriter::with_capacity(READ_SIZE, &mut out);
        let outcome = layer.write_to(&mut buffered);
        if let Err(error) = outcome {
            let mut reason = error.to_string();
            if let Some(source) = std::error::Error::source(&error) {
                reason = format!("{reason}: {source}");
            }
            // What is buffered would only look like the end of a whole layer.
            let _ = buffered.into_parts();
            let _ = sender.blocking_send(Err(io::Error::other(reason)));
        }
    });
    futures_util::stream::poll_fn(move |context| receiver.poll_recv(context))
}

struct Pieces {
    sender: tokio::sync::mpsc::Sender<io::Result<Bytes>>,
}

impl io::Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = Bytes::copy_from_slice(bytes);
        self.sender.blocking_send(Ok(piece)).map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

async fn stalled(moved: &AtomicU64) {
    let mut last = moved.load(Ordering::Relaxed);
    loop {
        tokio::time::sleep(STALL).await;
        let now = moved.load(Ordering::Relaxed);
        if now == last {
            return;
        }
        last = now;
    }
}

fn length_header(length: u64) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    headers
}

/// What a HEAD says: the client itself sees a reply without a body.
fn content_length(response: &Response) -> Option<u64> {
    response.headers().get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
