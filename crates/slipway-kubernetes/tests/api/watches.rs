//! The copy stays right through cuts, forgotten versions and errors, and nobody hurries.

use std::time::{Duration, Instant};

use http::Method;
use serde_json::{Value, json};
use slipway_kubernetes::watch::{Health, WatchOptions, Watcher, usual};

use super::fake::{Fake, OWNER, eventually, status};

fn pod(name: &str, phase: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "managedFields": [{"manager": "x"}],
        "labels": {"slipway.dev/owner": OWNER}}, "status": {"phase": phase}})
}

async fn watcher(fake: &Fake) -> Watcher {
    let options = WatchOptions { pause: Duration::from_millis(20), ..WatchOptions::default() };
    let watcher = Watcher::start(&fake.cluster(), usual(OWNER, &[]), options);
    assert!(watcher.store().filled(Duration::from_secs(5)).await);
    watcher
}

fn phase(watcher: &Watcher, name: &str) -> Option<String> {
    let snapshot = watcher.store().snapshot();
    Some(snapshot.get("Pod", name)?["status"]["phase"].as_str()?.to_owned())
}

#[tokio::test]
async fn follows_changes() {
    let fake = Fake::new();
    fake.put("pods", pod("a", "Pending"));
    let watcher = watcher(&fake).await;
    assert_eq!(phase(&watcher, "a").as_deref(), Some("Pending"));
    fake.put("pods", pod("a", "Running"));
    fake.put("pods", pod("b", "Pending"));
    eventually("both are seen", || {
        phase(&watcher, "a").as_deref() == Some("Running") && phase(&watcher, "b").is_some()
    })
    .await;
    assert!(watcher.store().snapshot().get("Pod", "a").unwrap()["metadata"]["managedFields"].is_null());
    fake.delete("pods", "a");
    eventually("it is gone", || phase(&watcher, "a").is_none()).await;
    // What has not our label is nobody's business, and what has another's is theirs.
    fake.put("pods", json!({"metadata": {"name": "stranger"}, "status": {}}));
    let theirs = json!({"slipway.dev/owner": "other", "app.kubernetes.io/managed-by": "slipway"});
    fake.put(
        "pods",
        json!({"metadata": {"name": "theirs", "labels": theirs}, "status": {"phase": "Running"}}),
    );
    fake.put("pods", pod("c", "Pending"));
    eventually("c is seen", || phase(&watcher, "c").is_some()).await;
    assert_eq!((phase(&watcher, "stranger"), phase(&watcher, "theirs")), (None, None));
}

#[tokio::test]
async fn survives_cuts_and_misses_nothing() {
    let fake = Fake::new();
    fake.watch_life(Duration::from_millis(60));
    let watcher = watcher(&fake).await;
    for n in 0..60 {
        fake.put("pods", pod(&format!("p{n}"), "Pending"));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    eventually("all are seen", || (0..60).all(|n| phase(&watcher, &format!("p{n}")).is_some())).await;
    assert_eq!(watcher.store().health(), Health::Good);
    let lists = fake.count(|m, p| m == Method::GET && p.contains("/pods?limit"));
    assert_eq!(lists, 1, "a cut is no reason to list again");
}

#[tokio::test]
async fn lists_again_when_the_version_is_forgotten() {
    let fake = Fake::new();
    fake.put("pods", pod("gone", "Running"));
    fake.watch_life(Duration::from_millis(40));
    let watcher = watcher(&fake).await;
    // Nobody watches while this happens.
    fake.fault(|_, path| {
        path.contains("watch=true").then(|| status(503, "ServiceUnavailable", "restarting", Value::Null))
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    fake.delete("pods", "gone");
    fake.put("pods", pod("new", "Running"));
    fake.compact();
    fake.clear_faults();
    eventually("the new one is seen and the old one gone", || {
        phase(&watcher, "new").is_some() && phase(&watcher, "gone").is_none()
    })
    .await;
    eventually("all kinds are watched again", || watcher.store().health() == Health::Good).await;
}

#[tokio::test]
async fn never_hurries_when_all_is_refused() {
    let fake = Fake::new();
    let watcher = watcher(&fake).await;
    fake.watch_life(Duration::from_millis(1));
    fake.fault(|_, path| {
        path.contains("watch=true").then(|| status(500, "InternalError", "no", Value::Null))
    });
    fake.put("pods", pod("a", "Pending"));
    tokio::time::sleep(Duration::from_millis(200)).await;
    fake.forget_requests();
    let start = Instant::now();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let pods = fake.count(|_, path| path.contains("/pods?"));
    assert!(pods <= 16, "{pods} requests for one kind in {:?}", start.elapsed());
    drop(watcher);
    fake.forget_requests();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(fake.requests().len(), 0, "a watcher that is dropped asks nothing");
}

#[tokio::test]
async fn what_one_may_do_without_is_done_without() {
    let fake = Fake::new();
    fake.fault(|_, path| path.contains("/gadgets?").then(|| status(403, "Forbidden", "no", Value::Null)));
    let gadgets = slipway_kubernetes::client::Resource::well_known("x.dev", "v1", "Gadget", "gadgets");
    let watcher = Watcher::start(&fake.cluster(), usual(OWNER, &[gadgets]), WatchOptions::default());
    assert!(watcher.store().filled(Duration::from_secs(5)).await);
    eventually("it is good", || watcher.store().health() == Health::Good).await;
}

#[tokio::test]
async fn tells_that_the_copy_is_old() {
    let fake = Fake::new();
    fake.watch_life(Duration::from_millis(20));
    let watcher = watcher(&fake).await;
    fake.fault(|_, _| Some(status(503, "ServiceUnavailable", "restarting", Value::Null)));
    eventually("it is old", || matches!(watcher.store().health(), Health::Old { .. })).await;
    fake.clear_faults();
    eventually("it is good again", || watcher.store().health() == Health::Good).await;
}
