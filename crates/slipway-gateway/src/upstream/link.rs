//! One HTTP/1.1 connection to a replica.
//!
//! The connection has no task of its own: whoever holds the link drives it, first the request's handler and then the
//! answer's body. So a request costs no wake-up of a second task, head and body of a small answer are there in one
//! poll, and to drop the link is to cancel the request.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use slipway_types::service::Address;

use super::stream::Stream;
use crate::body::RequestBody;

/// One HTTP/1.1 connection to a replica.
pub(crate) struct Link {
    sender: http1::SendRequest<RequestBody>,
    connection: http1::Connection<TokioIo<Stream>, RequestBody>,
    /// The connection's future has ended.
    closed: bool,
    written: Arc<AtomicU64>,
    idle_since: Instant,
}

/// A request that got no answer.
#[derive(Debug)]
pub(crate) struct SendFailure {
    pub error: hyper::Error,
    /// The request, when the connection never took it.
    pub unsent: Option<Request<RequestBody>>,
    /// No byte was written.
    pub nothing_written: bool,
}

impl Link {
    /// A new connection. `limit` is for TCP: a Unix socket takes or refuses it at once.
    pub(crate) async fn connect(address: &Address, limit: Duration) -> io::Result<Box<Self>> {
        let written = Arc::new(AtomicU64::new(0));
        let io = TokioIo::new(Stream::connect(address, limit, Arc::clone(&written)).await?);
        let (sender, connection) = http1::handshake(io).await.map_err(io::Error::other)?;
        let mut link =
            Box::new(Self { sender, connection, closed: false, written, idle_since: Instant::now() });
        // A new connection says that it can take a request only after it was polled.
        link.drive(&mut Context::from_waker(Waker::noop()));
        Ok(link)
    }

    /// Sends a request and drives the connection until the answer's head is there.
    pub(crate) async fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, SendFailure> {
        let before = self.written.load(Relaxed);
        let mut answer = pin!(self.sender.try_send_request(request));
        let (connection, closed) = (&mut self.connection, &mut self.closed);
        let result = std::future::poll_fn(|cx| {
            if !*closed && Pin::new(&mut *connection).poll(cx).is_ready() {
                *closed = true;
            }
            answer.as_mut().poll(cx)
        })
        .await;
        result.map_err(|mut failure| SendFailure {
            unsent: failure.take_message(),
            error: failure.into_error(),
            nothing_written: self.written.load(Relaxed) == before,
        })
    }

    /// Lets the connection read and write what it can.
    pub(crate) fn drive(&mut self, cx: &mut Context<'_>) {
        if !self.closed && Pin::new(&mut self.connection).poll(cx).is_ready() {
            self.closed = true;
        }
    }

    pub(crate) fn closed(&self) -> bool {
        self.closed
    }

    /// Ends an exchange. Says whether the connection can take another one.
    pub(crate) fn settle(&mut self) -> bool {
        self.idle_since = Instant::now();
        self.is_open()
    }

    /// Whether the connection can take a request now.
    pub(crate) fn is_open(&mut self) -> bool {
        // Nobody waits for an idle connection; that the replica closed it shows here.
        self.drive(&mut Context::from_waker(Waker::noop()));
        !self.closed && self.sender.is_ready()
    }

    pub(crate) fn idle_for(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.idle_since)
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("closed", &self.closed).finish_non_exhaustive()
    }
}
