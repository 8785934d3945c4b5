//! Slipway's gateway in a cluster, put there with `kubectl apply` alone.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;

use super::Cluster;
use crate::support::{Slipway, wait_for, workspace};

const NAME: &str = "digits-sklearn";
const GATEWAY: &str = "slipway-gateway";

#[derive(Debug, Default)]
struct Reply {
    status: u16,
    headers: String,
    body: String,
}

/// One request over a connection that is kept for the next one while the other end keeps it.
fn ask(kept: &mut Option<TcpStream>, address: SocketAddr, head: &str, body: &str) -> std::io::Result<Reply> {
    let mut stream = match kept.take() {
        Some(stream) => stream,
        None => TcpStream::connect_timeout(&address, Duration::from_secs(5))?,
    };
    stream.set_read_timeout(Some(Duration::from_secs(90)))?;
    write!(
        stream,
        "{head}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut reply = Reply::default();
    let mut bytes = Vec::new();
    let mut piece = [0; 16 << 10];
    loop {
        let read = stream.read(&mut piece)?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        bytes.extend_from_slice(&piece[..read]);
        let text = String::from_utf8_lossy(&bytes);
        let Some((head, rest)) = text.split_once("\r\n\r\n") else { continue };
        let head = head.to_ascii_lowercase();
        let length =
            head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
        if rest.len() < length.expect("answers say their length") {
            continue;
        }
        reply.status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        reply.body = rest.to_owned();
        reply.headers = head;
        break;
    }
    if !reply.headers.contains("\r\nconnection: close") {
        *kept = Some(stream);
    }
    Ok(reply)
}

/// Clients that ask one request after the other while something happens: one with a connection for each, one that keeps
/// its connection. What was not a right answer, by kind, and how many were asked for.
fn under_load(
    address: SocketAddr,
    body: &str,
    right: &Value,
    happens: impl FnOnce(),
) -> (BTreeMap<String, usize>, usize) {
    let head = format!("POST /v1/models/{NAME}:predict HTTP/1.1\r\nhost: {NAME}");
    let (ended, outcomes) = (AtomicBool::new(false), Mutex::new((BTreeMap::new(), 0)));
    let client = |keep: bool| {
        let mut kept = None;
        while !ended.load(Ordering::SeqCst) {
            if !keep {
                kept = None;
            }
            let wrong = match ask(&mut kept, address, &head, body) {
                Ok(reply) if reply.status == 200 => {
                    let answer: Value = serde_json::from_str(&reply.body).unwrap();
                    (answer != *right).then(|| format!("a wrong answer: {}", reply.body))
                }
                Ok(reply) if reply.status == 503 && reply.headers.contains("\r\nretry-after: ") => {
                    Some("503 with Retry-After".to_owned())
                }
                Ok(reply) => Some(format!("{}: {}", reply.status, reply.body)),
                Err(error) => Some(format!("{error} (kept connection: {keep})")),
            };
            let mut outcomes = outcomes.lock().unwrap();
            outcomes.1 += 1;
            if let Some(wrong) = wrong {
                *outcomes.0.entry(wrong).or_insert(0) += 1;
            }
            drop(outcomes);
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| client(false));
        scope.spawn(|| client(true));
        // The clients end however this ends.
        struct End<'a>(&'a AtomicBool);
        impl Drop for End<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::SeqCst);
            }
        }
        let _end = End(&ended);
        std::thread::sleep(Duration::from_secs(1));
        happens();
        std::thread::sleep(Duration::from_secs(1));
    });
    outcomes.into_inner().unwrap()
}

/// Names of the pods that a label selects.
fn pods(cluster: &Cluster, label: &str) -> Vec<String> {
    let names = "jsonpath={.items[*].metadata.name}";
    let text = cluster.kubectl(&["get", "pods", "--selector", label, "--output", names]);
    text.split_whitespace().map(str::to_owned).collect()
}

fn ready(cluster: &Cluster, deployment: &str) {
    cluster.kubectl(&["rollout", "status", &format!("deployment/{deployment}"), "--timeout", "300s"]);
}

#[test]
fn two_gateway_pods_before_two_replicas_lose_no_request() {
    let Some(cluster) = Cluster::connect("gateway") else { return };
    let s = Slipway::new();
    let packages = ["-p", "python3", "-p", "python3-pip", "-p", "python-is-python3"];
    s.run(&[&["base", "debian"][..], &packages, &["-t", "slipway/python:bookworm"]].concat()).ok();
    let project = workspace().join("examples").join(NAME);
    let up = s.run(&["up", project.to_str().unwrap()]);
    assert_eq!(up.code, 0, "{}\n{}", up.stdout, up.stderr);
    let request = project.join("request.json");
    let native: Value =
        serde_json::from_str(&s.run(&["predict", NAME, "--file", request.to_str().unwrap()]).ok()).unwrap();
    let folder = s.path("k8s");
    let folder = folder.to_str().unwrap();
    let export =
        ["export", "kubernetes", NAME, "--registry", &cluster.registry, "--namespace", &cluster.namespace];
    s.run(&[&export[..], &["--gateway", "--replicas", "2", "-o", folder]].concat()).ok();
    cluster.apply(folder, GATEWAY);
    ready(&cluster, NAME);
    let (gateways, replicas) =
        (format!("slipway.dev/gateway={GATEWAY}"), format!("slipway.dev/service={NAME}"));
    assert_eq!((pods(&cluster, &gateways).len(), pods(&cluster, &replicas).len()), (2, 2));

    // Through the service's own Service and through the gateway's.
    for service in [NAME, GATEWAY] {
        assert_eq!(cluster.predict(service, NAME, &request), native, "through {service}");
    }
    let place = "jsonpath={.spec.clusterIP}:{.spec.ports[0].port}";
    let address: SocketAddr = cluster.kubectl(&["get", "service", NAME, "--output", place]).parse().unwrap();
    let get = |target: &str, host: &str| {
        ask(&mut None, address, &format!("GET {target} HTTP/1.1\r\nhost: {host}"), "").unwrap()
    };
    let index: Value = serde_json::from_str(&get("/", "10.0.0.1").body).unwrap();
    assert_eq!(
        (&index["services"][0]["name"], &index["services"][0]["usable_replicas"]),
        (&NAME.into(), &2.into())
    );
    let metadata = get(&format!("/v2/models/{NAME}"), &format!("{NAME}.{}.svc", cluster.namespace));
    assert_eq!(metadata.status, 200, "{}", metadata.body);
    let account = format!("system:serviceaccount:{}:{GATEWAY}", cluster.namespace);
    for (verb, what, expected) in [
        ("watch", "endpointslices.discovery.k8s.io", "yes"),
        ("get", "secrets", "no"),
        ("patch", "services", "no"),
    ] {
        let asked = cluster.command(&["auth", "can-i", verb, what, "--as", &account]);
        assert_eq!(String::from_utf8_lossy(&asked.stdout).trim(), expected, "{verb} {what}");
    }

    // Pods that end as pods do cost nothing, whichever they are.
    let body = std::fs::read_to_string(&request).unwrap();
    for (deployment, label) in [(NAME, &replicas), (GATEWAY, &gateways)] {
        let before = pods(&cluster, label);
        let (wrong, asked) = under_load(address, &body, &native, || {
            cluster.kubectl(&["delete", "pod", &before[0], "--timeout", "120s"]);
            ready(&cluster, deployment);
        });
        eprintln!("a pod of {deployment} was deleted under {asked} requests; not answered right: {wrong:?}");
        assert!(wrong.is_empty(), "{wrong:?} of {asked}\n{}", cluster.state());
        assert!(asked >= 300, "{asked}");
        wait_for("two pods", Duration::from_secs(60), || (pods(&cluster, label).len() == 2).then_some(()));
    }
    // One that is taken away on the spot may take with it what it was working on, and the client is told to come again.
    let before = pods(&cluster, &replicas);
    let (wrong, asked) = under_load(address, &body, &native, || {
        // Not `kubectl`, which allows no warning: this deserves one.
        let output = cluster.command(&["delete", "pod", &before[0], "--grace-period=0", "--force"]);
        assert!(output.status.success(), "{output:?}");
        wait_for("another pod", Duration::from_secs(60), || {
            let now = pods(&cluster, &replicas);
            (now.len() == 2 && !now.contains(&before[0])).then_some(())
        });
        ready(&cluster, NAME);
    });
    eprintln!("a pod was killed under {asked} requests; not answered right: {wrong:?}");
    assert!(wrong.keys().all(|kind| kind == "503 with Retry-After"), "{wrong:?} of {asked}");

    let lines = cluster.kubectl(&["logs", "--selector", &gateways, "--container", "gateway", "--tail=-1"]);
    let logged =
        |line: &str| line.contains("\"status\":200") && line.contains(&format!("\"backend\":\"{NAME}-"));
    assert!(lines.lines().any(logged), "the access log names pods:\n{lines:.2000}");
    cluster.delete(folder);
    s.finish();
}
