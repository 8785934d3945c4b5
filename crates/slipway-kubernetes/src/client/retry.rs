//! How often a request is repeated, and when.

use std::hash::{BuildHasher, Hasher};
use std::time::{Duration, Instant};

use http::HeaderMap;
use http::header::RETRY_AFTER;

use super::error::ApiError;

/// Longest time that a server can make us wait by `Retry-After`.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

/// Capped exponential backoff.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Wait after the first failure.
    pub first: Duration,
    /// Longest wait.
    pub most: Duration,
    /// How long a request is repeated in all.
    pub total: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(200),
            most: Duration::from_secs(10),
            total: Duration::from_secs(40),
        }
    }
}

/// The attempts of one request.
#[derive(Debug)]
pub(crate) struct Attempts {
    retry: Retry,
    failures: u32,
    began: Instant,
}

impl Retry {
    /// Begins to count.
    pub(crate) fn attempts(&self) -> Attempts {
        Attempts { retry: *self, failures: 0, began: Instant::now() }
    }

    /// The wait after so many failures in a row: between half of it and all, so that many clients do not come at once.
    pub(crate) fn delay(&self, failures: u32) -> Duration {
        let doubled = self.first.saturating_mul(1 << failures.saturating_sub(1).min(20));
        let whole = doubled.min(self.most);
        whole / 2 + (whole / 2).mul_f64(fraction())
    }
}

impl Attempts {
    /// The wait before the next attempt; `None` where another makes no sense or takes too long.
    pub(crate) fn next_delay(&mut self, error: &ApiError) -> Option<Duration> {
        if !error.is_transient() {
            return None;
        }
        self.failures += 1;
        let own = self.retry.delay(self.failures);
        let told = error.refusal().and_then(|refusal| refusal.retry_after);
        // What the server asks for, and a little more, since it asks everyone for the same.
        let delay = told.map_or(own, |told| told.min(MAX_RETRY_AFTER) + own.min(Duration::from_millis(500)));
        (self.began.elapsed() + delay <= self.retry.total).then_some(delay)
    }
}

/// `Retry-After` in seconds; the API server sends no dates.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse::<u64>().ok()?;
    Some(Duration::from_secs(seconds).min(MAX_RETRY_AFTER))
}

/// Something between 0 and 1 that differs from call to call; the hasher's keys are random.
pub(crate) fn fraction() -> f64 {
    let bits = std::hash::RandomState::new().build_hasher().finish();
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::super::error::Refusal;
    use super::*;

    fn refused(code: u16, after: Option<u64>) -> ApiError {
        ApiError::refused(Refusal { code, retry_after: after.map(Duration::from_secs), ..Refusal::default() })
    }

    #[test]
    fn waits_longer_each_time_and_not_for_ever() {
        let retry = Retry::default();
        for failures in 1..40 {
            let whole = (retry.first * 2_u32.pow(failures.min(10) - 1)).min(retry.most);
            let delay = retry.delay(failures);
            assert!(delay >= whole / 2 && delay <= whole, "{failures}: {delay:?}");
        }
        let mut attempts = Retry { total: Duration::from_millis(50), ..retry }.attempts();
        assert_eq!(attempts.next_delay(&refused(503, None)), None, "it would take too long");
    }

    #[test]
    fn does_as_the_server_says() {
        let mut attempts = Retry::default().attempts();
        let delay = attempts.next_delay(&refused(429, Some(7))).unwrap();
        assert!((7..9).contains(&delay.as_secs()), "{delay:?}");
        for code in [400, 401, 403, 404, 409, 410, 422] {
            assert_eq!(attempts.next_delay(&refused(code, Some(1))), None, "{code}");
        }
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, "100000".parse().unwrap());
        assert_eq!(retry_after(&headers), Some(MAX_RETRY_AFTER));
    }
}
