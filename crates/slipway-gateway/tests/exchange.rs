//! What passes through: headers, ids, bodies; what is recorded; and how a gateway ends.

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use slipway_gateway::{AccessLog, GatewayConfig, GatewayError, start};
use support::{AnyBody, Client, Replica, World, body, is_own, route, until};
use tokio::sync::{Semaphore, mpsc};

fn channel_body() -> (mpsc::Sender<Result<Frame<Bytes>, std::io::Error>>, AnyBody) {
    let (sender, receiver) = mpsc::channel(1);
    let frames = futures_util::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|frame| (frame, receiver))
    });
    (sender, StreamBody::new(frames).boxed())
}

#[tokio::test(flavor = "multi_thread")]
async fn request_ids_are_kept_or_made_and_seen_on_both_sides() {
    let world = World::new().await;
    let replica = Replica::named(world.path(), 1, "a");
    world.route(vec![route("s", &[&replica])]).await;
    let with = |id: &str| format!("GET /s HTTP/1.1\r\nhost: x\r\nx-request-id: {id}\r\n\r\n");
    let last = || replica.seen.lock().unwrap().last().unwrap().headers["x-request-id"].clone();
    let reply = world.call(&with("my-id.1")).await;
    assert_eq!((reply.headers["x-request-id"].as_str(), last().as_str()), ("my-id.1", "my-id.1"));
    let mut made = std::collections::BTreeSet::new();
    for bad in ["has space", &"x".repeat(129), ""] {
        let reply = world.call(&with(bad)).await;
        let id = reply.headers["x-request-id"].clone();
        assert!(id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{id}");
        assert_eq!(last(), id);
        made.insert(id);
    }
    assert_eq!(made.len(), 3);
    assert!(world.get("/nope").await.headers.contains_key("x-request-id"), "errors have one too");
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_pass_and_those_of_the_connection_do_not() {
    let world = World::new().await;
    let replica = Replica::start(world.path(), 1, |_| async {
        Response::builder()
            .status(StatusCode::IM_A_TEAPOT)
            .header("x-answer", "42")
            .header("connection", "x-private")
            .header("x-private", "1")
            .header("x-request-id", "the replica's own")
            .body(body("tea"))
            .unwrap()
    });
    world.route(vec![route("s", &[&replica])]).await;
    let reply = world
        .call("GET /s HTTP/1.1\r\nhost: h:1\r\nauthorization: secret\r\nkeep-alive: 5\r\nconnection: x-hop\r\nx-hop: 1\r\nx-forwarded-for: 9.9.9.9\r\n\r\n")
        .await;
    assert_eq!((reply.status, reply.text().as_str(), reply.headers["x-answer"].as_str()), (418, "tea", "42"));
    assert!(!reply.headers.contains_key("x-private") && reply.headers["x-request-id"].len() == 32);
    let seen = replica.seen.lock().unwrap()[0].headers.clone();
    assert_eq!((seen["authorization"].as_str(), seen["host"].as_str()), ("secret", "h:1"));
    assert_eq!(seen["x-forwarded-for"], "9.9.9.9, 127.0.0.1");
    assert_eq!((seen["x-forwarded-proto"].as_str(), seen["x-forwarded-host"].as_str()), ("http", "h:1"));
    assert!(
        !seen.contains_key("x-hop") && !seen.contains_key("keep-alive") && !seen.contains_key("connection")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_takes_many_requests_and_head_has_no_body() {
    let world = World::new().await;
    let replica = Replica::named(world.path(), 1, "hello");
    world.route(vec![route("s", &[&replica])]).await;
    let mut client = Client::connect(world.address).await;
    // Pipelined: both are answered, in order.
    client.send("GET /s/1 HTTP/1.1\r\nhost: x\r\n\r\nPOST /s/2 HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc").await;
    assert_eq!(client.reply().await.unwrap().text(), "hello");
    assert_eq!(client.reply().await.unwrap().text(), "hello");
    client
        .send("HEAD /s HTTP/1.1\r\nhost: x\r\n\r\nGET /s HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .await;
    let (status, headers) = client.head().await.unwrap();
    assert_eq!((status, headers["content-length"].as_str()), (200, "5"));
    assert_eq!(client.reply().await.unwrap().text(), "hello");
    assert!(client.closed().await);
    let old = world.call("GET /s HTTP/1.0\r\n\r\n").await;
    assert_eq!(old.status, 200);
    assert_eq!(replica.seen.lock().unwrap().last().unwrap().headers["host"], "localhost");
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_stream_both_ways_as_they_come() {
    let world = World::new().await;
    let (arrived, mut arrivals) = mpsc::unbounded_channel::<usize>();
    let replica = Replica::start(world.path(), 1, move |request| {
        let arrived = arrived.clone();
        let (sender, answer) = channel_body();
        tokio::spawn(async move {
            let mut incoming = request.into_body();
            while let Some(Ok(frame)) = incoming.frame().await {
                let Ok(data) = frame.into_data() else { continue };
                let _ = arrived.send(data.len());
                if sender.send(Ok(Frame::data(data))).await.is_err() {
                    return;
                }
            }
        });
        async move { Response::new(answer) }
    });
    world.route(vec![route("s", &[&replica])]).await;
    let mut client = Client::connect(world.address).await;
    client.send("POST /s HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n").await;
    assert_eq!(client.head().await.unwrap().0, 200, "the answer may begin before the body is sent");
    for text in ["one", "three", "seventeen"] {
        client.send(format!("{:x}\r\n{text}\r\n", text.len())).await;
        assert_eq!(arrivals.recv().await, Some(text.len()));
        assert_eq!(
            client.chunk().await.unwrap(),
            text.as_bytes(),
            "each piece comes back before the next goes out"
        );
    }
    client.send("0\r\n\r\n").await;
    assert_eq!(client.chunk().await.unwrap(), b"");
}

#[tokio::test(flavor = "multi_thread")]
async fn large_bodies_are_never_kept() {
    let world = World::with(|config| config.limits.max_body = 1 << 30).await;
    let (sent, received) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let gate = Arc::new(Semaphore::new(0));
    const PIECE: usize = 64 << 10;
    const TOTAL: usize = 64 << 20;
    let replica = {
        let (sent, received, gate) = (Arc::clone(&sent), Arc::clone(&received), Arc::clone(&gate));
        Replica::start(world.path(), 1, move |request| {
            let (sent, received, gate) = (Arc::clone(&sent), Arc::clone(&received), Arc::clone(&gate));
            async move {
                if request.uri().path() == "/upload" {
                    gate.acquire().await.unwrap().forget();
                    let mut incoming = request.into_body();
                    while let Some(Ok(frame)) = incoming.frame().await {
                        received.fetch_add(frame.data_ref().map_or(0, Bytes::len), Ordering::SeqCst);
                    }
                    return Response::new(body(received.load(Ordering::SeqCst).to_string()));
                }
                let (sender, answer) = channel_body();
                tokio::spawn(async move {
                    for _ in 0..TOTAL / PIECE {
                        if sender.send(Ok(Frame::data(Bytes::from_static(&[7; PIECE])))).await.is_err() {
                            return;
                        }
                        sent.fetch_add(PIECE, Ordering::SeqCst);
                    }
                });
                Response::new(answer)
            }
        })
    };
    world.route(vec![route("s", &[&replica])]).await;

    // Down: while the client reads nothing, the replica can send no more than what sockets hold.
    let mut client = Client::connect(world.address).await;
    client.send("GET /s/download HTTP/1.1\r\nhost: x\r\n\r\n").await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let held = sent.load(Ordering::SeqCst);
    assert!(held > 0 && held < 16 << 20, "{held} bytes are held on the way");
    assert_eq!(client.reply().await.unwrap().body.len(), TOTAL);

    // Up: while the replica reads nothing, the client cannot send on.
    let uploaded = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&uploaded);
    let mut client = Client::connect(world.address).await;
    let upload = tokio::spawn(async move {
        client.send(format!("POST /s/upload HTTP/1.1\r\nhost: x\r\ncontent-length: {TOTAL}\r\n\r\n")).await;
        for _ in 0..TOTAL / PIECE {
            client.send([7; PIECE]).await;
            count.fetch_add(PIECE, Ordering::SeqCst);
        }
        client.reply().await.unwrap().text()
    });
    tokio::time::sleep(Duration::from_millis(500)).await;
    let held = uploaded.load(Ordering::SeqCst);
    assert!(held < 16 << 20, "{held} bytes are held on the way");
    gate.add_permits(1);
    assert_eq!(upload.await.unwrap(), TOTAL.to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_cancels_its_request() {
    let world = World::new().await;
    let replica = Replica::start(world.path(), 1, |request| async move {
        if !is_own(&request) {
            std::future::pending::<()>().await;
        }
        Response::new(body(""))
    });
    world.route(vec![route("s", &[&replica])]).await;
    for text in
        ["GET /s HTTP/1.1\r\nhost: x\r\n\r\n", "POST /s HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}"]
    {
        let before = replica.cancelled.load(Ordering::SeqCst);
        let mut client = Client::connect(world.address).await;
        client.send(text).await;
        until("the request to arrive", async || replica.hits() == before + 1).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(replica.cancelled.load(Ordering::SeqCst), before);
        drop(client);
        until("it to be cancelled", async || replica.cancelled.load(Ordering::SeqCst) == before + 1).await;
    }
    let metrics = world.metrics().await;
    assert!(metrics.contains("slipway_gateway_requests_total{service=\"s\",code=\"499\"} 2"), "{metrics}");
    assert!(metrics.contains("slipway_gateway_requests_in_flight{service=\"s\"} 0"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_off_does_not_look_whole() {
    let world = World::new().await;
    let replica = Replica::start(world.path(), 1, |request| async move {
        let (sender, answer) = channel_body();
        let stall = request.uri().path() == "/stall";
        tokio::spawn(async move {
            let _ = sender.send(Ok(Frame::data(Bytes::from_static(b"part")))).await;
            if stall {
                sender.closed().await;
            } else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                let _ = sender.send(Err(std::io::Error::other("crash"))).await;
            }
        });
        Response::new(answer)
    });
    let mut table = route("s", &[&replica]);
    table.timeout_ms = 300;
    world.route(vec![table]).await;
    for path in ["/s/crash", "/s/stall"] {
        let mut client = Client::connect(world.address).await;
        client.send(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n")).await;
        assert_eq!(client.head().await.unwrap().0, 200);
        assert_eq!(client.chunk().await.unwrap(), b"part");
        assert_eq!(client.chunk().await, None, "{path}: no last chunk");
    }
}

#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Sink {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(buf);
        Ok(buf.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_is_logged_once_and_without_its_query() {
    let sink = Sink::default();
    let log = sink.clone();
    let world = World::with(move |config| config.access_log = AccessLog::Writer(Box::new(log))).await;
    let replica = Replica::named(world.path(), 1, "four");
    world.route(vec![route("s", &[&replica])]).await;
    world
        .call(
            "POST /s/x?token=secret HTTP/1.1\r\nhost: x\r\nx-request-id: r1\r\ncontent-length: 3\r\n\r\nabc",
        )
        .await;
    world.call("GET /nope HTTP/1.1\r\nhost: x\r\nx-request-id: r2\r\n\r\n").await;
    world.call("GET /s HTTP/1.1\r\nhost: a\r\nhost: b\r\nx-request-id: r3\r\n\r\n").await;
    assert_eq!(world.call("NONSENSE\r\n\r\n").await.status, 400);
    world.gateway.shutdown().await;
    let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
    assert!(!text.contains("secret"));
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |id: &str| {
        let mut found = lines.iter().filter(|line| line["request_id"] == id);
        let line = found.next().unwrap_or_else(|| panic!("{id} in {text}"));
        assert!(found.next().is_none());
        line
    };
    let line = of("r1");
    for (key, value) in [("method", "POST"), ("path", "/s/x"), ("service", "s"), ("client", "127.0.0.1")] {
        assert_eq!(line[key], value);
    }
    assert_eq!(line["backend"], replica.id.short());
    assert_eq!(
        (&line["status"], &line["request_bytes"], &line["response_bytes"]),
        (&200.into(), &3.into(), &4.into())
    );
    assert_eq!(line["aborted"], false);
    assert!(
        line["duration_ms"].as_f64() >= line["upstream_ms"].as_f64()
            && line["upstream_ms"].as_f64() > Some(0.0)
    );
    assert!(line["time"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok());
    assert_eq!((&of("r2")["status"], &of("r2")["service"]), (&404.into(), &serde_json::Value::Null));
    assert_eq!(of("r3")["status"], 400);
    let unreadable: Vec<_> = lines.iter().filter(|line| line["method"] == "").collect();
    assert_eq!(unreadable.len(), 1, "{text}");
    assert_eq!((&unreadable[0]["status"], &unreadable[0]["client"]), (&400.into(), &"127.0.0.1".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_tell_of_gateway_replicas_and_containers() {
    let folder = tempfile::tempdir().unwrap();
    let containers = folder.path().join("containers.prom");
    std::fs::write(&containers, "# TYPE slipway_container_cpu_seconds_total counter\nslipway_container_cpu_seconds_total{service=\"s\"} 1.5\n").unwrap();
    let world = World::with(|config| config.containers_metrics_file = Some(containers)).await;
    let replica = Replica::start(world.path(), 1, |request| async move {
        if request.uri().path() == "/metrics" {
            return Response::new(body("# TYPE batch_size gauge\nbatch_size{model=\"m\"} 8\n# EOF\n"));
        }
        Response::new(body("hello"))
    });
    let silent = Replica::start(world.path(), 2, |request| async move {
        if request.uri().path() == "/metrics" {
            std::future::pending::<()>().await;
        }
        Response::new(body("hello"))
    });
    world.route(vec![route("s", &[&replica]), route("t", &[&silent])]).await;
    for _ in 0..3 {
        world.post("/s", "12345").await;
    }
    world.get("/nope").await;
    let metrics = world.get("/metrics").await;
    assert_eq!(metrics.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let text = metrics.text();
    for line in [
        "# TYPE slipway_gateway_requests_total counter",
        "slipway_gateway_requests_total{service=\"s\",code=\"200\"} 3",
        "slipway_gateway_requests_total{service=\"\",code=\"404\"} 1",
        "# TYPE slipway_gateway_request_duration_seconds histogram",
        "slipway_gateway_request_duration_seconds_count{service=\"s\"} 3",
        "slipway_gateway_request_duration_seconds_bucket{service=\"s\",le=\"+Inf\"} 3",
        "slipway_gateway_request_bytes_total{service=\"s\"} 15",
        "slipway_gateway_response_bytes_total{service=\"s\"} 15",
        "slipway_gateway_requests_in_flight{service=\"s\"} 0",
        "slipway_gateway_upstream_errors_total{service=\"s\"} 0",
        "slipway_gateway_replica_usable{service=\"s\",replica=\"010101010101\"} 1",
        "slipway_gateway_replica_scraped{service=\"s\",replica=\"010101010101\"} 1",
        "slipway_gateway_replica_scraped{service=\"t\",replica=\"020202020202\"} 0",
        "slipway_gateway_routes_generation 1",
        "slipway_gateway_connections 1",
        "# TYPE batch_size gauge",
        "batch_size{service=\"s\",replica=\"010101010101\",model=\"m\"} 8",
        "slipway_container_cpu_seconds_total{service=\"s\"} 1.5",
    ] {
        assert!(text.lines().any(|found| found == line), "no {line} in\n{text}");
    }
    assert!(!text.contains("# EOF"));
    let types: Vec<&str> = text.lines().filter(|line| line.starts_with("# TYPE ")).collect();
    let distinct: std::collections::BTreeSet<&&str> = types.iter().collect();
    assert_eq!(types.len(), distinct.len(), "each family once");

    world.route(vec![route("t", &[])]).await;
    assert!(!world.metrics().await.contains("service=\"s\",code"), "series of services that are gone go too");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_before_the_end_of_the_body_says_that_the_connection_closes() {
    let world = World::new().await;
    let replica = Replica::start(world.path(), 1, |_| async { Response::new(body("refused")) });
    world.route(vec![route("s", &[&replica])]).await;
    for (head, closes) in [
        ("POST /s HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n", true),
        ("POST /s HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}", false),
        ("POST /-/healthy HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}", true),
    ] {
        let mut client = Client::connect(world.address).await;
        client.send(head).await;
        let (_, headers) = client.head().await.unwrap();
        assert_eq!(
            headers.get("connection").map(|v| v.as_bytes() == b"close"),
            closes.then_some(true),
            "{head}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_finishes_what_is_under_way_and_frees_the_address() {
    // An address that no other test listens on: the port is free for a moment.
    let world = World::with(|config| config.listen = vec![([127, 72, 19, 3], 0).into()]).await;
    let gate = Arc::new(Semaphore::new(0));
    let held = Arc::clone(&gate);
    let replica = Replica::start(world.path(), 1, move |request| {
        let held = Arc::clone(&held);
        async move {
            if !is_own(&request) {
                held.acquire().await.unwrap().forget();
            }
            Response::new(body("done"))
        }
    });
    world.route(vec![route("s", &[&replica])]).await;
    let mut idle = Client::connect(world.address).await;
    idle.send("GET /-/healthy HTTP/1.1\r\nhost: x\r\n\r\n").await;
    idle.reply().await.unwrap();
    let mut busy = Client::connect(world.address).await;
    busy.send("GET /s HTTP/1.1\r\nhost: x\r\n\r\n").await;
    until("the request to arrive", async || replica.hits() == 1).await;

    let (address, folder) = (world.address, world.folder);
    let config = || GatewayConfig::new(address, folder.path().join("routes.json"));
    let taken = start(config()).await.expect_err("the address is in use");
    assert!(matches!(taken, GatewayError::Listen { address: other, .. } if other == address));

    let ending = tokio::spawn(world.gateway.shutdown());
    assert!(idle.closed().await, "idle connections end at once");
    // The first that binds is kept: one that is dropped holds the address for a moment more.
    let next = tokio::time::timeout(Duration::from_secs(10), async {
        loop {
            if let Ok(next) = start(config()).await {
                return next;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    let next = next.await.expect("a restarted gateway binds while the old one drains");
    assert!(!ending.is_finished());
    gate.add_permits(2);
    let reply = busy.reply().await.unwrap();
    assert_eq!((reply.text().as_str(), reply.headers["connection"].as_str()), ("done", "close"));
    assert_eq!(ending.await.unwrap().cut_off, 0);
    let mut client = Client::connect(address).await;
    client.send("GET /s HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert_eq!(client.reply().await.unwrap().text(), "done");
    next.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_finish_in_time_is_cut_off() {
    let world = World::with(|config| config.limits.drain = Duration::from_millis(300)).await;
    let replica = Replica::start(world.path(), 1, |request| async move {
        if !is_own(&request) {
            std::future::pending::<()>().await;
        }
        Response::new(body(""))
    });
    world.route(vec![route("s", &[&replica])]).await;
    let mut client = Client::connect(world.address).await;
    client.send("GET /s HTTP/1.1\r\nhost: x\r\n\r\n").await;
    until("the request to arrive", async || replica.hits() == 1).await;
    let drained = tokio::time::timeout(Duration::from_secs(5), world.gateway.shutdown()).await.unwrap();
    assert_eq!(drained.cut_off, 1);
    assert!(client.reply().await.is_none());
}
