//! Numbers kept per service, written by requests without locks and read by `/metrics`.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Upper bounds of the latency histogram's buckets, in seconds.
pub(crate) const BOUNDS: [f64; 17] = [
    0.0005,
    0.001,
    0.002,
    0.005,
    0.01,
    0.02,
    0.05,
    0.1,
    0.2,
    0.5,
    1.0,
    2.0,
    5.0,
    10.0,
    30.0,
    60.0,
    f64::INFINITY,
];

const FIRST_CODE: u16 = 100;
const CODES: usize = 500;

/// Counters of one service. They live as long as the service is in the table.
#[derive(Debug)]
pub(crate) struct ServiceStats {
    /// Requests under way.
    pub in_flight: AtomicU32,
    /// Answers by status code, from 100; other codes count as 599.
    codes: Box<[AtomicU64]>,
    /// Answers by duration; not cumulative.
    buckets: [AtomicU64; BOUNDS.len()],
    /// Sum of durations.
    micros: AtomicU64,
    pub request_bytes: AtomicU64,
    pub response_bytes: AtomicU64,
    /// Requests that a replica did not answer: refused connections and broken ones.
    pub upstream_errors: AtomicU64,
    /// Times that a request was sent again.
    pub retries: AtomicU64,
    /// Times that a replica was set aside.
    pub ejections: AtomicU64,
}

impl Default for ServiceStats {
    fn default() -> Self {
        Self {
            in_flight: AtomicU32::new(0),
            codes: std::iter::repeat_with(AtomicU64::default).take(CODES).collect(),
            buckets: Default::default(),
            micros: AtomicU64::new(0),
            request_bytes: AtomicU64::new(0),
            response_bytes: AtomicU64::new(0),
            upstream_errors: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            ejections: AtomicU64::new(0),
        }
    }
}

impl ServiceStats {
    /// Takes one of `limit` places, or says that all are taken.
    pub(crate) fn admit(&self, limit: u32) -> bool {
        if self.in_flight.fetch_add(1, Relaxed) < limit {
            return true;
        }
        self.in_flight.fetch_sub(1, Relaxed);
        false
    }

    pub(crate) fn record(&self, code: u16, duration: Duration, request_bytes: u64, response_bytes: u64) {
        let index = usize::from(code.wrapping_sub(FIRST_CODE)).min(CODES - 1);
        self.codes[index].fetch_add(1, Relaxed);
        let seconds = duration.as_secs_f64();
        let bucket = BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(BOUNDS.len() - 1);
        self.buckets[bucket].fetch_add(1, Relaxed);
        self.micros.fetch_add(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX), Relaxed);
        self.request_bytes.fetch_add(request_bytes, Relaxed);
        self.response_bytes.fetch_add(response_bytes, Relaxed);
    }

    /// Status codes that occurred, with their counts.
    pub(crate) fn codes(&self) -> impl Iterator<Item = (u16, u64)> {
        (FIRST_CODE..).zip(self.codes.iter().map(|count| count.load(Relaxed))).filter(|(_, count)| *count > 0)
    }

    /// Sum of durations in seconds, number of answers, and the buckets with their bounds.
    pub(crate) fn durations(&self) -> (f64, u64, [(f64, u64); BOUNDS.len()]) {
        let mut buckets = BOUNDS.map(|bound| (bound, 0));
        for (bucket, count) in buckets.iter_mut().zip(&self.buckets) {
            bucket.1 = count.load(Relaxed);
        }
        let count = buckets.iter().map(|(_, count)| count).sum();
        (self.micros.load(Relaxed) as f64 / 1e6, count, buckets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_codes_and_durations() {
        let stats = ServiceStats::default();
        stats.record(200, Duration::from_micros(500), 3, 5);
        stats.record(200, Duration::from_millis(3), 3, 5);
        stats.record(503, Duration::from_secs(100), 0, 0);
        stats.record(999, Duration::ZERO, 0, 0);
        stats.record(7, Duration::ZERO, 0, 0);
        assert_eq!(stats.codes().collect::<Vec<_>>(), [(200, 2), (503, 1), (599, 2)]);
        let (sum, count, buckets) = stats.durations();
        assert!((sum - 100.0035).abs() < 1e-9 && count == 5);
        assert_eq!((buckets[0].1, buckets[3].1, buckets[16].1), (3, 1, 1));
    }

    #[test]
    fn admits_up_to_the_limit() {
        let stats = ServiceStats::default();
        assert!(stats.admit(2) && stats.admit(2) && !stats.admit(2));
        stats.in_flight.fetch_sub(1, Relaxed);
        assert!(stats.admit(2));
    }
}
