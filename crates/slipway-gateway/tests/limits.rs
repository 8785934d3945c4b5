//! What clients may not do, and what it costs the others.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use http::{Response, StatusCode};
use http_body_util::BodyExt;
use support::{Client, Replica, World, body, is_own, route, until};
use tokio::sync::Semaphore;

/// Reads the body, then answers with its length.
fn reader(world: &World) -> Replica {
    Replica::start(world.path(), 1, |request| async move {
        match request.into_body().collect().await {
            Ok(whole) => Response::new(body(whole.to_bytes().len().to_string())),
            Err(_) => Response::new(body("broken")),
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_over_the_limit_are_refused_by_length_and_while_they_stream() {
    let world = World::new().await;
    let replica = reader(&world);
    let mut table = route("s", &[&replica]);
    table.max_body = 100_000;
    world.route(vec![table]).await;
    assert_eq!(world.post("/s", &"x".repeat(100_000)).await.text(), "100000");
    let hits = replica.hits();
    world.post("/s", &"x".repeat(100_001)).await.expect(StatusCode::PAYLOAD_TOO_LARGE, "100000 bytes");
    assert_eq!(replica.hits(), hits, "no replica was bothered");

    let mut client = Client::connect(world.address).await;
    client
        .send("POST /s HTTP/1.1\r\nhost: x\r\ncontent-length: 100001\r\nexpect: 100-continue\r\n\r\n")
        .await;
    client.reply().await.unwrap().expect(StatusCode::PAYLOAD_TOO_LARGE, "100000 bytes");

    let mut client = Client::connect(world.address).await;
    client.send("POST /s HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n").await;
    let chunk = format!("{:x}\r\n{}\r\n", 30_000, "x".repeat(30_000));
    for _ in 0..4 {
        client.send(&chunk).await;
    }
    client.reply().await.unwrap().expect(StatusCode::PAYLOAD_TOO_LARGE, "100000 bytes");
    assert!(client.closed().await, "what else the client sends has no meaning");

    // A client that goes on sending still gets the answer.
    let mut client = Client::connect(world.address).await;
    client.send("POST /s HTTP/1.1\r\nhost: x\r\ncontent-length: 40000000\r\n\r\n").await;
    client.send("x".repeat(40_000_000)).await;
    client.reply().await.unwrap().expect(StatusCode::PAYLOAD_TOO_LARGE, "100000 bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn expect_continue_is_answered_when_the_body_is_wanted() {
    let world = World::new().await;
    let replica = reader(&world);
    world.route(vec![route("s", &[&replica])]).await;
    let mut client = Client::connect(world.address).await;
    client.send("POST /s HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\nexpect: 100-continue\r\n\r\n").await;
    assert_eq!(client.head().await.unwrap().0, 100);
    client.send("12345").await;
    assert_eq!(client.reply().await.unwrap().text(), "5");
    assert!(!replica.seen.lock().unwrap()[0].headers.contains_key("expect"));
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_over_the_limits_are_refused() {
    let world = World::with(|config| config.limits.max_headers = 20).await;
    let replica = reader(&world);
    world.route(vec![route("s", &[&replica])]).await;
    let get = |extra: String| format!("GET /s HTTP/1.1\r\nhost: x\r\n{extra}\r\n");
    let reply = world.call(&get(format!("a: {}\r\n", "x".repeat(40_000)))).await;
    reply.expect(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "the limit is 32768");
    let many: String = (0..30).map(|n| format!("h{n}: 1\r\n")).collect();
    world.call(&get(many)).await.expect(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "31 headers");
    let long = format!("GET /s?{} HTTP/1.1\r\nhost: x\r\n\r\n", "q".repeat(40_000));
    world.call(&long).await.expect(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "bytes");
    // So large that it is not even read.
    let reply = world.call(&get(format!("a: {}\r\n", "x".repeat(200_000)))).await;
    assert_eq!(reply.status, 431);
    assert_eq!(replica.hits(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_takes_too_long_is_given_up() {
    let world = World::new().await;
    let replica = Replica::start(world.path(), 1, |request| async move {
        if !is_own(&request) {
            std::future::pending::<()>().await;
        }
        Response::new(body(""))
    });
    let mut table = route("s", &[&replica]);
    table.timeout_ms = 200;
    world.route(vec![table]).await;
    let began = Instant::now();
    world.post("/s", "{}").await.expect(StatusCode::GATEWAY_TIMEOUT, "200 ms");
    assert!(began.elapsed() >= Duration::from_millis(200) && began.elapsed() < Duration::from_secs(2));
    until("the replica's request to be cancelled", async || replica.cancelled.load(Ordering::SeqCst) == 1)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_does_not_arrive_is_the_clients_fault() {
    let world = World::new().await;
    let replica = reader(&world);
    let mut table = route("s", &[&replica]);
    table.timeout_ms = 200;
    world.route(vec![table]).await;
    for head in ["content-length: 10", "content-length: 1000000", "transfer-encoding: chunked"] {
        let mut client = Client::connect(world.address).await;
        client.send(format!("POST /s HTTP/1.1\r\nhost: x\r\n{head}\r\n\r\n5\r\nxxxxx")).await;
        client.reply().await.unwrap().expect(StatusCode::REQUEST_TIMEOUT, "200 ms");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_headers_are_cut_off_and_idle_clients_silently() {
    let world = World::with(|config| config.limits.header_timeout = Duration::from_millis(300)).await;
    let replica = reader(&world);
    world.route(vec![route("s", &[&replica])]).await;
    let began = Instant::now();
    let mut slow = Client::connect(world.address).await;
    slow.send("GET /s HTTP/1.1\r\nhost: x\r\n").await;
    for n in 0..20 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        if tokio::io::AsyncWriteExt::write_all(slow.stream.get_mut(), format!("h{n}: 1\r\n").as_bytes())
            .await
            .is_err()
        {
            break;
        }
    }
    slow.reply().await.unwrap().expect(StatusCode::REQUEST_TIMEOUT, "headers");
    assert!(began.elapsed() < Duration::from_secs(3));

    let mut idle = Client::connect(world.address).await;
    idle.send("GET /s HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert_eq!(idle.reply().await.unwrap().status, 200);
    assert!(idle.reply().await.is_none(), "an idle connection ends without an answer");
    let mut silent = Client::connect(world.address).await;
    assert!(silent.reply().await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrency_is_capped_per_service() {
    let world = World::new().await;
    let gate = Arc::new(Semaphore::new(0));
    let held = Arc::clone(&gate);
    let replica = Replica::start(world.path(), 1, move |request| {
        let held = Arc::clone(&held);
        async move {
            if !is_own(&request) {
                held.acquire().await.unwrap().forget();
            }
            Response::new(body("ok"))
        }
    });
    let mut table = route("s", &[&replica]);
    table.max_concurrency = 2;
    let other = Replica::named(world.path(), 2, "other");
    world.route(vec![table, route("other", &[&other])]).await;
    let mut clients = Vec::new();
    for n in 1..=2 {
        let mut client = Client::connect(world.address).await;
        client.send("GET /s HTTP/1.1\r\nhost: x\r\n\r\n").await;
        until("the request to arrive", async || replica.hits() == n).await;
        clients.push(client);
    }
    let refused = world.get("/s").await;
    refused.expect(StatusCode::SERVICE_UNAVAILABLE, "as many requests under way");
    assert_eq!(refused.headers["retry-after"], "1");
    assert_eq!(world.get("/other").await.status, 200, "other services go on");
    assert!(world.metrics().await.contains("slipway_gateway_requests_in_flight{service=\"s\"} 2"));
    gate.add_permits(3);
    for mut client in clients {
        assert_eq!(client.reply().await.unwrap().status, 200);
    }
    assert_eq!(world.get("/s").await.status, 200);
    assert_eq!(replica.hits(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_capped() {
    let world = World::with(|config| config.limits.max_connections = 3).await;
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut client = Client::connect(world.address).await;
        client.send("GET /-/healthy HTTP/1.1\r\nhost: x\r\n\r\n").await;
        assert_eq!(client.reply().await.unwrap().status, 200);
        open.push(client);
    }
    let mut refused = Client::connect(world.address).await;
    refused.reply().await.unwrap().expect(StatusCode::SERVICE_UNAVAILABLE, "too many open connections");
    open.pop();
    until("a place to be free", async || {
        let mut client = Client::connect(world.address).await;
        client.send("GET /-/healthy HTTP/1.1\r\nhost: x\r\n\r\n").await;
        client.reply().await.is_some_and(|reply| reply.status == 200)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tunnels_upgrades_and_ambiguous_requests_are_refused() {
    let world = World::new().await;
    let replica = reader(&world);
    world.route(vec![route("s", &[&replica])]).await;
    let call = async |text: &str| world.call(text).await;
    call("CONNECT example.com:443 HTTP/1.1\r\nhost: example.com\r\n\r\n")
        .await
        .expect(StatusCode::METHOD_NOT_ALLOWED, "CONNECT");
    call("GET /s HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
        .await
        .expect(StatusCode::NOT_IMPLEMENTED, "websocket");
    call("GET /s HTTP/1.1\r\n\r\n").await.expect(StatusCode::BAD_REQUEST, "Host");
    call("GET /s HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n").await.expect(StatusCode::BAD_REQUEST, "Host");
    call("POST /s HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n")
        .await
        .expect(StatusCode::NOT_IMPLEMENTED, "gzip");
    for bad in [
        "POST /s HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\ncontent-length: 5\r\n\r\nabc",
        "POST /s HTTP/1.1\r\nhost: x\r\ncontent-length: +3\r\n\r\nabc",
        "POST /s HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked, identity\r\n\r\nabc",
        "GET /s HTTP/1.1\r\nhost: x\r\nbad header: 1\r\n\r\n",
        "NONSENSE\r\n\r\n",
    ] {
        assert_eq!(call(bad).await.status, 400, "{bad}");
    }
    assert_eq!(replica.hits(), 0);
    let metrics = world.metrics().await;
    assert!(metrics.contains("slipway_gateway_requests_total{service=\"\",code=\"400\"} 7"), "{metrics}");
    let h2c = call("GET /s HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n").await;
    assert_eq!(h2c.status, 200, "an offer of HTTP/2 is passed over");
    assert!(!replica.seen.lock().unwrap()[0].headers.contains_key("upgrade"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_length_beside_chunked_cannot_smuggle_a_request() {
    let world = World::new().await;
    let replica = reader(&world);
    world.route(vec![route("s", &[&replica])]).await;
    let mut client = Client::connect(world.address).await;
    // By its length the body ends before `GET /s/smuggled`; by its chunks it includes it.
    let smuggled = "GET /s/smuggled HTTP/1.1\r\nhost: x\r\n\r\n";
    client
        .send(format!(
            "POST /s HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{smuggled}\r\n0\r\n\r\n",
            smuggled.len()
        ))
        .await;
    assert_eq!(client.reply().await.unwrap().text(), smuggled.len().to_string());
    let seen = replica.seen.lock().unwrap().clone();
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert!(!seen[0].headers.contains_key("content-length"), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_nothing_is_cut_off() {
    let world = World::with(|config| config.limits.write_timeout = Duration::from_millis(300)).await;
    let gone = Arc::new(AtomicBool::new(false));
    struct Watched(Arc<AtomicBool>);
    impl Drop for Watched {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let flag = Arc::clone(&gone);
    let replica = Replica::start(world.path(), 1, move |request| {
        let endless = !is_own(&request);
        let watched = Watched(if endless { Arc::clone(&flag) } else { Arc::default() });
        async move {
            if !endless {
                return Response::new(body(""));
            }
            let frames = futures_util::stream::repeat_with(move || {
                let _held = &watched;
                Ok(hyper::body::Frame::data(bytes::Bytes::from_static(&[0; 16384])))
            });
            Response::new(http_body_util::StreamBody::new(frames).boxed())
        }
    });
    world.route(vec![route("s", &[&replica])]).await;
    let mut client = Client::connect(world.address).await;
    client.send("GET /s HTTP/1.1\r\nhost: x\r\n\r\n").await;
    until("the replica to be relieved", async || gone.load(Ordering::SeqCst)).await;
    assert!(world.metrics().await.contains("slipway_gateway_requests_in_flight{service=\"s\"} 0"));
    drop(client);
}
