//! The bytes of a connection to a replica: a Unix socket on this host, or TCP to a pod.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::net::sockopt;
use slipway_types::service::Address;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// A pod whose node is gone answers nothing, not even with a refusal. The other end must acknowledge within this time what
/// it was sent, or a probe while it takes long to answer; it may also not leave sent data unread for longer.
const SILENCE: Duration = Duration::from_secs(20);
const PROBE_PERIOD: Duration = Duration::from_secs(5);

/// A stream that counts what is written to it.
pub(super) struct Stream {
    kind: Kind,
    written: Arc<AtomicU64>,
}

enum Kind {
    Unix(UnixStream),
    Tcp(TcpStream),
}

/// Calls a method of either stream.
macro_rules! either {
    ($stream:expr, $method:ident $(, $argument:expr)*) => {
        match &mut $stream.kind {
            Kind::Unix(stream) => Pin::new(stream).$method($($argument),*),
            Kind::Tcp(stream) => Pin::new(stream).$method($($argument),*),
        }
    };
}

impl Stream {
    pub(super) async fn connect(
        address: &Address,
        limit: Duration,
        written: Arc<AtomicU64>,
    ) -> io::Result<Self> {
        let kind = match address {
            Address::Socket(path) => Kind::Unix(connect_to_itself(path).await?),
            Address::Tcp(address) => Kind::Tcp(connect_to_pod(*address, limit).await?),
        };
        Ok(Self { kind, written })
    }

    fn count(&self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = &result {
            self.written.fetch_add(*bytes as u64, Relaxed);
        }
        result
    }
}

/// Connects to the socket at this very path, of any length. The folder belongs to the replica, which could put a
/// link to any other socket of this host in its place.
async fn connect_to_itself(socket: &Path) -> io::Result<UnixStream> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::open(socket, flags, Mode::empty())?;
    if !FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode).is_socket() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the replica's socket is not a socket"));
    }
    UnixStream::connect(format!("/proc/self/fd/{}", file.as_raw_fd())).await
}

async fn connect_to_pod(address: SocketAddr, limit: Duration) -> io::Result<TcpStream> {
    let stream = tokio::time::timeout(limit, TcpStream::connect(address))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(&stream, true)?;
    sockopt::set_tcp_keepidle(&stream, PROBE_PERIOD)?;
    sockopt::set_tcp_keepintvl(&stream, PROBE_PERIOD)?;
    let silence = u32::try_from(SILENCE.as_millis()).unwrap_or(u32::MAX);
    sockopt::set_tcp_user_timeout(&stream, silence)?;
    Ok(stream)
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        either!(self, poll_read, cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = either!(self, poll_write, cx, buf);
        self.count(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = either!(self, poll_write_vectored, cx, bufs);
        self.count(result)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.kind {
            Kind::Unix(stream) => stream.is_write_vectored(),
            Kind::Tcp(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, poll_flush, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, poll_shutdown, cx)
    }
}
