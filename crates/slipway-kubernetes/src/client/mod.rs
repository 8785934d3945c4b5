//! The API server: connections, requests that are repeated where that is safe, what it serves, logs and programs in pods.

mod connect;
mod discover;
mod error;
mod exec;
mod limit;
mod log;
mod paths;
mod retry;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, TryStreamExt};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use kube::client::Body;
use serde_json::{Value, json};

pub use connect::{ConnectError, ConnectOptions, InCluster, connect};
pub use discover::{DiscoverError, Discovery};
pub use error::{ApiError, Cause, Refusal};
pub use exec::{ExecError, ExecOptions, Process, Resizer};
pub use limit::Limiter;
pub use log::{LogError, LogOptions, Logs};
pub use paths::{Resource, escape};
pub use retry::Retry;
pub(crate) use retry::fraction;

/// Longest time for one request that is no stream.
const REQUEST_TIME: Duration = Duration::from_secs(30);
/// Largest answer that is read at once.
const MAX_ANSWER: usize = 64 << 20;
/// Objects in one page of a list.
const PAGE: usize = 500;
/// How often a list that takes too long is begun again.
const LIST_AGAIN: u32 = 3;
/// Beginning of the names of the field managers under which everything is applied.
pub const FIELD_MANAGER: &str = "slipway";

/// A cluster's API server, as one user, in one namespace. Cheap to clone.
#[derive(Clone)]
pub struct Cluster {
    inner: Arc<Inner>,
}

struct Inner {
    client: kube::Client,
    server: String,
    namespace: String,
    retry: Retry,
    limiter: Limiter,
}

/// What a list gave.
#[derive(Clone, Debug, Default)]
pub struct Listed {
    /// Objects, each with the list's `apiVersion` and `kind`.
    pub items: Vec<Value>,
    /// Version of the list, from which a watch goes on.
    pub resource_version: String,
}

/// What is asked of a list or a watch.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Label selector; all when empty.
    pub labels: String,
    /// Field selector; all when empty.
    pub fields: String,
    /// Whether only metadata is wanted.
    pub metadata_only: bool,
}

impl Selection {
    /// By labels.
    pub fn labelled(labels: impl Into<String>) -> Self {
        Self { labels: labels.into(), ..Self::default() }
    }

    pub(crate) fn query(&self) -> String {
        let mut query = String::new();
        for (key, value) in [("labelSelector", &self.labels), ("fieldSelector", &self.fields)] {
            if !value.is_empty() {
                query.push_str(&format!("&{key}={}", escape(value)));
            }
        }
        query
    }
}

/// What the server sends of each object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accept {
    Whole,
    Metadata,
    MetadataList,
}

impl Accept {
    fn header(self) -> &'static str {
        match self {
            Self::Whole => "application/json",
            Self::Metadata => "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
            Self::MetadataList => "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
        }
    }
}

/// What happens to an object's dependents when it is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dependents {
    /// They go a moment later.
    Background,
    /// They go first.
    Foreground,
}

impl Cluster {
    /// A cluster behind a client of `kube`'s. `server` is what errors call it.
    pub fn new(client: kube::Client, server: impl Into<String>, namespace: impl Into<String>) -> Self {
        Self::with_limits(client, server, namespace, Retry::default(), Limiter::default())
    }

    /// The same, with other limits.
    pub fn with_limits(
        client: kube::Client,
        server: impl Into<String>,
        namespace: impl Into<String>,
        retry: Retry,
        limiter: Limiter,
    ) -> Self {
        let (server, namespace) = (server.into(), namespace.into());
        Self { inner: Arc::new(Inner { client, server, namespace, retry, limiter }) }
    }

    /// The namespace that was chosen.
    pub fn namespace(&self) -> &str {
        &self.inner.namespace
    }

    /// Address of the API server.
    pub fn server(&self) -> &str {
        &self.inner.server
    }

    pub(crate) fn client(&self) -> &kube::Client {
        &self.inner.client
    }

    /// `GET` of any path.
    pub async fn get(&self, path: &str) -> Result<Value, ApiError> {
        self.request(Method::GET, path, Accept::Whole, None).await
    }

    /// An object, or `None` where there is none.
    pub async fn get_object(
        &self,
        resource: &Resource,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Value>, ApiError> {
        absent(self.get(&resource.path(namespace, Some(name))).await)
    }

    /// Metadata of an object, or `None` where there is none.
    pub async fn get_metadata(
        &self,
        resource: &Resource,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Value>, ApiError> {
        let path = resource.path(namespace, Some(name));
        absent(self.request(Method::GET, &path, Accept::Metadata, None).await)
    }

    /// Every object of a kind that is selected, page by page.
    pub async fn list(
        &self,
        resource: &Resource,
        namespace: &str,
        selection: &Selection,
    ) -> Result<Listed, ApiError> {
        let accept = if selection.metadata_only { Accept::MetadataList } else { Accept::Whole };
        let base = format!("{}?limit={PAGE}{}", resource.path(namespace, None), selection.query());
        let mut listed = Listed::default();
        let mut next = String::new();
        let mut again = 0;
        loop {
            let path =
                if next.is_empty() { base.clone() } else { format!("{base}&continue={}", escape(&next)) };
            let mut page = match self.request(Method::GET, &path, accept, None).await {
                // The page is too old to go on from: begin again.
                Err(error) if error.code() == Some(410) && !next.is_empty() && again < LIST_AGAIN => {
                    again += 1;
                    listed = Listed::default();
                    next.clear();
                    continue;
                }
                other => other?,
            };
            let metadata = page["metadata"].take();
            listed.resource_version = metadata["resourceVersion"].as_str().unwrap_or_default().to_owned();
            if let Value::Array(items) = page["items"].take() {
                listed.items.extend(items.into_iter().map(|mut item| {
                    item["apiVersion"] = resource.api_version().into();
                    item["kind"] = resource.kind.as_str().into();
                    item
                }));
            }
            match metadata["continue"].as_str() {
                Some(more) if !more.is_empty() => more.clone_into(&mut next),
                _ => return Ok(listed),
            }
        }
    }

    /// Server-side apply. With `dry_run` the server answers as if it had, and changes nothing.
    pub async fn apply(
        &self,
        resource: &Resource,
        object: &Value,
        manager: &str,
        force: bool,
        dry_run: bool,
    ) -> Result<Value, ApiError> {
        let metadata = &object["metadata"];
        let name = metadata["name"].as_str().unwrap_or_default();
        let path = resource.path(metadata["namespace"].as_str().unwrap_or_default(), Some(name));
        let dry = if dry_run { "&dryRun=All" } else { "" };
        let manager = escape(manager);
        let query = format!("{path}?fieldManager={manager}&force={force}&fieldValidation=Strict{dry}");
        let body = Bytes::from(object.to_string());
        self.request(Method::PATCH, &query, Accept::Whole, Some(("application/apply-patch+yaml", body))).await
    }

    /// Whether this user may do something with a kind in the chosen namespace.
    pub async fn may(&self, verb: &str, group: &str, plural: &str) -> Result<bool, ApiError> {
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {
                "namespace": self.namespace(), "verb": verb, "group": group, "resource": plural,
            }},
        });
        let body = Some(("application/json", Bytes::from(review.to_string())));
        let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
        let answer = self.request(Method::POST, path, Accept::Whole, body).await?;
        Ok(answer["status"]["allowed"] == true)
    }

    /// Deletes an object if it still is the one with this UID. `false`: it is gone, or another has its name.
    pub async fn delete(
        &self,
        resource: &Resource,
        namespace: &str,
        name: &str,
        uid: &str,
        dependents: Dependents,
    ) -> Result<bool, ApiError> {
        let policy = match dependents {
            Dependents::Background => "Background",
            Dependents::Foreground => "Foreground",
        };
        let options = json!({
            "apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": policy, "preconditions": {"uid": uid},
        });
        let path = resource.path(namespace, Some(name));
        let body = Some(("application/json", Bytes::from(options.to_string())));
        match self.request(Method::DELETE, &path, Accept::Whole, body).await {
            Ok(_) => Ok(true),
            // A conflict here is the precondition's: nothing else of a deletion can be in conflict.
            Err(error) if matches!(error.code(), Some(404 | 409)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// A request that may be repeated, and is where the answer may be another the next time.
    pub(crate) async fn request(
        &self,
        method: Method,
        path: &str,
        accept: Accept,
        body: Option<(&str, Bytes)>,
    ) -> Result<Value, ApiError> {
        let mut attempts = self.inner.retry.attempts();
        loop {
            self.inner.limiter.admit().await;
            let answer =
                tokio::time::timeout(REQUEST_TIME, self.once(method.clone(), path, accept, body.clone()))
                    .await
                    .unwrap_or_else(|_| {
                        Err(ApiError::Slow { server: self.inner.server.clone(), limit: REQUEST_TIME })
                    });
            let error = match answer {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            match attempts.next_delay(&error) {
                Some(delay) => {
                    tracing::debug!(%path, %error, ?delay, "the API server did not answer; again");
                    tokio::time::sleep(delay).await;
                }
                None => return Err(error),
            }
        }
    }

    async fn once(
        &self,
        method: Method,
        path: &str,
        accept: Accept,
        body: Option<(&str, Bytes)>,
    ) -> Result<Value, ApiError> {
        let response = self.send(method, path, accept.header(), body).await?;
        let bytes = self.read(response).await?;
        serde_json::from_slice(&bytes)
            .map_err(|source| ApiError::NotJson { path: path.to_owned(), source: Box::new(source) })
    }

    /// An answer as it comes: a log, a watch.
    pub(crate) async fn stream(
        &self,
        path: &str,
        accept: Accept,
    ) -> Result<impl Stream<Item = std::io::Result<Bytes>> + Send + use<>, ApiError> {
        self.inner.limiter.admit().await;
        let sent = self.send(Method::GET, path, accept.header(), None);
        let response = tokio::time::timeout(REQUEST_TIME, sent)
            .await
            .map_err(|_| ApiError::Slow { server: self.inner.server.clone(), limit: REQUEST_TIME })??;
        Ok(response.into_body().into_data_stream().map_err(std::io::Error::other))
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        accept: &str,
        body: Option<(&str, Bytes)>,
    ) -> Result<Response<Body>, ApiError> {
        let mut request = Request::builder().method(method).uri(path).header(header::ACCEPT, accept);
        if let Some((kind, _)) = &body {
            request = request.header(header::CONTENT_TYPE, *kind);
        }
        let request = request
            .body(Body::from(body.map(|(_, bytes)| bytes).unwrap_or_default()))
            .map_err(|source| ApiError::BadPath { path: path.to_owned(), source })?;
        let response = self.inner.client.send(request).await.map_err(|e| self.unreachable(e))?;
        if response.status().is_success() || response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(response);
        }
        let code = response.status().as_u16();
        let after = retry::retry_after(response.headers());
        let bytes = self.read(response).await.unwrap_or_default();
        Err(ApiError::refused(Refusal::read(code, after, &bytes)))
    }

    async fn read(&self, response: Response<Body>) -> Result<Bytes, ApiError> {
        match Limited::new(response.into_body(), MAX_ANSWER).collect().await {
            Ok(collected) => Ok(collected.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => Err(ApiError::TooLarge { limit: MAX_ANSWER }),
            Err(source) => Err(ApiError::Unreachable { server: self.inner.server.clone(), source }),
        }
    }

    pub(crate) fn unreachable(&self, error: kube::Error) -> ApiError {
        ApiError::from_kube(error, &self.inner.server)
    }
}

fn absent(answer: Result<Value, ApiError>) -> Result<Option<Value>, ApiError> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.code() == Some(404) => Ok(None),
        Err(error) => Err(error),
    }
}
