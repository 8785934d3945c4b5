use serde_json::json;
use slipway_types::service::Address;

use super::*;

fn service(name: &str, created: &str, annotation: &str) -> Value {
    json!({"kind": "Service", "metadata": {"name": name, "creationTimestamp": created,
        "annotations": {ROUTE_ANNOTATION: annotation}}})
}

fn slice(name: &str, of: &str, family: &str, endpoints: Value) -> Value {
    json!({"kind": "EndpointSlice", "metadata": {"name": name, "labels": {SERVICE_NAME: of}}, "addressType": family,
        "ports": [{"name": "metrics", "port": 9, "protocol": "TCP"}, {"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": endpoints})
}

/// An endpoint; `state` is of `r`eady, `s`erving, `t`erminating.
fn endpoint(n: u8, address: &str, state: &str) -> Value {
    let is = |letter: char| state.contains(letter);
    json!({"addresses": [address], "targetRef": {"kind": "Pod", "name": format!("pod-{n}"), "uid": format!("uid-{n}")},
        "conditions": {"ready": is('r'), "serving": is('s'), "terminating": is('t')}})
}

fn snapshot(objects: impl IntoIterator<Item = Value>) -> Snapshot {
    let mut snapshot = Snapshot::default();
    objects.into_iter().for_each(|object| snapshot.insert(object));
    snapshot
}

fn addresses(route: &Route) -> Vec<String> {
    let address = |backend: &Backend| match backend.address {
        Address::Tcp(address) => format!("{} {address}", backend.id),
        Address::Socket(_) => "a socket".to_owned(),
    };
    route.backends.iter().map(address).collect()
}

const S: &str = r#"{"service":"s"}"#;

#[test]
fn a_service_and_its_ready_pods() {
    let annotation = json!({"service": "My_Digits", "model": "digits", "version": 3, "labels": ["champion"],
        "hosts": ["my-digits-1.ns.svc"], "max_body": 7, "timeout_ms": 8, "to_zero": false, "deployment": "my-digits-1",
        "of a later version": {}});
    let pod = |n: u8, version: &str, uid: u8| {
        json!({"kind": "Pod", "metadata": {"name": format!("pod-{n}"),
        "uid": format!("uid-{uid}"), "labels": {VERSION_LABEL: version}}})
    };
    let endpoints = [
        endpoint(1, "10.0.0.1", "rs"),
        endpoint(2, "10.0.0.2", "rs"),
        endpoint(3, "10.0.0.3", ""),
        endpoint(4, "10.0.0.4", "st"),
        endpoint(5, "10.0.0.5", "t"),
        endpoint(6, "10.0.0.6", "rs"),
    ];
    let snapshot = snapshot([
        service("pods", "2026-01-01T00:00:00Z", &annotation.to_string()),
        json!({"kind": "Service", "metadata": {"name": "kubernetes"}}),
        slice("pods-1", "pods", "IPv4", json!(endpoints)),
        slice("other-1", "other", "IPv4", json!([endpoint(9, "10.0.0.9", "rs")])),
        pod(1, "3", 1),
        pod(2, "2", 2),
        // Its name was another pod's before.
        pod(6, "3", 7),
    ]);
    let Routes { services, problems } = routes(&snapshot);
    assert!(problems.is_empty(), "{problems:?}");
    let [route] = &services[..] else { panic!("{services:?}") };
    assert_eq!((route.service.as_str(), route.model.as_str()), ("My_Digits", "digits"));
    assert_eq!(
        (route.hosts.join(" ").as_str(), route.max_body, route.timeout_ms),
        ("my-digits-1.ns.svc", 7, 8)
    );
    assert_eq!(addresses(route), ["uid-1 10.0.0.1:8080", "uid-2 10.0.0.2:8080", "uid-6 10.0.0.6:8080"]);
    assert_eq!(route.max_concurrency, 3 * RouteLimits::default().concurrency_per_replica);
    let labels: Vec<_> = route.backends.iter().map(|backend| backend.labels.join(" ")).collect();
    assert_eq!(labels, ["champion", "", ""], "of pods with the declared version alone");
    assert_eq!(route.labels, ["champion"]);
    assert_eq!(route.backends[0].name.as_deref(), Some("pod-1"));
}

#[test]
fn pods_that_end_serve_where_no_other_does() {
    let of = |endpoints: &[Value]| {
        let slice = slice("a", "s", "IPv4", json!(endpoints));
        addresses(&routes(&snapshot([service("s", "", S), slice])).services[0])
    };
    let (ready, ends) = (endpoint(1, "10.0.0.1", "rs"), endpoint(2, "10.0.0.2", "st"));
    assert_eq!(of(&[ready.clone(), ends.clone()]), ["uid-1 10.0.0.1:8080"]);
    assert_eq!(of(&[ends, endpoint(3, "10.0.0.3", "")]), ["uid-2 10.0.0.2:8080"]);
    assert!(of(&[endpoint(3, "10.0.0.3", "t")]).is_empty());
    // A pod without readiness conditions, as an old or a foreign controller writes it.
    assert_eq!(of(&[json!({"addresses": ["10.0.0.4"]})]), ["10-0-0-4 10.0.0.4:8080"]);
    assert!(of(&[]).is_empty());
}

#[test]
fn each_pod_is_there_once() {
    let slices = [
        slice("v6", "s", "IPv6", json!([endpoint(1, "fd00::1", "rs"), endpoint(2, "fd00::2", "rs")])),
        slice("a", "s", "IPv4", json!([endpoint(1, "10.0.0.1", "rs"), endpoint(3, "10.0.0.3", "st")])),
        slice("b", "s", "IPv4", json!([endpoint(3, "10.0.0.3", "rs"), endpoint(4, "no address", "rs")])),
        slice("names", "s", "FQDN", json!([endpoint(5, "pod.example", "rs")])),
    ];
    let expected = ["uid-1 10.0.0.1:8080", "uid-2 [fd00::2]:8080", "uid-3 10.0.0.3:8080"];
    for order in [[0, 1, 2, 3], [3, 2, 1, 0]] {
        let all = order.map(|n: usize| slices[n].clone());
        let snapshot = snapshot(std::iter::once(service("s", "", S)).chain(all));
        assert_eq!(addresses(&routes(&snapshot).services[0]), expected);
    }
    let mut portless = slices[1].clone();
    portless["ports"] = json!([{"name": "grpc", "port": 1}, {"name": "http", "port": null}]);
    assert!(routes(&snapshot([service("s", "", S), portless])).services[0].backends.is_empty());
}

#[test]
fn one_bad_service_takes_no_other_with_it() {
    let (first, then) = ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z");
    let snapshot = snapshot([
        service("a-later", then, S),
        service("z-first", first, r#"{"service":"s","model":"m"}"#),
        service("broken", first, "{"),
        service("number", first, r#"{"service":1}"#),
        service("path", first, r#"{"service":"../x"}"#),
        service("nameless", first, "{}"),
        service("good", then, r#"{"service":"b"}"#),
    ]);
    let Routes { services, problems } = routes(&snapshot);
    let names: Vec<_> = services.iter().map(|route| (route.service.as_str(), route.model.as_str())).collect();
    assert_eq!(names, [("b", "b"), ("s", "m")], "the older one of two");
    assert_eq!(problems.len(), 5, "{problems:?}");
    for name in ["a-later", "broken", "number", "path", "nameless"] {
        assert!(
            problems.iter().any(|problem| problem.contains(&format!("`{name}`"))),
            "{name}: {problems:?}"
        );
    }
}
