//! Replicas that are reached over TCP, as pods are, and a table that is given rather than read.

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::{Response, StatusCode};
use slipway_gateway::{AccessLog, GatewayConfig, TableError, start};
use slipway_types::container::ContainerId;
use slipway_types::service::{Address, Backend, Route, RoutingTable};
use support::{Client, Replica, World, body, route, row, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;

async fn named(n: u8, name: &'static str) -> Replica {
    Replica::pod(n, move |_| async move { Response::new(body(name)) }).await
}

fn at(n: u8, address: SocketAddr) -> Backend {
    row(ContainerId::from_random([n; 12]), Address::Tcp(address))
}

/// A world in which only requests find out what is wrong with a replica.
async fn unchecked() -> World {
    World::with(|config| config.health_interval = Duration::from_secs(3600)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_pod_costs_no_request() {
    let world = unchecked().await;
    let (good, dead) = (named(1, "good").await, named(2, "dead").await);
    // Its port is free again: connections are refused.
    let refused = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    world.route(vec![route("s", &[&good, &dead])]).await;
    let body = "x".repeat(20_000);
    for _ in 0..10 {
        assert_eq!(world.post("/s", &body).await.status, 200);
    }
    assert!(good.hits() > 0 && dead.hits() > 0);
    let mut table = route("s", &[&good, &dead]);
    table.backends.push(at(9, refused));
    dead.kill().await;
    for _ in 0..20 {
        assert_eq!(world.post("/s", &body).await.text(), "good", "kept connections of a dead pod");
    }
    world.route(vec![table]).await;
    for _ in 0..20 {
        assert_eq!(world.post("/s", &body).await.text(), "good", "nobody listens");
    }
    let metrics = world.metrics().await;
    let usable = "slipway_gateway_replica_usable{service=\"s\",replica=\"090909090909\"} 0";
    assert!(metrics.contains(usable), "{metrics}");
    good.kill().await;
    let gone = world.post("/s", &body).await;
    gone.expect(StatusCode::SERVICE_UNAVAILABLE, "no replica of service `s` can be reached");
    assert_eq!(gone.headers["retry-after"], "1");
}

/// An address at which packets are dropped: its queue of connections is full and nobody takes one.
async fn black_hole() -> (SocketAddr, Vec<Box<dyn Send>>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut kept: Vec<Box<dyn Send>> = vec![Box::new(listener)];
    loop {
        match tokio::time::timeout(Duration::from_millis(300), TcpStream::connect(address)).await {
            Ok(stream) => kept.push(Box::new(stream.unwrap())),
            Err(_) => return (address, kept),
        }
        assert!(kept.len() < 16, "the queue does not fill");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_drops_packets_costs_a_moment_and_no_request() {
    let world = World::with(|config| {
        config.health_interval = Duration::from_secs(3600);
        config.limits.connect_timeout = Duration::from_millis(400);
    })
    .await;
    let (address, _kept) = black_hole().await;
    let good = named(1, "good").await;
    let mut table = route("s", &[&good]);
    table.backends.push(at(2, address));
    world.route(vec![table.clone()]).await;
    // The first check of a replica hangs as long as it may; it counts once.
    let began = Instant::now();
    for _ in 0..6 {
        assert_eq!(world.post("/s", "{}").await.text(), "good");
    }
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(390) && took < Duration::from_millis(1600), "{took:?}");

    table.backends.remove(0);
    world.route(vec![table]).await;
    let began = Instant::now();
    let none = world.post("/s", "{}").await;
    none.expect(StatusCode::SERVICE_UNAVAILABLE, "can be reached");
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(390) && took < Duration::from_millis(1600), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_leaves_the_table_finishes_what_it_has() {
    let world = World::new().await;
    let gate = Arc::new(Semaphore::new(0));
    let held = Arc::clone(&gate);
    let old = Replica::pod(1, move |_| {
        let held = Arc::clone(&held);
        async move {
            let _permit = held.acquire().await;
            Response::new(body("old"))
        }
    })
    .await;
    let new = named(2, "new").await;
    world.route(vec![route("s", &[&old])]).await;
    let mut client = Client::connect(world.address).await;
    client.send("POST /s HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}").await;
    until("the old pod to have it", async || old.hits() == 1).await;
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
async fn connections_are_kept_over_tables_and_replaced_when_the_pod_closed_them() {
    let world = unchecked().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (opened, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(usize::MAX)));
    let (count, limit) = (Arc::clone(&opened), Arc::clone(&most));
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (count, limit) = (Arc::clone(&count), Arc::clone(&limit));
            tokio::spawn(async move {
                let mut text = vec![0; 4096];
                for n in 0.. {
                    let read = stream.read(&mut text).await.unwrap_or(0);
                    if read == 0 {
                        return;
                    }
                    count.fetch_add(usize::from(n == 0 && text.starts_with(b"POST")), Ordering::SeqCst);
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
                    if n + 1 >= limit.load(Ordering::SeqCst) {
                        return;
                    }
                }
            });
        }
    });
    let mut client = Client::connect(world.address).await;
    let mut ask = async || {
        client.send("POST /s HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}").await;
        assert_eq!(client.reply().await.unwrap().text(), "ok");
    };
    let table = || Route { backends: vec![at(1, address)], ..route("s", &[]) };
    for _ in 0..5 {
        world.route(vec![table(), route("other", &[])]).await;
        ask().await;
    }
    assert_eq!(opened.load(Ordering::SeqCst), 1, "the same pod at the same address");
    // It closes each connection after its second answer.
    most.store(2, Ordering::SeqCst);
    for _ in 0..60 {
        ask().await;
    }
    assert!(opened.load(Ordering::SeqCst) >= 30);
}

/// A gateway whose table is given.
async fn given() -> (slipway_gateway::Gateway, SocketAddr) {
    let mut config = GatewayConfig::without_file(([127, 0, 0, 1], 0).into());
    config.workers = 1;
    config.access_log = AccessLog::Off;
    let gateway = start(config).await.unwrap();
    let address = gateway.addresses()[0];
    (gateway, address)
}

async fn ask(address: SocketAddr, text: &str) -> support::Reply {
    let mut client = Client::connect(address).await;
    client.send(text).await;
    client.reply().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_given_and_a_bad_one_changes_nothing() {
    let (gateway, address) = given().await;
    let ready = "GET /-/ready HTTP/1.1\r\nhost: x\r\n\r\n";
    assert_eq!(ask(address, ready).await.status, 503, "no table yet");
    assert_eq!(ask(address, "GET /-/healthy HTTP/1.1\r\nhost: x\r\n\r\n").await.status, 200);
    let pod = named(1, "pod").await;
    let mut good = Route { hosts: vec!["s.ns.svc".into()], ..route("s", &[&pod]) };
    good.backends[0].name = Some("s-6c9f-x".into());
    gateway.set_routes(&RoutingTable { generation: 7, services: vec![good.clone()] }).unwrap();
    assert_eq!(ask(address, ready).await.text(), "{\"generation\":7,\"ready\":true}\n");
    let bad = RoutingTable { generation: 8, services: vec![good.clone(), good] };
    assert!(matches!(gateway.set_routes(&bad), Err(TableError::Twice(_))));
    let by_host = "GET /v1/anything HTTP/1.1\r\nhost: S.ns.svc:80\r\n\r\n";
    assert_eq!(ask(address, by_host).await.text(), "pod");
    let metrics = || ask(address, "GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n");
    let text = metrics().await.text();
    for line in [
        "slipway_gateway_routes_stale 1",
        "slipway_gateway_routes_failures_total 1",
        "slipway_gateway_replica_usable{service=\"s\",replica=\"s-6c9f-x\"} 1",
    ] {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }
    gateway.set_stale(false);
    assert!(metrics().await.text().contains("slipway_gateway_routes_stale 0"));
    gateway.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_leaves_serves_on_and_sends_clients_elsewhere() {
    let (gateway, address) = given().await;
    let pod = named(1, "pod").await;
    gateway.set_routes(&RoutingTable { generation: 1, services: vec![route("s", &[&pod])] }).unwrap();
    let request = "GET /s HTTP/1.1\r\nhost: x\r\n\r\n";
    let mut kept = Client::connect(address).await;
    kept.send(request).await;
    assert!(!kept.reply().await.unwrap().headers.contains_key("connection"));
    gateway.leave();
    kept.send(request).await;
    let last = kept.reply().await.unwrap();
    assert_eq!((last.text().as_str(), last.headers["connection"].as_str()), ("pod", "close"));
    assert!(kept.closed().await);
    assert_eq!(ask(address, "GET /-/ready HTTP/1.1\r\nhost: x\r\n\r\n").await.status, 503);
    assert_eq!(ask(address, request).await.text(), "pod", "new connections are taken still");
    assert_eq!(gateway.shutdown().await.cut_off, 0);
    assert!(TcpStream::connect(address).await.is_err());
}
