//! The gateway's routes follow the cluster, and stay while it is away.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use slipway_kubernetes::routes::{Change, RouteWatch};
use slipway_kubernetes::watch::WatchOptions;

use super::fake::{Fake, status};

fn service(name: &str) -> Value {
    let annotation = json!({"service": name, "version": 1, "labels": ["champion"]}).to_string();
    json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "annotations": {"slipway.dev/route": annotation}}})
}

/// A slice of `s` with these pods; what is after the `/` is `r`eady or `t`erminating.
fn slice(pods: &[&str]) -> Value {
    let endpoints: Vec<Value> = pods
        .iter()
        .map(|pod| {
            let (n, state) = pod.split_once('/').unwrap();
            json!({"addresses": [format!("10.0.0.{n}")],
                "targetRef": {"kind": "Pod", "name": format!("p{n}"), "uid": format!("uid-p{n}")},
                "conditions": {"ready": state == "r", "serving": true, "terminating": state == "t"}})
        })
        .collect();
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "s-1", "labels": {"kubernetes.io/service-name": "s"}},
        "ports": [{"name": "http", "port": 8080}], "endpoints": endpoints})
}

fn pod(n: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("p{n}"), "uid": format!("uid-p{n}"),
        "labels": {"slipway.dev/service": "s", "app.kubernetes.io/version": "1"}}})
}

fn watch(fake: &Fake) -> RouteWatch {
    let options = WatchOptions {
        pause: Duration::from_millis(20),
        tolerated: Duration::from_millis(200),
        ..WatchOptions::default()
    };
    RouteWatch::start(&fake.cluster(), options)
}

/// Pods of `s`, those with its alias with a `*`.
fn pods(change: &Change) -> String {
    let Some(route) = change.routes.services.iter().find(|route| route.service == "s") else {
        return "no service".to_owned();
    };
    let one = |backend: &slipway_types::service::Backend| {
        let star = if backend.labels.is_empty() { "" } else { "*" };
        format!("{}{star}", backend.name.as_deref().unwrap_or("?"))
    };
    route.backends.iter().map(one).collect::<Vec<_>>().join(" ")
}

/// Follows changes until one is as expected; gives how many came before it.
async fn until(watch: &mut RouteWatch, what: &str, is: impl Fn(&Change) -> bool) -> Change {
    let follow = async {
        loop {
            let change = watch.next().await;
            if is(&change) {
                return change;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), follow)
        .await
        .unwrap_or_else(|_| panic!("waited for {what}"))
}

#[tokio::test]
async fn tells_nothing_before_everything_is_listed() {
    let fake = Fake::new();
    fake.put("services", service("s"));
    fake.fault(|_, path| {
        path.contains("endpointslices").then(|| status(503, "ServiceUnavailable", "starting", Value::Null))
    });
    let mut watch = watch(&fake);
    let early = tokio::time::timeout(Duration::from_millis(400), watch.next()).await;
    assert!(early.is_err(), "without the pods a service would seem to have none: {early:?}");
    fake.put("endpointslices", slice(&["1/r"]));
    fake.clear_faults();
    let first = tokio::time::timeout(Duration::from_secs(10), watch.next()).await.unwrap();
    assert_eq!(pods(&first), "p1", "its version is not known, so it has no alias yet");
    fake.put("pods", pod("1"));
    until(&mut watch, "the alias", |change| pods(change) == "p1*").await;
}

#[tokio::test]
async fn follows_pods_that_come_and_go() {
    let fake = Fake::new();
    for n in ["1", "2", "3"] {
        fake.put("pods", pod(n));
    }
    fake.put("services", service("s"));
    fake.put("services", json!({"metadata": {"name": "a-strangers"}}));
    fake.put("endpointslices", slice(&["1/r"]));
    let mut watch = watch(&fake);
    let first = watch.next().await;
    assert_eq!((pods(&first).as_str(), first.routes.services.len()), ("p1*", 1));
    fake.put("endpointslices", slice(&["1/r", "2/r"]));
    until(&mut watch, "the second", |change| pods(change) == "p1* p2*").await;
    fake.put("endpointslices", slice(&["1/t", "2/r"]));
    until(&mut watch, "the first to end", |change| pods(change) == "p2*").await;
    fake.put("endpointslices", slice(&["2/t"]));
    // Nothing is told that is as before: a pod that ends is the only one.
    let same = tokio::time::timeout(Duration::from_millis(200), watch.next()).await;
    assert!(same.is_err(), "{same:?}");
    fake.delete("services", "s");
    until(&mut watch, "its end", |change| pods(change) == "no service").await;
}

#[tokio::test]
async fn routes_stay_while_the_api_is_away_and_are_right_afterwards() {
    let fake = Fake::new();
    for n in ["1", "2"] {
        fake.put("pods", pod(n));
    }
    fake.put("services", service("s"));
    fake.put("endpointslices", slice(&["1/r"]));
    fake.watch_life(Duration::from_millis(40));
    let mut watch = watch(&fake);
    assert_eq!(pods(&watch.next().await), "p1*");
    fake.fault(|_, _| Some(status(503, "ServiceUnavailable", "restarting", Value::Null)));
    let away = until(&mut watch, "the trouble", |change| change.trouble.is_some()).await;
    assert_eq!(pods(&away), "p1*", "{away:?}");
    // What happened meanwhile cannot be followed: its versions are forgotten.
    fake.put("endpointslices", slice(&["2/r"]));
    fake.compact();
    fake.clear_faults();
    fake.watch_life(Duration::from_secs(60));
    let mut seen = Vec::new();
    let back = until(&mut watch, "the new pod", |change| {
        // The table is never empty on the way.
        assert_ne!(pods(change), "no service");
        assert_ne!(pods(change), "");
        pods(change) == "p2*"
    })
    .await;
    seen.push(back.clone());
    if back.trouble.is_some() {
        seen.push(until(&mut watch, "the end of the trouble", |change| change.trouble.is_none()).await);
    }
    assert!(seen.iter().all(|change| pods(change) == "p2*"), "{seen:?}");
    assert!(fake.count(|method, path| method == Method::GET && path.contains("/endpointslices?limit")) >= 2);
}
