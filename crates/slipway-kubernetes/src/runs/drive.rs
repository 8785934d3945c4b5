//! A run from its start to its end: attempts, each a whole gang, until one succeeds or the budget is spent.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::follow::{Follower, RankLine};
use super::phase::{self, RunPhase};
use super::{RunError, Runs};
use crate::reason::{Reason, ReasonKind, RunEnd, rank_of};
use crate::spec::{Gang, TrainingRun};
use crate::watch::Snapshot;

/// How long logs that are followed at once may take to be read to their end after an attempt.
const LOG_TIME: Duration = Duration::from_secs(30);
/// How long a failed attempt may take until its pods say which rank failed: they are another watch than the Job.
const DETAIL_TIME: Duration = Duration::from_secs(3);
/// Looks again after this time, whatever changes.
const LOOK_AGAIN: Duration = Duration::from_secs(15);
/// Changes come in bursts: a thousand ranks that start are some thousand changes, and each look is at all of them. So it
/// rests between two looks, as long as one takes.
const BURST: Duration = Duration::from_millis(50);
const LONGEST_BURST: Duration = Duration::from_secs(1);
/// A Job that was applied shows up in the copy within this time.
const APPEARS: Duration = Duration::from_secs(60);
/// How long a refusal may be that of a server which has just started, and allows it a moment later.
const REFUSED: Duration = Duration::from_secs(15);
/// Wait after a failure that may pass.
const AGAIN: Duration = Duration::from_secs(2);

/// How often a run may be tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budget {
    /// Attempts after the first that failed by the program's own fault.
    pub retries: u32,
}

/// What must be kept so that another process can go on with a run. The attempt is in the run itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Progress {
    /// Attempts that failed and count.
    pub charged: u32,
    /// Attempts that the cluster took away.
    pub disruptions: u32,
}

/// What happens to a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunUpdate {
    /// Another phase.
    Phase {
        /// Attempt.
        attempt: u32,
        /// The phase.
        phase: RunPhase,
    },
    /// A rank wrote a line.
    Line(RankLine),
    /// What the cluster cannot give.
    Warning(String),
    /// The attempt ended and another begins.
    Restart {
        /// The new attempt.
        attempt: u32,
        /// What counts so far.
        progress: Progress,
        /// Why the last one ended.
        reason: String,
    },
}

/// Keeps a run and its progress where another process finds them; called before anything of a new attempt exists, so that
/// no two attempts ever run at once.
pub type Record<'a> = dyn Fn(&TrainingRun, Progress) -> std::io::Result<()> + Send + Sync + 'a;

impl Runs {
    /// Runs until the end. What an earlier call began is gone on with, from what it recorded. `cancel` turns true when a
    /// user wants it to end. Nothing is removed at the end: output and pods stay until [`Runs::remove`].
    pub async fn drive(
        &self,
        run: &mut TrainingRun,
        mut progress: Progress,
        budget: Budget,
        record: &Record<'_>,
        updates: mpsc::Sender<RunUpdate>,
        mut cancel: watch::Receiver<bool>,
    ) -> Result<Option<RunEnd>, RunError> {
        loop {
            let mut follower = Follower::new(
                self.applier.cluster().clone(),
                self.store.clone(),
                updates.clone(),
                self.options.followed,
            );
            let end = tokio::select! {
                // What is cancelled begins nothing more.
                biased;
                () = cancelled(&mut cancel) => {
                    self.end_attempt(run).await?;
                    if let Some(last) = before(run) {
                        self.end_attempt(&last).await?;
                    }
                    follower.finish(Duration::from_secs(run.grace) + self.log_time(run)).await;
                    return Ok(None);
                }
                end = self.attempt(run, &mut follower, &updates) => end?,
            };
            follower.finish(self.log_time(run)).await;
            let RunEnd::Failed { reason, .. } = &end else { return Ok(Some(end)) };
            let disrupted = end.is_disruption();
            let again = if disrupted {
                progress.disruptions += 1;
                progress.disruptions <= self.options.disruptions
            } else {
                progress.charged += 1;
                progress.charged <= budget.retries && reason.kind != ReasonKind::Deadline
            };
            if !again {
                return Ok(Some(end));
            }
            let reason = reason.text.clone();
            run.attempt += 1;
            record(run, progress).map_err(|source| RunError::Record { run: run.run.clone(), source })?;
            let _ = updates.send(RunUpdate::Restart { attempt: run.attempt, progress, reason }).await;
        }
    }

    /// How long the logs of all ranks may take: so many at a time, one after another.
    fn log_time(&self, run: &TrainingRun) -> Duration {
        let rounds = (run.ranks as usize).div_ceil(self.options.followed.max(1));
        LOG_TIME.saturating_mul(u32::try_from(rounds.max(1)).unwrap_or(u32::MAX))
    }

    /// One attempt, to its end.
    async fn attempt(
        &self,
        run: &TrainingRun,
        follower: &mut Follower,
        updates: &mpsc::Sender<RunUpdate>,
    ) -> Result<RunEnd, RunError> {
        self.end_before(run, updates).await?;
        let mut changes = self.store.subscribe();
        let mut known: Option<RunPhase> = None;
        let begun = Instant::now();
        self.begin(run, updates).await?;
        let mut seen = false;
        let mut failed_at: Option<Instant> = None;
        let mut queue = Queue::default();
        loop {
            let look = Instant::now();
            let snapshot = self.store.snapshot();
            follower.look(run, &snapshot);
            let phase = self.explained(run, phase::phase(run, &snapshot), &snapshot, &mut queue).await;
            seen |= phase != RunPhase::Missing;
            if known.as_ref() != Some(&phase) {
                let update = RunUpdate::Phase { attempt: run.attempt, phase: phase.clone() };
                let _ = updates.send(update).await;
                known = Some(phase.clone());
            }
            let mut until = Instant::now() + LOOK_AGAIN;
            if queue.asked.is_some() {
                until = until.min(Instant::now() + self.options.ask_queue);
            }
            match phase {
                RunPhase::Ended(end @ RunEnd::Failed { rank: None, .. }) => {
                    let at = *failed_at.get_or_insert_with(Instant::now);
                    if at.elapsed() >= DETAIL_TIME {
                        return Ok(self.explain(run, end, &snapshot).await);
                    }
                    until = at + DETAIL_TIME;
                }
                RunPhase::Ended(end) => return Ok(self.explain(run, end, &snapshot).await),
                RunPhase::Missing if seen || begun.elapsed() >= APPEARS => {
                    let reason = match self.no_other(run).await {
                        Some(why) => format!("its Job is gone, and there can be no other: {why}"),
                        None => missing(run, seen).to_owned(),
                    };
                    let reason = Reason { kind: ReasonKind::Configuration, text: reason };
                    return Ok(RunEnd::Failed { rank: None, exit_code: None, reason });
                }
                RunPhase::Pending { reason, .. } => {
                    let limit = begun + self.options.gang_time;
                    // Who has a queue or a gang scheduler waits as long as those let it.
                    if matches!(run.gang, Gang::Emulated | Gang::JobSet) && Instant::now() >= limit {
                        return Ok(never_started(run, reason));
                    }
                    until = until.min(limit);
                }
                _ => {}
            }
            let took = look.elapsed();
            if tokio::time::timeout_at(until, changes.changed()).await.is_ok() {
                tokio::time::sleep(BURST.max(took).min(LONGEST_BURST)).await;
                changes.mark_unchanged();
            }
        }
    }

    /// A phase, with what the queue says of an attempt that waits in one.
    async fn explained(
        &self,
        run: &TrainingRun,
        phase: RunPhase,
        snapshot: &Snapshot,
        queue: &mut Queue,
    ) -> RunPhase {
        let (RunPhase::Pending { running, .. }, Some(uid)) = (&phase, phase::queued(run, snapshot)) else {
            *queue = Queue::default();
            return phase;
        };
        if queue.asked.is_none_or(|at| at.elapsed() >= self.options.ask_queue) {
            queue.reason = self.queue_reason(run, &uid).await;
            queue.asked = Some(Instant::now());
        }
        match &queue.reason {
            Some(reason) => RunPhase::Pending { running: *running, reason: Some(reason.clone()) },
            None => phase,
        }
    }

    /// A rank whose pod somebody deleted was killed, and that is not its own doing.
    async fn explain(&self, run: &TrainingRun, end: RunEnd, snapshot: &Snapshot) -> RunEnd {
        let RunEnd::Failed { rank, exit_code, reason } = end else { return end };
        let pods = phase::pods(run, snapshot);
        let deleted = match rank {
            Some(_) => {
                pods.iter().any(|pod| rank_of(pod) == rank && !pod["metadata"]["deletionTimestamp"].is_null())
            }
            None => pods.is_empty(),
        };
        if !deleted || reason.kind.is_disruption() {
            return RunEnd::Failed { rank, exit_code, reason };
        }
        let whose = rank.map(|rank| format!("rank {rank}: ")).unwrap_or_default();
        let reason = match self.no_other(run).await {
            Some(why) => Reason {
                kind: ReasonKind::Configuration,
                text: format!("{whose}its pod was deleted, and there can be no other: {why}"),
            },
            None if rank.is_none() => reason,
            None => Reason { kind: ReasonKind::Evicted, text: format!("{whose}somebody deleted its pod") },
        };
        RunEnd::Failed { rank, exit_code, reason }
    }

    /// Why the cluster would not take another attempt, if so: its namespace may be gone, or be about to.
    async fn no_other(&self, run: &TrainingRun) -> Option<String> {
        let next = TrainingRun { attempt: run.attempt + 1, ..run.clone() };
        match self.try_start(&next).await {
            Err(RunError::Apply { source, .. }) if !source.is_transient() => Some(source.sentence()),
            _ => None,
        }
    }

    /// Sees to it that nothing of the attempt before is left: both mount the same claim.
    async fn end_before(&self, run: &TrainingRun, updates: &mpsc::Sender<RunUpdate>) -> Result<(), RunError> {
        let Some(last) = before(run) else { return Ok(()) };
        self.end_attempt(&last).await?;
        if !self.attempt_gone(&last).await {
            let left = "pods of the last attempt are still there, on a node that does not answer".to_owned();
            let _ = updates.send(RunUpdate::Warning(left)).await;
        }
        Ok(())
    }

    /// Applies, again and again while the cluster cannot be reached.
    async fn begin(&self, run: &TrainingRun, updates: &mpsc::Sender<RunUpdate>) -> Result<(), RunError> {
        let mut told = false;
        let mut until = None;
        loop {
            match self.start(run).await {
                Ok(warnings) => {
                    for warning in warnings {
                        let _ = updates.send(RunUpdate::Warning(warning)).await;
                    }
                    return Ok(());
                }
                Err(RunError::Apply { source, .. })
                    if source.is_transient()
                        || source.is_refusal()
                            && *until.get_or_insert_with(|| Instant::now() + REFUSED) > Instant::now() =>
                {
                    if !told {
                        told = true;
                        let _ = updates.send(RunUpdate::Warning(source.sentence())).await;
                    }
                    tokio::time::sleep(AGAIN).await;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// What a queue said last.
#[derive(Default)]
struct Queue {
    asked: Option<Instant>,
    reason: Option<Reason>,
}

/// There is no Job of the attempt.
fn missing(run: &TrainingRun, seen: bool) -> &'static str {
    match (&run.gang, seen) {
        (Gang::JobSet, false) => "no Job was made of its JobSet: is the controller of JobSet running?",
        _ => "somebody deleted its Job: start it again if that was not meant",
    }
}

fn before(run: &TrainingRun) -> Option<TrainingRun> {
    let attempt = run.attempt.checked_sub(1)?;
    Some(TrainingRun { attempt, ..run.clone() })
}

/// The gang never came up. That some rank found no place is the cluster's doing and not charged; an image that is not
/// there is.
fn never_started(run: &TrainingRun, reason: Option<Reason>) -> RunEnd {
    let reason = reason
        .unwrap_or_else(|| Reason { kind: ReasonKind::Unschedulable, text: "nothing tells why".to_owned() });
    let text = format!("not all {} ranks came up in time: {}", run.ranks, reason.text);
    let kind = if reason.kind.is_stuck() { reason.kind } else { ReasonKind::Evicted };
    RunEnd::Failed { rank: None, exit_code: None, reason: Reason { kind, text } }
}

async fn cancelled(cancel: &mut watch::Receiver<bool>) {
    if cancel.wait_for(|wanted| *wanted).await.is_err() {
        // Nobody is left who could want it.
        std::future::pending::<()>().await;
    }
}
