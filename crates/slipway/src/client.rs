//! The command line's side of the daemon's API: HTTP/1.1 over its Unix socket.

use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::{Command, Stdio};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use slipway_types::{ApiError, ErrorCode};
use tokio::net::UnixStream;

use crate::failure::{self, Failure, exit};
use crate::settings::Settings;

/// How long a daemon may take from its start to its first answer.
const START_LIMIT: Duration = Duration::from_secs(15);

type Body = BoxBody<Bytes, std::io::Error>;

/// A blocking client of the daemon.
pub struct Client {
    runtime: tokio::runtime::Runtime,
    socket: PathBuf,
    settings: Settings,
}

impl Client {
    /// Connects to the daemon, starting one where none runs.
    pub fn connect(settings: &Settings) -> Result<Self, Failure> {
        let client = Self::new(settings)?;
        match client.runtime.block_on(UnixStream::connect(&client.socket)) {
            Ok(_) => Ok(client),
            Err(error) if is_absent(&error) => {
                start_daemon(settings)?;
                client.wait_until_up(settings)?;
                Ok(client)
            }
            Err(error) => Err(unreachable(&client.socket, &error.to_string())),
        }
    }

    /// Connects only when a daemon runs already.
    pub fn connect_running(settings: &Settings) -> Result<Option<Self>, Failure> {
        let client = Self::new(settings)?;
        match client.runtime.block_on(UnixStream::connect(&client.socket)) {
            Ok(_) => Ok(Some(client)),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(unreachable(&client.socket, &error.to_string())),
        }
    }

    fn new(settings: &Settings) -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| Failure::from(ApiError::new(ErrorCode::Internal, format!("cannot start: {e}"))))?;
        Ok(Self { runtime, socket: settings.socket(), settings: settings.clone() })
    }

    fn wait_until_up(&self, settings: &Settings) -> Result<(), Failure> {
        let began = Instant::now();
        while began.elapsed() < START_LIMIT {
            if self.runtime.block_on(UnixStream::connect(&self.socket)).is_ok() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let log = settings.root.join("daemon.log");
        let reason = last_line(&log).unwrap_or_else(|| "it said nothing".to_owned());
        Err(unreachable(&self.socket, &reason).hint(format!("the daemon's log is {}", log.display())))
    }

    /// A request without a body and its JSON answer.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        match self.call(Method::GET, path, Option::<&()>::None) {
            // A daemon that died while it was asked is replaced: asking changes nothing, so it is asked again.
            Err(failure) if failure.exit_code == exit::UNREACHABLE => {
                Self::connect(&self.settings)?.call(Method::GET, path, Option::<&()>::None)
            }
            outcome => outcome,
        }
    }

    /// A request with a JSON body and its JSON answer.
    pub fn post<B: Serialize, T: DeserializeOwned>(&self, path: &str, body: &B) -> Result<T, Failure> {
        self.call(Method::POST, path, Some(body))
    }

    /// As [`Client::post`], where doing it twice is doing it once.
    pub fn put<B: Serialize, T: DeserializeOwned>(&self, path: &str, body: &B) -> Result<T, Failure> {
        self.call(Method::PUT, path, Some(body))
    }

    /// A DELETE request and its JSON answer.
    pub fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.call(Method::DELETE, path, Option::<&()>::None)
    }

    fn call<B: Serialize, T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
    ) -> Result<T, Failure> {
        let request = json_request(method, path, body)?;
        self.runtime.block_on(async {
            let response = self.send(request).await?;
            let bytes = collect(response).await?;
            serde_json::from_slice(&bytes).map_err(|e| protocol(&e.to_string()))
        })
    }

    /// A request whose answer is newline-delimited JSON; `on_item` is called for each line.
    pub fn stream<B: Serialize, T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
        mut on_item: impl FnMut(T) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let request = json_request(method, path, body)?;
        self.runtime.block_on(async {
            let mut response = self.send(request).await?;
            let mut pending = BytesMut::new();
            while let Some(frame) = response.frame().await {
                let frame = frame.map_err(|e| broken_off(&e))?;
                let Ok(data) = frame.into_data() else { continue };
                pending.extend_from_slice(&data);
                while let Some(end) = pending.iter().position(|b| *b == b'\n') {
                    let line = pending.split_to(end + 1);
                    let item = serde_json::from_slice(&line).map_err(|e| protocol(&e.to_string()))?;
                    on_item(item)?;
                }
            }
            Ok(())
        })
    }

    /// Sends a file or pipe as the request's body, and reads the JSON answer.
    pub fn upload<T: DeserializeOwned>(
        &self,
        path: &str,
        reader: impl std::io::Read + Send + 'static,
    ) -> Result<T, Failure> {
        let (sender, receiver) = tokio::sync::mpsc::channel(4);
        std::thread::spawn(move || send_chunks(reader, &sender));
        let request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header("host", "slipway")
            .body(ChannelBody(receiver).boxed())
            .map_err(|e| protocol(&e.to_string()))?;
        self.runtime.block_on(async {
            let bytes = collect(self.send(request).await?).await?;
            serde_json::from_slice(&bytes).map_err(|e| protocol(&e.to_string()))
        })
    }

    async fn send(&self, request: Request<Body>) -> Result<Response<Incoming>, Failure> {
        let stream =
            UnixStream::connect(&self.socket).await.map_err(|e| unreachable(&self.socket, &e.to_string()))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|e| unreachable(&self.socket, &e.to_string()))?;
        tokio::spawn(connection);
        let response = sender
            .send_request(request)
            .await
            .map_err(|e| unreachable(&self.socket, &format!("it went away: {e}")))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let bytes = collect(response).await?;
        Err(match serde_json::from_slice::<ApiError>(&bytes) {
            Ok(error) => error.into(),
            Err(_) => protocol(&describe(status, &bytes)),
        })
    }
}

/// A request body that another thread reads from a file or pipe.
struct ChannelBody(tokio::sync::mpsc::Receiver<std::io::Result<Bytes>>);

impl hyper::body::Body for ChannelBody {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        self.0.poll_recv(context).map(|item| item.map(|chunk| chunk.map(Frame::data)))
    }
}

fn send_chunks(mut reader: impl std::io::Read, sender: &tokio::sync::mpsc::Sender<std::io::Result<Bytes>>) {
    loop {
        let mut chunk = vec![0; 1 << 20];
        let item = match reader.read(&mut chunk) {
            Ok(0) => return,
            Ok(count) => {
                chunk.truncate(count);
                Ok(chunk.into())
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => Err(error),
        };
        let failed = item.is_err();
        if sender.blocking_send(item).is_err() || failed {
            return;
        }
    }
}

fn describe(status: StatusCode, body: &[u8]) -> String {
    format!("{status}: {}", String::from_utf8_lossy(&body[..body.len().min(200)]))
}

async fn collect(response: Response<Incoming>) -> Result<Bytes, Failure> {
    let body = response.into_body().collect().await;
    Ok(body.map_err(|e| broken_off(&e))?.to_bytes())
}

fn json_request<B: Serialize>(
    method: Method,
    path: &str,
    body: Option<&B>,
) -> Result<Request<Body>, Failure> {
    let bytes = match body {
        Some(body) => serde_json::to_vec(body).map_err(|e| protocol(&e.to_string()))?,
        None => Vec::new(),
    };
    Request::builder()
        .method(method)
        .uri(path)
        .header("host", "slipway")
        .header("content-type", "application/json")
        .body(Full::new(bytes.into()).map_err(|never| match never {}).boxed())
        .map_err(|e| protocol(&e.to_string()))
}

fn is_absent(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused)
}

fn unreachable(socket: &Path, reason: &str) -> Failure {
    let mut error =
        ApiError::new(ErrorCode::Unavailable, format!("no answer from the daemon at {}", socket.display()));
    error.causes.push(reason.to_owned());
    if reason.contains("Permission denied") {
        error.hint = Some("run it as root: containers need it".to_owned());
    }
    Failure { error: Some(error), exit_code: exit::UNREACHABLE }
}

fn protocol(reason: &str) -> Failure {
    let mut error = ApiError::new(ErrorCode::Unavailable, "the daemon's answer cannot be read");
    error.causes.push(reason.to_owned());
    error.hint = Some("a daemon of another version may be running: `slipway daemon stop`".to_owned());
    Failure { error: Some(error), exit_code: exit::UNREACHABLE }
}

fn broken_off(reason: &hyper::Error) -> Failure {
    let mut error = ApiError::new(ErrorCode::Unavailable, "the daemon ended while it answered");
    error.causes.push(reason.to_string());
    error.hint = Some(
        "run the command again: the daemon starts anew; containers, services and training runs have gone on"
            .to_owned(),
    );
    Failure { error: Some(error), exit_code: exit::UNREACHABLE }
}

fn start_daemon(settings: &Settings) -> Result<(), Failure> {
    if !rustix::process::geteuid().is_root() {
        return Err(Failure::from(ApiError::new(ErrorCode::Unavailable, "the daemon needs root"))
            .exiting(exit::UNREACHABLE)
            .hint("run `sudo slipway …`; namespaces, mounts and cgroups of containers need it"));
    }
    let root = &settings.root;
    std::fs::create_dir_all(root).map_err(|e| failure::io("create", root, &e))?;
    let path = root.join("daemon.log");
    let log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .map_err(|e| failure::io("open", &path, &e))?;
    let exe = std::env::current_exe().map_err(|e| failure::io("find", Path::new("/proc/self/exe"), &e))?;
    let mut command = Command::new(&exe);
    command
        .arg("--root")
        .arg(root)
        .arg("daemon")
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    command.spawn().map_err(|e| failure::io("start", &exe, &e))?;
    Ok(())
}

fn last_line(path: &Path) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    text.lines().rev().find(|l| !l.trim().is_empty()).map(str::to_owned)
}
