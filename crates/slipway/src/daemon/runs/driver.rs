//! How runs run elsewhere than in a container of this host. The composition root implements it.

use std::io::{self, Write};
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use slipway_types::run::RunSpec;
use slipway_types::{ApiError, Digest};

use super::super::App;

/// Drives gangs. Every call blocks. What cannot be reached now gives [`slipway_types::ErrorCode::Unavailable`]: the same
/// call may succeed later.
pub trait Driver: Send + Sync {
    /// Brings what a run needs to where its ranks find it. `told` gets what is being done, in a few words.
    fn prepare(
        &self,
        app: &Arc<App>,
        order: &Order<'_>,
        told: &(dyn Fn(&str) + Send + Sync),
    ) -> Result<Plan, ApiError>;

    /// Starts a run, or goes on with what an earlier call began, and returns at its end. What it left there stays.
    fn drive(&self, plan: &Plan, keeper: &dyn Keeper) -> Result<End, ApiError>;

    /// Writes the folder `model` and the file `metrics.jsonl` of the first rank as a tar, as far as they are there.
    fn collect(&self, plan: &Plan, to: &mut (dyn Write + Send)) -> Result<(), ApiError>;

    /// Removes everything of a run but its output.
    fn release(&self, run: &str) -> Result<(), ApiError>;

    /// Removes everything of a run.
    fn remove(&self, run: &str) -> Result<(), ApiError>;
}

/// A run to be prepared.
#[derive(Clone, Copy, Debug)]
pub struct Order<'a> {
    /// Id of the run.
    pub run: &'a str,
    /// What it executes.
    pub spec: &'a RunSpec,
    /// Its image.
    pub image: &'a Digest,
}

/// All that a driver must know to go on with a run. It outlives the daemon.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Where the output is, for people who want to get at it themselves.
    pub place: String,
    /// The rest, in words of the driver's own.
    pub rest: serde_json::Value,
}

/// The daemon's side of a run that is driven.
pub trait Keeper: Send + Sync {
    /// Records how to go on from here. Called before a further attempt begins.
    fn record(&self, plan: &Plan) -> io::Result<()>;

    /// A rank wrote a line.
    fn line(&self, line: Line);

    /// What the run waits for; nothing any more when absent.
    fn note(&self, note: Option<String>);

    /// Something that a user should know happened.
    fn warning(&self, text: &str);

    /// The last attempt ended, and another begins. Attempts count from 0.
    fn restart(&self, attempt: u32, reason: &str);

    /// What is wanted of the run now; asked several times a second.
    fn wanted(&self) -> Wanted;
}

/// A line of a rank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The rank.
    pub rank: u32,
    /// When it was written, where that is known.
    pub time: Option<Timestamp>,
    /// The line.
    pub text: String,
}

/// What is wanted of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// That it goes on.
    Run,
    /// That it ends, with its grace.
    Cancel,
    /// Nothing: the daemon ends, and the next one goes on with it.
    Leave,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Every rank succeeded.
    Succeeded,
    /// As [`Wanted::Cancel`] asks.
    Cancelled,
    /// It failed, for good.
    Failed {
        /// Why.
        reason: String,
        /// Exit code of the rank that failed.
        exit_code: Option<u8>,
    },
    /// As [`Wanted::Leave`] asks.
    Left,
}
