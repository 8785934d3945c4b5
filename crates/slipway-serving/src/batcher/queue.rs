//! The queue of one model. It knows no clock and no task: time is a duration since some start, which the caller gives.

use std::collections::VecDeque;
use std::time::Duration;

/// What bounds the queue and its batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most rows in one merged batch; 1 merges nothing.
    pub max_rows: usize,
    /// Most bytes in one merged batch.
    pub max_bytes: usize,
    /// How long a batch that is not full waits for more rows though a worker is idle; zero never waits.
    pub max_delay: Duration,
    /// Most rows that wait.
    pub queue_rows: usize,
    /// Most bytes that wait.
    pub queue_bytes: usize,
}

/// Names an entry while it waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

/// One request that waits.
#[derive(Debug)]
pub struct Entry<T> {
    /// Its name in the queue.
    pub ticket: Ticket,
    /// Rows of its first dimension; 1 where it is not batched.
    pub rows: usize,
    /// Bytes in the arena.
    pub bytes: usize,
    /// Only entries with equal keys are merged; `None` never is. Holds the dimensions that the signature leaves open.
    pub key: Option<Vec<usize>>,
    /// When it came.
    pub arrived: Duration,
    /// When nobody wants its answer any more.
    pub deadline: Duration,
    /// The request itself.
    pub item: T,
}

/// Entries to send to a worker together, in the order in which they came.
#[derive(Debug)]
pub struct Batch<T> {
    /// At least one.
    pub entries: Vec<Entry<T>>,
    /// Rows of all.
    pub rows: usize,
}

/// What [`Queue::take`] says to an idle worker.
#[derive(Debug)]
pub enum Take<T> {
    /// Send this.
    Batch(Batch<T>),
    /// Ask again at this time, or when an entry was added.
    Wait(Duration),
    /// Ask again when an entry was added.
    Empty,
}

/// The queue has no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("Exceeds maximum queue size: {waiting} rows wait, {rows} more would be over {limit}")]
pub struct Full {
    /// Rows that wait.
    pub waiting: usize,
    /// Rows that were to be added.
    pub rows: usize,
    /// Most rows that may wait.
    pub limit: usize,
}

/// Requests in the order in which they came.
#[derive(Debug)]
pub struct Queue<T> {
    limits: Limits,
    entries: VecDeque<Entry<T>>,
    rows: usize,
    bytes: usize,
    next: u64,
}

impl<T> Queue<T> {
    /// An empty queue.
    pub fn new(limits: Limits) -> Self {
        Self { limits, entries: VecDeque::new(), rows: 0, bytes: 0, next: 0 }
    }

    /// Rows that wait.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Entries that wait.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Adds a request at the end. A queue that is empty takes any one request, however large.
    pub fn push(
        &mut self,
        item: T,
        rows: usize,
        bytes: usize,
        key: Option<Vec<usize>>,
        arrived: Duration,
        deadline: Duration,
    ) -> Result<Ticket, Full> {
        let over = self.rows.saturating_add(rows) > self.limits.queue_rows
            || self.bytes.saturating_add(bytes) > self.limits.queue_bytes;
        if over && !self.entries.is_empty() {
            return Err(Full { waiting: self.rows, rows, limit: self.limits.queue_rows });
        }
        let ticket = Ticket(self.next);
        self.next += 1;
        self.rows += rows;
        self.bytes += bytes;
        self.entries.push_back(Entry { ticket, rows, bytes, key, arrived, deadline, item });
        Ok(ticket)
    }

    /// Takes out a request whose client has gone, if it still waits.
    pub fn cancel(&mut self, ticket: Ticket) -> Option<T> {
        let index = self.entries.binary_search_by_key(&ticket, |e| e.ticket).ok()?;
        self.remove(index).map(|entry| entry.item)
    }

    /// Takes out everything, for a model that can serve no more.
    pub fn drain(&mut self) -> Vec<T> {
        (self.rows, self.bytes) = (0, 0);
        self.entries.drain(..).map(|entry| entry.item).collect()
    }

    /// What an idle worker shall do at `now`. Entries whose deadline has passed are moved to `expired`.
    ///
    /// The oldest entry is always part of the batch, so none starves; later ones with another key stay behind.
    pub fn take(&mut self, now: Duration, expired: &mut Vec<T>) -> Take<T> {
        while self.entries.front().is_some_and(|front| front.deadline <= now) {
            expired.extend(self.remove(0).map(|entry| entry.item));
        }
        let Some(front) = self.entries.front() else { return Take::Empty };
        let full = self.mergeable_rows() >= self.limits.max_rows || front.key.is_none();
        let due = front.arrived + self.limits.max_delay;
        if !full && due > now {
            return Take::Wait(due.min(front.deadline));
        }
        let Some(first) = self.remove(0) else { return Take::Empty };
        let mut batch = Batch { rows: first.rows, entries: vec![first] };
        if batch.entries[0].key.is_none() {
            return Take::Batch(batch);
        }
        let mut bytes = batch.entries[0].bytes;
        let mut index = 0;
        while let Some(entry) = self.entries.get(index) {
            if entry.deadline <= now {
                expired.extend(self.remove(index).map(|entry| entry.item));
                continue;
            }
            if entry.key != batch.entries[0].key {
                index += 1;
                continue;
            }
            if batch.rows + entry.rows > self.limits.max_rows || bytes + entry.bytes > self.limits.max_bytes {
                break;
            }
            if let Some(entry) = self.remove(index) {
                batch.rows += entry.rows;
                bytes += entry.bytes;
                batch.entries.push(entry);
            }
        }
        Take::Batch(batch)
    }

    /// Rows that would be merged with the oldest entry, as far as the limit matters.
    fn mergeable_rows(&self) -> usize {
        if self.limits.max_delay.is_zero() {
            return self.limits.max_rows;
        }
        let mut rows = 0;
        for entry in &self.entries {
            if entry.key == self.entries[0].key {
                rows += entry.rows;
            }
            if rows >= self.limits.max_rows {
                break;
            }
        }
        rows
    }

    fn remove(&mut self, index: usize) -> Option<Entry<T>> {
        let entry = if index == 0 { self.entries.pop_front() } else { self.entries.remove(index) }?;
        self.rows -= entry.rows;
        self.bytes -= entry.bytes;
        Some(entry)
    }
}
