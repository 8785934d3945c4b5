//! The listeners of a runner, and how they come to an end.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use slipway_serving::http::Frontend;
use slipway_types::service::RunnerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Most connections at once.
const MAX_CONNECTIONS: usize = 4096;
/// How long a connection may be idle, or take to send a head. Longer than the gateway keeps one, so that the gateway
/// is the one that closes.
const HEAD_TIME: Duration = Duration::from_secs(180);
/// Largest head, and the unit in which bodies are read, in bytes.
const BUFFER: usize = 256 * 1024;

/// Why a listener cannot be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ListenError {
    #[error("cannot listen on the socket {}", path.display())]
    Unix {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("`{0}` is not an address to listen on: expected IP:PORT")]
    Address(String),
    #[error("cannot listen on {address}")]
    Tcp {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
}

/// Sockets that connections come from.
#[derive(Debug)]
pub(crate) struct Listeners {
    path: PathBuf,
    unix: UnixListener,
    tcp: Option<TcpListener>,
}

impl Listeners {
    /// Binds what the configuration names. A socket file that a former process left is replaced.
    pub(crate) fn bind(config: &RunnerConfig) -> Result<Self, ListenError> {
        let path = config.socket.clone();
        let unix = bind_unix(&path).map_err(|source| ListenError::Unix { path: path.clone(), source })?;
        let tcp = match &config.listen {
            None => None,
            Some(text) => {
                // Not a name: a static program cannot look one up.
                let address: SocketAddr = text.parse().map_err(|_| ListenError::Address(text.clone()))?;
                let listener = bind_tcp(address).map_err(|source| ListenError::Tcp { address, source })?;
                Some(listener)
            }
        };
        Ok(Self { path, unix, tcp })
    }

    /// Serves until `stop`, then lets requests finish for at most `drain`.
    pub(crate) async fn serve(self, frontend: Frontend, stop: CancellationToken, drain: Duration) {
        let Self { path, unix, tcp } = self;
        tracing::info!(socket = %path.display(), tcp = ?tcp.as_ref().and_then(|t| t.local_addr().ok()), "listening");
        let connections = Connections {
            frontend,
            stop: stop.clone(),
            tasks: TaskTracker::new(),
            room: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = connections.accept_unix(unix) => {}
            () = connections.accept_tcp(tcp) => {}
        }
        // The listeners are closed; without the file, nobody tries them.
        let _ = std::fs::remove_file(&path);
        connections.tasks.close();
        let left = connections.tasks.len();
        tracing::info!(connections = left, "draining");
        if tokio::time::timeout(drain, connections.tasks.wait()).await.is_err() {
            tracing::warn!(connections = connections.tasks.len(), "connections are cut off");
        }
    }
}

/// Binds aside and renames into place, so that a client finds either no socket or one that listens.
fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".new");
    let aside = PathBuf::from(aside);
    match std::fs::remove_file(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&aside)?;
    std::fs::rename(&aside, path)?;
    Ok(listener)
}

fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

struct Connections {
    frontend: Frontend,
    stop: CancellationToken,
    tasks: TaskTracker,
    room: Arc<Semaphore>,
}

impl Connections {
    async fn accept_unix(&self, listener: UnixListener) {
        loop {
            let Some(permit) = self.permit().await else { return };
            match listener.accept().await {
                Ok((stream, _)) => self.spawn(stream, permit),
                Err(error) => accept_failed(&error).await,
            }
        }
    }

    async fn accept_tcp(&self, listener: Option<TcpListener>) {
        let Some(listener) = listener else { return std::future::pending().await };
        loop {
            let Some(permit) = self.permit().await else { return };
            match listener.accept().await {
                Ok((stream, _)) => {
                    // Replies are written whole; waiting for more only delays them.
                    let _ = stream.set_nodelay(true);
                    self.spawn(stream, permit);
                }
                Err(error) => accept_failed(&error).await,
            }
        }
    }

    async fn permit(&self) -> Option<OwnedSemaphorePermit> {
        self.room.clone().acquire_owned().await.ok()
    }

    fn spawn(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        permit: OwnedSemaphorePermit,
    ) {
        let (frontend, stop) = (self.frontend.clone(), self.stop.clone());
        self.tasks.spawn(async move {
            let service = service_fn(|request| {
                let frontend = frontend.clone();
                async move { Ok::<_, Infallible>(frontend.handle(request).await) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIME)
                .max_buf_size(BUFFER)
                .serve_connection(TokioIo::new(stream), service);
            let mut connection = std::pin::pin!(connection);
            let result = tokio::select! {
                result = connection.as_mut() => result,
                () = stop.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = result {
                tracing::debug!(%error, "a connection failed");
            }
            drop(permit);
        });
    }
}

async fn accept_failed(error: &io::Error) {
    tracing::warn!(%error, "cannot accept a connection");
    // Most likely there are no descriptors left: trying again at once would only spin.
    tokio::time::sleep(Duration::from_millis(50)).await;
}
