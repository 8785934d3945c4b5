//! The numbers behind the decisions.

use std::time::Duration;

/// Times and counts that [`crate::reconcile`] decides by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Wait before the second restart in a row; the first is immediate. Doubles with each further one.
    pub backoff_first: Duration,
    /// Longest wait between restarts.
    pub backoff_max: Duration,
    /// A replica that was ready for this long without a break starts its back-off anew when it crashes.
    pub healthy_after: Duration,
    /// Longest time in `Starting`; then the replica is stopped and counted as crashed. Large models load for minutes.
    pub start_limit: Duration,
    /// Time in which a replica whose model cannot be loaded may try again; then likewise.
    pub load_limit: Duration,
    /// Longest time in `Unready`; then likewise.
    pub unready_limit: Duration,
    /// A new replica must have been ready for this long before an old one drains in its favour.
    pub min_ready: Duration,
    /// Time between the draining mark and the request to end, in which every gateway reads the new table.
    pub drain_delay: Duration,
    /// Time that a replica gets to finish its requests after it was asked to end.
    pub stop_grace: Duration,
    /// Most replicas of a service that start at once; loading a framework keeps a core busy for seconds.
    pub max_starting: u32,
    /// Replicas over the declared number during a rollout.
    pub surge: u32,
    /// Crashes of a new revision after which its rollout counts as stalled.
    pub stall_after: u32,
    /// A stalled rollout goes on once a new replica is available and none crashed for this long.
    pub calm_after: Duration,
    /// An action whose effect is not observed after this long is issued again.
    pub retry_after: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            backoff_first: Duration::from_secs(1),
            backoff_max: Duration::from_secs(60),
            healthy_after: Duration::from_secs(600),
            start_limit: Duration::from_secs(300),
            load_limit: Duration::from_secs(5),
            unready_limit: Duration::from_secs(60),
            min_ready: Duration::from_secs(5),
            drain_delay: Duration::from_secs(1),
            stop_grace: Duration::from_secs(30),
            max_starting: 4,
            surge: 1,
            stall_after: 3,
            calm_after: Duration::from_secs(120),
            retry_after: Duration::from_secs(10),
        }
    }
}

impl Policy {
    /// Wait before a restart after so many crashes in a row: 0, then `backoff_first` doubling up to `backoff_max`.
    ///
    /// ```
    /// use std::time::Duration;
    /// let policy = slipway_orchestrator::Policy::default();
    /// let waits: Vec<u64> = (1..=8).map(|crashes| policy.backoff(crashes).as_secs()).collect();
    /// assert_eq!(waits, [0, 1, 2, 4, 8, 16, 32, 60]);
    /// ```
    pub fn backoff(&self, crashes: u32) -> Duration {
        match crashes {
            0 | 1 => Duration::ZERO,
            n => self.backoff_first.saturating_mul(1 << (n - 2).min(20)).min(self.backoff_max),
        }
    }
}
