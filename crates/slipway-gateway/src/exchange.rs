//! One request and its answer, from the first header to the last byte, as log and metrics see it.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use http::uri::PathAndQuery;
use http::{HeaderValue, Method, StatusCode};

use crate::access_log::Line;
use crate::body::Progress;
use crate::connection::{Connection, Wait};
use crate::stats::ServiceStats;
use crate::table::Service;
use crate::upstream::Backend;

/// Status that is recorded for a request whose client went away before the answer began, as nginx does.
const CLIENT_CLOSED: u16 = 499;

/// One request and its answer. Recorded when dropped.
pub(crate) struct Exchange {
    pub connection: Arc<Connection>,
    started: Instant,
    pub id: HeaderValue,
    method: Method,
    target: Option<PathAndQuery>,
    service: Option<Arc<Service>>,
    /// A place among the service's concurrent requests is taken.
    admitted: bool,
    /// The replica that was asked last.
    pub backend: Option<Arc<Backend>>,
    pub status: Option<StatusCode>,
    pub request_bytes: u64,
    pub progress: Option<Arc<Progress>>,
    pub response_bytes: u64,
    /// When the request was passed on.
    pub sent: Option<Instant>,
    /// Time from then to the answer's head.
    pub upstream: Option<Duration>,
    /// The answer's body was handed over whole.
    pub complete: bool,
}

impl Exchange {
    pub(crate) fn new<B>(
        connection: Arc<Connection>,
        id: HeaderValue,
        request: &http::Request<B>,
    ) -> Box<Self> {
        Box::new(Self {
            started: Instant::now(),
            id,
            method: request.method().clone(),
            target: request.uri().path_and_query().cloned(),
            service: None,
            admitted: false,
            backend: None,
            status: None,
            request_bytes: 0,
            progress: None,
            response_bytes: 0,
            sent: None,
            upstream: None,
            complete: false,
            connection,
        })
    }

    /// Names the service and takes one of its places. Says whether there was one.
    pub(crate) fn admit(&mut self, service: &Arc<Service>) -> bool {
        self.admitted = service.stats.admit(service.max_concurrency);
        self.service = Some(Arc::clone(service));
        self.admitted
    }

    /// Whether all of the request's body was taken from the client.
    pub(crate) fn body_was_read(&self) -> bool {
        self.progress.as_ref().map_or(self.sent.is_some(), |progress| progress.complete.load(Relaxed))
    }

    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    fn stats(&self) -> &ServiceStats {
        self.service.as_ref().map_or(&self.connection.shared().own_stats, |service| &service.stats)
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let duration = self.started.elapsed();
        let status = self.status.map_or(CLIENT_CLOSED, |status| status.as_u16());
        let request_bytes =
            self.progress.as_ref().map_or(self.request_bytes, |progress| progress.bytes.load(Relaxed));
        let stats = self.stats();
        if self.admitted {
            stats.in_flight.fetch_sub(1, Relaxed);
        }
        stats.record(status, duration, request_bytes, self.response_bytes);
        let shared = self.connection.shared();
        self.connection.begin(Wait::Headers, self.started + duration, shared.limits.header_timeout);
        let Some(log) = &shared.log else { return };
        log.write(&Line {
            time: jiff::Timestamp::now(),
            request_id: self.id.to_str().unwrap_or_default(),
            client: self.connection.client,
            method: self.method.as_str(),
            // Queries carry tokens; the path does not.
            path: self.target.as_ref().map_or("", PathAndQuery::path),
            service: self.service.as_ref().map(|service| service.name.as_str()),
            backend: self.backend.as_ref().map(|backend| backend.name.as_str()),
            status,
            aborted: !self.complete,
            request_bytes,
            response_bytes: self.response_bytes,
            duration_ms: millis(duration),
            upstream_ms: self.upstream.map(millis),
        });
    }
}

impl std::fmt::Debug for Exchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exchange").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Milliseconds with three decimals.
fn millis(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}
