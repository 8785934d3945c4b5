//! Replicas that speak real HTTP over Unix sockets or TCP, a gateway in front of them, and clients that see every byte.

#![allow(dead_code, reason = "each test file uses a part")]

use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use slipway_gateway::{Gateway, GatewayConfig, start};
use slipway_types::container::ContainerId;
use slipway_types::service::{Address, Backend, Route, RoutingTable};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::task::JoinHandle;

pub type AnyBody = BoxBody<Bytes, std::io::Error>;
type Answer = Pin<Box<dyn Future<Output = Response<AnyBody>> + Send>>;
type Handler = Arc<dyn Fn(Request<Incoming>) -> Answer + Send + Sync>;

/// A body that is known in full.
pub fn body(bytes: impl Into<Bytes>) -> AnyBody {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed()
}

/// Whether a request is one of the gateway's own, for health or metrics.
pub fn is_own(request: &Request<Incoming>) -> bool {
    matches!(request.uri().path(), "/v2/health/ready" | "/metrics")
}

/// What a replica got.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    pub target: String,
    pub headers: HashMap<String, String>,
}

/// A replica: an HTTP server on a Unix socket or a TCP port.
pub struct Replica {
    pub id: ContainerId,
    pub address: Address,
    pub hits: Arc<AtomicUsize>,
    /// Requests whose handler was dropped before it answered.
    pub cancelled: Arc<AtomicUsize>,
    pub seen: Arc<Mutex<Vec<Seen>>>,
    task: JoinHandle<()>,
}

impl Replica {
    /// Answers every request with its own name.
    pub fn named(folder: &Path, n: u8, name: &'static str) -> Self {
        Self::start(folder, n, move |_| async move { Response::new(body(name)) })
    }

    /// Every request goes to the handler; the gateway's own are not counted.
    pub fn start<F, R>(folder: &Path, n: u8, handler: F) -> Self
    where
        F: Fn(Request<Incoming>) -> R + Send + Sync + 'static,
        R: Future<Output = Response<AnyBody>> + Send + 'static,
    {
        Self::at(folder.join(format!("{n}.sock")), n, handler)
    }

    pub fn at<F, R>(socket: PathBuf, n: u8, handler: F) -> Self
    where
        F: Fn(Request<Incoming>) -> R + Send + Sync + 'static,
        R: Future<Output = Response<AnyBody>> + Send + 'static,
    {
        let _ = std::fs::remove_file(&socket);
        let listener = Listener::Unix(UnixListener::bind(&socket).unwrap());
        Self::on(listener, Address::Socket(socket), n, handler)
    }

    /// One in a pod: on a TCP port of its own.
    pub async fn pod<F, R>(n: u8, handler: F) -> Self
    where
        F: Fn(Request<Incoming>) -> R + Send + Sync + 'static,
        R: Future<Output = Response<AnyBody>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = Address::Tcp(listener.local_addr().unwrap());
        Self::on(Listener::Tcp(listener), address, n, handler)
    }

    fn on<F, R>(listener: Listener, address: Address, n: u8, handler: F) -> Self
    where
        F: Fn(Request<Incoming>) -> R + Send + Sync + 'static,
        R: Future<Output = Response<AnyBody>> + Send + 'static,
    {
        let (hits, cancelled, seen) =
            <(Arc<AtomicUsize>, Arc<AtomicUsize>, Arc<Mutex<Vec<Seen>>>)>::default();
        let handler: Handler = Arc::new(move |request| Box::pin(handler(request)));
        let task = {
            let (hits, cancelled, seen) = (Arc::clone(&hits), Arc::clone(&cancelled), Arc::clone(&seen));
            tokio::spawn(async move {
                let mut connections = tokio::task::JoinSet::new();
                loop {
                    let stream = listener.accept().await;
                    let (hits, cancelled) = (Arc::clone(&hits), Arc::clone(&cancelled));
                    let (seen, handler) = (Arc::clone(&seen), Arc::clone(&handler));
                    let service = service_fn(move |request: Request<Incoming>| {
                        let own = is_own(&request);
                        if !own {
                            hits.fetch_add(1, Ordering::SeqCst);
                            seen.lock().unwrap().push(see(&request));
                        }
                        let watch = Cancelled { count: Arc::clone(&cancelled), armed: !own };
                        let handler = Arc::clone(&handler);
                        async move {
                            let mut watch = watch;
                            let answer = handler(request).await;
                            watch.armed = false;
                            Ok::<_, std::convert::Infallible>(answer)
                        }
                    });
                    connections.spawn(async move {
                        let _ = hyper::server::conn::http1::Builder::new()
                            .serve_connection(TokioIo::new(stream), service)
                            .await;
                    });
                }
            })
        };
        Self { id: ContainerId::from_random([n; 12]), address, hits, cancelled, seen, task }
    }

    pub fn row(&self) -> Backend {
        row(self.id.clone(), self.address.clone())
    }

    pub fn hits(&self) -> usize {
        self.hits.load(Ordering::SeqCst)
    }

    /// Ends it and its connections, as a kill would; the socket's file stays.
    pub async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

/// A line of the table.
pub fn row(id: ContainerId, address: Address) -> Backend {
    Backend { id: id.into(), name: None, address, labels: Vec::new() }
}

enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

trait Stream: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin {}
impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin> Stream for T {}

impl Listener {
    async fn accept(&self) -> Box<dyn Stream> {
        match self {
            Self::Unix(listener) => Box::new(listener.accept().await.unwrap().0),
            Self::Tcp(listener) => Box::new(listener.accept().await.unwrap().0),
        }
    }
}

struct Cancelled {
    count: Arc<AtomicUsize>,
    armed: bool,
}

impl Drop for Cancelled {
    fn drop(&mut self) {
        if self.armed {
            self.count.fetch_add(1, Ordering::SeqCst);
        }
    }
}

fn see(request: &Request<Incoming>) -> Seen {
    let mut headers = HashMap::new();
    for (name, value) in request.headers() {
        let value = value.to_str().unwrap_or("?").to_owned();
        let list: &mut String = headers.entry(name.to_string()).or_default();
        if !list.is_empty() {
            list.push('|');
        }
        list.push_str(&value);
    }
    Seen { method: request.method().to_string(), target: request.uri().to_string(), headers }
}

/// A gateway and its folder.
pub struct World {
    pub folder: TempDir,
    pub gateway: Gateway,
    pub address: SocketAddr,
    generation: AtomicUsize,
}

impl World {
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(adjust: impl FnOnce(&mut GatewayConfig)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = GatewayConfig::new(([127, 0, 0, 1], 0).into(), folder.path().join("routes.json"));
        config.workers = 2;
        config.health_interval = Duration::from_millis(100);
        adjust(&mut config);
        let gateway = start(config).await.unwrap();
        let address = gateway.addresses()[0];
        Self { folder, gateway, address, generation: AtomicUsize::new(0) }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Renames a new table into place and waits until it is in force.
    pub async fn route(&self, services: Vec<Route>) {
        let generation = self.generation.fetch_add(1, Ordering::SeqCst) as u64 + 1;
        self.write(&serde_json::to_vec(&RoutingTable { generation, services }).unwrap());
        let began = Instant::now();
        loop {
            let reply = self.get("/-/ready").await;
            if reply.text().contains(&format!("\"generation\":{generation}")) {
                return;
            }
            assert!(began.elapsed() < Duration::from_secs(5), "the table was not taken");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub fn write(&self, text: &[u8]) {
        let side = self.path().join("routes.json.new");
        std::fs::write(&side, text).unwrap();
        std::fs::rename(side, self.path().join("routes.json")).unwrap();
    }

    pub async fn get(&self, target: &str) -> Reply {
        self.call(&format!("GET {target} HTTP/1.1\r\nhost: localhost\r\n\r\n")).await
    }

    pub async fn post(&self, target: &str, text: &str) -> Reply {
        let length = text.len();
        self.call(&format!(
            "POST {target} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n{text}"
        ))
        .await
    }

    /// Sends text over a connection of its own and reads one answer.
    pub async fn call(&self, text: &str) -> Reply {
        let mut client = Client::connect(self.address).await;
        client.send(text).await;
        client.reply().await.unwrap_or_else(|| panic!("no answer to {text:.100}"))
    }

    pub async fn metrics(&self) -> String {
        self.get("/metrics").await.text()
    }
}

pub fn route(service: &str, replicas: &[&Replica]) -> Route {
    Route {
        service: service.into(),
        model: format!("{service}-model"),
        backends: replicas.iter().map(|replica| replica.row()).collect(),
        ..Route::default()
    }
}

/// An answer as it came.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: HashMap<String, String>,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    /// The message of a JSON error.
    pub fn error(&self) -> String {
        assert_eq!(self.headers["content-type"], "application/json", "{self:?}");
        let value: serde_json::Value = serde_json::from_slice(&self.body).unwrap();
        value["error"].as_str().unwrap().to_owned()
    }

    pub fn expect(&self, status: StatusCode, message: &str) {
        assert_eq!(self.status, status.as_u16(), "{self:?} {}", String::from_utf8_lossy(&self.body));
        let error = self.error();
        assert!(error.contains(message), "{error}");
    }
}

/// A client's connection.
pub struct Client {
    pub stream: BufReader<TcpStream>,
}

impl Client {
    pub async fn connect(address: SocketAddr) -> Self {
        Self { stream: BufReader::new(TcpStream::connect(address).await.unwrap()) }
    }

    pub async fn send(&mut self, text: impl AsRef<[u8]>) {
        self.stream.get_mut().write_all(text.as_ref()).await.unwrap();
    }

    /// Reads one answer; `None` when the connection ends before its head is there.
    pub async fn reply(&mut self) -> Option<Reply> {
        tokio::time::timeout(Duration::from_secs(20), self.read_reply()).await.expect("no answer in 20 s")
    }

    async fn read_reply(&mut self) -> Option<Reply> {
        let (status, headers) = self.head().await?;
        let mut body = Vec::new();
        if let Some(length) = headers.get("content-length").and_then(|text| text.parse().ok()) {
            body.resize(length, 0);
            self.stream.read_exact(&mut body).await.ok()?;
        } else if headers.get("transfer-encoding").is_some_and(|coding| coding == "chunked") {
            while let Some(chunk) = self.chunk().await {
                if chunk.is_empty() {
                    return Some(Reply { status, headers, body });
                }
                body.extend(chunk);
            }
            return None;
        }
        Some(Reply { status, headers, body })
    }

    pub async fn head(&mut self) -> Option<(u16, HashMap<String, String>)> {
        let mut line = String::new();
        if self.stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        let status = line.split(' ').nth(1)?.parse().ok()?;
        let mut headers = HashMap::new();
        loop {
            line.clear();
            self.stream.read_line(&mut line).await.ok()?;
            let text = line.trim_end();
            if text.is_empty() {
                return Some((status, headers));
            }
            let (name, value) = text.split_once(": ")?;
            headers.insert(name.to_ascii_lowercase(), value.to_owned());
        }
    }

    /// One chunk of a chunked body; empty at its end, `None` when it breaks off.
    pub async fn chunk(&mut self) -> Option<Vec<u8>> {
        let mut line = String::new();
        self.stream.read_line(&mut line).await.ok()?;
        let length = usize::from_str_radix(line.trim_end(), 16).ok()?;
        let mut chunk = vec![0; length + 2];
        self.stream.read_exact(&mut chunk).await.ok()?;
        chunk.truncate(length);
        Some(chunk)
    }

    /// Whether the gateway closed the connection.
    pub async fn closed(&mut self) -> bool {
        let mut rest = Vec::new();
        matches!(
            tokio::time::timeout(Duration::from_secs(5), self.stream.read_to_end(&mut rest)).await,
            Ok(Ok(_))
        )
    }
}

/// Waits for a condition.
pub async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !condition().await {
        assert!(began.elapsed() < Duration::from_secs(10), "waited for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
