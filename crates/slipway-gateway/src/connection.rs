//! One client's connection as the requests on it see it, and its deadlines.
//!
//! A timer per request costs a lock, and often a system call to wake the runtime for an earlier deadline. So a
//! connection writes down when it would time out, and its worker looks at all of them every [`TICK`]: a deadline is
//! noticed at most that much late, and never early.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::task::AtomicWaker;
use http::HeaderValue;
use tokio::net::TcpStream;

use crate::shared::{Shared, Worker};

/// How often deadlines are looked at.
pub(crate) const TICK: Duration = Duration::from_millis(50);

const NEVER: u64 = u64::MAX;

/// What may take too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// A request's headers, from the end of the exchange before it.
    Headers,
    /// A replica's answer's head.
    Answer,
    /// The next piece of a replica's answer.
    Piece,
    /// The client's taking of what is written.
    Write,
}

/// One client's connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub worker: Arc<Worker>,
    pub client: IpAddr,
    /// The client's address as text.
    pub client_text: HeaderValue,
    /// Wakes the connection's task.
    pub task: AtomicWaker,
    /// Milliseconds of the gateway's clock, per [`Wait`].
    deadlines: [AtomicU64; 4],
    /// Bytes read in all, and those read when the last request's head was complete.
    pub read: AtomicU64,
    pub parsed: AtomicU64,
    /// The stream, once hyper is done with it.
    pub left: Mutex<Option<TcpStream>>,
}

impl Connection {
    /// Makes one that its worker watches.
    pub(crate) fn new(worker: Arc<Worker>, client: IpAddr) -> Arc<Self> {
        let connection = Arc::new(Self {
            client,
            client_text: HeaderValue::from_str(&client.to_string())
                .unwrap_or(HeaderValue::from_static("unknown")),
            task: AtomicWaker::new(),
            deadlines: [const { AtomicU64::new(NEVER) }; 4],
            read: AtomicU64::new(0),
            parsed: AtomicU64::new(0),
            left: Mutex::new(None),
            worker,
        });
        let weak = Arc::downgrade(&connection);
        connection.worker.connections.lock().unwrap_or_else(PoisonError::into_inner).push(weak);
        connection
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.worker.shared
    }

    /// Begins a wait that ends `after` a moment.
    pub(crate) fn begin(&self, wait: Wait, from: Instant, after: Duration) {
        let at = self.shared().millis(from).saturating_add(u64::try_from(after.as_millis()).unwrap_or(NEVER));
        // The clock counts whole milliseconds; one more, so that no deadline passes early.
        self.deadlines[wait as usize].store(at.saturating_add(1), Relaxed);
    }

    pub(crate) fn end(&self, wait: Wait) {
        self.deadlines[wait as usize].store(NEVER, Relaxed);
    }

    /// Whether a wait took too long, as of the worker's last look.
    pub(crate) fn expired(&self, wait: Wait) -> bool {
        self.deadlines[wait as usize].load(Relaxed) <= self.worker.clock.load(Relaxed)
    }

    /// Wakes the task if any wait took too long.
    pub(crate) fn look(&self, now: u64) {
        if self.deadlines.iter().any(|deadline| deadline.load(Relaxed) <= now) {
            self.task.wake();
        }
    }
}
