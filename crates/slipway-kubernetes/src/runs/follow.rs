//! Logs of all ranks of an attempt, each line once.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::drive::RunUpdate;
use super::phase;
use crate::client::{Cluster, LogOptions};
use crate::reason::rank_of;
use crate::spec::TrainingRun;
use crate::watch::{Snapshot, Store};

/// Container of a rank.
const CONTAINER: &str = "rank";
/// How often a log that cannot be read is tried again, once the container ended.
const LAST_TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(500);
/// Longest pause after logs that could not be read: those of a large gang on nodes that do not answer would take all the
/// requests that there are.
const LONGEST: Duration = Duration::from_secs(30);

/// A line of a rank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RankLine {
    /// Attempt.
    pub attempt: u32,
    /// Rank.
    pub rank: u32,
    /// When it was written.
    pub time: Option<Timestamp>,
    /// The line.
    pub text: String,
}

/// Follows pods as they come up.
pub(super) struct Follower {
    cluster: Cluster,
    store: Arc<Store>,
    lines: mpsc::Sender<RunUpdate>,
    permits: Arc<Semaphore>,
    begun: HashSet<String>,
    tasks: JoinSet<()>,
}

impl Follower {
    pub(super) fn new(
        cluster: Cluster,
        store: Arc<Store>,
        lines: mpsc::Sender<RunUpdate>,
        most: usize,
    ) -> Self {
        let permits = Arc::new(Semaphore::new(most.max(1)));
        Self { cluster, store, lines, permits, begun: HashSet::new(), tasks: JoinSet::new() }
    }

    /// Begins with the pods whose container started.
    pub(super) fn look(&mut self, run: &TrainingRun, snapshot: &Snapshot) {
        while self.tasks.try_join_next().is_some() {}
        for pod in phase::pods(run, snapshot) {
            let (Some(uid), Some(name)) = (pod["metadata"]["uid"].as_str(), pod["metadata"]["name"].as_str())
            else {
                continue;
            };
            if !started(pod) || !self.begun.insert(uid.to_owned()) {
                continue;
            }
            let one = One {
                cluster: self.cluster.clone(),
                store: Arc::clone(&self.store),
                lines: self.lines.clone(),
                namespace: run.namespace.clone(),
                pod: name.to_owned(),
                uid: uid.to_owned(),
                attempt: run.attempt,
                rank: rank_of(pod).unwrap_or_default(),
            };
            let permits = Arc::clone(&self.permits);
            self.tasks.spawn(async move {
                let _permit = permits.acquire_owned().await;
                one.follow().await;
            });
        }
    }

    /// Waits until every log is read to its end, or the time is over.
    pub(super) async fn finish(&mut self, limit: Duration) {
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(limit, all).await.is_err() {
            self.tasks.shutdown().await;
        }
    }
}

fn status(pod: &Value) -> Option<&Value> {
    pod["status"]["containerStatuses"].as_array()?.iter().find(|status| status["name"] == CONTAINER)
}

fn started(pod: &Value) -> bool {
    status(pod).is_some_and(|s| !s["state"]["running"].is_null() || !s["state"]["terminated"].is_null())
}

struct One {
    cluster: Cluster,
    store: Arc<Store>,
    lines: mpsc::Sender<RunUpdate>,
    namespace: String,
    pod: String,
    uid: String,
    attempt: u32,
    rank: u32,
}

impl One {
    async fn follow(self) {
        let mut last: Option<Timestamp> = None;
        let mut failures = 0;
        loop {
            // Known before it is read: what ended by then is read to its end.
            let ended = self.ended();
            match self.read(&mut last).await {
                Ok(()) if ended => return,
                Ok(()) => failures = 0,
                Err(error) => {
                    failures += 1;
                    // The pod is gone, and its log with it; or nobody can read it.
                    if ended && failures >= LAST_TRIES {
                        let text = crate::apply::chain(&error);
                        let lost = RankLine {
                            attempt: self.attempt,
                            rank: self.rank,
                            time: None,
                            text: format!("[the rest of this rank's log is lost: {text}]"),
                        };
                        let _ = self.lines.send(RunUpdate::Line(lost)).await;
                        return;
                    }
                }
            }
            if self.lines.is_closed() {
                return;
            }
            self.pause(failures).await;
        }
    }

    /// Waits before the log is asked for again; what ended is not waited for long.
    async fn pause(&self, failures: u32) {
        let until = Instant::now() + pause(failures);
        loop {
            tokio::time::sleep(PAUSE).await;
            if self.ended() || Instant::now() >= until {
                return;
            }
        }
    }

    async fn read(&self, last: &mut Option<Timestamp>) -> Result<(), crate::client::LogError> {
        let options = LogOptions {
            container: Some(CONTAINER.to_owned()),
            follow: true,
            since: *last,
            ..LogOptions::default()
        };
        let mut log = self.cluster.logs(&self.namespace, &self.pod, &options).await?;
        while let Some((time, text)) = log.next().await? {
            // The server counts in seconds, so the last second comes again.
            if time.is_some() && time <= *last {
                continue;
            }
            *last = time.or(*last);
            let line = RankLine { attempt: self.attempt, rank: self.rank, time, text };
            if self.lines.send(RunUpdate::Line(line)).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Whether its container ended, or the pod is gone.
    fn ended(&self) -> bool {
        let Some(pod) = self.store.get("Pod", &self.pod) else { return true };
        pod["metadata"]["uid"] != self.uid.as_str()
            || status(&pod).is_some_and(|status| !status["state"]["terminated"].is_null())
    }
}

/// The pause after so many failures in a row.
fn pause(failures: u32) -> Duration {
    PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_that_cannot_be_read_are_asked_for_less_and_less_often() {
        assert_eq!((pause(0), pause(1), pause(2)), (PAUSE, PAUSE, 2 * PAUSE));
        assert_eq!((pause(7), pause(u32::MAX)), (LONGEST, LONGEST));
        // What 256 logs ask for in the mean must leave most of the client's 200 requests a second to others.
        assert!(256.0 / LONGEST.as_secs_f64() < 20.0);
    }
}
