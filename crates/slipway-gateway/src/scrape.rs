//! `/metrics`: the gateway's own, those of every replica, and the daemon's file about containers.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use http::StatusCode;

use crate::exposition::Families;
use crate::metrics::{self, Scraped};
use crate::refusal::Refusal;
use crate::shared::Shared;
use crate::upstream::{Backend, FetchError, fetch};

/// Replicas asked at once.
const AT_ONCE: usize = 64;
/// Longest wait for one replica.
const TIMEOUT: Duration = Duration::from_secs(1);
/// Largest answer of one replica, and largest file about containers.
const MAX_ANSWER: usize = 1 << 20;
const MAX_FILE: u64 = 16 << 20;
/// Scrapes that run at once; more are told to come back.
const MAX_SCRAPES: u32 = 4;

/// Everything, as text.
pub(crate) async fn all(shared: &Arc<Shared>) -> Result<String, Refusal> {
    let _running = Running::enter(&shared.scrapes).ok_or(Refusal::ScrapeBusy)?;
    let table = shared.table();
    let mut asked = Vec::new();
    for service in table.services() {
        for backend in &service.backends {
            asked.push(ask(service.name.clone(), Arc::clone(backend)));
        }
    }
    drop(table);
    let mut families = Families::default();
    let mut scraped = Vec::new();
    let mut answers = futures_util::stream::iter(asked).buffered(AT_ONCE);
    while let Some((service, replica, answer)) = answers.next().await {
        let complete = match answer {
            Ok((status, bytes)) if status.is_success() => {
                let text = String::from_utf8_lossy(&bytes);
                families.add(&text, &[("service", &service), ("replica", &replica)])
            }
            // A server of the user's own may have no metrics; that is no failure.
            Ok((status, _)) => status == StatusCode::NOT_FOUND,
            Err(error) => {
                tracing::debug!(service, replica, %error, "no metrics of a replica");
                false
            }
        };
        scraped.push(Scraped { service, replica, complete });
    }
    drop(answers);
    let mut text = metrics::render(shared, scraped);
    families.write(&mut text);
    if let Some(path) = &shared.containers_metrics_file {
        match read(path) {
            Ok(file) => text.push_str(&file),
            Err(error) => tracing::debug!(path = %path.display(), %error, "no metrics of containers"),
        }
    }
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}

/// One replica's metrics, with the labels that tell them apart.
async fn ask(
    service: String,
    backend: Arc<Backend>,
) -> (String, String, Result<(StatusCode, Bytes), FetchError>) {
    let answer = fetch(&backend.address, "/metrics", MAX_ANSWER, TIMEOUT).await;
    (service, backend.name.clone(), answer)
}

fn read(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(MAX_FILE).read_to_string(&mut text)?;
    Ok(text)
}

/// One scrape under way.
struct Running<'a>(&'a AtomicU32);

impl<'a> Running<'a> {
    fn enter(count: &'a AtomicU32) -> Option<Self> {
        let running = Self(count);
        (count.fetch_add(1, Relaxed) < MAX_SCRAPES).then_some(running)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}
