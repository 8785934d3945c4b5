//! Requests per second through the gateway against the same backend directly.
//!
//! `cargo bench -p slipway-gateway --bench proxy` runs `wrk` (Debian package `wrk`) for three seconds at a time,
//! alternating, and prints medians and the ratio. Three processes share the machine: wrk, the gateway, and a minimal
//! hyper server with one thread, which parses a JSON body of 64 numbers and answers 10: what a model server cannot do
//! without. Arguments after `--`: `workers=N` for the gateway's threads, `runs=N`, `connections=N`, `access-log`,
//! `trivial` for a backend that does not even parse.

#![allow(clippy::print_stdout, reason = "it is what a benchmark is for")]

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use slipway_gateway::{AccessLog, GatewayConfig};
use slipway_types::container::ContainerId;
use slipway_types::service::{Address, Backend, Route, RoutingTable};

type Error = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match arguments.first().map(String::as_str) {
        Some("backend") => backend(Path::new(&arguments[1]), arguments[2] == "true"),
        Some("gateway") => gateway(Path::new(&arguments[1]), arguments[2].parse()?, arguments[3] == "true"),
        _ => compare(&arguments),
    }
}

fn compare(arguments: &[String]) -> Result<(), Error> {
    let number = |name: &str, default: usize| {
        let value = arguments.iter().find_map(|argument| argument.strip_prefix(name)?.strip_prefix('='));
        value.and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let (workers, runs, connections) = (number("workers", 0), number("runs", 3), number("connections", 32));
    let flag = |name: &str| arguments.iter().any(|argument| argument == name);
    let (log, trivial) = (flag("access-log"), flag("trivial"));
    let folder = tempfile::tempdir()?;
    let (_backend, direct) = spawn(&["backend", &folder.path().to_string_lossy(), &trivial.to_string()])?;
    let table = RoutingTable {
        generation: 1,
        services: vec![Route {
            service: "bench".into(),
            model: "bench".into(),
            backends: vec![Backend {
                id: ContainerId::from_random([1; 12]).into(),
                name: None,
                address: Address::Socket(folder.path().join("http.sock")),
                labels: Vec::new(),
            }],
            max_concurrency: 100_000,
            ..Route::default()
        }],
    };
    std::fs::write(folder.path().join("routes.json"), serde_json::to_vec(&table)?)?;
    let path = folder.path().to_string_lossy().into_owned();
    let (_gateway, through) = spawn(&["gateway", &path, &workers.to_string(), &log.to_string()])?;
    let script = folder.path().join("post.lua");
    let row: Vec<String> = (0..64).map(|n| format!("{:.4}", f64::from(n) / 100.0)).collect();
    let body = format!("{{\"instances\": [[{}]]}}", row.join(", "));
    std::fs::write(
        &script,
        format!(
            "wrk.method = \"POST\"\nwrk.body = [=[{body}]=]\nwrk.headers[\"Content-Type\"] = \"application/json\"\n"
        ),
    )?;
    let mut results = [Vec::new(), Vec::new()];
    for _ in 0..runs {
        for (address, results) in [direct, through].iter().zip(&mut results) {
            results.push(wrk(*address, &script, connections)?);
        }
    }
    let median = |results: &mut Vec<f64>| {
        results.sort_by(f64::total_cmp);
        results[results.len() / 2]
    };
    let [mut direct, mut through] = results;
    let (direct, through) = (median(&mut direct), median(&mut through));
    println!("workers={workers} connections={connections} access-log={log} trivial={trivial}");
    println!("direct  {direct:>9.0} req/s\ngateway {through:>9.0} req/s\nratio   {:>9.2}", through / direct);
    Ok(())
}

/// A child that ends with this process.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn spawn(arguments: &[&str]) -> Result<(Ended, SocketAddr), Error> {
    let child = Command::new(std::env::current_exe()?).args(arguments).stdout(Stdio::piped()).spawn()?;
    let mut child = Ended(child);
    let mut line = String::new();
    let output = child.0.stdout.take().ok_or("no output")?;
    BufReader::new(output).read_line(&mut line)?;
    Ok((child, line.trim().parse()?))
}

fn wrk(address: SocketAddr, script: &Path, connections: usize) -> Result<f64, Error> {
    let output = Command::new("wrk")
        .args(["-t1", &format!("-c{connections}"), "-d3s", "-s"])
        .arg(script)
        .arg(format!("http://{address}/v1/models/bench:predict"))
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    // A faulty script only makes wrk complain; it then measures something else.
    if !output.stderr.is_empty() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    if text.contains("Non-2xx") || text.contains("Socket errors") {
        return Err(text.into_owned().into());
    }
    let line =
        text.lines().find_map(|line| line.strip_prefix("Requests/sec:")).ok_or("no result from wrk")?;
    Ok(line.trim().parse()?)
}

#[tokio::main(flavor = "current_thread")]
async fn backend(folder: &Path, trivial: bool) -> Result<(), Error> {
    let tcp = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let unix = tokio::net::UnixListener::bind(folder.join("http.sock"))?;
    println!("{}", tcp.local_addr()?);
    let service = move || service_fn(move |request| answer(request, trivial));
    tokio::spawn(async move {
        while let Ok((stream, _)) = unix.accept().await {
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service()));
        }
    });
    loop {
        let (stream, _) = tcp.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service()));
    }
}

#[derive(serde::Deserialize)]
struct Predict {
    instances: Vec<Vec<f32>>,
}

#[derive(serde::Serialize)]
struct Predicted {
    predictions: Vec<[f32; 10]>,
}

async fn answer(request: Request<Incoming>, trivial: bool) -> Result<Response<Full<Bytes>>, Error> {
    let health = request.method() == http::Method::GET;
    let body = request.into_body().collect().await?.to_bytes();
    if trivial || health {
        return Ok(Response::new(Full::new(Bytes::from_static(&[b' '; 100]))));
    }
    let input: Predict = serde_json::from_slice(&body)?;
    let predictions = input.instances.iter().map(|row| std::array::from_fn(|n| row[n] * 2.0)).collect();
    let mut response = Response::new(Full::new(serde_json::to_vec(&Predicted { predictions })?.into()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

#[tokio::main(flavor = "current_thread")]
async fn gateway(folder: &Path, workers: usize, log: bool) -> Result<(), Error> {
    let mut config = GatewayConfig::new(([127, 0, 0, 1], 0).into(), folder.join("routes.json"));
    config.workers = workers;
    if log {
        config.access_log = AccessLog::File(folder.join("access.log"));
    }
    let gateway = slipway_gateway::start(config).await?;
    println!("{}", gateway.addresses()[0]);
    std::future::pending::<()>().await;
    drop(gateway);
    Ok(())
}
