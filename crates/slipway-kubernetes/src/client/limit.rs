//! How many requests are sent in a second.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// A bucket of tokens: so many at once, then so many a second.
#[derive(Debug)]
pub struct Limiter {
    interval: Duration,
    burst: u32,
    /// When the bucket is full again.
    full_at: Mutex<Option<Instant>>,
}

impl Default for Limiter {
    fn default() -> Self {
        Self::new(200, 400)
    }
}

impl Limiter {
    /// At most `per_second` requests in the mean, and `burst` at once.
    pub fn new(per_second: u32, burst: u32) -> Self {
        Self {
            interval: Duration::from_secs(1) / per_second.max(1),
            burst: burst.max(1),
            full_at: Mutex::new(None),
        }
    }

    /// Waits for its turn.
    pub(crate) async fn admit(&self) {
        let wait = self.take(Instant::now());
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }

    /// Takes a token, and tells how long until it is there.
    fn take(&self, now: Instant) -> Duration {
        let mut full_at = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        let next = full_at.filter(|at| *at > now).unwrap_or(now) + self.interval;
        *full_at = Some(next);
        (next - now).saturating_sub(self.interval * self.burst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_the_rest_waits() {
        let limiter = Limiter::new(10, 5);
        let now = Instant::now();
        let waits: Vec<u128> = (0..8).map(|_| limiter.take(now).as_millis()).collect();
        assert_eq!(waits, [0, 0, 0, 0, 0, 100, 200, 300]);
        assert_eq!(limiter.take(now + Duration::from_secs(10)), Duration::ZERO);
    }
}
