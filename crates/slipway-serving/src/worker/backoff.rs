//! How long to wait before a worker is started again.

use std::time::Duration;

/// Doubles from 100 ms to 10 s; a worker that lived for 10 s starts it anew.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(100);
    const LAST: Duration = Duration::from_secs(10);
    const STABLE: Duration = Duration::from_secs(10);

    /// The wait after a worker that was ready for `lived`; zero for one that never was.
    pub fn next(&mut self, lived: Duration) -> Duration {
        if lived >= Self::STABLE {
            self.failures = 0;
        }
        let wait = Self::FIRST.saturating_mul(1 << self.failures.min(10)).min(Self::LAST);
        self.failures = self.failures.saturating_add(1);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_ten_seconds_and_forgets() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..9).map(|_| backoff.next(Duration::ZERO).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        assert_eq!(backoff.next(Duration::from_secs(10)).as_millis(), 100);
        assert_eq!(backoff.next(Duration::from_secs(9)).as_millis(), 200);
    }
}
