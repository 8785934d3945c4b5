//! The gateway's own metrics, in Prometheus text format.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, prometheus_text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use crate::shared::Shared;
use crate::stats::ServiceStats;
use crate::table::Table;

pub(crate) const CONTENT_TYPE: &str = prometheus_text::CONTENT_TYPE;
/// What every name of the gateway's own metrics starts with.
pub(crate) const PREFIX: &str = "slipway_gateway_";

/// How the last collection of a replica's metrics went.
#[derive(Debug)]
pub(crate) struct Scraped {
    pub service: String,
    pub replica: String,
    pub complete: bool,
}

/// The gateway's own metrics as text.
pub(crate) fn render(shared: &Arc<Shared>, scraped: Vec<Scraped>) -> String {
    let mut registry = Registry::default();
    let own = Own { shared: Arc::clone(shared), table: shared.table(), scraped };
    registry.register_collector(Box::new(own));
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = prometheus_text::encode(&mut text, &registry);
    text
}

/// Reads the counters at the time of a scrape. Labels are services and replicas of the table, so they are bounded.
#[derive(Debug)]
struct Own {
    shared: Arc<Shared>,
    table: Arc<Table>,
    scraped: Vec<Scraped>,
}

type Labels<'a> = Vec<(&'static str, &'a str)>;
type Count = fn(&ServiceStats) -> u64;

impl Own {
    /// The label and the counters of each service. An empty label stands for what reached no service.
    fn services(&self) -> impl Iterator<Item = (&str, &ServiceStats)> {
        let services = self.table.services().map(|service| (service.name.as_str(), &*service.stats));
        std::iter::once(("", &self.shared.own_stats)).chain(services)
    }
}

impl Collector for Own {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let mut family = encoder.encode_descriptor(
            "slipway_gateway_requests",
            "Answers to clients, by service and status code; 499 stands for clients that went away.",
            None,
            MetricType::Counter,
        )?;
        for (service, stats) in self.services() {
            for (code, count) in stats.codes() {
                counter(&mut family, &vec![("service", service), ("code", &code.to_string())], count)?;
            }
        }
        let mut family = encoder.encode_descriptor(
            "slipway_gateway_request_duration_seconds",
            "Time from a request's head to its answer's last byte.",
            None,
            MetricType::Histogram,
        )?;
        for (service, stats) in self.services() {
            let (sum, count, buckets) = stats.durations();
            let labels: Labels = vec![("service", service)];
            family.encode_family(&labels)?.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
        }
        let mut family = encoder.encode_descriptor(
            "slipway_gateway_requests_in_flight",
            "Requests under way.",
            None,
            MetricType::Gauge,
        )?;
        for (service, stats) in self.services() {
            gauge(&mut family, &vec![("service", service)], i64::from(stats.in_flight.load(Relaxed)))?;
        }
        self.encode_counters(&mut encoder)?;
        self.encode_replicas(&mut encoder)?;
        self.encode_process(&mut encoder)
    }
}

impl Own {
    fn encode_counters(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        let counters: [(&str, &str, Count); 5] = [
            ("slipway_gateway_request_bytes", "Bytes of request bodies.", |s| s.request_bytes.load(Relaxed)),
            ("slipway_gateway_response_bytes", "Bytes of answers' bodies.", |s| {
                s.response_bytes.load(Relaxed)
            }),
            (
                "slipway_gateway_upstream_errors",
                "Times that a replica refused a connection or broke one off.",
                |s| s.upstream_errors.load(Relaxed),
            ),
            ("slipway_gateway_retries", "Times that a request was sent again.", |s| s.retries.load(Relaxed)),
            ("slipway_gateway_ejections", "Times that a replica was set aside.", |s| {
                s.ejections.load(Relaxed)
            }),
        ];
        for (name, help, value) in counters {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (service, stats) in self.services() {
                counter(&mut family, &vec![("service", service)], value(stats))?;
            }
        }
        Ok(())
    }

    fn encode_replicas(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        let now = self.shared.now();
        let mut family = encoder.encode_descriptor(
            "slipway_gateway_replica_usable",
            "1 while nothing speaks against a replica, 0 while it is set aside.",
            None,
            MetricType::Gauge,
        )?;
        for service in self.table.services() {
            for backend in &service.backends {
                let labels: Labels = vec![("service", &service.name), ("replica", backend.name.as_str())];
                gauge(&mut family, &labels, i64::from(backend.usable(now)))?;
            }
        }
        let mut family = encoder.encode_descriptor(
            "slipway_gateway_replica_requests_in_flight",
            "Requests under way at a replica.",
            None,
            MetricType::Gauge,
        )?;
        for service in self.table.services() {
            for backend in &service.backends {
                let labels: Labels = vec![("service", &service.name), ("replica", backend.name.as_str())];
                gauge(&mut family, &labels, i64::from(backend.outstanding()))?;
            }
        }
        let mut family = encoder.encode_descriptor(
            "slipway_gateway_replica_scraped",
            "1 if the replica's own metrics below are complete.",
            None,
            MetricType::Gauge,
        )?;
        for scraped in &self.scraped {
            let labels: Labels = vec![("service", &scraped.service), ("replica", &scraped.replica)];
            gauge(&mut family, &labels, i64::from(scraped.complete))?;
        }
        Ok(())
    }

    fn encode_process(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        let shared = &self.shared;
        let int = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let gauges = [
            (
                "slipway_gateway_connections",
                "Open client connections.",
                int(shared.connections.load(Relaxed) as u64),
            ),
            (
                "slipway_gateway_routes_generation",
                "Generation of the routing table in force.",
                int(self.table.generation),
            ),
            (
                "slipway_gateway_routes_stale",
                "1 while the routing table in force is an old one: its source cannot be read or used.",
                i64::from(shared.routes.stale.load(Relaxed)),
            ),
        ];
        for (name, help, value) in gauges {
            encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)?;
        }
        let counters = [
            (
                "slipway_gateway_routes_failures",
                "Times that a changed routing table could not be used.",
                shared.routes.failures.load(Relaxed),
            ),
            (
                "slipway_gateway_connections_refused",
                "Client connections over the limit.",
                shared.connections_refused.load(Relaxed),
            ),
            (
                "slipway_gateway_access_log_dropped",
                "Access log lines that were dropped.",
                shared.log.as_ref().map_or(0, crate::access_log::Logger::dropped),
            ),
        ];
        for (name, help, value) in counters {
            encoder
                .encode_descriptor(name, help, None, MetricType::Counter)?
                .encode_counter::<NoLabelSet, _, f64>(&value, None)?;
        }
        Ok(())
    }
}

fn counter(family: &mut MetricEncoder, labels: &Labels, value: u64) -> fmt::Result {
    family.encode_family(labels)?.encode_counter::<NoLabelSet, _, f64>(&value, None)
}

fn gauge(family: &mut MetricEncoder, labels: &Labels, value: i64) -> fmt::Result {
    family.encode_family(labels)?.encode_gauge(&value)
}
