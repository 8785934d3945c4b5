//! Serves the connections of clients.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

use crate::access_log::Line;
use crate::config::Limits;
use crate::connection::{Connection, Wait};
use crate::handler::handle;
use crate::shared::Worker;

/// How long, and for how many bytes, a closed connection is read on, so that the client gets the answer before the
/// kernel resets the connection for unread data.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 256 << 20;
/// Most bytes that hyper gathers of a request before they are taken.
const BUFFER: usize = 64 << 10;
const TIMED_OUT: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\ncontent-type: application/json\r\ncontent-length: 56\r\n\
    connection: close\r\n\r\n{\"error\":\"the request's headers did not arrive in time\"}";

/// Serves one client until it goes, idles too long, or the worker drains and the request under way is done.
pub(crate) async fn serve(worker: Arc<Worker>, tcp: TcpStream, client: SocketAddr) {
    let connection = Connection::new(worker, client.ip());
    let limits = &connection.shared().limits;
    let stream = ClientStream { tcp: Some(tcp), connection: Arc::clone(&connection), blocked: false };
    let service = {
        let connection = Arc::clone(&connection);
        service_fn(move |request| {
            connection.end(Wait::Headers);
            connection.parsed.store(connection.read.load(Relaxed), Relaxed);
            handle(Arc::clone(&connection), request)
        })
    };
    connection.begin(Wait::Headers, Instant::now(), limits.header_timeout);
    let timed_out = {
        let mut http = pin!(builder(limits).serve_connection(TokioIo::new(stream), service));
        let mut draining = false;
        poll_fn(|cx| {
            connection.task.register(cx.waker());
            if !draining && connection.worker.draining.load(Relaxed) {
                draining = true;
                http.as_mut().graceful_shutdown();
            }
            match http.as_mut().poll(cx) {
                Poll::Ready(result) => {
                    if let Err(error) = result {
                        tracing::debug!(%client, %error, "connection failed");
                        // hyper has answered these itself, before there was a request to log.
                        if error.is_parse() {
                            let code = if error.is_parse_too_large() { 431 } else { 400 };
                            connection.shared().own_stats.record(code, Duration::ZERO, 0, 0);
                            log_unreadable(&connection, code);
                        }
                    }
                    Poll::Ready(false)
                }
                Poll::Pending if connection.expired(Wait::Headers) => Poll::Ready(true),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    };
    let left = connection.left.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some(mut tcp) = left else { return };
    // Where a part of a request was read, the client waits for an answer; an idle client does not.
    if timed_out && connection.read.load(Relaxed) > connection.parsed.load(Relaxed) {
        let _ = tokio::time::timeout(LINGER, tcp.write_all(TIMED_OUT)).await;
    }
    linger(tcp).await;
}

/// A line for a request that could not be read: nothing of it is known but who sent it.
fn log_unreadable(connection: &Connection, status: u16) {
    let shared = connection.shared();
    let Some(log) = &shared.log else { return };
    log.write(&Line {
        time: jiff::Timestamp::now(),
        request_id: shared.request_id().to_str().unwrap_or_default(),
        client: connection.client,
        method: "",
        path: "",
        service: None,
        backend: None,
        status,
        aborted: false,
        request_bytes: 0,
        response_bytes: 0,
        duration_ms: 0.0,
        upstream_ms: None,
    });
}

/// Reads on for a moment after the last answer.
async fn linger(mut tcp: TcpStream) {
    let drain = async {
        tcp.shutdown().await?;
        let mut scrap = vec![0; 16 << 10];
        let mut left = LINGER_BYTES;
        while left > 0 {
            match tcp.read(&mut scrap).await? {
                0 => break,
                read => left = left.saturating_sub(read),
            }
        }
        io::Result::Ok(())
    };
    let _ = tokio::time::timeout(LINGER, drain).await;
}

fn builder(limits: &Limits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        // Kept by the connection itself.
        .header_read_timeout(None)
        // Up to twice the limit is read so that the refusal can be explained; beyond, hyper refuses without a word.
        .max_buf_size(BUFFER.max(limits.max_header_bytes.saturating_mul(2)));
    builder
}

/// A client's stream. Cuts off a client that takes nothing for long, and leaves the socket behind when dropped.
struct ClientStream {
    tcp: Option<TcpStream>,
    connection: Arc<Connection>,
    /// The last write could not go on.
    blocked: bool,
}

impl ClientStream {
    fn tcp(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        self.tcp.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    fn watch_write<T>(&mut self, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        let connection = &self.connection;
        match (result.is_ready(), self.blocked) {
            (true, false) => {}
            (true, true) => connection.end(Wait::Write),
            (false, false) => {
                connection.begin(Wait::Write, Instant::now(), connection.shared().limits.write_timeout);
            }
            (false, true) => {
                if connection.expired(Wait::Write) {
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
            }
        }
        self.blocked = result.is_pending();
        result
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = self.tcp()?.poll_read(cx, buf);
        if result.is_ready() {
            self.connection.read.fetch_add((buf.filled().len() - before) as u64, Relaxed);
        }
        result
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = self.tcp()?.poll_write(cx, buf);
        self.watch_write(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = self.tcp()?.poll_write_vectored(cx, bufs);
        self.watch_write(result)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tcp()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tcp()?.poll_shutdown(cx)
    }
}

impl Drop for ClientStream {
    fn drop(&mut self) {
        *self.connection.left.lock().unwrap_or_else(PoisonError::into_inner) = self.tcp.take();
    }
}

#[cfg(test)]
mod tests {
    use super::TIMED_OUT;

    #[test]
    fn the_fixed_answer_states_its_length() {
        let text = std::str::from_utf8(TIMED_OUT).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{}", body.len());
    }
}
