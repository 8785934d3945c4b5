//! Bodies of requests to replicas and of answers to clients. Nothing here keeps more than a frame.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};

use crate::connection::Wait;
use crate::exchange::Exchange;
use crate::upstream::{Lease, Link};

/// The body of a request to a replica.
#[derive(Debug)]
pub(crate) enum RequestBody {
    /// Known in full.
    Full(Option<Bytes>),
    /// Passed on as it arrives.
    Stream(RequestStream),
}

/// A client's body on its way to a replica, cut off at a limit.
#[derive(Debug)]
pub(crate) struct RequestStream {
    incoming: Incoming,
    left: u64,
    progress: Arc<Progress>,
}

/// How far a streamed request body has come.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    pub bytes: AtomicU64,
    pub complete: AtomicBool,
    pub too_large: AtomicBool,
    pub broken: AtomicBool,
}

/// Why a request body ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestBodyError {
    #[error("the body is larger than the limit")]
    TooLarge,
    #[error("the client's connection broke")]
    Client(#[source] hyper::Error),
}

impl RequestBody {
    pub(crate) fn stream(incoming: Incoming, limit: u64) -> (Self, Arc<Progress>) {
        let progress = Arc::new(Progress::default());
        (Self::Stream(RequestStream { incoming, left: limit, progress: Arc::clone(&progress) }), progress)
    }

    /// A copy, where the body is not being streamed.
    pub(crate) fn copy(&self) -> Option<Self> {
        match self {
            Self::Full(bytes) => Some(Self::Full(bytes.clone())),
            Self::Stream(_) => None,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Self::Full(None))
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = RequestBodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RequestBodyError>>> {
        let stream = match self.get_mut() {
            Self::Full(bytes) => return Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Stream(stream) => stream,
        };
        let progress = &stream.progress;
        Poll::Ready(match std::task::ready!(Pin::new(&mut stream.incoming).poll_frame(cx)) {
            Some(Ok(frame)) => {
                let length = frame.data_ref().map_or(0, |data| data.len() as u64);
                if length > stream.left {
                    progress.too_large.store(true, Relaxed);
                    return Poll::Ready(Some(Err(RequestBodyError::TooLarge)));
                }
                stream.left -= length;
                progress.bytes.fetch_add(length, Relaxed);
                if stream.incoming.is_end_stream() {
                    progress.complete.store(true, Relaxed);
                }
                Some(Ok(frame))
            }
            Some(Err(error)) => {
                progress.broken.store(true, Relaxed);
                Some(Err(RequestBodyError::Client(error)))
            }
            None => {
                progress.complete.store(true, Relaxed);
                None
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(bytes) => bytes.is_none(),
            Self::Stream(stream) => stream.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Stream(stream) => stream.incoming.size_hint(),
        }
    }
}

/// The body of an answer to a client. Its end, or its being dropped, ends the exchange.
#[derive(Debug)]
pub(crate) struct Body {
    source: Source,
    exchange: Option<Box<Exchange>>,
}

#[derive(Debug)]
enum Source {
    Full(Option<Bytes>),
    Replica(ReplicaBody),
}

/// An answer's body on its way from a replica.
#[derive(Debug)]
pub(crate) struct ReplicaBody {
    incoming: Incoming,
    /// Until the body's end.
    link: Option<Box<Link>>,
    lease: Lease,
    worker: usize,
    /// Longest pause.
    stall: Duration,
    /// The last look found nothing.
    paused: bool,
}

/// Why an answer ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("the replica broke off its answer")]
    Replica(#[source] hyper::Error),
    #[error("the replica sent nothing for {0:?}")]
    Stalled(Duration),
}

impl Body {
    pub(crate) fn full(bytes: Bytes) -> Self {
        Self { source: Source::Full((!bytes.is_empty()).then_some(bytes)), exchange: None }
    }

    pub(crate) fn replica(
        incoming: Incoming,
        link: Box<Link>,
        lease: Lease,
        worker: usize,
        stall: Duration,
    ) -> Self {
        if incoming.is_end_stream() {
            lease.backend().put_idle(worker, link);
            return Self::full(Bytes::new());
        }
        let body = ReplicaBody { incoming, link: Some(link), lease, worker, stall, paused: false };
        Self { source: Source::Replica(body), exchange: None }
    }

    /// Ties the exchange's end to the body's.
    pub(crate) fn ends(mut self, exchange: Box<Exchange>) -> Self {
        self.exchange = Some(exchange);
        if self.is_end_stream() {
            self.finish(true);
        }
        self
    }

    fn finish(&mut self, complete: bool) {
        if let Some(mut exchange) = self.exchange.take() {
            exchange.connection.end(Wait::Piece);
            exchange.complete = complete;
        }
    }
}

impl ReplicaBody {
    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
        exchange: Option<&Exchange>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut frame = Pin::new(&mut self.incoming).poll_frame(cx);
        if frame.is_pending()
            && let Some(link) = &mut self.link
        {
            link.drive(cx);
            frame = Pin::new(&mut self.incoming).poll_frame(cx);
        }
        if let Some(exchange) = exchange
            && frame.is_pending() != self.paused
        {
            self.paused = frame.is_pending();
            if self.paused {
                exchange.connection.begin(Wait::Piece, Instant::now(), self.stall);
            } else {
                exchange.connection.end(Wait::Piece);
            }
        }
        match frame {
            Poll::Ready(frame) => {
                if frame.is_none() || self.incoming.is_end_stream() {
                    self.release();
                }
                Poll::Ready(frame.map(|frame| frame.map_err(BodyError::Replica)))
            }
            Poll::Pending if exchange.is_some_and(|exchange| exchange.connection.expired(Wait::Piece)) => {
                Poll::Ready(Some(Err(BodyError::Stalled(self.stall))))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    /// The answer is whole: its connection can take the next request.
    fn release(&mut self) {
        if let Some(link) = self.link.take()
            && !link.closed()
        {
            self.lease.backend().put_idle(self.worker, link);
        }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let frame = match &mut this.source {
            Source::Full(bytes) => bytes.take().map(|bytes| Ok(Frame::data(bytes))),
            Source::Replica(body) => std::task::ready!(body.poll_frame(cx, this.exchange.as_deref())),
        };
        if let (Some(Ok(frame)), Some(exchange)) = (&frame, &mut this.exchange) {
            exchange.response_bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
        }
        if matches!(frame, Some(Err(_))) {
            self.finish(false);
        } else if frame.is_none() || self.is_end_stream() {
            self.finish(true);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Full(bytes) => bytes.is_none(),
            Source::Replica(body) => body.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Source::Replica(body) => body.incoming.size_hint(),
        }
    }
}
