//! What is counted and measured, in the text format of Prometheus.

use std::fmt;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Media type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Upper bounds in seconds, from 100 µs to 60 s.
const SECONDS: [f64; 18] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
    30.0, 60.0,
];
/// Upper bounds in rows.
const ROWS: [f64; 11] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ModelLabels {
    model: String,
    version: u64,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabels {
    model: String,
    version: u64,
    protocol: String,
    code: u32,
}

type Histograms = Family<ModelLabels, Histogram, fn() -> Histogram>;

/// All metrics of a process.
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    request_duration: Histograms,
    batch_size: Histograms,
    queue_rows: Family<ModelLabels, Gauge>,
    queue_duration: Histograms,
    inference_duration: Histograms,
    worker_restarts: Family<ModelLabels, Counter>,
    worker_ready: Family<ModelLabels, Gauge>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// The metrics of one model. Cheap to update: nothing is looked up, except for codes other than 200.
#[derive(Clone, Debug)]
pub struct ModelMetrics {
    labels: ModelLabels,
    requests: Family<RequestLabels, Counter>,
    ok_tfs: Counter,
    ok_oip: Counter,
    /// From a request's head to its reply, in seconds.
    pub request_duration: Histogram,
    /// Rows of each batch that was sent to a worker.
    pub batch_size: Histogram,
    /// Rows that wait.
    pub queue_rows: Gauge,
    /// How long a request waited for a worker, in seconds.
    pub queue_duration: Histogram,
    /// How long the model took for a batch, in seconds.
    pub inference_duration: Histogram,
    /// How often a worker was started again.
    pub worker_restarts: Counter,
    /// Workers that take requests.
    pub worker_ready: Gauge,
}

/// Which protocol a request speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// TensorFlow Serving's REST API.
    Tfs,
    /// The Open Inference Protocol v2 over REST.
    Oip,
}

impl Protocol {
    /// The value of the label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tfs => "tfs",
            Self::Oip => "oip",
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All of them, without a value yet.
    pub fn new() -> Self {
        let mut registry = Registry::default();
        let seconds = || Histograms::new_with_constructor(|| Histogram::new(SECONDS));
        let (requests, request_duration) = (Family::default(), seconds());
        let batch_size = Histograms::new_with_constructor(|| Histogram::new(ROWS));
        let (queue_rows, queue_duration, inference_duration) = (Family::default(), seconds(), seconds());
        let (worker_restarts, worker_ready) = (Family::default(), Family::default());
        registry.register("slipway_requests", "Inference requests by status code", Family::clone(&requests));
        registry.register(
            "slipway_request_duration_seconds",
            "From a request's head to its reply",
            Family::clone(&request_duration),
        );
        registry.register("slipway_batch_size", "Rows of each batch", Family::clone(&batch_size));
        registry.register("slipway_queue_rows", "Rows that wait for a worker", Family::clone(&queue_rows));
        registry.register(
            "slipway_queue_duration_seconds",
            "How long requests waited for a worker",
            Family::clone(&queue_duration),
        );
        registry.register(
            "slipway_inference_duration_seconds",
            "How long the model took for a batch",
            Family::clone(&inference_duration),
        );
        registry.register(
            "slipway_worker_restarts",
            "How often a worker was started again",
            Family::clone(&worker_restarts),
        );
        registry.register("slipway_worker_ready", "Workers that take requests", Family::clone(&worker_ready));
        Self {
            registry,
            requests,
            request_duration,
            batch_size,
            queue_rows,
            queue_duration,
            inference_duration,
            worker_restarts,
            worker_ready,
        }
    }

    /// The metrics of one model.
    pub fn for_model(&self, model: &str, version: u64) -> ModelMetrics {
        let labels = ModelLabels { model: model.to_owned(), version };
        let ok = |protocol: Protocol| {
            self.requests.get_or_create_owned(&RequestLabels {
                model: model.to_owned(),
                version,
                protocol: protocol.as_str().to_owned(),
                code: 200,
            })
        };
        ModelMetrics {
            requests: self.requests.clone(),
            ok_tfs: ok(Protocol::Tfs),
            ok_oip: ok(Protocol::Oip),
            request_duration: self.request_duration.get_or_create_owned(&labels),
            batch_size: self.batch_size.get_or_create_owned(&labels),
            queue_rows: self.queue_rows.get_or_create_owned(&labels),
            queue_duration: self.queue_duration.get_or_create_owned(&labels),
            inference_duration: self.inference_duration.get_or_create_owned(&labels),
            worker_restarts: self.worker_restarts.get_or_create_owned(&labels),
            worker_ready: self.worker_ready.get_or_create_owned(&labels),
            labels,
        }
    }

    /// All values as text.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }
}

impl ModelMetrics {
    /// Counts one request.
    pub fn request(&self, protocol: Protocol, code: u16, seconds: f64) {
        match (protocol, code) {
            (Protocol::Tfs, 200) => self.ok_tfs.inc(),
            (Protocol::Oip, 200) => self.ok_oip.inc(),
            _ => {
                let labels = RequestLabels {
                    model: self.labels.model.clone(),
                    version: self.labels.version,
                    protocol: protocol.as_str().to_owned(),
                    code: code.into(),
                };
                self.requests.get_or_create(&labels).inc()
            }
        };
        self.request_duration.observe(seconds);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_labels() {
        let metrics = Metrics::new();
        let digits = metrics.for_model("digits", 3);
        digits.request(Protocol::Tfs, 200, 0.002);
        digits.request(Protocol::Oip, 503, 0.002);
        digits.batch_size.observe(4.0);
        digits.queue_rows.set(2);
        digits.worker_restarts.inc();
        let text = metrics.encode();
        for line in [
            r#"slipway_requests_total{model="digits",version="3",protocol="tfs",code="200"} 1"#,
            r#"slipway_requests_total{model="digits",version="3",protocol="oip",code="503"} 1"#,
            r#"slipway_request_duration_seconds_bucket{le="0.0025",model="digits",version="3"} 2"#,
            r#"slipway_batch_size_bucket{le="4.0",model="digits",version="3"} 1"#,
            r#"slipway_queue_rows{model="digits",version="3"} 2"#,
            r#"slipway_queue_duration_seconds_count{model="digits",version="3"} 0"#,
            r#"slipway_inference_duration_seconds_count{model="digits",version="3"} 0"#,
            r#"slipway_worker_restarts_total{model="digits",version="3"} 1"#,
            r#"slipway_worker_ready{model="digits",version="3"} 0"#,
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
    }
}
