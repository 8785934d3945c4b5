//! Which service, or which page of the gateway's own, a request is for.

use std::borrow::Cow;
use std::sync::Arc;

use slipway_types::name::decoded;

use crate::table::{Service, Table};

/// Where a request goes.
#[derive(Debug)]
pub(crate) enum Destination<'a> {
    /// The gateway answers.
    Own(Page),
    /// A replica of a service answers. The first `strip` bytes of the path are taken off.
    Service { service: &'a Arc<Service>, strip: usize },
    /// Nobody is called so.
    Unknown(Cow<'a, str>),
    /// The path names no service.
    NoPath(&'a str),
}

/// A page of the gateway's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Page {
    /// `/`: the services.
    Index,
    /// `/metrics`
    Metrics,
    /// `/-/healthy`: the process works.
    Healthy,
    /// `/-/ready`: there is a routing table, and the gateway is not about to end.
    Ready,
    /// `/v2`: server metadata of the Open Inference Protocol.
    ServerMetadata,
    /// `/v2/health/live`
    ServerLive,
    /// `/v2/health/ready`: every service has a replica.
    ServerReady,
}

/// Finds the destination of a request. `host` may have a port.
pub(crate) fn resolve<'a>(table: &'a Table, host: Option<&'a str>, path: &'a str) -> Destination<'a> {
    let host = host.map(without_port);
    if let Some(service) = host.and_then(|host| table.full_host(host)) {
        return Destination::Service { service, strip: 0 };
    }
    if let Some(label) = host.and_then(service_label) {
        return match table.host(label) {
            Some(service) => Destination::Service { service, strip: 0 },
            None => Destination::Unknown(label.into()),
        };
    }
    if let Some(page) = page(path) {
        return Destination::Own(page);
    }
    if let Some(rest) = path.strip_prefix("/v1/models/").or_else(|| path.strip_prefix("/v2/models/")) {
        let name = decoded(rest.split(['/', ':']).next().unwrap_or_default());
        return match table.service_or_model(&name) {
            Some(service) => Destination::Service { service, strip: 0 },
            None if name.is_empty() => Destination::NoPath(path),
            None => Destination::Unknown(name),
        };
    }
    let name = path[1.min(path.len())..].split('/').next().unwrap_or_default();
    let called = decoded(name);
    match table.service(&called) {
        Some(service) => Destination::Service { service, strip: 1 + name.len() },
        // A protocol's own paths name no service, and a lone segment is as likely a guess at a page.
        None if matches!(name, "v1" | "v2" | "") || path.len() == 1 + name.len() => Destination::NoPath(path),
        None => Destination::Unknown(called),
    }
}

fn page(path: &str) -> Option<Page> {
    Some(match path {
        "/" => Page::Index,
        "/metrics" => Page::Metrics,
        "/-/healthy" => Page::Healthy,
        "/-/ready" => Page::Ready,
        "/v2" | "/v2/" => Page::ServerMetadata,
        "/v2/health/live" => Page::ServerLive,
        "/v2/health/ready" => Page::ServerReady,
        _ => return None,
    })
}

/// A host without its port and without the dot that ends a full name.
fn without_port(host: &str) -> &str {
    let host = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    host.strip_suffix('.').unwrap_or(host)
}

/// The part of `<label>.localhost` before the first suffix.
fn service_label(host: &str) -> Option<&str> {
    const SUFFIX: &str = ".localhost";
    let split = host.len().checked_sub(SUFFIX.len()).filter(|at| *at > 0 && host.is_char_boundary(*at))?;
    let (label, suffix) = host.split_at(split);
    suffix.eq_ignore_ascii_case(SUFFIX).then_some(label)
}

#[cfg(test)]
mod tests {
    use slipway_types::service::{Route, RoutingTable};

    use super::*;
    use crate::config::Limits;

    #[test]
    fn every_way_to_a_service() {
        let services =
            [("digits", "mnist"), ("a.b", "x"), ("v1", "x"), ("My Model", "模型")].map(|(service, model)| {
                Route {
                    service: service.into(),
                    model: model.into(),
                    hosts: vec![format!("{service}-svc"), format!("{service}.ns.svc")],
                    ..Route::default()
                }
            });
        let table = RoutingTable { generation: 1, services: services.into() };
        let table = Table::default().next(&table, &Limits::default(), 1).unwrap();
        let cases = [
            (None, "/", "page Index"),
            (None, "/metrics", "page Metrics"),
            (None, "/-/healthy", "page Healthy"),
            (None, "/-/ready", "page Ready"),
            (None, "/v2", "page ServerMetadata"),
            (None, "/v2/health/live", "page ServerLive"),
            (None, "/v2/health/ready", "page ServerReady"),
            (None, "/v1/models/digits:predict", "digits 0"),
            (None, "/v1/models/digits/versions/3:predict", "digits 0"),
            (None, "/v1/models/mnist", "digits 0"),
            (None, "/v2/models/mnist/infer", "digits 0"),
            (None, "/v2/models/a.b/infer", "a.b 0"),
            (None, "/v1/models/nope:predict", "unknown nope"),
            (None, "/v1/models/", "no path /v1/models/"),
            (None, "/v1/models", "v1 3"),
            (None, "/v2/models", "no path /v2/models"),
            (None, "/healthz", "no path /healthz"),
            (None, "/v2/repository/index", "no path /v2/repository/index"),
            (None, "/v1/models/My%20Model:predict", "My Model 0"),
            (None, "/v1/models/My%20Model/versions/3:predict", "My Model 0"),
            (None, "/v1/models/my%20model:predict", "unknown my model"),
            (None, "/v2/models/%E6%A8%A1%E5%9E%8B/infer", "My Model 0"),
            (None, "/v2/models/%e6%a8%a1%E5%9E%8B/infer", "My Model 0"),
            (None, "/v2/models/d%69gits/infer", "digits 0"),
            (None, "/v2/models/digits%2Finfer", "unknown digits/infer"),
            (None, "/v1/models/digits%3Apredict", "unknown digits:predict"),
            (None, "/v2/models/%FF/infer", "unknown %FF"),
            (None, "/My%20Model/v1/models/x", "My Model 11"),
            (None, "/My+Model/x", "unknown My+Model"),
            (None, "/digits", "digits 7"),
            (None, "/digits/v1/models/digits:predict", "digits 7"),
            (None, "/v1/other", "v1 3"),
            (None, "/mnist/predict", "unknown mnist"),
            (None, "//digits", "no path //digits"),
            (None, "*", "no path *"),
            (None, "", "no path "),
            (Some("localhost:8080"), "/digits/x", "digits 7"),
            (Some("127.0.0.1:8080"), "/", "page Index"),
            (Some("[::1]:8080"), "/", "page Index"),
            (Some("digits.localhost:8080"), "/", "digits 0"),
            (Some("DIGITS.LOCALHOST"), "/metrics", "digits 0"),
            (Some("a.b.localhost."), "/x", "a.b 0"),
            (Some("digits.ns.svc"), "/", "digits 0"),
            (Some("Digits.NS.svc.:80"), "/-/ready", "digits 0"),
            (Some("digits-svc:80"), "/v1/models/v1", "digits 0"),
            (Some("digits.ns"), "/-/ready", "page Ready"),
            (Some("other.ns.svc"), "/digits/x", "digits 7"),
            (Some("nope.localhost"), "/digits/x", "unknown nope"),
            (Some(".localhost"), "/", "page Index"),
            (Some("digits.localhost.example"), "/", "page Index"),
        ];
        for (host, path, expected) in cases {
            let found = match resolve(&table, host, path) {
                Destination::Own(page) => format!("page {page:?}"),
                Destination::Service { service, strip } => format!("{} {strip}", service.name),
                Destination::Unknown(name) => format!("unknown {name}"),
                Destination::NoPath(path) => format!("no path {path}"),
            };
            assert_eq!(found, expected, "{host:?} {path}");
        }
    }
}
