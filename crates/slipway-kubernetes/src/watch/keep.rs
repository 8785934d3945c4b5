//! One kind: a list, then a watch from its version, then a watch from where that one ended, for ever.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use serde_json::Value;
use tokio_util::codec::{FramedRead, LinesCodec};
use tokio_util::io::StreamReader;

use super::{Store, WatchOptions, Watched};
use crate::apply::chain;
use crate::client::{Accept, ApiError, Cluster, Refusal, Retry, fraction};

/// The server ends a watch after about this time by itself, so that watches move between servers.
const SERVER_SECONDS: f64 = 280.0;
/// Largest event: the server's own limit of an object is 1.5 MiB, without escapes.
const MAX_EVENT: usize = 16 << 20;
/// A watch that lived this long was a good one.
const GOOD: Duration = Duration::from_secs(2);

/// A kind that is not ours to see is asked for again after this time.
const REFUSED: Duration = Duration::from_secs(120);

/// How a watch ended.
enum End {
    /// It can go on from its last version.
    Cut { trouble: Option<String>, told: bool },
    /// Its version is forgotten: list again.
    Expired,
}

pub(super) async fn keep(
    cluster: Cluster,
    kind: Watched,
    index: usize,
    store: Arc<Store>,
    options: WatchOptions,
) {
    let backoff = Retry { first: options.pause, most: options.most, total: Duration::MAX };
    let mut version: Option<String> = None;
    let mut failures = 0_u32;
    loop {
        let began = Instant::now();
        let good = match &mut version {
            None => match cluster.list(&kind.resource, cluster.namespace(), &kind.selection).await {
                Ok(listed) => {
                    store.replace(index, listed.items, kind.most);
                    version = Some(listed.resource_version);
                    // The watch follows at once, unless lists succeed and watches are refused again and again.
                    if failures == 0 {
                        continue;
                    }
                    false
                }
                Err(error) if kind.optional && matches!(error.code(), Some(403 | 404)) => {
                    tracing::debug!(kind = kind.resource.kind, %error, "not watched");
                    store.replace(index, Vec::new(), None);
                    tokio::time::sleep(REFUSED).await;
                    continue;
                }
                Err(error) => {
                    store.trouble(index, Some(chain(&error)));
                    false
                }
            },
            Some(at) => match follow(&cluster, &kind, index, &store, at, options).await {
                End::Cut { trouble, told } => {
                    let good = told || trouble.is_none() && began.elapsed() >= GOOD;
                    // A cut alone is no trouble; one that nothing follows is.
                    if trouble.is_some() || good {
                        store.trouble(index, trouble.filter(|_| !good));
                    }
                    good
                }
                End::Expired => {
                    version = None;
                    false
                }
            },
        };
        failures = if good { 0 } else { failures.saturating_add(1) };
        tokio::time::sleep(if failures == 0 { options.pause } else { backoff.delay(failures) }).await;
    }
}

/// Follows a watch until it ends, and keeps the version to go on from.
async fn follow(
    cluster: &Cluster,
    kind: &Watched,
    index: usize,
    store: &Store,
    version: &mut String,
    options: WatchOptions,
) -> End {
    let seconds = (SERVER_SECONDS * (1.0 - 0.3 * fraction())) as u64;
    let path = format!(
        "{}?watch=true&allowWatchBookmarks=true&timeoutSeconds={seconds}&resourceVersion={version}{}",
        kind.resource.path(cluster.namespace(), None),
        kind.selection.query(),
    );
    let accept = if kind.selection.metadata_only { Accept::Metadata } else { Accept::Whole };
    let cut = |trouble: &dyn std::error::Error, told| End::Cut { trouble: Some(chain(trouble)), told };
    let bytes = match cluster.stream(&path, accept).await {
        Ok(bytes) => bytes,
        Err(error) if error.code() == Some(410) => return End::Expired,
        Err(error) => {
            wait_as_told(&error).await;
            return cut(&error, false);
        }
    };
    // It is open: whatever was wrong is over.
    store.trouble(index, None);
    let codec = LinesCodec::new_with_max_length(MAX_EVENT);
    let mut lines = pin!(FramedRead::new(StreamReader::new(Box::pin(bytes)), codec));
    let mut told = false;
    loop {
        let line = match tokio::time::timeout(options.silence, lines.next()).await {
            // Half of a connection may live for ever.
            Err(_) => return End::Cut { trouble: None, told },
            Ok(None) => return End::Cut { trouble: None, told },
            // A cut in the middle of an event.
            Ok(Some(Err(_))) => return End::Cut { trouble: None, told },
            Ok(Some(Ok(line))) => line,
        };
        let Ok(mut event) = serde_json::from_str::<Value>(&line) else {
            return End::Cut { trouble: None, told };
        };
        let object = event["object"].take();
        match event["type"].as_str().unwrap_or_default() {
            "ERROR" => {
                let refusal = Refusal::read(500, None, object.to_string().as_bytes());
                if refusal.code == 410 {
                    return End::Expired;
                }
                let error = ApiError::refused(refusal);
                wait_as_told(&error).await;
                return cut(&error, told);
            }
            what => {
                if let Some(at) = object["metadata"]["resourceVersion"].as_str() {
                    at.clone_into(version);
                }
                told = true;
                match what {
                    "ADDED" | "MODIFIED" => store.put(index, object, kind.most),
                    "DELETED" => store.remove(index, &object),
                    _ => {}
                }
            }
        }
    }
}

async fn wait_as_told(error: &ApiError) {
    if let Some(wait) = error.refusal().and_then(|refusal| refusal.retry_after) {
        tokio::time::sleep(wait).await;
    }
}
