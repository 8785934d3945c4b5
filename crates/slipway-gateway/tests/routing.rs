//! Which replica gets a request, and what happens when the table or a replica changes.

mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::{Response, StatusCode};
use slipway_types::container::ContainerId;
use slipway_types::service::{Address, Backend, Route};
use support::{Client, Replica, World, body, route, row, until};
use tokio::io::AsyncReadExt;
use tokio::sync::{Notify, Semaphore};

#[tokio::test(flavor = "multi_thread")]
async fn requests_find_their_service() {
    let world = World::new().await;
    let a = Replica::named(world.path(), 1, "a");
    let b = Replica::named(world.path(), 2, "b");
    world.route(vec![route("alpha", &[&a]), route("beta", &[&b]), route("empty", &[])]).await;
    for (target, replica, arrives) in [
        ("/v1/models/alpha:predict", &a, "/v1/models/alpha:predict"),
        (
            "/v1/models/alpha-model/versions/2:predict?x=1",
            &a,
            "/v1/models/alpha-model/versions/2:predict?x=1",
        ),
        ("/v2/models/beta/infer", &b, "/v2/models/beta/infer"),
        ("/beta/v1/models/beta:predict", &b, "/v1/models/beta:predict"),
        ("/beta?q=%2F", &b, "/?q=%2F"),
        ("http://elsewhere/alpha/deep/path", &a, "/deep/path"),
    ] {
        let reply = world.get(target).await;
        assert_eq!(reply.status, 200, "{target}");
        assert_eq!(replica.seen.lock().unwrap().last().unwrap().target, arrives);
    }
    let reply = world.call("GET /anything HTTP/1.1\r\nhost: BETA.localhost:8080\r\n\r\n").await;
    assert_eq!(reply.text(), "b");
    assert_eq!(b.seen.lock().unwrap().last().unwrap().target, "/anything");

    world.get("/v1/models/nope:predict").await.expect(StatusCode::NOT_FOUND, "services: alpha, beta, empty");
    let none = world.post("/v1/models/empty:predict", "{}").await;
    none.expect(StatusCode::SERVICE_UNAVAILABLE, "no ready replica");
    assert_eq!(none.headers["retry-after"], "1");
    assert_eq!(none.headers["connection"], "close", "its body was not read");
    assert!(!world.get("/v2/models/empty").await.headers.contains_key("connection"));
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_are_those_of_now() {
    let world = World::new().await;
    let a = Replica::named(world.path(), 1, "a");
    let with = |labels: &[&str]| {
        let labels: Vec<String> = labels.iter().map(|label| (*label).to_owned()).collect();
        let backends = vec![Backend { labels: labels.clone(), ..a.row() }];
        Route { labels, backends, ..route("alpha", &[]) }
    };
    world.route(vec![with(&["champion", "eu"])]).await;
    for (target, arrives) in [
        ("/v1/models/alpha/labels/champion:predict?x=1", "/v1/models/alpha:predict?x=1"),
        ("/v1/models/alpha-model/labels/eu/metadata", "/v1/models/alpha-model/metadata"),
        ("/v1/models/alpha/labels/eu", "/v1/models/alpha"),
        ("/alpha/v1/models/alpha/labels/eu:predict", "/v1/models/alpha:predict"),
        ("/v1/models/alpha/versions/1/labels/eu:predict", "/v1/models/alpha/versions/1/labels/eu:predict"),
    ] {
        assert_eq!(world.get(target).await.status, 200, "{target}");
        assert_eq!(a.seen.lock().unwrap().last().unwrap().target, arrives);
    }
    let hits = a.hits();
    let unknown = "Unrecognized servable version label: us; the version that is served has champion, eu";
    world.get("/v1/models/alpha/labels/us:predict").await.expect(StatusCode::BAD_REQUEST, unknown);
    world.route(vec![with(&["eu"])]).await;
    world.get("/v1/models/alpha/labels/champion").await.expect(StatusCode::BAD_REQUEST, "has eu");
    assert_eq!(a.hits(), hits);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_label_leads_to_its_own_version_alone() {
    let world = World::new().await;
    let (old, new) = (Replica::named(world.path(), 1, "old"), Replica::named(world.path(), 2, "new"));
    let of = |replica: &Replica, label: &str| Backend { labels: vec![label.to_owned()], ..replica.row() };
    let with = |backends: Vec<Backend>| Route {
        labels: vec!["champion".to_owned(), "stable".to_owned()],
        backends,
        ..route("alpha", &[])
    };
    let champion = "/v1/models/alpha/labels/champion:predict";
    world.route(vec![with(vec![of(&old, "stable")])]).await;
    let none = world.get(champion).await;
    none.expect(StatusCode::SERVICE_UNAVAILABLE, "no ready replica of the version with label champion");
    assert_eq!((none.headers["retry-after"].as_str(), old.hits()), ("1", 0));
    assert_eq!(world.get("/v1/models/alpha/labels/stable:predict").await.status, 200);
    assert_eq!(world.get("/v1/models/alpha:predict").await.status, 200);

    world.route(vec![with(vec![of(&old, "stable"), of(&new, "champion")])]).await;
    let hits = old.hits();
    for _ in 0..6 {
        assert_eq!(world.get(champion).await.status, 200);
    }
    assert_eq!((old.hits(), new.hits()), (hits, 6));
    for _ in 0..6 {
        assert_eq!(world.get("/v1/models/alpha:predict").await.status, 200);
    }
    assert!(old.hits() > hits && new.hits() > 6, "without a label, both");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gateways_own_pages() {
    let world = World::new().await;
    assert_eq!(world.get("/-/healthy").await.status, 200);
    assert_eq!(world.get("/-/ready").await.status, 503, "no table yet");
    assert_eq!(world.get("/v2/health/live").await.text(), "{\"live\":true}\n");
    world.get("/v1/models/x").await.expect(StatusCode::NOT_FOUND, "no service is deployed");
    let a = Replica::named(world.path(), 1, "a");
    world.route(vec![route("alpha", &[&a])]).await;
    assert_eq!(world.get("/v2/health/ready").await.text(), "{\"ready\":true}\n");
    let index: serde_json::Value = serde_json::from_slice(&world.get("/").await.body).unwrap();
    assert_eq!(index["services"][0]["name"], "alpha");
    assert_eq!(index["services"][0]["replicas"], 1);
    let server: serde_json::Value = serde_json::from_slice(&world.get("/v2").await.body).unwrap();
    assert_eq!(server["name"], "slipway");
    assert_eq!(server["extensions"], serde_json::json!(["binary_tensor_data"]));
    for path in ["/v1/models", "/v2/models", "/healthz"] {
        world
            .get(path)
            .await
            .expect(StatusCode::NOT_FOUND, &format!("there is no path {path}: see /v1/models/NAME"));
    }
    world.post("/metrics", "x").await.expect(StatusCode::METHOD_NOT_ALLOWED, "GET");
    world.route(vec![route("alpha", &[&a]), route("beta", &[])]).await;
    assert_eq!(world.get("/v2/health/ready").await.status, 503, "beta has no replica");
    assert_eq!(a.hits(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_table_keeps_the_one_before_and_is_reported() {
    let world = World::new().await;
    let a = Replica::named(world.path(), 1, "a");
    world.route(vec![route("alpha", &[&a])]).await;
    for (n, bad) in
        [&b"{\"services\": [{"[..], b"", b"{\"services\":[{\"service\":\"../x\",\"model\":\"m\"}]}"]
            .iter()
            .enumerate()
    {
        world.write(bad);
        until("the failure to be counted", async || {
            world.metrics().await.contains(&format!("slipway_gateway_routes_failures_total {}", n + 1))
        })
        .await;
        assert!(world.metrics().await.contains("slipway_gateway_routes_stale 1"));
        assert_eq!(world.get("/alpha").await.text(), "a");
    }
    std::fs::remove_file(world.path().join("routes.json")).unwrap();
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert_eq!(world.get("/alpha").await.text(), "a");
    world.route(vec![route("beta", &[&a])]).await;
    assert!(world.metrics().await.contains("slipway_gateway_routes_stale 0"));
    assert_eq!(world.get("/alpha").await.status, 404);
    assert_eq!(world.get("/beta").await.text(), "a");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_go_to_the_replica_with_the_fewest() {
    let world = World::new().await;
    let gate = Arc::new(Notify::new());
    let held = Arc::clone(&gate);
    let slow = Replica::start(world.path(), 1, move |_| {
        let held = Arc::clone(&held);
        async move {
            held.notified().await;
            Response::new(body("slow"))
        }
    });
    let quick = Replica::named(world.path(), 2, "quick");
    world.route(vec![route("s", &[&slow, &quick])]).await;
    let mut waiting = Client::connect(world.address).await;
    // Two at once: one of them is held.
    while slow.hits() == 0 {
        waiting.send("GET /s HTTP/1.1\r\nhost: x\r\n\r\n").await;
        if slow.hits() == 0 {
            tokio::time::timeout(Duration::from_millis(300), waiting.reply()).await.ok();
        }
    }
    for _ in 0..20 {
        assert_eq!(world.get("/s").await.text(), "quick");
    }
    assert_eq!(slow.hits(), 1);
    gate.notify_waiters();
    assert_eq!(waiting.reply().await.unwrap().text(), "slow");
    gate.notify_one();
    let both: Vec<_> = [world.get("/s").await.text(), {
        gate.notify_one();
        world.get("/s").await.text()
    }]
    .into();
    assert!(both.contains(&"slow".to_owned()), "{both:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_replica_costs_no_request() {
    let world = World::new().await;
    let good = Replica::named(world.path(), 1, "good");
    let dead = Replica::named(world.path(), 2, "dead");
    world.route(vec![route("s", &[&good, &dead])]).await;
    for _ in 0..10 {
        assert_eq!(world.post("/s", "{}").await.status, 200);
    }
    assert!(dead.hits() > 0);
    let missing = row(ContainerId::from_random([9; 12]), Address::Socket(world.path().join("none.sock")));
    let mut table = route("s", &[&good, &dead]);
    table.backends.push(missing);
    dead.kill().await;
    for _ in 0..20 {
        assert_eq!(world.post("/s", "{}").await.text(), "good", "kept connections of a dead replica");
    }
    world.route(vec![table]).await;
    for _ in 0..20 {
        assert_eq!(world.post("/s", "{}").await.text(), "good", "no socket at all");
    }
    let metrics = world.metrics().await;
    assert!(
        metrics.contains("slipway_gateway_replica_usable{service=\"s\",replica=\"020202020202\"} 0"),
        "{metrics}"
    );
    good.kill().await;
    let gone = world.post("/s", "{}").await;
    gone.expect(StatusCode::SERVICE_UNAVAILABLE, "no replica of service `s` can be reached");
    assert_eq!(gone.headers["retry-after"], "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_was_sent_is_not_sent_again() {
    let world = World::new().await;
    // Reads each request to its end, then breaks off.
    let socket = world.path().join("1.sock");
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    let got = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = Arc::clone(&got);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut text = vec![0; 4096];
            let read = stream.read(&mut text).await.unwrap();
            count.fetch_add(usize::from(text[..read].starts_with(b"POST")), Ordering::SeqCst);
        }
    });
    let other = Replica::named(world.path(), 2, "other");
    let mut table = route("s", &[&other]);
    table.backends.push(row(ContainerId::from_random([1; 12]), Address::Socket(socket)));
    world.route(vec![table]).await;
    let mut broken = 0;
    for _ in 0..6 {
        let reply = world.post("/s", "{\"instances\": []}").await;
        if reply.status == 503 {
            reply.expect(StatusCode::SERVICE_UNAVAILABLE, "broke off");
            broken += 1;
        } else {
            assert_eq!(reply.text(), "other");
        }
    }
    assert!(broken > 0);
    assert_eq!(
        (got.load(Ordering::SeqCst), other.hits()),
        (broken, 6 - broken),
        "each request went out once"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_closes_idle_connections_costs_no_request() {
    let world = World::new().await;
    let socket = world.path().join("1.sock");
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut text = vec![0; 4096];
                let _ = stream.read(&mut text).await;
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, answer).await;
            });
        }
    });
    let mut table = route("s", &[]);
    table.backends.push(row(ContainerId::from_random([1; 12]), Address::Socket(socket)));
    world.route(vec![table]).await;
    let mut client = Client::connect(world.address).await;
    for _ in 0..100 {
        client.send("POST /s HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}").await;
        assert_eq!(client.reply().await.unwrap().text(), "ok");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_leaves_the_table_finishes_what_it_has() {
    let world = World::new().await;
    let gate = Arc::new(Semaphore::new(0));
    let held = Arc::clone(&gate);
    let old = Replica::start(world.path(), 1, move |_| {
        let held = Arc::clone(&held);
        async move {
            let _permit = held.acquire().await;
            Response::new(body("old"))
        }
    });
    let new = Replica::named(world.path(), 2, "new");
    world.route(vec![route("s", &[&old])]).await;
    let mut client = Client::connect(world.address).await;
    client.send("GET /s HTTP/1.1\r\nhost: x\r\n\r\n").await;
    until("the old replica to have it", async || old.hits() == 1).await;
    world.route(vec![route("s", &[&new])]).await;
    for _ in 0..10 {
        assert_eq!(world.get("/s").await.text(), "new");
    }
    gate.add_permits(1);
    assert_eq!(client.reply().await.unwrap().text(), "old");
    client.send("GET /s HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert_eq!(client.reply().await.unwrap().text(), "new", "the client's connection goes on");
    assert_eq!(old.hits(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_fails_its_health_check_is_set_aside_until_it_passes() {
    let world = World::new().await;
    let sick = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let state = Arc::clone(&sick);
    let first = Replica::start(world.path(), 1, move |request| {
        let failing = state.load(Ordering::SeqCst) && request.uri().path() == "/v2/health/ready";
        async move {
            let mut answer = Response::new(body("first"));
            if failing {
                *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            }
            answer
        }
    });
    let second = Replica::named(world.path(), 2, "second");
    world.route(vec![route("s", &[&first, &second])]).await;
    let usable = "slipway_gateway_replica_usable{service=\"s\",replica=\"010101010101\"} ";
    sick.store(true, Ordering::SeqCst);
    until("the sick replica to be set aside", async || world.metrics().await.contains(&format!("{usable}0")))
        .await;
    for _ in 0..10 {
        assert_eq!(world.get("/s").await.text(), "second");
    }
    second.kill().await;
    assert_eq!(world.get("/s").await.text(), "first", "better than no answer");
    sick.store(false, Ordering::SeqCst);
    until("it to come back", async || world.metrics().await.contains(&format!("{usable}1"))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_deep_in_the_tree_is_reached() {
    let world = World::new().await;
    let folder = world.path().join("x".repeat(100));
    std::fs::create_dir(&folder).unwrap();
    // Bound under a short name; its full path is too long for a socket address.
    let link = world.path().join("l");
    std::os::unix::fs::symlink(&folder, &link).unwrap();
    let mut replica = Replica::named(&link, 1, "deep");
    let socket = folder.join("1.sock");
    assert!(socket.as_os_str().len() > 108);
    replica.address = Address::Socket(socket);
    world.route(vec![route("s", &[&replica])]).await;
    assert_eq!(world.get("/s").await.text(), "deep");
}
